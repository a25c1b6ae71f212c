"""What this machine has for ranks; torch, which takes seconds to import, is asked only where a GPU may be.

python -m pixelrec_train.resources gpus cores port prints these three; the scripts ask so.
"""

import os
import socket
import sys
from pathlib import Path

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


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


ANSWERS = {"gpus": count_gpus, "cores": cores, "port": free_port}

if __name__ == "__main__":
    print(*(ANSWERS[word]() for word in sys.argv[1:]))
