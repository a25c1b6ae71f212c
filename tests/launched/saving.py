"""Runs in a process of its own for test_saving.py: saves that are killed, and saves that find no room.

python saving.py FLAGS… OUT.json      {layout: what was found}
"""

import dataclasses
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pixelrec_train import distributed  # noqa: E402
from pixelrec_train.config import TrainConfig  # noqa: E402
from pixelrec_train.engine import checkpoint, manifest, optimizer_state  # noqa: E402
from pixelrec_train.engine.build import build_engine  # noqa: E402
from pixelrec_train.engine.resume import checkpoint_to_resume  # noqa: E402
from pixelrec_train.engine.state import TrainState  # noqa: E402
from pixelrec_train.flags import parse_args  # noqa: E402
from pixelrec_train.run import checkpoints, rendezvous  # noqa: E402
from pixelrec_train.run.directory import record_start  # noqa: E402
from pixelrec_train.tasks.two_tower import TwoTowerTask  # noqa: E402
from pixelrec_train.trainings.train_two_tower import build_loader, prepare  # noqa: E402

LAYOUTS = {
    "plain": [f"checkpoint-step-{n}" for n in (1, 2, 3)], "global_step": [f"step{n}" for n in (1, 2, 3)]
}  # fmt: skip
WATCHED = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "shutil.copyfile"}


class Log:
    """Stands where RunLog stands."""

    judged = None

    def __init__(self):
        self.problems = []

    def saved(self, *arguments):
        pass

    def failed_save(self, state, path, problem):
        self.problems.append(problem)


class Killer:
    """Ends this process by SIGKILL before a given event on the files below a directory.

    The name of the file that was written last is left in the file `note`.
    """

    def __init__(self, run, at, note):
        self.run, self.at, self.note = str(run), at, note
        self.events, self.last = 0, ""

    def see(self, event, arguments):
        if event not in WATCHED or not any(str(a).startswith(self.run) for a in arguments[:2]):
            return
        writes = event != "open" or (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"))
        if writes:
            self.step(arguments[0] if event == "open" else None)

    def step(self, file):
        self.events += 1
        if self.events > self.at:
            Path(self.note).write_text(self.last)
            os.kill(os.getpid(), signal.SIGKILL)
        self.last = file or self.last


def watch_safetensors(killer):
    """safetensors writes in Rust, which tells no audit hook."""
    for module in (optimizer_state, sys.modules["pixelrec_train.model.backbone"]):
        save_file = module.save_file

        def told(tensors, path, *more, save_file=save_file):
            killer.step(str(path))
            return save_file(tensors, path, *more)

        module.save_file = told


def standing(engine, state, loop, log):
    """What a checkpoint is made of."""
    return SimpleNamespace(engine=engine, state=state, loop=loop, log=log, loader=None)


def killed_saves(engine, state, config):
    """Kill a save before every event, in a fork; how many there were, and what was found wrong afterwards."""
    run, wrong = Path(config.output_dir), []
    safe, note = run.with_name("safe"), run.with_name("note")
    shutil.copytree(run, safe)
    for at in range(10_000):
        shutil.rmtree(run)
        shutil.copytree(safe, run)
        child = os.fork()
        if child == 0:
            distributed.barrier = lambda: None  # the threads of a process group do not survive a fork
            killer = Killer(run, at, note)
            watch_safetensors(killer)
            sys.addaudithook(killer.see)
            checkpoint.save_checkpoint(standing(engine, state, config, Log()), is_best=True)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return {"deaths": at, "wrong": wrong}
        wrong += what_is_wrong(config, f"before event {at}")
        half = Path(note.read_text())  # as if it had been killed in the middle of this one
        if half.is_file():
            os.truncate(half, half.stat().st_size // 2)
            wrong += what_is_wrong(config, f"in the middle of {half}")


def what_is_wrong(config, when):
    """After a kill, --resume auto finds a checkpoint, and whatever has a final name is whole."""
    run = Path(config.output_dir)
    found, wrong = checkpoint_to_resume(config.resume, config.output_dir), []
    if found not in [checkpoints.inside(run / name) for name in LAYOUTS[config.checkpoint_layout][1:]]:
        wrong.append(f"{when}: --resume auto finds {found}")
    for directory in run.iterdir():
        place = checkpoints.inside(directory)
        if place.is_dir() and directory.suffix != ".partial":
            try:
                manifest.verify(place)
            except Exception as error:
                wrong.append(f"{when}: {error}")
    latest = run / "latest"
    if latest.exists() and not checkpoints.is_ours(run / latest.read_text()):
        wrong.append(f"{when}: latest says {latest.read_text()!r}")
    return wrong


def full_disks(engine, state, config):
    """A save that runs out of room, and one that is told before; then one that works."""
    run, log = Path(config.output_dir), Log()
    before = sorted(p.name for p in run.iterdir()), list(state.checkpoints)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    first = checkpoint.save_checkpoint(standing(engine, state, config, log), is_best=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    usage = shutil.disk_usage
    shutil.disk_usage = lambda path: usage(path)._replace(free=1000)
    second = checkpoint.save_checkpoint(standing(engine, state, config, log), is_best=True)
    shutil.disk_usage = usage
    after = sorted(p.name for p in run.iterdir()), list(state.checkpoints)
    third = checkpoint.save_checkpoint(standing(engine, state, config, log), is_best=True)
    manifest.verify(third)
    return {
        "returned": [first, second, str(third.relative_to(run))], "problems": log.problems,
        "unchanged": before == after, "kept": sorted(p.name for p in run.glob("*step*")),
    }  # fmt: skip


def main(out, config):
    rendezvous.initialise(2)
    inputs, known, model, resolved = prepare(config, 1)
    engine = build_engine(TwoTowerTask(model, config, config.item_dir), config, resolved, total_steps=9)
    loss, _ = engine(next(build_loader(config, inputs, known).epoch(0)))
    engine.backward(loss)
    engine.step()  # so that there are moments to save
    findings = {}
    for layout in LAYOUTS:
        here = dataclasses.replace(
            config, checkpoint_layout=layout, output_dir=f"{config.output_dir}/{layout}/run"
        )
        record_start(here.output_dir, here, resolved, {"ranks": 1} | inputs.facts())
        state = TrainState(total_steps=9)
        for step in (1, 2):
            state.step, state.batch = step, step
            checkpoint.save_checkpoint(standing(engine, state, here, Log()), is_best=True)
        state.step, state.batch = 3, 3
        findings[layout] = killed_saves(engine, state, here)
        findings[layout]["full"] = full_disks(engine, state, here)
    Path(out).write_text(json.dumps(findings))
    rendezvous.finish()


if __name__ == "__main__":
    *flags, out = sys.argv[1:]
    main(out, parse_args(TrainConfig, flags))
