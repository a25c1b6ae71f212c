#!/usr/bin/env bash
# MiniOneRec's pipeline: ids -> SFT on its views -> a table by ids and by items, each model beside the others.
#
#   bash scripts/run_minionerec.sh                                 the demo: everything is made, no GPU needed
#   DATA_DIR=data/Amazon CATEGORY=Industrial_and_Scientific MODEL_DIR=Qwen2.5-1.5B bash scripts/run_minionerec.sh
#   INTERACTION_DATA=… TEXT_DATA=… SEMANTIC_IDS=… SPLIT_DATA=… MODEL_DIR=… bash scripts/run_minionerec.sh
#
# DATA_DIR: MiniOneRec's own files (train, valid, test, index.json, item.json, info.txt), which scripts/prep.py reads.
# MODEL_DIR: a causal LM; unset = a small Qwen3 with random weights. VIEWS: what it learns from, tasks with commas; several
# such lists with spaces between them = a model and a row of the table for each. RESULTS_DIR, LOG_DIR: where it all goes.
# NUM_GPUS, DEEPSPEED_CONFIG, LEARNING_RATE, NUM_TRAIN_EPOCHS and the other settings of run_train_generative.sh; FREEZE_LLM=1
# trains the rows of the codes alone. WARM_UP_EPOCHS: of the small model on ids alone, before SFT. Further flags are those of scripts/train_qwen3.py.
set -euo pipefail
pipeline=minionerec
source "$(dirname "${BASH_SOURCE[0]}")/begin_pipeline.sh"
VIEWS=${VIEWS:-minionerec}
of_sft="LEARNING_RATE MIN_LR WEIGHT_DECAY MAX_GRAD_NORM WARMUP_RATIO SEED NUM_TRAIN_EPOCHS MAX_STEPS EVAL_STEPS PATIENCE
    PER_DEVICE_TRAIN_BATCH_SIZE GRADIENT_ACCUMULATION_STEPS DATALOADER_NUM_WORKERS BF16 LOGGING_STEPS VALID_USERS"
question=sid_history_to_sid

# --- two tables, a split and semantic ids
small='' demo=''
if [ -z "${MODEL_DIR:-}" ]; then small=1; fi
if [ -n "${DATA_DIR:-}" ]; then
    echo "== their files become tables"
    step "$PYTHON" "$scripts/prep.py" --source minionerec --data_dir "$DATA_DIR" ${CATEGORY:+--name "$CATEGORY"} \
        --output_dir "$home/tables" --overwrite
    INTERACTION_DATA=$home/tables/interactions.csv TEXT_DATA=$home/tables/items.csv SPLIT_DATA=$home/tables/split.csv
    SEMANTIC_IDS=$home/tables/semantic_ids.json
elif [ -z "${INTERACTION_DATA:-}" ]; then
    demo=1
    make_demo_ids results/openonerec/data/semantic_ids "$of_sft"
    INTERACTION_DATA=dataset/demo.csv TEXT_DATA=information/demo.csv
    SEMANTIC_IDS=results/openonerec/data/semantic_ids/semantic_ids.json
    SAMPLES_PER_USER=${SAMPLES_PER_USER:-1} NUM_TRAIN_EPOCHS=${NUM_TRAIN_EPOCHS:-1} VALID_USERS=${VALID_USERS:-200}
    NUM_BEAMS=${NUM_BEAMS:-20}
elif [ -z "${SEMANTIC_IDS:-}" ]; then
    refuse "SEMANTIC_IDS is not set: scripts/build_semantic_ids.py makes them of your items, or reads MiniOneRec's index.json."
fi
of_data=(--interaction_data "$INTERACTION_DATA" --semantic_ids "$SEMANTIC_IDS" ${SPLIT_DATA:+--split_data "$SPLIT_DATA"})

