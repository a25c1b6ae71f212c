"""Does a run that is killed, again and again, end as one that was not? From the repository root:

python benchmarks/kill_resume.py --zero 3 --ranks 2 --kills 5 --seed 0 [flags of training, --eval_steps 5 say]

Trains the synthetic demo (--head samples: chats and documents made of its texts) once undisturbed and once
with SIGKILL to all its processes at random steps, each time going on with --resume auto. Compares every line
of metrics.jsonl (all but times and rates) and every weight of the last checkpoint to the bit. Exits with 1 on
any difference.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import psutil  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from pixelrec_train.commands.make_demo import all_text  # noqa: E402
from pixelrec_train.data.samples import Sample  # noqa: E402
from pixelrec_train.data.samples.writing import write_samples  # noqa: E402
from pixelrec_train.data.synthetic import write_demo  # noqa: E402
from pixelrec_train.model.tiny import write_causal_lm, write_towers  # noqa: E402
from pixelrec_train.run.resources import free_port  # noqa: E402

TIMES = ("_per_s", "step_ms", "data_wait_pct", "memory_gb", "eta_s")
SAVE_STEPS, PATIENCE = 7, 300


def main():
    options = parse()
    with tempfile.TemporaryDirectory(prefix="pixelrec-kill-") as folder:
        folder = Path(folder)
        write_demo(folder / "demo.csv", folder / "texts.csv", users=options.users, seed=1)
        texts = list(all_text(folder / "texts.csv"))
        if options.head == "two_tower":
            write_towers(texts, folder / "towers", hidden_size=32, vocab_size=600)
        else:
            write_causal_lm(texts, folder / "llm", hidden_size=32, vocab_size=600, chat=True)
            write_samples_of(texts, folder)
        whole, killed = folder / "whole", folder / "killed"
        finish(command(folder, whole, options))
        steps = max(event["step"] for event in events(whole))
        rng = random.Random(options.seed)
        for step in sorted(rng.sample(range(1, steps), options.kills)):
            at = kill_at(step, command(folder, killed, options), killed)
            print(f"killed at step {at} of {steps}", flush=True)
        finish(command(folder, killed, options))
        different = differences(whole, killed)
    for line in different:
        print(line)
    kind = f"{options.head}, ZeRO-{options.zero}, {options.ranks} ranks"
    kind += f", {options.kills} kills, seed {options.seed}"
    kind += f", {' '.join(options.more)}" * bool(options.more)
    print(f"{kind}: " + ("DIFFERENT" if different else "every figure and every weight equal to the bit"))
    return 1 if different else 0


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--head", choices=("two_tower", "samples"), default="two_tower")
    parser.add_argument("--zero", type=int, choices=(2, 3), default=2)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the steps at which the run is killed")
    parser.add_argument("--users", type=int, default=120, help="of the synthetic site")
    options, options.more = parser.parse_known_args()
    return options


def write_samples_of(texts, folder):
    """Two mixed sources: every text as a document, read once per epoch, and as a chat, 1.5 times."""
    chats = [({"role": "user", "content": t[:40]}, {"role": "assistant", "content": t[40:]}) for t in texts]
    kinds = {
        "documents": [Sample(f"d{n}", "documents", None, (text,)) for n, text in enumerate(texts)],
        "chats": [Sample(f"c{n}", "chats", chat, None) for n, chat in enumerate(chats)],
    }
    for name, samples in kinds.items():
        (folder / name).mkdir()
        write_samples(folder / name, ((sample, {}) for sample in samples), rows_per_file=100)
    sources = [{"path": "documents", "epochs": 1}, {"path": "chats", "epochs": 1.5}]
    (folder / "dataset.json").write_text(json.dumps({"sources": sources, "max_length": 256}))


def command(folder, run, options):
    flags = {
        "num_train_epochs": 2, "logging_steps": 1, "save_steps": SAVE_STEPS, "bf16": False,
        "per_device_train_batch_size": max(1, 8 // options.ranks), "dataloader_num_workers": 1,
        "output_dir": run, "resume": "auto", "logging_dir": folder / "logs" / run.name,
        "cache_dir": folder / "cache", "deepspeed": f"configs/ds_config_zero{options.zero}.json",
    }  # fmt: skip
    if options.head == "two_tower":
        script, more = "train_pixelrec", {
            "interaction_data": folder / "demo.csv", "text_data": folder / "texts.csv",
            "text_keys": "title,tag", "item_prompt": "", "item_model_dir": folder / "towers/item_llm",
            "max_text_length": 24, "user_model_dir": folder / "towers/user_llm", "history_dropout": 0.1,
        }  # fmt: skip
    else:
        script, more = "train_qwen3", {
            "model_dir": folder / "llm", "dataset_config": folder / "dataset.json",
            "valid_samples": folder / "chats", "checkpoint_layout": "plain", "loss_by_source": True,
        }  # fmt: skip
    flags |= more
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level", "error", "--num_gpus"]
    launcher += [options.ranks, "--master_port", free_port(), f"scripts/{script}.py"]
    return [
        str(word)
        for word in launcher + [part for k, v in flags.items() for part in (f"--{k}", v)] + options.more
    ]


def start(words, said=subprocess.PIPE):
    """said: a file for what it says; a pipe that nobody reads would stop it when it is full."""
    return subprocess.Popen(
        words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=said, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(words):
    process = start(words)
    said, _ = process.communicate(timeout=PATIENCE)
    if process.returncode:
        sys.exit(f"the run failed:\n{said[-3000:]}")


def kill_at(step, words, run):
    """Start the run, kill all its processes once it has logged `step`; the last step it logged."""
    process, started = start(words), time.monotonic()
    while last_step(run) < step:
        if process.poll() is not None or time.monotonic() - started > PATIENCE:
            sys.exit(f"the run ended before step {step}:\n{process.communicate()[0][-3000:]}")
        time.sleep(0.01)
    for one in processes_of(run):
        one.kill()
    process.communicate()
    return last_step(run)


def processes_of(run, name=""):
    """Launchers, ranks and their workers, or those of them that have such a word in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(run) in words and (not name or name in words):
            found.append(process)
    return found


def last_step(run):
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return json.loads(lines[-1])["step"] if lines and lines[-1].endswith("}") else 0


def events(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in event.items() if not name.endswith(TIMES)} for event in lines]


def differences(whole, killed):
    """Lines that say what is not equal."""
    found = []
    ours, theirs = events(whole), events(killed)
    if len(ours) != len(theirs):
        found.append(f"metrics.jsonl has {len(ours)} lines undisturbed and {len(theirs)} after kills")
    found += [
        f"metrics.jsonl: {a} undisturbed, {b} after kills"
        for a, b in zip(ours, theirs, strict=False)
        if a != b
    ]
    last = max(whole.glob("checkpoint-epoch-*"), key=lambda path: int(path.name.split("-")[-1])).name
    for file in sorted((whole / last).rglob("*.safetensors")):
        name = file.relative_to(whole / last)
        if name.parts[0] == "optimizer":
            continue  # ZeRO fills up its buffers with anything, so those may differ where nothing lies
        a, b = load_file(file), load_file(killed / last / name)
        found += [f"{name}: {key} differs" for key in a if not torch.equal(a[key], b[key])]
    return found


if __name__ == "__main__":
    sys.exit(main())
