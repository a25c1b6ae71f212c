# shellcheck shell=bash
# Sourced after settings.sh, prepare_python.sh and launcher.sh by scripts of several steps: a step, and the demo's data.
# shellcheck disable=SC2154,SC2034 # who sources this sets them, and reads them

# step COMMAND…: a signal ends the running command, which saves if it trains, and then the script.
step() {
    run_ranks "$@"
    if [ -n "$stopped_by" ]; then exit 0; fi
}

# names VIEWS BEGINNING…: whether one of these views, with commas, begins so.
names() {
    local beginning
    for beginning in "${@:2}"; do
        case ",$1" in *",$beginning"*) return 0 ;; esac
    done
    return 1
}

# of_the_demo NAMES COMMAND…: a step without what somebody has set in these variables for another.
of_the_demo() {
    local name unset=()
    for name in $1 BATCH_SIZE EPOCHS DEEPSPEED_CONFIG; do unset+=(-u "$name"); done
    step env "${unset[@]}" OUTPUT_DIR=results/demo LOGGING_DIR=logs/pixelrec "${@:2}"
}

# make_demo_ids FOLDER NAMES: the demo's two tables, a two-tower model, and FOLDER/semantic_ids.json made of it; without
# what NAMES set. What is there already is not made again.
make_demo_ids() {
    local here=${BASH_SOURCE[0]%/*}
    if [ ! -e results/demo/table.json ]; then
        echo "== demo: two-tower model, whose item LLM embeds the catalogue"
        of_the_demo "$2" bash "$here/run_train_pixelrec.sh"
    fi
    if [ ! -e "$1/semantic_ids.json" ]; then
        echo "== demo: semantic ids"
        step "$PYTHON" "$scripts/build_semantic_ids.py" --checkpoint results/demo/best_model --codebook_size 32 \
            --interaction_data dataset/demo.csv --text_data information/demo.csv --output_dir "$1" \
            --logging_dir logs/demo_ids
    fi
}

# teach_histories LLM_DIR FOLDER sets MODEL_DIR: a small language model with random weights, which first reads the histories of
# training rows as ids alone, since no pretrained one is there; of_data names the data. Into FOLDER; LEARNING_RATE and so on
# are not for it.
teach_histories() {
    step "$PYTHON" "$scripts/build_samples.py" "${of_data[@]}" --model_dir "$1" --task video_rec --form segments \
        --targets 1 --max_length 1024 --output_dir "$2/histories" --overwrite
    launcher_for "$NUM_GPUS" "$gpus"
    step "${launcher[@]}" "$scripts/train_qwen3.py" --model_dir "$1" --dataset_config "$2/histories/dataset.json" \
        --learning_rate 3e-3 --min_lr 1e-4 --num_train_epochs "${WARM_UP_EPOCHS:-8}" --decay_steps None --warmup_steps 20 \
        --per_device_train_batch_size 1 --dataloader_num_workers 1 ${BF16:+--bf16 "$BF16"} --logging_steps 50 \
        --checkpoint_layout plain --save_total_limit 1 --output_dir "$2/histories_read" --logging_dir "${LOGGING_DIR}_histories" \
        --overwrite
    MODEL_DIR=$2/histories_read/best_model/llm
}
