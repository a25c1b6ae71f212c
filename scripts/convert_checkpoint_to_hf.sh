#!/usr/bin/env bash
# The language model of a checkpoint as a Hugging Face directory in bf16, with the files of the base model beside it.
#
#   bash scripts/convert_checkpoint_to_hf.sh Qwen3-1.7B_itemic results/stg1 2000
#                                             base model     run directory  steps, or: best, latest
#
# It is written to converted/ in that checkpoint; further flags go behind the command
# (python scripts/convert_checkpoint.py --help lists them all).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare_python.sh"
case " $* " in *" --help "* | *" -h "*) exec "$PYTHON" "$scripts/convert_checkpoint.py" --help ;; esac

BASE_MODEL_DIR=${BASE_MODEL_DIR:-} MODEL_HOME=${MODEL_HOME:-} STEP=${STEP:-}
for name in BASE_MODEL_DIR MODEL_HOME STEP; do
    case ${1:-} in
    "" | --*) ;;
    *)
        printf -v "$name" %s "$1"
        shift
        ;;
    esac
    if [ -z "${!name}" ]; then
        echo "error: $name is missing. Usage: bash scripts/convert_checkpoint_to_hf.sh BASE_MODEL_DIR MODEL_HOME STEP" >&2
        exit 2
    fi
done
exec "$PYTHON" "$scripts/convert_checkpoint.py" --base_model_dir "$BASE_MODEL_DIR" --model_home "$MODEL_HOME" \
    --step "$STEP" "$@"
