# shellcheck shell=bash
# Sourced by recipe.sh: the four ways to start ranks, by LAUNCHER. HOSTFILE lists several machines; torchrun is started on
# each of them with the same HOSTFILE (or NNODES, NODE_RANK and MASTER_ADDR), srun takes those of its allocation.

PORT_OF_MACHINES=8499 # where ranks of several machines meet, as OpenOneRec's do; on one machine a free port is found

# check_launcher: refuses, before anything takes time, what could not start.
check_launcher() {
    LAUNCHER=${LAUNCHER:-deepspeed}
    case $LAUNCHER in
    deepspeed | torchrun) ;;
    mpirun | srun)
        if ! command -v "$LAUNCHER" >/dev/null; then
            refuse "LAUNCHER=$LAUNCHER, but there is no $LAUNCHER on this machine. Install it, or use LAUNCHER=torchrun."
        fi
        ;;
    *) refuse "LAUNCHER must be deepspeed, torchrun, mpirun or srun, got '$LAUNCHER'." ;;
    esac
    if [ "$LAUNCHER${HOSTFILE:+1}" = srun1 ]; then
        refuse "HOSTFILE is set, but srun takes its machines from the allocation; unset one of HOSTFILE and LAUNCHER=srun."
    fi
    if [ "$LAUNCHER" = torchrun ] && [ "${NNODES:-1}" != 1 ] && [ -z "${HOSTFILE:-}${MASTER_ADDR:-}" ]; then
        refuse "NNODES=$NNODES machines need MASTER_ADDR, the name of the first one, or HOSTFILE."
    fi
    if [ "$LAUNCHER" = srun ]; then
        asked_ranks=${NUM_GPUS:-} asked_threads=${OMP_NUM_THREADS:-} # before this machine is looked at
        NUM_GPUS=${NUM_GPUS:-${SLURM_NTASKS:-}}
    fi
}

# choose_launcher sets launcher=(…), what stands in front of a script.
choose_launcher() {
    local first=127.0.0.1 several=''
    if [ -n "${HOSTFILE:-}" ]; then
        first=$(hosts_of_hostfile | sed -n '1s/ .*//p')
        if [ "$(hosts_of_hostfile | wc -l)" -gt 1 ]; then several=1; fi
    fi
    # shellcheck disable=SC2154 # look_around sets gpus
    case $LAUNCHER in
    deepspeed) launcher_for "$NUM_GPUS" "$gpus" ;;
    torchrun) by_torchrun ;;
    mpirun) by_mpirun ;;
    srun) by_srun ;;
    esac
}

# meeting_port sets port.
meeting_port() {
    if [ -n "$several" ]; then port=${MASTER_PORT:-$PORT_OF_MACHINES}; else port=${MASTER_PORT:-$(ask "$PYTHON" run.resources port)}; fi
}

by_torchrun() {
    local port machines=${NNODES:-1} place=${NODE_RANK:-0} ranks=${NPROC_PER_NODE:-$NUM_GPUS}
    if [ -n "${HOSTFILE:-}" ]; then
        machines=$(hosts_of_hostfile | wc -l)
        if [ -z "${NODE_RANK:-}" ]; then place=$(place_of_this_host); fi
        ranks=${NPROC_PER_NODE:-$(hosts_of_hostfile | sed -n "$((place + 1))s/.* //p")}
        if [ -z "$ranks" ]; then refuse "NODE_RANK=$NODE_RANK, but HOSTFILE $HOSTFILE has $machines machines; the first is 0."; fi
    fi
    if [ "$machines" -gt 1 ]; then several=1; fi
    meeting_port
    launcher=("$PYTHON" -m torch.distributed.run --nnodes "$machines" --node_rank "$place" --nproc_per_node "$ranks"
        --master_addr "${MASTER_ADDR:-$first}" --master_port "$port")
}

# place_of_this_host: its line in HOSTFILE, from 0; 0 where there is only one.
place_of_this_host() {
    if [ -z "$several" ]; then
        echo 0
        return
    fi
    local names
    names=" $(hostname) $(hostname -s 2>/dev/null) $(hostname -I 2>/dev/null || true) "
    hosts_of_hostfile | awk -v names="$names" 'index(names, " " $1 " ") { print NR - 1; found = 1; exit }
        END { exit !found }' || refuse "$(hostname) is no line of HOSTFILE $HOSTFILE. Set NODE_RANK, its place there, from 0."
}

# by_mpirun: Open MPI. It passes on what it is told to, and refuses root unless told.
by_mpirun() {
    local name port
    meeting_port
    launcher=(mpirun -np "$NUM_GPUS" --bind-to none)
    if [ -n "${HOSTFILE:-}" ]; then launcher+=(--hostfile "$HOSTFILE"); else launcher+=(--host "localhost:$NUM_GPUS"); fi
    if [ "$EUID" -eq 0 ]; then launcher+=(--allow-run-as-root); fi
    for name in $(compgen -e); do
        case $name in
        PATH | PYTHONPATH | LD_LIBRARY_PATH | OMP_NUM_THREADS | DS_ACCELERATOR | CUDA_VISIBLE_DEVICES | NCCL_* | GLOO_* | HF_*)
            launcher+=(-x "$name")
            ;;
        esac
    done
    launcher+=(-x "MASTER_ADDR=${MASTER_ADDR:-$first}" -x "MASTER_PORT=$port" "$PYTHON")
}

# by_srun: as many tasks as NUM_GPUS says, else the allocation, else this machine's GPUs on each of its machines.
by_srun() {
    local port
    if [ -z "$asked_threads" ]; then unset OMP_NUM_THREADS; fi # ranks share the cores of where they are
    if [ -z "$asked_ranks${SLURM_NTASKS:-}" ]; then NUM_GPUS=$((NUM_GPUS * ${SLURM_JOB_NUM_NODES:-1})); fi
    # Two jobs may share a machine, so each has a port of its own.
    port=${MASTER_PORT:-$((20000 + ${SLURM_JOB_ID:-$$} % 20000))}
    # shellcheck disable=SC2016 # it is each task's shell that knows its place, and which machines there are
    launcher=(srun --ntasks "$NUM_GPUS" env "MASTER_PORT=$port" ${MASTER_ADDR:+"MASTER_ADDR=$MASTER_ADDR"} bash -c '
        export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1)}
        export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
        if [ -n "$SLURM_STEP_TASKS_PER_NODE" ]; then export LOCAL_WORLD_SIZE=${SLURM_STEP_TASKS_PER_NODE%%[!0-9]*}; fi
        exec "$@"' rank "$PYTHON")
}
