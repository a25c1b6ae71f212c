# shellcheck shell=bash
# Sourced by the recipes beside it: how a stage is trained, and the demo's data where nobody names other.

recipes=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
source "$recipes/../settings.sh"
source "$recipes/launchers.sh"
for name in MODEL_DIR DATASET_CONFIG OUTPUT_DIR; do # set, or as a flag behind the command
    printf -v "$name" %s "$(given "$(tr '[:upper:]' '[:lower:]' <<<"$name")" "${!name:-}" "$@")"
done
together MODEL_DIR DATASET_CONFIG "the demo"
check_launcher
source "$recipes/../prepare_python.sh"
source "$recipes/../launcher.sh"
source "$recipes/../pipeline.sh"

# Variables that set the flag of the same name.
of_a_stage="LEARNING_RATE MIN_LR LR_SCHEDULER_TYPE NUM_WARMUP_STEPS NUM_TRAINING_STEPS MAX_LENGTH MINIBATCH_SIZE
    SAVE_CHECKPOINT_PER_STEP LOGGING_PER_STEP WEIGHT_DECAY MAX_GRAD_NORM SEED NUM_TRAIN_EPOCHS MAX_STEPS EVAL_STEPS
    VALID_SAMPLES BF16 GRADIENT_ACCUMULATION_STEPS PER_DEVICE_TRAIN_BATCH_SIZE DATALOADER_NUM_WORKERS"

if wants_background && ! wants_help "$@"; then
    export BACKGROUND=0 FOREGROUND=1
    LOGGING_DIR=${LOGGING_DIR:-logs/openonerec_$(basename "$0" .sh)}
    in_background exec bash "$0" "$@"
    echo "tail -f ${LOGGING_DIR}_launch.log"
    exit 0
fi

demo_home=results/openonerec # where everything lies that is made because no variable names other

# make_demo: two tables, a two-tower model, semantic ids of it, a small Qwen3 with a word for every code, and samples of
# every stage. What is there already is not made again.
make_demo() {
    local made=$demo_home/data ids=$demo_home/data/semantic_ids/semantic_ids.json
    interactions=dataset/demo.csv texts=information/demo.csv
    make_demo_ids "$made/semantic_ids" "$of_a_stage"
    if [ ! -e "$made/base/config.json" ]; then
        echo "== demo: a small Qwen3 with random weights, and a word for every code"
        step "$PYTHON" "$scripts/make_demo.py" --text_data $texts --lm_dir "$made/base" --hidden_size 64 --chat True
    fi
    if [ ! -e "$made/llm/config.json" ]; then
        step "$PYTHON" "$scripts/expand_vocabulary.py" --hf_model_dir "$made/base" --output_model_dir "$made/llm" \
            --semantic_ids "$ids"
    fi
    if [ ! -e "$made/sft/dataset.json" ]; then
        echo "== demo: samples of every stage"
        build_demo_samples "$ids" "$made"
    fi
}

# build_demo_samples SEMANTIC_IDS FOLDER: documents for the two stages of pretraining, chats for SFT, and what is held out.
build_demo_samples() {
    local of=(--interaction_data "$interactions" --text_data "$texts" --text_keys "title,tag,description" --semantic_ids "$1"
        --model_dir "$2/llm" --max_length 1024)
    build() { step "$PYTHON" "$scripts/build_samples.py" "${of[@]}" --output_dir "$@"; }
    build "$2/stg1" --task item_understand,video_rec --form segments
    build "$2/stg2" --task video_rec,item_understand,user_profile --form segments
    build "$2/valid" --task video_rec --form segments --split valid
    build "$2/sft_valid" --task video_rec --split valid
    build "$2/sft" --task video_rec,item_understand,rec_reason
}

