#!/usr/bin/env bash
# Checks the whole project: formatting, lint and tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv
fi
# What is imported gets compiled then and kept, the other nine tenths never.
export PYTHONDONTWRITEBYTECODE=
.venv/bin/python -m pip install --quiet --no-compile --editable '.[test]'

.venv/bin/ruff check .
.venv/bin/ruff format --check .
# Stealing leaves a file's tests, and what they share, mostly to one worker.
.venv/bin/python -m pytest -n 2 --dist worksteal -m 'not slow' "$@"
