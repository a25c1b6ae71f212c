"""Who may write into results/<run>/: one run at a time, and never over a finished one by accident."""

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from fnmatch import fnmatch
from pathlib import Path

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import ROOT, possible_directory, write_json
from pixelrec_train.run.checkpoints import LATEST, steps_of, take_away

# What a run writes, and its checkpoints step120. --overwrite removes these and nothing else.
RUN_FILES = (
    "run.json", "ds_config.json", "train.log", "metrics.jsonl", "table.md", "table.json", "curves.png",
    "places.parquet", "report.json", "report.html", "trace.json", "trackers.json",
    "best_model", "checkpoint-epoch-*", "checkpoint-step-*", "*.partial",
)  # fmt: skip
FRESH = 5.0  # seconds between two signs of life in run.lock
PACKAGES = ("torch", "deepspeed", "transformers", "tokenizers", "numpy", "pyarrow", "faiss-cpu", "faiss-gpu")


def check_free(directory, overwrite):
    """Raises InputError when another run is writing here, or a run lies here and overwrite is False.

    Also where something lies that only looks like a part of a run: no run removes what no run has written.
    """
    directory = possible_directory(directory, "--output_dir")
    foreign = [p.name for pattern in ("best_model", "checkpoint-*") for p in directory.glob(pattern)]
    if foreign and not (directory / "run.json").exists():
        raise InputError(
            f"--output_dir {directory} holds {foreign[0]}, but no run.json: no run of ours wrote it. Choose "
            f"another directory."
        )
    finished = (directory / "table.json").exists()
    if (finished or (directory / "run.json").exists()) and not overwrite:
        kind = "a finished" if finished else "an unfinished"
        raise InputError(
            f"--output_dir {directory} already holds {kind} run. Choose another, or add --overwrite "
            f"to replace it."
        )
    with lock(directory) if directory.exists() else contextlib.nullcontext():
        pass


@contextlib.contextmanager
def lock(directory):
    """Hold results/<run>/run.lock, giving the holder's name; the system frees it when the process ends.

    A run that ends before it has written anything leaves nothing: no lock, and no directory it made.
    """
    directory = Path(directory)
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    before = set(directory.iterdir())
    with open(directory / "run.lock", "a+") as file:
        claim(file, directory)
        file.truncate(0)
        file.write(name := f"{os.getpid()} on {platform.node()}")
        file.flush()
        over = threading.Event()
        threading.Thread(target=keep_fresh, args=(file, over), daemon=True).start()
        try:
            yield name
        finally:
            over.set()
            file.truncate(0)
            with contextlib.suppress(OSError):  # what others put there may stay
                if set(directory.iterdir()) - before == {directory / "run.lock"}:
                    (directory / "run.lock").unlink()
                    for path in made:
                        path.rmdir()


def claim(file, directory):
    """Lock run.lock, and see that nobody on another host holds it: some locks hold within a host alone.

    Raises:
        InputError: another run holds it, or the file system cannot lock.
    """
    named = holder(directory)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = named and not named.endswith(f" on {platform.node()}") and is_kept_fresh(directory)
    except BlockingIOError:
        held = True
    except OSError as error:
        raise InputError(
            f"--output_dir {directory} is on a file system that cannot lock ({first_line(error)[:-1]}): two "
            f"runs might write there. Have it mounted with locks (Lustre: -o flock), or choose another."
        ) from None
    if held:
        raise InputError(
            f"another run (process {named or 'unknown'}) is writing to {directory}. "
            f"Wait for it, stop it, or choose another --output_dir."
        )


def keep_fresh(file, over):
    while not over.wait(FRESH):
        with contextlib.suppress(OSError, ValueError):  # the disk has gone for a while; the run has ended
            os.utime(file.fileno())


def is_kept_fresh(directory):
    """Whether the time of run.lock changes, as it does where its holder lives."""
    before = time_of_lock(directory)
    for _ in range(3):
        time.sleep(FRESH)
        if time_of_lock(directory) != before:
            return True
    return False


def time_of_lock(directory):
    with open(directory / "run.lock") as file:  # NFS looks anew at what is opened
        return os.fstat(file.fileno()).st_mtime_ns


def holder(directory):
    """What the run that holds the directory, or was killed while it did, wrote into its lock; or None."""
    file = Path(directory) / "run.lock"
    return file.read_text() or None if file.exists() else None


def clear(directory):
    """Remove what an earlier run left, and nothing that no run writes."""
    steps, latest = steps_of(directory), Path(directory) / LATEST
    if latest.is_file() and latest.read_text(errors="replace").strip() in {step.name for step in steps}:
        latest.unlink()
    for step in steps:
        take_away(step)
    for pattern in RUN_FILES:
        for path in Path(directory).glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def is_part(path, directory):
    """Whether a path is, or lies in, what a run writes into the directory and `clear` removes."""
    path, directory = Path(path).resolve(), Path(directory).resolve()
    parts = path.relative_to(directory).parts if path.is_relative_to(directory) else ()
    if not parts:
        return False
    return directory / parts[0] in steps_of(directory) or any(fnmatch(parts[0], p) for p in RUN_FILES)


def check_kept(directory, **named):
    """Raises InputError where a path that a flag names belongs to the run that the next one replaces."""
    for name, path in named.items():
        if path and is_part(path, directory):
            raise InputError(
                f"--{name} {path} lies in --output_dir {directory}, which this run replaces. Choose another "
                f"--output_dir."
            )


def forget_after(directory, step):
    """Drop what a resumed run is going to write again: half directories, and measurements beyond a step."""
    for half in Path(directory).glob("*.partial"):
        shutil.rmtree(half) if half.is_dir() and not half.is_symlink() else half.unlink()
    metrics = Path(directory) / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True) if metrics.is_file() else []
    kept = [line for line in lines if step_of(line) <= step]
    partial = Path(f"{metrics}.partial")
    partial.write_text("".join(kept), encoding="utf-8")
    os.replace(partial, metrics)


def step_of(line):
    """The step of a line of metrics.jsonl; infinite where the line was cut."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else math.inf
    except ValueError:
        return math.inf


def record_start(directory, config, ds_config, facts):
    """Write run.json and ds_config.json before step 0: what ran, on what, with which versions."""
    run = {
        "config": dataclasses.asdict(config),
        "command": command(),
        "versions": versions(),
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        **facts,
    }
    Path(directory).mkdir(parents=True, exist_ok=True)
    write_json(Path(directory) / "run.json", run)
    write_json(Path(directory) / "ds_config.json", ds_config)


def command():
    """[name of a command of ours, its flags as they were typed]; None where a program calls us otherwise."""
    (path, *flags), commands = sys.argv, Path(__file__).resolve().parents[1] / "commands"
    name = Path(path).stem
    if not (commands / f"{name}.py").is_file():
        return None
    flags = flags[1:] if flags[:1] == [name] else flags  # of python -m pixelrec_train NAME
    return [name, *(text for text in flags if not text.startswith("--local_rank"))]


def versions():
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def commit():
    """The repository's commit, "+changes" when the tree differs from it, or None outside git."""
    if not (ROOT / ".git").exists():  # an installed package may lie within another's repository
        return None
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
