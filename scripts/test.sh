#!/usr/bin/env bash
# Checks the whole project: format, lint, imports, types and tests. Arguments
# go to pytest, such as `-m nightly` for the tests that take minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv
fi
# What is imported is compiled then and kept; most modules never are.
export PYTHONDONTWRITEBYTECODE=
.venv/bin/python -m pip install --quiet --no-compile --editable '.[test]'

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/lint-imports
.venv/bin/mypy
# Stealing leaves a file's tests, and what they share, mostly to one worker.
.venv/bin/python -m pytest -n 2 --dist worksteal -m 'not nightly' "$@"
