"""Items for every user of the data, as Parquet files; a command that was ended goes on behind the last."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.interactions import HeldOut
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import Lists
from pixelrec_train.files import possible_directory, write_json
from pixelrec_train.recommend.parts import UNTRAINED, checkpoints_of
from pixelrec_train.run import rendezvous
from pixelrec_train.run.checkpoints import MANIFEST
from pixelrec_train.run.log import say
from pixelrec_train.trainings.load_blend import named
from pixelrec_train.trainings.recommend import Recommender

PLAN = "_recommendations.json"  # what all files are of; who reads the directory passes over it
USERS_PER_FILE = 16384


def main(config):
    """config: RecommendConfig with --output_dir."""
    rendezvous.initialise(config.collective_timeout_minutes)
    write_all(config, Recommender.of(config))
    rendezvous.finish()


def write_all(config, door):
    """Every rank calls it. door: the Recommender of the config."""
    directory, data = Path(config.output_dir), door.data
    firsts = range(0, data.num_users, USERS_PER_FILE)
    files = [directory / f"part-{n:05}-of-{len(firsts):05}.parquet" for n in range(len(firsts))]
    plan = plan_of(config, door)
    distributed.on_all_ranks(lambda: distributed.rank() or begin(directory, plan, config.overwrite))
    ranking = replace(config, topk=(config.k,), keep_seen=config.include_seen)
    left = distributed.from_first_rank([n for n, path in enumerate(files) if not path.exists()])
    if len(left) < len(files):
        say(f"{len(files) - len(left)} of {len(files)} files are there already; going on")
    start, done = time.monotonic(), 0
    for place, n in enumerate(left):
        users = np.arange(firsts[n], min(firsts[n] + USERS_PER_FILE, data.num_users))
        users = users[data.offsets[users + 1] > data.offsets[users]]
        # Neighbours with about as long a history: less is padded, and fetched to be left out again.
        by_length = np.argsort(data.offsets[users + 1] - data.offsets[users], kind="stable")
        lists = judge(door.recommender, everything(data, users[by_length]), ranking, keep_lists=True).lists
        if distributed.rank() == 0:
            from pixelrec_train.data.predictions import write_lists  # brings pyarrow with it

            lists = Lists(*(part[np.argsort(by_length)] for part in lists))
            write_lists(files[n], data.user_ids_of(users), door.item_ids, lists)
        done += len(users)
        per_second = done / (time.monotonic() - start)
        seconds = (len(left) - 1 - place) * USERS_PER_FILE / per_second
        more = f" | {seconds:,.0f} s left" if place + 1 < len(left) else ""
        say(f"{files[n].name} | {per_second:,.0f} users/s{more}")
    distributed.barrier()
    say(f"{data.num_users:,} users, at most {config.k} items each, in {directory}/")


def plan_of(config, door):
    """What decides the lists: the same plan, the same files."""
    file, parts = named(config.checkpoint)
    checkpoints = checkpoints_of(
        [*parts, config.hybrid] if config.hybrid else parts, "--checkpoint", UNTRAINED
    )
    weights = [Path(checkpoint) / MANIFEST for checkpoint in checkpoints]
    new = [Path(config.new_items)] if config.new_items else []
    return {
        "checkpoint": config.checkpoint, "k": config.k, "include_seen": config.include_seen,
        "users": door.data.num_users, "users_per_file": USERS_PER_FILE,
        "of": fingerprint(door.data.fingerprint, config.hybrid, config.num_beams, file, *weights, *new),
    }  # fmt: skip


def begin(directory, plan, overwrite):
    """Raises InputError where the directory holds something else."""
    possible_directory(directory, "--output_dir")
    there = directory / PLAN
    known = there.is_file() and json.loads(there.read_text(encoding="utf-8"))
    if known == plan and not overwrite:
        return
    if not known and directory.is_dir() and any(directory.iterdir()):
        raise InputError(f"--output_dir {directory} holds other files. Choose another directory.")
    if known and not overwrite:
        differing = ", ".join(name for name in plan if plan[name] != known.get(name))
        raise InputError(
            f"--output_dir {directory} holds recommendations with another {differing}. Choose another "
            f"directory, or add --overwrite to replace them."
        )
    there.unlink(missing_ok=True)
    for path in directory.glob("part-*.parquet*"):
        path.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    write_json(there, plan)


def everything(data, users):
    """HeldOut of all that these users took; what comes next nobody knows."""
    start, end = data.offsets[users], data.offsets[users + 1]
    return HeldOut(users, start, end, np.full(len(users), -1), data.items, data.times)
