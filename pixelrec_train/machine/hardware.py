"""Accelerator, threads, compiler, disk, memory: what the machine has, and what a run would miss."""

import os
import resource
import shutil
import tempfile
from pathlib import Path

from pixelrec_train.machine.finding import OK, PROBLEM, WARN, Finding, gib
from pixelrec_train.machine.launch import RANKS_ON_CPU
from pixelrec_train.run import resources
from pixelrec_train.run.resources import has_nvidia_gpu

LITTLE_DISK, NO_DISK = 20 * 2**30, 2**29
LITTLE_MEMORY, LITTLE_SHARED_MEMORY = 4 * 2**30, 2**30
FEW_FILES = 1024
CUDA_TORCH = "Install a torch built for CUDA (pytorch.org/get-started); else training stays on the CPU"


def accelerator(facts):
    """facts: of machine/probe.py; None where torch could not be asked."""
    if not facts:
        return Finding(PROBLEM, "accelerator", "torch cannot be asked", "Repair the packages first")
    built = f"CUDA {facts['built_for']}" if facts["built_for"] else "CPU"
    torch_is = f"torch {facts['torch'].split('+')[0]} built for {built}"
    if facts["gpus"]:
        return on_gpus(facts, torch_is)
    cpu = f"CPU, {facts['cores']} cores; {torch_is}"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not has_nvidia_gpu():
        return Finding(OK, "accelerator", cpu)
    if not facts["built_for"]:
        return Finding(WARN, "accelerator", f"{cpu}, but there is an NVIDIA GPU", CUDA_TORCH)
    advice = "The driver may be too old for it: compare with nvidia-smi"
    return Finding(WARN, "accelerator", f"{cpu}, but torch cannot use the NVIDIA GPU that is there", advice)


def on_gpus(facts, torch_is):
    gpus, bf16 = facts["gpus"], facts["bf16"]
    kinds = {(g["name"], gib(g["total"])): 0 for g in gpus}
    for g in gpus:
        kinds[g["name"], gib(g["total"])] += 1
    found = ", ".join(f"{n} x {name} ({memory})" for (name, memory), n in kinds.items())
    found += f"; {torch_is}; bf16 {'yes' if bf16 else 'no'}"
    used = [i for i, g in enumerate(gpus) if g["free"] < 0.9 * g["total"]]
    if not facts["used"]:
        return Finding(WARN, "accelerator", found, "DS_ACCELERATOR=cpu keeps runs on the CPU: unset it")
    if not bf16:
        return Finding(WARN, "accelerator", found, "Train with --bf16 False")
    if used:
        taken = ", ".join(f"GPU {i} has {gib(gpus[i]['free'])} free" for i in used)
        return Finding(WARN, "accelerator", f"{found}; {taken}", "Others use it: see nvidia-smi")
    return Finding(OK, "accelerator", found)


def threads(gpus):
    """ranks x threads should be the cores; more of them wait for each other."""
    ranks, cores = gpus or RANKS_ON_CPU, resources.cores()
    text = os.environ.get("OMP_NUM_THREADS")
    share = max(1, cores // ranks)
    if text is None:
        return Finding(OK, "threads", f"OMP_NUM_THREADS unset: ranks share {cores} cores")
    found = f"OMP_NUM_THREADS={text}, {cores} cores"
    if not text.isdigit() or int(text) < 1:
        return Finding(WARN, "threads", found, f"It must be a number: unset it, or export it as {share}")
    if int(text) * ranks > max(cores, ranks):
        advice = f"Too many for {ranks} ranks: unset it, or export it as {share}"
        return Finding(WARN, "threads", found, advice)
    return Finding(OK, "threads", found)


def compiler(facts):
    """facts: of machine/probe.py; only --compile and DeepSpeed's own operators need one."""
    if facts and "found" in facts:
        return Finding(OK, "compiler", f"{facts['found']} (for --compile and DeepSpeed's operators)")
    if facts and "absent" in facts:
        return Finding(WARN, "compiler", facts["absent"].rstrip("."), "Training without --compile needs none")
    return Finding(WARN, "compiler", "not looked for, as torch cannot be asked", "Repair the packages first")


def disk(directories):
    """Space, rights and hard links where the directories lie or will; alike ones share a Finding."""
    alike = {}
    for directory in map(Path, directories):
        existing = next(p for p in (directory, *directory.absolute().parents) if os.path.lexists(p))
        alike.setdefault(room(existing), []).append(str(directory))
    for (verdict, found, advice), names in alike.items():
        yield Finding(verdict, "disk", f"{', '.join(names)}: {found}", advice)


def room(directory):
    """(verdict, what was found, advice) of an existing directory."""
    choose = "Choose others: --output_dir, --logging_dir, --cache_dir"
    if not directory.is_dir():
        return PROBLEM, f"{directory} is not a directory", choose
    try:
        with tempfile.TemporaryDirectory(dir=directory, prefix=".doctor-") as folder:
            (Path(folder) / "file").write_bytes(b"x")
            links = can_link(Path(folder) / "file", Path(folder) / "link")
    except OSError as error:
        return PROBLEM, f"{directory} cannot be written ({error.strerror})", choose
    free = shutil.disk_usage(directory).free
    found = f"{gib(free)} free, writable, hard links {'work' if links else 'do not work'}"
    if free < NO_DISK:
        return PROBLEM, found, f"A checkpoint would not fit. {choose}"
    if free < LITTLE_DISK:
        return WARN, found, (
            "A checkpoint takes some 14 bytes per parameter, and five are kept: see --save_total_limit"
        )  # fmt: skip
    return (OK, found, "") if links else (WARN, found, "best_model will be a second copy of its checkpoint")


def can_link(file, link):
    try:
        os.link(file, link)
    except OSError:
        return False
    return True


def memory():
    """RAM, or what a container may take of it."""
    known = resources.memory()
    if known is None:
        return Finding(OK, "memory", "unknown: no /proc/meminfo on this system")
    available, total = known
    found = f"{gib(available)} of {gib(total)} available"
    if available < LITTLE_MEMORY:
        return Finding(WARN, "memory", found, "Each rank takes 1 GiB and its model: end other programs")
    return Finding(OK, "memory", found)


def shared_memory(place="/dev/shm"):
    """Workers hand batches over in /dev/shm, and NCCL talks through it; containers often get 64 MiB."""
    if not Path(place).is_dir():
        return Finding(OK, "/dev/shm", "none on this system")
    usage = shutil.disk_usage(place)
    found = f"{gib(usage.free)} of {gib(usage.total)} free"
    if usage.free < LITTLE_SHARED_MEMORY:
        advice = "Start the container with --shm-size 8g, or train with --dataloader_num_workers 0"
        return Finding(WARN, "/dev/shm", found, advice)
    return Finding(OK, "/dev/shm", found)


def open_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    found = f"{'unlimited' if soft == endless else f'{soft:,}'} per process (ulimit -n)"
    if soft != endless and soft < FEW_FILES:
        most = 65536 if hard == endless else min(hard, 65536)
        return Finding(WARN, "open files", found, f"Workers may run out: ulimit -n {most}")
    return Finding(OK, "open files", found)
