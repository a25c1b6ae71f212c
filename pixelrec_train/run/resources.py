"""What this machine has for ranks; torch, which takes seconds to import, is asked only where a GPU may be.

python -m pixelrec_train.run.resources gpus cores port prints these three; the scripts ask so.
"""

import ctypes
import os
import socket
import sys
from pathlib import Path

TRIM_FROM, MOST_MAPPED = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
OTHER_DRIVERS = ("/dev/kfd", "/dev/dxg", "/dev/nvmap")  # ROCm, WSL, Jetson: torch calls their GPUs cuda, too


def count_gpus():
    """GPUs that a run of this environment would use."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    possible = has_nvidia_gpu() or any(map(os.path.exists, OTHER_DRIVERS)) or sys.platform != "linux"
    if hidden or not possible or os.environ.get("DS_ACCELERATOR") == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def has_nvidia_gpu():
    return Path("/proc/driver/nvidia/version").exists() or bool(list(Path("/dev").glob("nvidia[0-9]*")))


def cores():
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def memory():
    """(bytes of RAM that are available, of all there is), or of what a container may take of it; None where
    the system does not say."""
    kib = {k: int(v.split()[0]) for k, v in (line.split(":") for line in read("/proc/meminfo").splitlines())}
    if not kib:
        return None
    total, available = kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    limit = read("/sys/fs/cgroup/memory.max").strip()
    if limit.isdigit() and int(limit) < total:
        total = int(limit)
        available = min(available, total - int(read("/sys/fs/cgroup/memory.current") or 0))
    return available, total


def keep_freed_memory():
    """Let the allocator keep what is freed for what comes next, in place of handing it back to the system.

    The tensors of a step are made anew in each, and glibc gives and takes those above 32 MB page by page: a
    third of the time of a step on a CPU, where a batch is large. Elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(MOST_MAPPED, 0)
        mallopt(TRIM_FROM, -1)  # never


def read(path):
    """The text of a file of the system, empty where there is none."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


ANSWERS = {"gpus": count_gpus, "cores": cores, "port": free_port}

if __name__ == "__main__":
    print(*(ANSWERS[word]() for word in sys.argv[1:]))
