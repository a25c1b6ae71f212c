#!/usr/bin/env bash
# OneRec-Think's pipeline: prep -> build -> check -> expand -> stage 1 -> stage 2 -> evaluate.
#
#   bash scripts/run_onerec_think.sh                                the demo: everything is made, no GPU needed
#   DATA_DIR=data MODEL_DIR=Qwen3-8B NUM_GPUS=8 DEEPSPEED_CONFIG=configs/ds_config_zero2.json bash scripts/run_onerec_think.sh
#   INTERACTION_DATA=… TEXT_DATA=… SEMANTIC_IDS=… [SPLIT_DATA=…] MODEL_DIR=… bash scripts/run_onerec_think.sh
#
# DATA_DIR: NAME.pretrain.json and sequential_data_processed.txt, NAME being Beauty; scripts/prep.py reads them, and their
# split is taken: the last item validates, the test is unlabelled and gets predictions. With tables of your own (and the demo)
# the last two items are held out, or what SPLIT_DATA says. VIEWS: what it learns from, tasks with commas. RESULTS_DIR, LOG_DIR: where it all goes. LIMIT, LIMIT_TYPE_C, LIMIT_TYPE_E; MAX_STEPS of
# stage 1, NUM_TRAIN_EPOCHS of stage 2; NUM_BEAMS. LORA_R=128: stage 2 trains adapters. Further flags are those of
# scripts/train_qwen3.py, for stage 2.
set -euo pipefail
pipeline=onerec_think
source "$(dirname "${BASH_SOURCE[0]}")/begin_pipeline.sh"
of_a_stage="WEIGHT_DECAY MAX_GRAD_NORM SEED EVAL_STEPS SAVE_STEPS PER_DEVICE_TRAIN_BATCH_SIZE GRADIENT_ACCUMULATION_STEPS
    DATALOADER_NUM_WORKERS BF16 LOGGING_STEPS VALID_USERS GRADIENT_CHECKPOINTING"
of_stage2="LEARNING_RATE NUM_TRAIN_EPOCHS WARMUP_RATIO PATIENCE LORA_R LORA_ALPHA LORA_DROPOUT LOAD_IN_4BIT"
NAME=${NAME:-Beauty} VIEWS=${VIEWS:-onerec_think} question=type_c_seq_full protocol=leave_last_two split=test

# --- two tables and semantic ids
small='' demo=''
if [ -z "${MODEL_DIR:-}" ]; then small=1; fi
if [ -n "${DATA_DIR:-}" ]; then
    echo "== prep: their files become tables, and $NAME's parquet files"
    step "$PYTHON" "$scripts/prep.py" --source onerec_think --data_dir "$DATA_DIR" --name "$NAME" ${LIMIT:+--limit "$LIMIT"} \
        --output_dir "$home/tables" --their_files --overwrite
    INTERACTION_DATA=$home/tables/interactions.csv TEXT_DATA=$home/tables/items.csv
    SEMANTIC_IDS=$home/tables/semantic_ids.json protocol=last_item split=valid
elif [ -z "${INTERACTION_DATA:-}" ]; then
    demo=1
    make_demo_ids results/openonerec/data/semantic_ids "$of_a_stage $of_stage2 MAX_STEPS"
    INTERACTION_DATA=dataset/demo.csv TEXT_DATA=information/demo.csv
    SEMANTIC_IDS=results/openonerec/data/semantic_ids/semantic_ids.json
    if names "$VIEWS" onerec_think type_c; then LIMIT_TYPE_C=${LIMIT_TYPE_C:-2000}; fi
    if names "$VIEWS" onerec_think type_e; then LIMIT_TYPE_E=${LIMIT_TYPE_E:-500}; fi
    VALID_USERS=${VALID_USERS:-200}
    NUM_TRAIN_EPOCHS=${NUM_TRAIN_EPOCHS:-1} MAX_STEPS=${MAX_STEPS:-20}
elif [ -z "${SEMANTIC_IDS:-}" ]; then
    refuse "SEMANTIC_IDS is not set: scripts/build_semantic_ids.py makes them of your items, or reads a project's index."
fi
of_data=(--interaction_data "$INTERACTION_DATA" --semantic_ids "$SEMANTIC_IDS")
if [ -n "${SPLIT_DATA:-}" ]; then of_data+=(--split_data "$SPLIT_DATA"); else of_data+=(--split_protocol "$protocol"); fi

