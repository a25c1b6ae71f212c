#!/usr/bin/env bash
# One command from a data set to a table: both heads beside every baseline; sized for some 10,000 users in about ten minutes on 2 CPU cores.
#
#   bash scripts/quickstart.sh demo                               a synthetic data set
#   bash scripts/quickstart.sh NAME                               dataset/NAME.csv and information/NAME.csv
#   bash scripts/quickstart.sh movielens ml-1m.zip                a public data set and its files, as scripts/convert.py takes
#   bash scripts/quickstart.sh amazon2023 folder --k_core 10      … with its flags; unless told, --k_core 5 --max_users 10000
#
# The two-tower model starts from what ItemKNN and TF-IDF know, over id vectors; with ITEM_MODEL_DIR a frozen LLM reads the texts
# as well. Its item embeddings become semantic ids, which a small Qwen3 with random weights learns to say. TEXT_KEYS, SEED,
# CODEBOOK_SIZE, BASELINES, TWO_TOWER_EPOCHS, GENERATIVE_EPOCHS, BASELINE_EPOCHS, DEMO_USERS, OUTPUT_DIR; NUM_GPUS, HOSTFILE and
# DEEPSPEED_CONFIG as elsewhere.
# Everything goes to OUTPUT_DIR (results/quickstart/NAME, which a later quickstart replaces). docs/quickstart.md
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/settings.sh"
if [ $# -eq 0 ] || wants_help "$@"; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
    exit 0
fi
source "$here/prepare_python.sh"
source "$here/launcher.sh"
source "$here/pipeline.sh"

dataset=$1
shift
name=$(given save_as "$dataset" "$@")
case $name in "" | */* | -*) refuse "'$name' is no name of a data set: demo, NAME of dataset/NAME.csv, or one that scripts/convert.py knows." ;; esac
overwrite=()
if [ -z "${OUTPUT_DIR:-}" ]; then overwrite=(--overwrite); fi # its own directory replaces itself
OUTPUT_DIR=${OUTPUT_DIR:-results/quickstart/$name}
LOGGING_DIR=${LOGGING_DIR:-logs/quickstart/$name}
INTERACTION_DATA=${INTERACTION_DATA:-dataset/$name.csv}
TEXT_DATA=${TEXT_DATA:-information/$name.csv}
seed=(${SEED:+--seed "$SEED"})

# stage NUMBER WHAT: what begins, and how long it has taken so far.
stage() { printf '== %s of 6, after %d:%02d: %s\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)) "$2"; }

stage 1 "tables"
if [ $# -gt 0 ]; then
    step "$PYTHON" "$scripts/convert.py" "$dataset" "$@" --save_as "$name" --k_core "$(given k_core 5 "$@")" \
        --max_users "$(given max_users 10000 "$@")"
elif [ "$dataset" = demo ]; then
    CODEBOOK_SIZE=${CODEBOOK_SIZE:-32}
    step "$PYTHON" "$scripts/make_demo.py" --interaction_data "$INTERACTION_DATA" --text_data "$TEXT_DATA" \
        ${DEMO_USERS:+--users "$DEMO_USERS"} ${seed[@]+"${seed[@]}"}
fi
for table in "$INTERACTION_DATA" "$TEXT_DATA"; do
    if [ ! -f "$table" ]; then
        refuse "$table is not there. Put your tables into dataset/ and information/, or name files to convert: bash scripts/quickstart.sh $dataset FILES."
    fi
done
if [ -z "${TEXT_KEYS:-}" ]; then
    header=,$(head -n 1 "$TEXT_DATA" | tr -d '\r"' | tr '\t;' ',,'),
    for key in title tag description; do
        case $header in *",$key,"*) TEXT_KEYS=${TEXT_KEYS:+$TEXT_KEYS,}$key ;; esac
    done
    if [ -z "${TEXT_KEYS:-}" ]; then refuse "$TEXT_DATA has no column title, tag or description. Set TEXT_KEYS to those with texts."; fi
fi
look_around
alone=$NUM_GPUS # ranks of the two-tower model: on CPUs each would score all items, so that one does, with all cores
if [ "$gpus" -eq 0 ] && [ -z "${HOSTFILE:-}" ]; then alone=1; fi
data=(--interaction_data "$INTERACTION_DATA" --text_data "$TEXT_DATA" --text_keys "$TEXT_KEYS")
training=(--bf16 "${BF16:-True}" --gradient_checkpointing False --dataloader_num_workers 0
    --save_total_limit 1 ${DEEPSPEED_CONFIG:+--deepspeed "$DEEPSPEED_CONFIG"} ${seed[@]+"${seed[@]}"}
    ${overwrite[@]+"${overwrite[@]}"})

# train RANKS NAME SCRIPT FLAGS…
train() {
    launcher_for "$1" "$gpus"
    show_log "$LOGGING_DIR/$2"
    step env ${OMP_NUM_THREADS:+OMP_NUM_THREADS=$((OMP_NUM_THREADS * NUM_GPUS / $1))} "${launcher[@]}" "$scripts/$3" "${data[@]}" \
        "${training[@]}" --output_dir "$OUTPUT_DIR/$2" --logging_dir "$LOGGING_DIR/$2" "${@:4}"
}

stage 2 "two-tower model; to watch it: tail -f pixelrec_train.log"
step "$PYTHON" "$scripts/make_demo.py" --text_data "$TEXT_DATA" --towers_dir "$OUTPUT_DIR/towers" --lm_dir "$OUTPUT_DIR/lm" \
    --hidden_size 128 --vocab_size 2048 ${seed[@]+"${seed[@]}"}
items=(--id_only)
if [ -n "${ITEM_MODEL_DIR:-}" ]; then
    items=(--item_model_dir "$ITEM_MODEL_DIR" --freeze_item_llm --item_prompt "" --item_emb_token_n 0 --max_text_length 128)
fi
train "$alone" two_tower train_pixelrec.py "${items[@]}" --user_model_dir "$OUTPUT_DIR/towers/user_llm" --item_id_embedding \
    --offsets item_knn,tfidf --item_features tfidf,cooccurrence --full_softmax --max_seq_length 21 --learning_rate 1e-3 \
    --weight_decay 0.05 --history_dropout 0.3 --per_device_train_batch_size "$((64 / alone > 0 ? 64 / alone : 1))" \
    --num_train_epochs "${TWO_TOWER_EPOCHS:-3}" --patience 2

stage 3 "semantic ids of its item embeddings"
two_tower=$OUTPUT_DIR/two_tower/best_model ids=$OUTPUT_DIR/ids/semantic_ids.json
step "$PYTHON" "$scripts/build_semantic_ids.py" --checkpoint "$two_tower" ${CODEBOOK_SIZE:+--codebook_size "$CODEBOOK_SIZE"} \
    --output_dir "$OUTPUT_DIR/ids" --logging_dir "$LOGGING_DIR/ids" ${seed[@]+"${seed[@]}"} ${overwrite[@]+"${overwrite[@]}"}

stage 4 "a word for every code"
step "$PYTHON" "$scripts/expand_vocabulary.py" --hf_model_dir "$OUTPUT_DIR/lm" --output_model_dir "$OUTPUT_DIR/llm" \
    --semantic_ids "$ids" ${seed[@]+"${seed[@]}"} ${overwrite[@]+"${overwrite[@]}"}

stage 5 "generative model"
train "$NUM_GPUS" generative train_generative.py --model_dir "$OUTPUT_DIR/llm" --semantic_ids "$ids" --align False --learning_rate 2e-3 \
    --weight_decay 0.05 --dropout 0.2 --valid_users 500 --num_beams 20 \
    --per_device_train_batch_size "$((32 / NUM_GPUS > 0 ? 32 / NUM_GPUS : 1))" \
    --num_train_epochs "${GENERATIVE_EPOCHS:-5}"

stage 6 "both beside every baseline"
launcher_for "$NUM_GPUS" "$gpus"
step "${launcher[@]}" "$scripts/compare.py" "${data[@]}" --checkpoint "$two_tower" --checkpoint "$OUTPUT_DIR/generative/best_model" \
    ${BASELINES:+--baselines "$BASELINES"} --num_train_epochs "${BASELINE_EPOCHS:-20}" --patience 3 \
    --per_device_train_batch_size "$((128 / NUM_GPUS > 0 ? 128 / NUM_GPUS : 1))" ${seed[@]+"${seed[@]}"} \
    --output_dir "$OUTPUT_DIR" --logging_dir "$LOGGING_DIR/compare" --overwrite
stage 6 "done; $OUTPUT_DIR holds table.md, table.json and the models"
