#!/usr/bin/env bash
# From two CSV files to a table with popularity, a two-tower HLLM and a generative model beside each other.
#
#   bash scripts/run_train_generative.sh                     a demo: synthetic data, tiny models, no GPU needed
#   INTERACTION_DATA=… TEXT_DATA=… LLM_DIR=… TWO_TOWER=…/best_model bash scripts/…      your data, your Qwen3
#
# Every step is a command of its own, printed before it runs. Without TWO_TOWER the two-tower model is trained first, by
# run_train_pixelrec.sh; its item LLM gives the embeddings that become semantic ids. Further flags go behind the command,
# to the last stage of training.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/prepare_python.sh
source scripts/launcher.sh
case " $* " in *" --help "* | *" -h "*) exec "$PYTHON" scripts/train_generative.py --help ;; esac

# --- data and models: unset = the demo of run_train_pixelrec.sh, and a small Qwen3 with random weights
INTERACTION_DATA=${INTERACTION_DATA:-}
TEXT_DATA=${TEXT_DATA:-}
TWO_TOWER=${TWO_TOWER:-}
LLM_DIR=${LLM_DIR:-}
if [ -z "$INTERACTION_DATA$TEXT_DATA" ]; then demo=1; else demo=; fi
if [ -z "$LLM_DIR" ]; then tiny=1; else tiny=; fi # from scratch it needs larger steps, more epochs and dropout

# --- semantic ids, vocabulary
LEVELS=${LEVELS:-3}
CODEBOOK_SIZE=${CODEBOOK_SIZE:-${demo:+32}}
CODEBOOK_SIZE=${CODEBOOK_SIZE:-256}
QUANTISER=${QUANTISER:-rq_kmeans_balanced}

# --- training: stage 1 trains the new rows alone, stage 2 everything
TEXT_KEYS=${TEXT_KEYS:-${demo:+title,tag,description}}
TEXT_KEYS=${TEXT_KEYS:-title,description}
STAGE1_EPOCHS=${STAGE1_EPOCHS:-1}
STAGE2_EPOCHS=${STAGE2_EPOCHS:-${demo:+5}}
STAGE2_EPOCHS=${STAGE2_EPOCHS:-${tiny:+12}}
STAGE2_EPOCHS=${STAGE2_EPOCHS:-5}
PER_DEVICE_TRAIN_BATCH_SIZE=${PER_DEVICE_TRAIN_BATCH_SIZE:-$([ -n "$tiny" ] && [ -z "$demo" ] && echo 32 || echo 16)}
LEARNING_RATE_STAGE1=${LEARNING_RATE_STAGE1:-${tiny:+5e-3}}
LEARNING_RATE_STAGE1=${LEARNING_RATE_STAGE1:-1e-3}
LEARNING_RATE=${LEARNING_RATE:-${tiny:+2e-3}}
LEARNING_RATE=${LEARNING_RATE:-1e-4}
SEED=${SEED:-42}
DEEPSPEED_CONFIG=${DEEPSPEED_CONFIG:-configs/ds_config_zero2.json}
OUTPUT_DIR=${OUTPUT_DIR:-${demo:+results/demo_generative}}
OUTPUT_DIR=${OUTPUT_DIR:-results/generative}
LOGGING_DIR=${LOGGING_DIR:-logs/generative}

gpus=$(count_gpus)
cores=$("$PYTHON" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
if [ "$gpus" -gt 0 ]; then NUM_GPUS=${NUM_GPUS:-$gpus}; else NUM_GPUS=${NUM_GPUS:-2}; fi
if [ "$gpus" -gt 0 ]; then BF16=${BF16:-True}; else BF16=${BF16:-False}; fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / NUM_GPUS > 1 ? cores / NUM_GPUS : 1))}
if [ "$gpus" -eq 0 ]; then export DS_ACCELERATOR=cpu; fi

overwrite=() # the demo replaces itself, and nothing else unless told
if [ "$OUTPUT_DIR" = results/demo_generative ]; then overwrite=(--overwrite); fi
case " $* " in *" --overwrite "*) overwrite=(--overwrite) ;; esac

step() { echo "== $1"; }

# --- 1. the two-tower model, whose item LLM embeds the catalogue
if [ -z "$INTERACTION_DATA" ] || [ -z "$TEXT_DATA" ]; then
    if [ -n "$INTERACTION_DATA$TEXT_DATA" ]; then
        echo "error: INTERACTION_DATA and TEXT_DATA belong together; set both, or none for the demo." >&2
        exit 2
    fi
    INTERACTION_DATA=dataset/demo.csv
    TEXT_DATA=information/demo.csv