# build FOLDER FLAGS…: conversations of types A to E in $home/FOLDER
build() {
    local flags=(--output_dir "$home/$1" --overwrite)
    add_flags SAMPLES_PER_USER LIMIT_TYPE_C LIMIT_TYPE_E SEED
    step "$PYTHON" "$scripts/build_samples.py" "${of_data[@]}" --text_data "$TEXT_DATA" --codec semantic_ids_llm \
        --text_keys "${TEXT_KEYS:-title,tag,description}" --task "$VIEWS" "${flags[@]}" "${@:2}"
}

# --- a model that knows the codes
if [ -n "$small" ]; then
    MODEL_DIR=$home/base
    build words # for its tokenizer
    step "$PYTHON" "$scripts/make_demo.py" --text_data "$TEXT_DATA" --lm_dir "$MODEL_DIR" --chat True ${SEED:+--seed "$SEED"} \
        --samples "$home/words" --hidden_size "${HIDDEN_SIZE:-$([ -n "$demo" ] && echo 64 || echo 128)}"
    LEARNING_RATE=${LEARNING_RATE:-2e-3} LEARNING_RATE_STAGE1=${LEARNING_RATE_STAGE1:-5e-3} MAX_LENGTH=${MAX_LENGTH:-1024}
    PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-2} GRADIENT_CHECKPOINTING=${GRADIENT_CHECKPOINTING:-False}
fi
echo "== expand: a word for every code"
step "$PYTHON" "$scripts/expand_vocabulary.py" --hf_model_dir "$MODEL_DIR" --output_model_dir "$home/llm" \
    --codec semantic_ids_llm --semantic_ids "$SEMANTIC_IDS" ${SEED:+--seed "$SEED"} --overwrite

echo "== build: conversations of training rows, types A to E"
build conversations --model_dir "$home/llm" --max_length "${MAX_LENGTH:-4096}"
echo "== check"
step "$PYTHON" "$scripts/check_samples.py" --dataset_config "$home/conversations/dataset.json" --model_dir "$home/llm" \
    "${of_data[@]}"

look_around
MODEL_DIR=$home/llm
if [ -n "$small" ]; then
    echo "== the small model reads histories as ids alone, as a pretrained one has read texts"
    teach_histories "$home/llm" "$home"
fi

# train_stage NAME FLAGS…
train_stage() {
    local flags=(--dataset_config "$home/conversations/dataset.json" "${of_data[@]}" --prompt chat --question "$question"
        --topk "1,5,10" --best_by ndcg@10 --num_beams 20 --output_dir "$home/$1" --checkpoint_layout plain
        --save_total_limit 1 --min_lr 0 --decay_steps None --logging_dir "${LOGGING_DIR}_$1")
    # shellcheck disable=SC2086 # a list of words
    add_flags $of_a_stage
    launcher_for "$NUM_GPUS" "$gpus"
    show_log "${LOGGING_DIR}_$1"
    step "${launcher[@]}" "$scripts/train_qwen3.py" "${flags[@]}" ${DEEPSPEED_CONFIG:+--deepspeed "$DEEPSPEED_CONFIG"} \
        --overwrite "${@:2}"
}

echo "== stage 1: the rows of the new words alone"
train_stage stage1 --model_dir "$MODEL_DIR" --new_rows_only --learning_rate "${LEARNING_RATE_STAGE1:-1e-3}" \
    --max_steps "${MAX_STEPS:-1000}"
echo "== stage 2: $([ -n "${LORA_R:-}" ] && echo "adapters of rank $LORA_R" || echo everything)"
flags=(--model_dir "$home/stage1/best_model/llm" --warmup_steps None)
# shellcheck disable=SC2086 # a list of words
add_flags $of_stage2
train_stage stage2 "${flags[@]}" "$@"

echo "== evaluate: held-out users, after both stages"
launcher_for "$NUM_GPUS" "$gpus"
ask=("${of_data[@]}" --prompts chat --question "$question" --add_think_pattern False)
step "${launcher[@]}" "$scripts/evaluate_qwen3.py" --model_dir "stage1=$home/stage1/best_model/llm" \
    --model_dir "stage2=$home/stage2/best_model/llm" "${ask[@]}" --split "$split" \
    --metrics "${METRICS:-hit@1,hit@5,hit@10,ndcg@5,ndcg@10}" --num_beams "${NUM_BEAMS:-20}" --output_dir "$home"
echo "== predict: what comes next for every user"
step "${launcher[@]}" "$scripts/predict.py" --model_dir "$home/stage2/best_model/llm" "${ask[@]}" --split test \
    --text_data "$TEXT_DATA" --num_beams "${NUM_BEAMS:-20}" --output_dir "$home/predictions"
