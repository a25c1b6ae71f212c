#!/usr/bin/env bash
# Check a language model's directory: weights, ids, text, logits, generation. Status 1 where something is wrong.
#
#   bash scripts/test_hf_model.sh Qwen3-1.7B_itemic                   or HF_MODEL_DIR=Qwen3-1.7B_itemic bash …
#   HF_MODEL_DIR=… BEFORE=Qwen3-1.7B_itemic SEMANTIC_IDS=sid.json bash scripts/test_hf_model.sh     after training
#
# Further flags go behind the command (python scripts/verify_model.py --help lists them all).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare_python.sh"
case " $* " in *" --help "* | *" -h "*) exec "$PYTHON" "$scripts/verify_model.py" --help ;; esac

case ${1:-} in
"" | --*) ;;
*)
    HF_MODEL_DIR=$1
    shift
    ;;
esac
if [ -z "${HF_MODEL_DIR:-}" ]; then
    echo "error: set HF_MODEL_DIR to the directory to check." >&2
    exit 2
fi
exec "$PYTHON" "$scripts/verify_model.py" --hf_model_dir "$HF_MODEL_DIR" ${BEFORE:+--before "$BEFORE"} \
    ${SEMANTIC_IDS:+--semantic_ids "$SEMANTIC_IDS"} "$@"
