# shellcheck shell=bash
# Sourced by run_train_*.sh before anything takes time: the variables people set, and the flags these stand for. A flag's
# default has its home in the package; what is not set is not passed.

refuse() {
    echo "error: $1" >&2
    exit 2
}

# also_called NAME OTHER: one setting of two names.
also_called() {
    local value=${!1:-} other=${!2:-}
    if [ -n "$value" ] && [ -n "$other" ] && [ "$value" != "$other" ]; then
        refuse "$1=$value and $2=$other are two names of one setting with two values; set one of them."
    fi
    if [ -n "$other" ]; then printf -v "$1" %s "$other"; fi
}

# together NAME OTHER WITHOUT: both are set, or none for what comes without them.
together() {
    case ${!1:+1}${!2:+1} in 1) refuse "$1 and $2 belong together; set both, or none for $3." ;; esac
}

# add_flags NAME…: --name and its value, for each variable that is set, to flags=(…).
add_flags() {
    local name
    for name in "$@"; do
        if [ -n "${!name:-}" ]; then flags+=("--$(tr '[:upper:]' '[:lower:]' <<<"$name")" "${!name}"); fi
    done
}

# given NAME VALUE ARGUMENT…: the value of the last --NAME among the arguments, else VALUE.
given() {
    local name=--$1 value=$2
    shift 2
    while [ $# -gt 0 ]; do
        case $1 in
        "$name") value=${2:-} ;;
        "$name="*) value=${1#*=} ;;
        esac
        shift
    done
    echo "$value"
}

wants_help() { case " $* " in *" --help "* | *" -h "*) ;; *) return 1 ;; esac }

# Names from other scripts; an unrelated environment may have them too, so they stop nothing.
unread=("DATA_DIR INTERACTION_DATA and TEXT_DATA" "RESULTS_DIR OUTPUT_DIR" "LOG_DIR LOGGING_DIR")
if [ -n "${reads_folders:-}" ]; then unread=(); fi # by a script that reads these
for other in ${unread[@]+"${unread[@]}"} \
    "NUM_EPOCHS EPOCHS" "TRAIN_BATCH_SIZE BATCH_SIZE" "LR LEARNING_RATE" "SKIP_PIP_INSTALL PIXELREC_PYTHON=keep"; do
    name=${other%% *}
    if [ -n "${!name:-}" ]; then echo "warning: $name is set and not read here; set ${other#* } instead." >&2; fi
done

also_called PER_DEVICE_TRAIN_BATCH_SIZE BATCH_SIZE
also_called NUM_TRAIN_EPOCHS EPOCHS
together INTERACTION_DATA TEXT_DATA "the demo"
case ${NUM_GPUS-1} in
*[!0-9]* | 0 | "") refuse "NUM_GPUS must be a number of ranks, at least 1, got '$NUM_GPUS'." ;;
esac
source "${BASH_SOURCE[0]%/*}/hostfile.sh"

# shellcheck disable=SC2034 # for who sources this
{
    of_any_training="PER_DEVICE_TRAIN_BATCH_SIZE GRADIENT_ACCUMULATION_STEPS WARMUP_RATIO WARMUP_STEPS WEIGHT_DECAY
        MAX_GRAD_NORM GRADIENT_CHECKPOINTING BF16 SEED DATALOADER_NUM_WORKERS MAX_SEQ_LENGTH MAX_TEXT_LENGTH
        LOGGING_STEPS SAVE_STEPS SAVE_STRATEGY SAVE_TOTAL_LIMIT"
    of_two_towers="ITEM_MODEL_DIR USER_MODEL_DIR ITEM_EMB_TOKEN_N NUM_NEGATIVES BEST_BY"
}
