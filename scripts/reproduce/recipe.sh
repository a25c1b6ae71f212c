# shellcheck shell=bash
# Sourced by the recipes beside it, which set NAME, GPUS, PER_DEVICE_TRAIN_BATCH_SIZE, TEXT_KEYS and SEEDS, and add flags.
# What all of the paper's HLLM runs share is here, and how a recipe is checked and launched:
#
#   bash scripts/reproduce/pixel8m.sh --dry_run      resolve everything, print batch, pool and steps; needs the
#                                                    files, no GPU
#   bash scripts/reproduce/pixel8m.sh                train on this machine's GPUS
#   HOSTFILE=hosts bash scripts/reproduce/pixel8m.sh train on several machines (DeepSpeed's hostfile)
#   SEEDS="1 2 3" bash scripts/reproduce/pixel8m.sh  one run after the other, in OUTPUT_DIR/seed_1 and so on
#
# On fewer GPUs keep GPUS x PER_DEVICE_TRAIN_BATCH_SIZE: that is the batch, and it makes the pool of negatives.
# (Accumulating gradients keeps the batch and not the pool.) ± in a recipe's header is how far we would still call
# the figure reproduced: one seed, and the sampling error of the test users where they are few.
#
# Not run by us yet: no such machine was at hand. What a dry run prints is tested (tests/test_recipes.py).
: "${NAME:?}" "${GPUS:?}" "${PER_DEVICE_TRAIN_BATCH_SIZE:?}" "${TEXT_KEYS:?}" "${SEEDS:?}"
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1 # paths are the repository's
# shellcheck source=../prepare_python.sh
source scripts/prepare_python.sh
# shellcheck source=../launcher.sh
source scripts/launcher.sh
run=$(basename "$0" .sh)
OUTPUT_DIR=${OUTPUT_DIR:-results/$run}
LOGGING_DIR=${LOGGING_DIR:-logs/$run}
ITEM_MODEL_DIR=${ITEM_MODEL_DIR:-models/TinyLlama-1.1B} # the paper's HLLM-1B starts both towers from it

# The paper's numbers, whatever the package's defaults may become.
flags=(
    --interaction_data "${INTERACTION_DATA:-dataset/$NAME.csv}" --text_data "${TEXT_DATA:-information/$NAME.csv}"
    --text_keys "$TEXT_KEYS" --item_model_dir "$ITEM_MODEL_DIR" --user_model_dir "${USER_MODEL_DIR:-$ITEM_MODEL_DIR}"
    --max_text_length 256 --num_train_epochs 5 --learning_rate 1e-4 --weight_decay 0.01
    --max_grad_norm 0 --loss_weighting rank --bf16 True --topk "5,10,50,200"
    --per_device_train_batch_size "$PER_DEVICE_TRAIN_BATCH_SIZE"
)
dry_run=()
for argument in "$@"; do
    if [ "$argument" = --dry_run ]; then dry_run=(--dry_run "$GPUS"); else flags+=("$argument"); fi
done

found=$(ask "$PYTHON" run.resources gpus)
if [ -n "${HOSTFILE:-}" ] && [ ${#dry_run[@]} -eq 0 ] && [ "$(ranks_of_hostfile)" -ne "$GPUS" ]; then
    echo "error: HOSTFILE $HOSTFILE has $(ranks_of_hostfile) slots, but this recipe is for $GPUS GPUs x $PER_DEVICE_TRAIN_BATCH_SIZE windows. Set GPUS and PER_DEVICE_TRAIN_BATCH_SIZE with the same product." >&2
    exit 2
fi
if [ ${#dry_run[@]} -eq 0 ] && [ -z "${HOSTFILE:-}" ] && [ "$found" -lt "$GPUS" ]; then
    echo "error: this recipe is for $GPUS GPUs x $PER_DEVICE_TRAIN_BATCH_SIZE windows, this machine has $found. Set HOSTFILE for several machines, or GPUS and PER_DEVICE_TRAIN_BATCH_SIZE with the same product; --dry_run needs no GPU." >&2
    exit 2
fi
for seed in $SEEDS; do
    own= # of one seed the directories are those that are named
    if [ "$SEEDS" != "$seed" ]; then own=/seed_$seed; fi
    this=("$scripts/train_pixelrec.py" --seed "$seed" --output_dir "$OUTPUT_DIR$own"
        --logging_dir "$LOGGING_DIR$own" "${flags[@]}")
    if [ ${#dry_run[@]} -gt 0 ]; then
        "$PYTHON" "${this[@]}" "${dry_run[@]}"
    else
        launcher_for "$GPUS" "$found"
        run_ranks "${launcher[@]}" "${this[@]}"
        if [ -n "$stopped_by" ]; then exit 0; fi
    fi
done
