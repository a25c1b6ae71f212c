"""How ranks meet and part: process group, device and threads of each, watchdog."""

import os
import resource
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist

from pixelrec_train import distributed
from pixelrec_train.errors import InputError
from pixelrec_train.run import meeting, resources, watchdog
from pixelrec_train.run.launchers import named_as_torch


def initialise(timeout_minutes):
    """Join the other ranks; works under every launcher of launchers.py, and plain python.

    Raises:
        InputError: there are fewer GPUs than ranks, or the ranks did not meet within the timeout.
    """
    os.environ.update(named_as_torch(os.environ) or ONE_RANK | {"MASTER_PORT": resources.free_port()})
    on_gpu, problem = distributed.uses_gpu(), None
    try:
        allow_files()
        if on_gpu:
            check_gpu_of(distributed.local_rank(), torch.cuda.device_count())
    except InputError as error:
        problem = str(error)
    store, words = meeting.meet(problem, timeout_minutes)
    if on_gpu:
        torch.cuda.set_device(distributed.local_rank())
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"
    share_cores()
    # DeepSpeed and ours use the name that works on every torch; the notice would come from each rank.
    warnings.filterwarnings("ignore", message=".*all_gather_into_tensor.*|.*reduce_scatter_tensor.*")
    import deepspeed

    if not on_gpu:
        skip_shared_memory_kernel(deepspeed)
    backend, timeout = "nccl" if on_gpu else "gloo", timedelta(minutes=timeout_minutes)
    try:
        if store:
            connect(store, backend, timeout)
        deepspeed.init_distributed(backend, timeout=timeout, verbose=False)
    except (RuntimeError, ValueError) as error:
        raise InputError(meeting.not_met(error)) from None
    if store:
        # From here on the watchdog judges: a rank may be busy for long; what a collective says helps nobody.
        distributed.be_patient(PATIENCE)
        names = [word["name"] for word in words]
        watchdog.start(store, distributed.rank(), names, 60 * timeout_minutes)


def connect(store, backend, timeout):
    """Make the groups, in the ranks' own store: that of torchrun remembers ranks of attempts before."""
    device = {"device_id": distributed.device()} if distributed.uses_gpu() else {}
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.PrefixStore("group", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=timeout, **device)
    distributed.connect_cpus(timeout)


def allow_files():
    """Raise this process's limit of open files as far as the system lets it.

    Raises:
        InputError: that is too few for sockets, workers and the files of a run.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= ENOUGH_FILES or soft == resource.RLIM_INFINITY:
        return
    most = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if most < FEWEST_FILES:
        raise InputError(
            f"a process may open {most} files here (ulimit -n), and a rank needs some {FEWEST_FILES}. Raise "
            f"it: ulimit -n {ENOUGH_FILES}, or the limit of the container or the scheduler."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def check_gpu_of(local_rank, gpus):
    if local_rank >= gpus:
        raise InputError(
            f"rank {local_rank} of this machine has no GPU: it has {gpus}. Start at most {gpus} (--num_gpus "
            f"{gpus}), or set DS_ACCELERATOR=cpu to compute on the CPU."
        )


PATIENCE = timedelta(days=7)
FEWEST_FILES, ENOUGH_FILES = 256, 4096
ONE_RANK = dict(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")


def share_cores():
    """Ranks x threads = cores, unless OMP_NUM_THREADS says otherwise: too many threads spin.

    torchrun says 1 by itself where it starts several ranks and nobody has said anything, which nobody can
    tell from a wish: there 1 is none.
    """
    says = os.environ.get("OMP_NUM_THREADS")
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ and says == "1" and distributed.ranks_here() > 1
    if says is None or by_torchrun:
        torch.set_num_threads(max(1, resources.cores() // distributed.ranks_here()))


def skip_shared_memory_kernel(deepspeed):
    """Keep DeepSpeed from compiling a C++ operator at the first start on a CPU.

    It costs minutes of silence and fails without a compiler; gloo does the same work. The table is
    private to DeepSpeed: tests/test_launch.py starts without a compiler and would notice a change.
    PIXELREC_SHM=1 in the environment leaves DeepSpeed alone.
    """
    if os.environ.get("PIXELREC_SHM") != "1":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def finish():
    if dist.is_initialized():
        distributed.barrier()  # before the watchdog goes: one rank may still write its report
    watchdog.stop()
    if dist.is_initialized():
        distributed.barrier()  # rank 0 holds what the others' watchdogs write to
        dist.destroy_process_group()
