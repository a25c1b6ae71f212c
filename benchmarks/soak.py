"""Half an hour of bad luck: does a run that is killed every minute end as one that was left alone?

python benchmarks/soak.py --minutes 30 --every 60

Trains the synthetic demo on two ranks for so many epochs that it takes about that long, and kills it at
random moments, by turns all its processes and one rank alone; it goes on with --resume auto. The same run
undisturbed follows. Exits with 1 unless every line of metrics.jsonl (but times and rates) and every weight
are equal, no process is left over, and memory stays within 5 %.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.kill_resume import (  # noqa: E402
    ROOT,
    differences,
    events,
    finish,
    processes_of,
    start,
)
from benchmarks.measure import machine  # noqa: E402
from pixelrec_train.run.resources import free_port  # noqa: E402

CALIBRATION, LAUNCH, PATIENCE = (
    3,
    12,
    60,
)  # epochs; seconds until the first step; for a rank to follow another
SAMPLE = 2.0  # seconds between two looks at the memory
DEMO = dict(
    text_keys="title,tag,description", item_prompt="", max_text_length=64, bf16=False, learning_rate=2e-3,
    per_device_train_batch_size=16, gradient_checkpointing=False, dataloader_num_workers=1, save_steps=20,
    save_total_limit=2, resume="auto",
)  # fmt: skip


def main():
    options = parse()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="pixelrec-soak-") as folder:
        folder = Path(folder)
        make = [sys.executable, "scripts/make_demo.py", "--text_data", folder / "texts.csv"]
        subprocess.run([*make, "--interaction_data", folder / "demo.csv"], cwd=ROOT, check=True)
        subprocess.run([*make, "--towers_dir", folder / "towers"], cwd=ROOT, check=True)
        epochs = epochs_for(options, folder)
        print(f"{machine()}; {epochs} epochs, {options.ranks} ranks, ZeRO-{options.zero}", flush=True)
        killed, whole = folder / "killed", folder / "whole"
        ends, memory, seconds = suffer(command(folder, killed, epochs, options), killed, options, rng)
        print(f"killed {len(memory) - 1} times in {seconds / 60:.0f} minutes", flush=True)
        undisturbed, undisturbed_seconds = watch(command(folder, whole, epochs, options), whole)
        wrong = differences(whole, killed)
        if len(events(killed)) == 0 or sum("valid_loss" in e for e in events(killed)) != epochs:
            wrong.append("an epoch has no line, or two")
        if processes_of(folder):
            wrong.append("processes are left over")
    lives = [statistics.median(life[-5:]) for life in memory if len(life) > 10]
    ratios = {
        "last to first life": lives[-1] / lives[0],
        "largest to smallest life": max(lives) / min(lives),
        "last to second tenth, undisturbed": last_to_early(undisturbed),
    }
    wrong += [f"memory, {what}: x{ratio:.3f}" for what, ratio in ratios.items() if abs(ratio - 1) > 0.05]
    print(f"undisturbed: {undisturbed_seconds / 60:.0f} minutes")
    print("memory of a rank: " + "; ".join(f"{what} x{ratio:.3f}" for what, ratio in ratios.items()))
    if ends:
        print(f"after one rank was killed, the others ended within {max(ends):.0f} s")
    print("\n".join(wrong) or f"no epoch lost; all {epochs} epochs, figures and weights equal to the bit")
    return bool(wrong)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=60, help="seconds from one kill to the next, about")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--zero", type=int, choices=(2, 3), default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and kinds of kills")
    return parser.parse_args()


def command(folder, run, epochs, options):
    flags = DEMO | {
        "interaction_data": folder / "demo.csv", "text_data": folder / "texts.csv",
        "item_model_dir": folder / "towers/item_llm", "user_model_dir": folder / "towers/user_llm",
        "cache_dir": folder / "cache", "output_dir": run, "logging_dir": folder / "logs" / run.name,
        "num_train_epochs": epochs, "deepspeed": f"configs/ds_config_zero{options.zero}.json",
    }  # fmt: skip
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level", "critical", "--num_gpus"]
    launcher += [options.ranks, "--master_port", free_port(), "scripts/train_pixelrec.py"]
    return [str(word) for word in launcher + [part for k, v in flags.items() for part in (f"--{k}", v)]]


def epochs_for(options, folder):
    """As many as fill the time, with a launch after every kill."""
    run, started = folder / "calibration", time.monotonic()
    finish(command(folder, run, CALIBRATION, options))
    per_epoch = (time.monotonic() - started - LAUNCH) / CALIBRATION
    training = 60 * options.minutes * (1 - LAUNCH / options.every)
    return max(2, round(training / per_epoch))


def suffer(words, run, options, rng):
    """Run to the end, killed on the way: (seconds others took to follow a killed rank, RSS of lives, s)."""
    ends, memory, started = [], [], time.monotonic()
    while True:
        process = start(words, open(f"{run}.said", "w"))
        lives_until = time.monotonic() + options.every * rng.uniform(0.7, 1.3)
        memory.append([])
        while process.poll() is None and time.monotonic() < lives_until:
            memory[-1] += resident(run)
            time.sleep(SAMPLE)
        if process.poll() is not None:
            check(process, run)
            return ends, memory, time.monotonic() - started
        alone, victims = len(memory) % 2, processes_of(run)
        if alone:
            victims = [p for p in victims if "--local_rank=1" in p.cmdline()][:1]
        killed_at = time.monotonic()
        for victim in victims:
            victim.kill()
        process.wait(timeout=PATIENCE)
        while processes_of(run) and time.monotonic() - killed_at < PATIENCE:
            time.sleep(0.1)
        if alone:
            ends.append(time.monotonic() - killed_at)
        print(f"killed {'one rank' if alone else 'all'} after {len(events(run))} lines", flush=True)


def watch(words, run):
    """Run to the end, left alone: (RSS in order of time, seconds)."""
    process, memory, started = start(words, open(f"{run}.said", "w")), [], time.monotonic()
    while process.poll() is None:
        memory += resident(run)
        time.sleep(SAMPLE)
    check(process, run)
    return memory, time.monotonic() - started


def check(process, run):
    if process.returncode:
        sys.exit(f"the run failed:\n{Path(f'{run}.said').read_text()[-3000:]}")


def resident(run):
    """[bytes] of rank 0, once it trains; none before."""
    if not (run / "metrics.jsonl").is_file():
        return []
    ranks = processes_of(run, "--local_rank=0")
    return [max(p.memory_info().rss for p in ranks)] if ranks else []


def last_to_early(memory):
    tenth = max(1, len(memory) // 10)
    return statistics.median(memory[-tenth:]) / statistics.median(memory[tenth : 2 * tenth])


if __name__ == "__main__":
    sys.exit(main())
