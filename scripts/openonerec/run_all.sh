#!/usr/bin/env bash
# OpenOneRec's whole pipeline on the demo's data: expand, stage 1, stage 2, SFT, each converted and the last one tested,
# and one table in the end: held-out users judged under the trie of the catalogue after every stage.
#
#   bash scripts/openonerec/run_all.sh               results/openonerec/table.md; no GPU and no download needed
#
# With data of your own: the recipes beside this one, each with MODEL_DIR and DATASET_CONFIG (docs/openonerec.md).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
if wants_help "$@"; then
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0
fi
if [ -n "$MODEL_DIR" ]; then refuse "MODEL_DIR is set, but run_all.sh is the demo alone; unset it, or call the recipes."; fi

make_demo
models=()
for stage in stg1:pretrain_stg1.sh stg2:pretrain_stg2.sh sft:posttrain_sft.sh; do
    name=${stage%%:*}
    step env OUTPUT_DIR="$demo_home/$name" bash "$recipes/${stage#*:}" --overwrite
    last=$(last_step "$demo_home/$name")
    step bash "$recipes/../convert_checkpoint_to_hf.sh" "$demo_home/data/llm" "$demo_home/$name" "$last"
    models+=(--model_dir "$name=$demo_home/$name/step$last/global_step$last/converted")
done
converted=${models[-1]#sft=}
echo "== does the last model hold what it promises"
step env BEFORE="$demo_home/data/llm" SEMANTIC_IDS="$demo_home/data/semantic_ids/semantic_ids.json" \
    bash "$recipes/../test_hf_model.sh" "$converted"
echo "== held-out users, after every stage"
look_around
launcher_for "$NUM_GPUS" "$gpus"
flags=(--topk "5,10" --num_beams "${NUM_BEAMS:-20}")
add_flags USERS PROMPTS
step "${launcher[@]}" "$scripts/evaluate_qwen3.py" "${models[@]}" --interaction_data "$interactions" \
    --semantic_ids "$demo_home/data/semantic_ids/semantic_ids.json" --output_dir "$demo_home" "${flags[@]}"