# demo_settings LEARNING_RATE EPOCHS STEPS VALID: what a tiny model with random weights wants, where nothing else is set.
demo_settings() {
    LEARNING_RATE=${LEARNING_RATE:-$1} MIN_LR=${MIN_LR:-1e-4} NUM_TRAIN_EPOCHS=${NUM_TRAIN_EPOCHS:-$2}
    VALID_SAMPLES=${VALID_SAMPLES:-$(echo "$demo_home/data/$4"/part-00000-of-*.parquet)} # of however many there are
    MAX_LENGTH=${MAX_LENGTH:-1024} PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-4}
    NUM_WARMUP_STEPS=${NUM_WARMUP_STEPS:-20} NUM_TRAINING_STEPS=${NUM_TRAINING_STEPS:-$3}
    SAVE_CHECKPOINT_PER_STEP=${SAVE_CHECKPOINT_PER_STEP:-1000000} LOGGING_PER_STEP=${LOGGING_PER_STEP:-20}
}

# published_settings: OpenOneRec's, of every stage, where nothing else is set.
published_settings() {
    LEARNING_RATE=${LEARNING_RATE:-2e-4}
    MIN_LR=${MIN_LR:-1e-4}
    LR_SCHEDULER_TYPE=${LR_SCHEDULER_TYPE:-cosine}
    MAX_LENGTH=${MAX_LENGTH:-32768}
    MINIBATCH_SIZE=${MINIBATCH_SIZE:-16384}
    SAVE_CHECKPOINT_PER_STEP=${SAVE_CHECKPOINT_PER_STEP:-50}
    LOGGING_PER_STEP=${LOGGING_PER_STEP:-5}
    WEIGHT_DECAY=${WEIGHT_DECAY:-0.1}
    SEED=${SEED:-19260817}
}

# train_stage NAME FLAGS…: $MODEL_DIR on $DATASET_CONFIG into $OUTPUT_DIR, under $LAUNCHER. What it says is kept in
# stdout.log and stderr.log there, too.
train_stage() {
    local name=$1 status=0 to_out to_err
    shift
    published_settings
    look_around
    mkdir -p "$OUTPUT_DIR"
    flags=(--model_dir "$MODEL_DIR" --output_dir "$OUTPUT_DIR" --dataset_config "$DATASET_CONFIG"
        --monitor_datasource_loss --monitor_datasource_cnt --enable_gradient_checkpointing)
    # shellcheck disable=SC2086 # a list of words
    add_flags $of_a_stage
    choose_launcher
    echo "== $name: $MODEL_DIR on $DATASET_CONFIG -> $OUTPUT_DIR; from elsewhere: tail -f $OUTPUT_DIR/stdout.log"
    exec 3> >(kept_in "$OUTPUT_DIR/stdout.log")
    to_out=$!
    exec 4> >(kept_in "$OUTPUT_DIR/stderr.log" >&2 3>&-)
    to_err=$!
    run_ranks "${launcher[@]}" "$scripts/train_qwen3.py" "${flags[@]}" \
        ${DEEPSPEED_CONFIG:+--deepspeed "$DEEPSPEED_CONFIG"} "$@" >&3 2>&4 3>&- 4>&- || status=$?
    exec 3>&- 4>&-
    wait "$to_out" "$to_err" || true # until all is written
    if [ "$status" -ne 0 ] || [ -n "$stopped_by" ]; then exit "$status"; fi
}

# kept_in FILE: passes on what comes in; a signal to all of this script is not for it, as ranks speak while they save.
kept_in() {
    trap '' INT TERM HUP USR1
    exec tee -a "$1"
}

# last_step OUTPUT_DIR: the number of its newest checkpoint.
last_step() {
    local name
    for name in "$1"/step*/; do basename "$name"; done | sed -n 's/^step\([0-9][0-9]*\)$/\1/p' | sort -n | tail -n 1
}

# demo_model_of STAGE RECIPE sets MODEL_DIR, what that stage of the demo left, converted.
demo_model_of() {
    local last
    last=$(last_step "$demo_home/$1")
    if [ -z "$last" ]; then refuse "MODEL_DIR is not set, and the demo's $1 is not there yet: bash $recipes/$2 makes it."; fi
    MODEL_DIR=$demo_home/$1/step$last/global_step$last/converted
    if [ ! -e "$MODEL_DIR/config.json" ]; then
        step bash "$recipes/../convert_checkpoint_to_hf.sh" "$demo_home/data/llm" "$demo_home/$1" "$last"
    fi
}
