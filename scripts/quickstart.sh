#!/usr/bin/env bash
# From nothing to a trained, scored and reported network, on drawn faces.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
workdir=${1:-runs/quickstart}
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv
fi
.venv/bin/python -m pip install --quiet --editable .

run() {
  .venv/bin/python -m agegender_jax.main --workdir="$workdir" "$@"
}
run --config=configs/quickstart.py
run --mode=evaluate
run --mode=report
echo "Open $workdir/report.html in a browser."
