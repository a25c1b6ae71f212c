"""The command line by which a run that was stopped goes on, its launcher included."""

import os
import shlex
import sys
from pathlib import Path

import psutil

from pixelrec_train.distributed import ranks_here
from pixelrec_train.run.launchers import through_pdsh

NAME_A_CHECKPOINT = (
    "--resume", "--resume_from_checkpoint", "--resume_from", "--resume_from_tag", "--resume_training_state"
)  # fmt: skip
RUNNER, ON_A_HOST = "deepspeed.launcher.runner", "deepspeed.launcher.launch"


def how_to_go_on():
    """A line for a shell in the same directory."""
    above = [words for process in psutil.Process().parents() if (words := words_of(process))]
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    return sentence(own_words(), above, ranks, ranks_here() < ranks)


def words_of(process):
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended, or is another user's
        return []


def own_words():
    """Of this rank, as a shell would have them."""
    main = sys.modules["__main__"]
    if spec := getattr(main, "__spec__", None):
        target = ["-m", spec.name.removesuffix(".__main__")]
    else:
        path, here = Path(getattr(main, "__file__", sys.argv[0])), Path.cwd()
        target = [str(path.relative_to(here) if path.is_relative_to(here) else path)]
    return [sys.executable, *target, *flags_of(sys.argv)]


def flags_of(words):
    """Behind the script's name, but for the rank that DeepSpeed tells."""
    return [word for word in words[1:] if not word.startswith("--local_rank")]


def sentence(own, above, ranks, several_hosts):
    """
    Args:
        own: words that start this rank.
        above: words of each process above it, the nearest first.
        ranks: how many there are, on several hosts perhaps.
    """
    flags = own[3:] if own[1] == "-m" else own[2:]
    # Launchers end with the flags of their ranks, and so does what has started a launcher.
    launchers = [words for words in above if flags and words[-len(flags) :] == flags]
    start = "To go on"
    if launchers and ON_A_HOST in launchers[-1]:  # whoever started it is on another machine, perhaps
        return f"{start}: {by_hostfile(launchers[-1], flags)}"
    if not launchers and ranks > 1:
        start += ", behind the same launcher"
    elif several_hosts:
        start += ", on every host as before"
    return f"{start}: {shlex.join(resumed(launchers[-1] if launchers else own))}"


def resumed(words):
    """With --resume auto in place of what named a checkpoint."""
    kept, its_value = [], False
    for word in words:
        name, _, value = word.partition("=")
        if name in NAME_A_CHECKPOINT:
            its_value = not value
            continue
        if not its_value or word.startswith("--"):
            kept.append(word)
        its_value = False
    return [*kept, "--resume", "auto"]


def by_hostfile(launcher, flags):
    """Its name is known to who has started it alone."""
    told = [word for word in launcher if word.startswith(("--master_addr=", "--master_port="))]
    words = map(through_pdsh, [launcher[-len(flags) - 1], *resumed(flags)])
    return f'{sys.executable} -m {RUNNER} --hostfile "$HOSTFILE" {shlex.join([*told, *words])}'