fi
if [ -z "$TWO_TOWER" ]; then
    step "1 of 6: two-tower model"
    if [ -n "$demo" ]; then
        TWO_TOWER=results/demo/best_model
        bash scripts/run_train_pixelrec.sh
    else
        TWO_TOWER=$OUTPUT_DIR/two_tower/best_model
        INTERACTION_DATA=$INTERACTION_DATA TEXT_DATA=$TEXT_DATA TEXT_KEYS=$TEXT_KEYS OUTPUT_DIR=$OUTPUT_DIR/two_tower \
            LOGGING_DIR=${LOGGING_DIR}_two_tower bash scripts/run_train_pixelrec.sh
    fi
fi

step "2 of 6: semantic ids, $QUANTISER, $LEVELS levels of $CODEBOOK_SIZE codes"
"$PYTHON" scripts/build_semantic_ids.py --checkpoint "$TWO_TOWER" --interaction_data "$INTERACTION_DATA" \
    --text_data "$TEXT_DATA" --quantiser "$QUANTISER" --levels "$LEVELS" --codebook_size "$CODEBOOK_SIZE" \
    --seed "$SEED" --output_dir "$OUTPUT_DIR/semantic_ids" --logging_dir "${LOGGING_DIR}_ids" \
    ${overwrite[@]+"${overwrite[@]}"}
ids=$OUTPUT_DIR/semantic_ids/semantic_ids.json

if [ -z "$LLM_DIR" ]; then
    LLM_DIR=$OUTPUT_DIR/tiny_llm
    "$PYTHON" scripts/make_demo.py --text_data "$TEXT_DATA" --lm_dir "$LLM_DIR" --seed "$SEED" \
        --hidden_size "$([ -n "$demo" ] && echo 64 || echo 128)"
fi
step "3 of 6: a word for every code"
"$PYTHON" scripts/expand_vocabulary.py --hf_model_dir "$LLM_DIR" --output_model_dir "$OUTPUT_DIR/llm" \
    --semantic_ids "$ids" --seed "$SEED" ${overwrite[@]+"${overwrite[@]}"}

common=(
    --interaction_data "$INTERACTION_DATA" --text_data "$TEXT_DATA" --text_keys "$TEXT_KEYS" --semantic_ids "$ids"
    --per_device_train_batch_size "$PER_DEVICE_TRAIN_BATCH_SIZE" --bf16 "$BF16" --seed "$SEED"
    --deepspeed "$DEEPSPEED_CONFIG" --dataloader_num_workers 1
    ${overwrite[@]+"${overwrite[@]}"}
)
if [ -n "$tiny" ]; then common+=(--gradient_checkpointing False --num_beams 20 --max_text_length 32); fi
if [ -n "$tiny" ] && [ -z "$demo" ]; then common+=(--dropout 0.2 --weight_decay 0.05 --valid_users 2000); fi

step "4 of 6: stage 1, the rows of the new words alone"
launcher_for "$NUM_GPUS" "$gpus"
run_ranks "${launcher[@]}" scripts/train_generative.py "${common[@]}" --model_dir "$OUTPUT_DIR/llm" --new_rows_only \
    --num_train_epochs "$STAGE1_EPOCHS" --learning_rate "$LEARNING_RATE_STAGE1" \
    --output_dir "$OUTPUT_DIR/stage1" --logging_dir "${LOGGING_DIR}_stage1"
if [ -n "$stopped_by" ]; then exit 0; fi

step "5 of 6: stage 2, everything"
launcher_for "$NUM_GPUS" "$gpus"
run_ranks "${launcher[@]}" scripts/train_generative.py "${common[@]}" --model_dir "$OUTPUT_DIR/stage1/best_model/llm" \
    --num_train_epochs "$STAGE2_EPOCHS" --learning_rate "$LEARNING_RATE" --beside "$TWO_TOWER" \
    --output_dir "$OUTPUT_DIR/stage2" --logging_dir "$LOGGING_DIR" "$@"
if [ -n "$stopped_by" ]; then exit 0; fi

step "6 of 6: does the exported model hold what it promises"
HF_MODEL_DIR=$OUTPUT_DIR/stage2/best_model/llm BEFORE=$OUTPUT_DIR/llm SEMANTIC_IDS=$ids bash scripts/test_hf_model.sh
cp "$OUTPUT_DIR/stage2/table.json" "$OUTPUT_DIR/stage2/table.md" "$OUTPUT_DIR/"
echo
cat "$OUTPUT_DIR/table.md"
