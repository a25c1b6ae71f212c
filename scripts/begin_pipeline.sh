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
home=${RESULTS_DIR:-${OUTPUT_DIR:-results/$pipeline}}
LOGGING_DIR=${LOGGING_DIR:-${LOG_DIR:-logs}/$pipeline}
if wants_background; then
    export BACKGROUND=0 FOREGROUND=1
    in_background exec bash "$0" "$@"
    echo "tail -f ${LOGGING_DIR}_launch.log"
    exit 0
fi
