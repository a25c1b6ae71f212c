#!/usr/bin/env bash
# Texts, then chats: continued pretraining, SFT by adapters (LoRA), the adapter merged, and a first word with the result.
#
#   bash scripts/run_text.sh                                     a demo: texts about the demo's items, a tiny model, no GPU needed
#   python scripts/train_text.py --config my.yaml               your own files, one stage at a time (docs/text.md)
#
# Both stages are the YAML files in configs/text/, as they are; flags behind the command go to both, and win.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/settings.sh"
source "$here/prepare_python.sh"
source "$here/launcher.sh"
source "$here/pipeline.sh"
if wants_help "$@"; then exec "$PYTHON" "$scripts/train_text.py" --help; fi
look_around
home=results/text_demo

echo "== 1 of 5: texts and a tiny model"
if [ ! -e information/demo.csv ]; then
    step "$PYTHON" "$scripts/make_demo.py" --interaction_data dataset/demo.csv --text_data information/demo.csv
fi
step "$PYTHON" "$scripts/make_demo.py" --text_data information/demo.csv --texts_dir "$home/texts" --lm_dir "$home/lm" --chat

# stage NAME FLAGS…
stage() {
    launcher_for "$NUM_GPUS" "$gpus"
    step "${launcher[@]}" "$scripts/train_text.py" --config "configs/text/$1.yaml" --overwrite "${@:2}"
}
echo "== 2 of 5: continued pretraining"
stage pretrain "$@"
echo "== 3 of 5: SFT by adapters"
stage finetune "$@"
echo "== 4 of 5: the adapter and its base become one"
step "$PYTHON" "$scripts/merge_adapter.py" --adapter_dir "$home/sft/best_model/adapter" --output_model_dir "$home/merged" --overwrite
echo "== 5 of 5: a chat"
# shellcheck disable=SC1111 # a title's own quotes
step "$PYTHON" "$scripts/chat.py" --model "$home/merged" --prompt "What is the video “Best ramen guide” about?" --temperature 0