# build VIEWS SPLIT FLAGS…: samples of these views in $home/samples/VIEWS/SPLIT
build() {
    local about=() # what all items are stands in the words of some views alone
    if [ -n "${CATEGORY:-}" ] && names "$1" minionerec title_history; then
        about=(--category "$(tr '_[:upper:]' ' [:lower:]' <<<"$CATEGORY")")
    fi
    step "$PYTHON" "$scripts/build_samples.py" "${of_data[@]}" --text_data "$TEXT_DATA" \
        --text_keys "${TEXT_KEYS:-title,tag,description}" --task "$1" --split "$2" --codec minionerec \
        ${about[@]+"${about[@]}"} --output_dir "$home/samples/$1/$2" --overwrite "${@:3}"
}

# --- a model that knows the codes and is spoken to in MiniOneRec's words
if [ -n "$small" ]; then
    MODEL_DIR=$home/base
    build "$question" train --samples_per_user 1 # for its tokenizer: the words that it will read
    step "$PYTHON" "$scripts/make_demo.py" --text_data "$TEXT_DATA" --lm_dir "$MODEL_DIR" --chat True ${SEED:+--seed "$SEED"} \
        --samples "$home/samples/$question/train" --chat_template minionerec --hidden_size "${HIDDEN_SIZE:-$([ -n "$demo" ] && echo 64 || echo 128)}"
    LEARNING_RATE=${LEARNING_RATE:-2e-3} PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-2}
    MAX_LENGTH=${MAX_LENGTH:-1024} NUM_TRAIN_EPOCHS=${NUM_TRAIN_EPOCHS:-2}
fi
echo "== a word for every code"
step "$PYTHON" "$scripts/expand_vocabulary.py" --hf_model_dir "$MODEL_DIR" --output_model_dir "$home/llm" --codec minionerec \
    --chat_template minionerec --semantic_ids "$SEMANTIC_IDS" ${SEED:+--seed "$SEED"} --overwrite

look_around
MODEL_DIR=$home/llm
if [ -n "$small" ]; then
    echo "== the small model reads histories as ids alone, as a pretrained one has read texts"
    teach_histories "$home/llm" "$home"
fi

# --- SFT on each list of views
models=()
for views in $VIEWS; do
    echo "== samples of $views"
    flags=(--model_dir "$home/llm" --max_length "${MAX_LENGTH:-4096}")
    add_flags SAMPLES_PER_USER
    build "$views" train "${flags[@]}"
    step "$PYTHON" "$scripts/check_samples.py" --dataset_config "$home/samples/$views/train/dataset.json" \
        --model_dir "$home/llm" "${of_data[@]}"
    echo "== SFT on $views"
    run=$home/sft_${views//,/+}
    flags=(--model_dir "$MODEL_DIR" --dataset_config "$home/samples/$views/train/dataset.json" "${of_data[@]}" --prompt chat
        --question "$question" --history 10 --keep_seen --best_by "${BEST_BY:-ndcg@10}" --topk "5,10"
        --num_beams 20 --min_lr 0 --decay_steps None --warmup_steps None --output_dir "$run" --checkpoint_layout plain --save_total_limit 1
        --logging_dir "${LOGGING_DIR}_$(basename "$run")")
    if [ "${FREEZE_LLM:-0}" = 1 ]; then flags+=(--freeze_LLM); fi
    # shellcheck disable=SC2086 # a list of words
    add_flags $of_sft
    launcher_for "$NUM_GPUS" "$gpus"
    show_log "${LOGGING_DIR}_$(basename "$run")"
    step "${launcher[@]}" "$scripts/train_qwen3.py" "${flags[@]}" ${DEEPSPEED_CONFIG:+--deepspeed "$DEEPSPEED_CONFIG"} \
        --overwrite "$@"
    models+=(--model_dir "sft on $views=$run/best_model/llm")
done

echo "== test users, seen items left in, as MiniOneRec judges"
launcher_for "$NUM_GPUS" "$gpus"
step "${launcher[@]}" "$scripts/evaluate_qwen3.py" "${models[@]}" "${of_data[@]}" --prompts chat --question "$question" \
    --add_think_pattern False --history 10 --keep_seen --topk "1,3,5,10,20,50" --num_beams "${NUM_BEAMS:-50}" \
    --output_dir "$home"
