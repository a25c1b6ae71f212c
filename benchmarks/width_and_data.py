"""How much do more width and more data help? The recipe of amazon_known_items.sh at several sizes; a plot.

python benchmarks/width_and_data.py --data DIR --minilm DIR --output_dir results/width_and_data
    --name NAME       dataset/NAME.csv and information/NAME.csv of --data; amazon_scientific
    --widths 32,…     of the user LLM, with all users in training
    --shares .25,…    of the users whose rows are trained on, at width 128; everybody is judged

Every run is kept: the same command goes on where it was ended. Epochs are chosen on validation, seed 42.
"""

import argparse
import csv
import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

from figures import half_interval

ROOT = Path(__file__).resolve().parents[1]
WIDTH, SEED = 128, 42
FLAGS = (
    "--bf16 False --gradient_checkpointing False --dataloader_num_workers 0 --per_device_train_batch_size 64 "
    "--save_total_limit 1 --item_prompt= --item_emb_token_n 0 --max_text_length 128 --freeze_item_llm "
    "--text_keys title,tag,description --item_id_embedding --offsets item_knn,tfidf "
    "--item_features tfidf,cooccurrence --full_softmax --max_seq_length 21 --learning_rate 1e-3 "
    "--weight_decay 0.05 --history_dropout 0.3 --num_train_epochs 12 --patience 2"
).split()


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("data", "minilm"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--name", default="amazon_scientific")
    parser.add_argument("--widths", default="32,64,128,256")
    parser.add_argument("--shares", default="0.25,0.5,1")
    parser.add_argument("--output_dir", type=Path, default=Path("results/width_and_data"))
    asked = parser.parse_args(argv)
    points = [(int(width), 1.0) for width in asked.widths.split(",")]
    points += [(WIDTH, float(share)) for share in asked.shares.split(",")]
    found = {point: trained(*point, asked) for point in dict.fromkeys(points)}
    rows = [{"width": width, "share": share} | figures for (width, share), figures in sorted(found.items())]
    (asked.output_dir / "points.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print("| width | users trained on | recall@10 | ndcg@10 |\n|---:|---:|---:|---:|")
    for row in rows:
        told = (
            f"{100 * row[name]:.2f} ± {100 * row[f'{name}_half']:.2f}" for name in ("recall@10", "ndcg@10")
        )
        print(f"| {row['width']} | {row['share']:.0%} | {' | '.join(told)} |")
    draw(rows, asked.output_dir / "width_and_data.png")


def trained(width, share, asked):
    """{figure: value, figure_half: half its interval} of the test split."""
    home = asked.output_dir / f"width_{width}_share_{share:g}"
    if not (home / "table.json").exists():
        home.mkdir(parents=True, exist_ok=True)
        interactions = asked.data / f"dataset/{asked.name}.csv"
        texts = asked.data / f"information/{asked.name}.csv"
        rows = write_rows(interactions, share, home / "rows.csv")
        run("make_demo", "--text_data", texts, "--towers_dir", home / "towers", "--hidden_size", width)
        run(
            "train_pixelrec", "--interaction_data", interactions, "--text_data", texts, "--split_data", rows,
            "--item_model_dir", asked.minilm, "--user_model_dir", home / "towers/user_llm", *FLAGS,
            "--seed", SEED, "--output_dir", home, "--logging_dir", f"{home}_logs",
            "--cache_dir", asked.output_dir / "cache",
            "--overwrite",
        )  # fmt: skip
    row = json.loads((home / "table.json").read_text(encoding="utf-8"))["two_tower"]
    halves = {f"{name}_half": half_interval(row, name) for name in ("recall@10", "ndcg@10")}
    return {name: row[name] for name in ("recall@10", "ndcg@10")} | halves


def run(command, *arguments):
    words = [sys.executable, ROOT / f"scripts/{command}.py", *map(str, arguments)]
    subprocess.run(words, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def write_rows(interactions, share, path):
    """Rows of --split_data: everybody's last two items to test and validate, before them those of a share of
    the users, each behind what its user took before."""
    with open(interactions, encoding="utf-8", newline="") as file:
        read = sorted(csv.DictReader(file), key=lambda row: (row["user_id"], int(row["timestamp"])))
    taken = {user: [row["item_id"] for row in rows] for user, rows in itertools.groupby(read, by_user)}
    users = random.Random(SEED).sample(sorted(taken), round(share * len(taken)))
    with open(path, "w", encoding="utf-8", newline="") as file:
        write = csv.writer(file).writerow
        write(("split", "user_id", "item_id", "history"))
        for split, whose in (("train", users), ("valid", taken), ("test", taken)):
            for user in whose:
                items = taken[user]
                ends = {
                    "train": range(1, len(items) - 2),
                    "valid": [len(items) - 2],
                    "test": [len(items) - 1],
                }
                for end in ends[split]:
                    write((split, user, items[end], " ".join(items[:end])))
    return path


def by_user(row):
    return row["user_id"]


def draw(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    full, narrow = (
        [row for row in rows if row["share"] == 1], [row for row in rows if row["width"] == WIDTH]
    )  # fmt: skip
    for axis, points, name, label in (
        (axes[0], full, "width", "width of the user LLM"),
        (axes[1], narrow, "share", "share of the users trained on"),
    ):
        at = [row[name] for row in points]
        for figure_name, colour in (("recall@10", "#1f6f8b"), ("ndcg@10", "#c8553d")):
            values = [100 * row[figure_name] for row in points]
            halves = [100 * row[f"{figure_name}_half"] for row in points]
            axis.errorbar(at, values, halves, marker="o", capsize=3, color=colour, label=figure_name)
        axis.set_xscale("log", base=2)
        axis.set_xticks(at, [f"{x:.0%}" if name == "share" else x for x in at])
        axis.minorticks_off()
        axis.set_xlabel(label)
        axis.set_ylim(0)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("%, test split")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
