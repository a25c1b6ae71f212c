#!/usr/bin/env bash
# Add itemic tokens to a Qwen3 (or another causal LM): ITEMIC_LAYER_N x VOCAB_SIZE_PER_LAYER codes, begin and end.
#
#   HF_MODEL_DIR=Qwen3-1.7B OUTPUT_MODEL_DIR=Qwen3-1.7B_itemic bash scripts/expand_qwen3_vocab.sh
#
# Every variable below can be set from the environment; further flags go behind the command
# (python scripts/expand_vocabulary.py --help lists them all).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/prepare_python.sh
case " $* " in *" --help "* | *" -h "*) exec "$PYTHON" scripts/expand_vocabulary.py --help ;; esac

HF_MODEL_DIR=${HF_MODEL_DIR:-}
OUTPUT_MODEL_DIR=${OUTPUT_MODEL_DIR:-${HF_MODEL_DIR:+${HF_MODEL_DIR%/}_itemic}}
ITEMIC_LAYER_N=${ITEMIC_LAYER_N:-3}
VOCAB_SIZE_PER_LAYER=${VOCAB_SIZE_PER_LAYER:-8192}

if [ -z "$HF_MODEL_DIR" ]; then
    echo "error: set HF_MODEL_DIR to the Hugging Face directory of the base model, e.g. Qwen3-1.7B." >&2
    exit 2
fi
exec "$PYTHON" scripts/expand_vocabulary.py --hf_model_dir "$HF_MODEL_DIR" --output_model_dir "$OUTPUT_MODEL_DIR" \
    --itemic_layer_n "$ITEMIC_LAYER_N" --vocab_size_per_layer "$VOCAB_SIZE_PER_LAYER" "$@"
