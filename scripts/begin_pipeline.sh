# shellcheck shell=bash
# Sourced by run_onerec_think.sh and run_minionerec.sh with pipeline=NAME and their arguments: settings, environment, where
# everything goes (home, LOGGING_DIR), --help and BACKGROUND=1.

here=${BASH_SOURCE[0]%/*}
reads_folders=1
source "$here/settings.sh"
source "$here/prepare_python.sh"
source "$here/launcher.sh"
source "$here/pipeline.sh"
if wants_help "$@"; then exec "$PYTHON" "$scripts/train_qwen3.py" --help; fi
for name in INTERACTION_DATA SPLIT_DATA SEMANTIC_IDS; do
    if [ -n "${!name:-}" ]; then
        if [ -n "${DATA_DIR:-}" ]; then refuse "DATA_DIR and $name both name the data; unset one."; fi
        if [ -z "${INTERACTION_DATA:-}" ]; then refuse "$name goes with INTERACTION_DATA and TEXT_DATA; unset it for the demo."; fi
    fi
done
# shellcheck disable=SC2034 # for who sources this
home=${RESULTS_DIR:-${OUTPUT_DIR:-results/$pipeline}}
LOGGING_DIR=${LOGGING_DIR:-${LOG_DIR:-logs}/$pipeline}
if wants_background; then
    export BACKGROUND=0 FOREGROUND=1
    in_background exec bash "$0" "$@"
    echo "tail -f ${LOGGING_DIR}_launch.log"
    exit 0
fi
