#!/usr/bin/env bash
# Add itemic tokens to a Qwen3 (or another causal LM): ITEMIC_LAYER_N x VOCAB_SIZE_PER_LAYER codes, begin and end.
#
#   HF_MODEL_DIR=Qwen3-1.7B OUTPUT_MODEL_DIR=Qwen3-1.7B_itemic bash scripts/expand_qwen3_vocab.sh
#
# Every variable below can be set from the environment; further flags go behind the command
# (python scripts/expand_vocabulary.py --help lists them all).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare_python.sh"
case " $* " in *" --help "* | *" -h "*) exec "$PYTHON" "$scripts/expand_vocabulary.py" --help ;; esac

HF_MODEL_DIR=${HF_MODEL_DIR:-}
if [ -z "$HF_MODEL_DIR" ]; then
    echo "error: set HF_MODEL_DIR to the Hugging Face directory of the base model, e.g. Qwen3-1.7B." >&2
    exit 2
fi
exec "$PYTHON" "$scripts/expand_vocabulary.py" --hf_model_dir "$HF_MODEL_DIR" \
    --output_model_dir "${OUTPUT_MODEL_DIR:-${HF_MODEL_DIR%/}_itemic}" \
    --itemic_layer_n "${ITEMIC_LAYER_N:-3}" --vocab_size_per_layer "${VOCAB_SIZE_PER_LAYER:-8192}" "$@"
