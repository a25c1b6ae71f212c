# shellcheck shell=bash
# Sourced after prepare_python.sh: what this machine has, and how ranks are started on it.

source "${BASH_SOURCE[0]%/*}/hostfile.sh"
# Another launcher's; these ranks are new. Without RANK, somebody has set address and port for them.
if [ -n "${RANK:-}" ]; then unset MASTER_ADDR MASTER_PORT; fi
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE

# look_around sets gpus, and what is unset of NUM_GPUS (on CPU: ranks), BF16, DATALOADER_NUM_WORKERS, OMP_NUM_THREADS.
look_around() {
    local found cores
    found=$(ask "$PYTHON" run.resources gpus cores) || return
    read -r gpus cores <<<"$found"
    if [ -n "${HOSTFILE:-}" ]; then
        NUM_GPUS=$(ranks_of_hostfile)
        return
    fi
    if [ "$gpus" -gt 0 ]; then
        NUM_GPUS=${NUM_GPUS:-$gpus}
    else
        NUM_GPUS=${NUM_GPUS:-2}
        BF16=${BF16:-False}
        export DS_ACCELERATOR=cpu
    fi
    if [ "$cores" -le $((2 * NUM_GPUS)) ]; then DATALOADER_NUM_WORKERS=${DATALOADER_NUM_WORKERS:-1}; fi
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / NUM_GPUS > 1 ? cores / NUM_GPUS : 1))}
}

# launcher_for RANKS GPUS_FOUND sets launcher=(…), the DeepSpeed launcher for that many ranks (HOSTFILE: for those it says).
# shellcheck disable=SC2034 # for who sources this
launcher_for() {
    local where=(--num_gpus "$1")
    launcher=("$PYTHON" -m deepspeed.launcher.runner --log_level critical)
    if [ -n "${HOSTFILE:-}" ]; then
        launcher=(env "PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" -m pixelrec_train.machine.hosts # looks at ssh first
            --hostfile "$HOSTFILE" ${MASTER_ADDR:+--master_addr "$MASTER_ADDR"} ${MASTER_PORT:+--master_port "$MASTER_PORT"})
        return
    fi
    if [ "$2" -gt 0 ] && [ "$1" -gt "$2" ]; then
        echo "error: $1 ranks need a GPU each, and this machine has $2. Set NUM_GPUS to $2 or less, or DS_ACCELERATOR=cpu." >&2
        return 2
    fi
    # The launcher forgets CUDA_VISIBLE_DEVICES when it is told a number; told which GPUs, it keeps to them.
    if [ "$2" -gt 0 ] && [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
        where=(--include "localhost:$(echo "$CUDA_VISIBLE_DEVICES" | cut -d, -f "1-$1")")
    fi
    launcher+=("${where[@]}" --master_port "${MASTER_PORT:-$(ask "$PYTHON" run.resources port)}")
}

# show_log LOGGING_DIR: pixelrec_train.log, here, is a link to the log of the run that begins; tail -f may begin, too.
show_log() {
    local log=${1}_train.log
    {
        mkdir -p "$(dirname "$log")" && : >>"$log"
        if [ -L pixelrec_train.log ] || [ ! -e pixelrec_train.log ]; then ln -sfn "$log" pixelrec_train.log; fi
    } 2>/dev/null || true # the run itself says what it cannot write
}

wants_background() { [ "${BACKGROUND:-0}" = 1 ] || [ "${FOREGROUND:-1}" = 0 ]; }

# in_background COMMAND…: goes on when this terminal closes; what it prints is in ${LOGGING_DIR}_launch.log.
in_background() {
    mkdir -p "$(dirname "$LOGGING_DIR")"
    (
        trap '' HUP
        "$@"
    ) >"${LOGGING_DIR}_launch.log" 2>&1 </dev/null &
    echo "== training in the background, process $!   (stop it: kill $!   it saves first)"
}

# run_ranks COMMAND… runs it and returns its status. A signal to this script goes to the ranks alone, which save and end;
# DeepSpeed's launcher would end them itself after 30 s, and report a failure in any case. A second Ctrl-C ends all.
run_ranks() {
    local status name pending="" launcher_pid
    stopped_by="" # the first signal that came; for the caller as well
    set -m # a process group of its own: Ctrl-C reaches this script only
    "$@" </dev/null &
    launcher_pid=$!
    set +m
    for name in TERM USR1 INT; do
        # shellcheck disable=SC2064 # now is when these are known
        trap "pending=1; signal_ranks $name $launcher_pid; stopped_by=\${stopped_by:-$name}" "$name"
    done
    while :; do
        wait "$launcher_pid" && status=0 || status=$?
        [ -n "$pending" ] || break
        pending="" # it was the signal that ended this wait, and not yet the ranks
    done
    trap - TERM USR1 INT
    if [ "$stopped_by" = INT ]; then status=130; fi
    return "$status"
}

# signal_ranks NAME LAUNCHER: to the ranks on this machine, which tell the others; where there are none, to the launcher.
signal_ranks() {
    local name=$1
    if [ "$1$stopped_by" = INTINT ]; then
        kill -KILL -- "-$2"
        return
    fi
    case $1${launcher[*]:-} in
    INT*torch.distributed.run* | INTmpirun* | INTsrun*) name=TERM ;; # to end with 0, or these report a failure
    esac
    "$PYTHON" - "$name" "$2" <<'EOF' || kill -s "$name" -- "-$2"
import platform, signal, sys
import psutil

def is_rank(process):
    try:
        return bool({"LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"} & process.environ().keys())
    except (psutil.Error, AttributeError):  # it has ended
        return False

def came_over_ssh(process):  # see machine/hosts.py
    try:
        return process.environ().get("PIXELREC_LAUNCHER") == f"{platform.node()}:{sys.argv[2]}"
    except (psutil.Error, AttributeError):
        return False

started = psutil.Process(int(sys.argv[2])).children(recursive=True) + list(filter(came_over_ssh, psutil.process_iter()))
ranks = [p for p in started if is_rank(p) and not is_rank(p.parent())]  # and not their loaders' workers
for process in ranks:
    process.send_signal(getattr(signal, f"SIG{sys.argv[1]}"))
sys.exit(not ranks)  # none yet: end the launchers
EOF
}
