# shellcheck shell=bash
# Sourced by the recipes beside it, which set NAME, RUN, GPUS, PER_DEVICE_TRAIN_BATCH_SIZE, TEXT_KEYS and settings=(…).
# What all of the paper's HLLM runs share is here, and how a recipe is checked and launched:
#
#   bash scripts/reproduce/pixel8m.sh --dry_run      resolve everything, print batch, pool and steps; needs the
#                                                    files, no GPU
#   bash scripts/reproduce/pixel8m.sh                train on this machine's GPUS
#   HOSTFILE=hosts bash scripts/reproduce/pixel8m.sh train on several machines (DeepSpeed's hostfile)
#
# On fewer GPUs keep GPUS x PER_DEVICE_TRAIN_BATCH_SIZE: that is the batch, and it makes the pool of negatives.
# (Accumulating gradients keeps the batch and not the pool.) ± in a recipe's header is how far we would still call
# the figure reproduced: one seed, and the sampling error of the test users where they are few.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/prepare_python.sh
source scripts/launcher.sh

INTERACTION_DATA=${INTERACTION_DATA:-dataset/$NAME.csv}
TEXT_DATA=${TEXT_DATA:-information/$NAME.csv}
ITEM_MODEL_DIR=${ITEM_MODEL_DIR:-models/TinyLlama-1.1B} # the paper's HLLM-1B starts both towers from it
USER_MODEL_DIR=${USER_MODEL_DIR:-$ITEM_MODEL_DIR}
OUTPUT_DIR=${OUTPUT_DIR:-results/$RUN}
LOGGING_DIR=${LOGGING_DIR:-logs/$RUN}

flags=(
    --interaction_data "$INTERACTION_DATA" --text_data "$TEXT_DATA" --text_keys "$TEXT_KEYS"
    --item_model_dir "$ITEM_MODEL_DIR" --user_model_dir "$USER_MODEL_DIR"
    --max_text_length 256 --num_train_epochs 5 --learning_rate 1e-4 --weight_decay 0.01
    --max_grad_norm 0 --loss_weighting rank --bf16 True --topk 5,10,50,200
    --per_device_train_batch_size "$PER_DEVICE_TRAIN_BATCH_SIZE"
    --output_dir "$OUTPUT_DIR" --logging_dir "$LOGGING_DIR"
    "${settings[@]}"
)
dry_run=() others=()
for argument in "$@"; do
    if [ "$argument" = --dry_run ]; then dry_run=(--dry_run "$GPUS"); else others+=("$argument"); fi
done
if [ ${#dry_run[@]} -gt 0 ]; then
    exec "$PYTHON" scripts/train_pixelrec.py "${dry_run[@]}" "${flags[@]}" ${others[@]+"${others[@]}"}
fi

if [ -n "${HOSTFILE:-}" ]; then
    exec "$PYTHON" -m deepspeed.launcher.runner --hostfile "$HOSTFILE" scripts/train_pixelrec.py "${flags[@]}" "$@"
else
    found=$(count_gpus)
    if [ "$found" -lt "$GPUS" ]; then
        echo "error: this recipe is for $GPUS GPUs x $PER_DEVICE_TRAIN_BATCH_SIZE windows, this machine has $found. Set HOSTFILE for several machines, or GPUS and PER_DEVICE_TRAIN_BATCH_SIZE with the same product; --dry_run needs no GPU." >&2
        exit 2
    fi
    launcher_for "$GPUS" "$found"
fi
run_ranks "${launcher[@]}" scripts/train_pixelrec.py "${flags[@]}" "$@"
