#!/usr/bin/env bash
# Trains and scores the rows of docs/results.md that want a GPU, several at once.
#
#   bash scripts/records.sh UTKFACE FAIRFACE runs/records [--config.FIELD=VALUE ...]
#
# The last arguments go to every training. What is finished is left alone, and what
# was stopped is resumed. .venv/bin/python runs it, or $PYTHON.
set -euo pipefail
fail() {
  echo "error: $1" >&2
  exit 2
}
root=$(cd "$(dirname "$0")/.." && pwd)
python=$(command -v "${PYTHON:-$root/.venv/bin/python}") || fail 'name a Python by $PYTHON'
[ $# -ge 3 ] || fail "$(sed -n 's/^#   //p' "$0")"
for folder in "$1" "$2"; do
  [ -d "$folder" ] || fail "$folder is no folder: name UTKFace's and FairFace's"
done
output=$(realpath --canonicalize-missing "$3")
mkdir -p "$output/data"
# Where trainings look for data, those that they must not learn included.
export AGEGENDER_DATA=$output/data
ln -sfn "$(realpath "$1")" "$AGEGENDER_DATA/utkface"
ln -sfn "$(realpath "$2")" "$AGEGENDER_DATA/fairface"
shift 3
# Processes that share a card: none takes most of its memory at once.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
trap 'kill $(jobs -p) 2>/dev/null; wait; exit 143' INT TERM

declare -A rows
train() { # NAME RECIPE [FLAG ...], in the background.
  local name=$1 recipe=$2
  shift 2
  "$python" -m agegender_jax.main --config="$root/configs/$recipe" \
    --workdir="$output/$name" --config.data.cache=device \
    --config.train.steps_per_call=8 "$@" >>"$output/$name.log" 2>&1 &
  rows[$name]=$!
}
failed=()
finish() { # Waits for all; one failure does not stop the others.
  local name
  for name in "${!rows[@]}"; do
    wait "${rows[$name]}" || failed+=("$name")
  done
  rows=()
}
then_from() { # NAME: fails if it did, since others start from it.
  case " ${failed[*]} " in
    *" $1 "*) fail "$1 failed, from which others start: see $output/$1.log" ;;
  esac
}

held_out=--config.data.hold_out='fairface:test utkface:test'
train fairface_first fairface_best.py "$held_out" "$@"
for seed in 0 1 2; do
  train "seed5k_$seed" utk_best.py:protocol=seed5k --config.seed=$seed "$@"
  train "full_$seed" utk_best.py --config.seed=$seed "$@"
done
finish
then_from fairface_first
# Named by the flag: a recipe's argument ends at a comma.
train fairface fairface_best.py:init=there "$held_out" \
  --config.model.init_from="$output/fairface_first" "$@"
finish
then_from fairface
for seed in 0 1 2; do
  train "full_fairface_$seed" utk_best.py:init=there --config.seed=$seed \
    --config.model.init_from="$output/fairface" "$@"
done
finish
[ ${#failed[@]} -eq 0 ] || fail "failed: ${failed[*]}; see their logs in $output"
