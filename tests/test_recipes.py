"""The paper's recipes: batch, pool and steps are those of the paper, and what they cannot do they say."""

import re
from pathlib import Path

import pytest
from conftest import ROOT, recording_python, run_command

from pixelrec_train.commands.build_semantic_ids import BuildConfig
from pixelrec_train.commands.compare import CompareConfig
from pixelrec_train.commands.evaluate_pixelrec import EvaluateConfig
from pixelrec_train.commands.expand_vocabulary import ExpandConfig
from pixelrec_train.config import GenerativeConfig, TrainConfig
from pixelrec_train.flags import parse_args

RECIPES = {  # recipe: GPUs, batch, pool, negatives per window, items of history in training and evaluation
    "pixel200k": (32, 512, 5632, 11, 10, None),
    "pixel1m": (32, 512, 5632, 11, 10, None),
    "pixel8m": (32, 512, 5632, 11, 10, None),
    "books_neg512": (16, 128, 512, 4, 50, None),
    "books_neg28k": (128, 512, 28672, 56, 55, 50),
}


def run(recipe, demo, tmp_path, *arguments, **environment):
    towers = {"ITEM_MODEL_DIR": demo / "towers/item_llm", "USER_MODEL_DIR": demo / "towers/user_llm"}
    files = {"INTERACTION_DATA": demo / "interactions.csv", "TEXT_DATA": demo / "items.csv"}
    where = {"OUTPUT_DIR": tmp_path / "run", "LOGGING_DIR": tmp_path / "logs/run"}
    settings = {name: str(path) for name, path in (towers | files | where).items()}
    script = ["bash", ROOT / f"scripts/reproduce/{recipe}.sh"]
    return run_command([*script, *arguments], **settings | environment)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_dry_run_shows_the_papers_numbers(recipe, demo, tmp_path):
    gpus, batch, pool, per_window, history, in_evaluation = RECIPES[recipe]
    result = run(recipe, demo, tmp_path, "--dry_run", "--cache_dir", str(demo / "cache"))
    assert result.returncode == 0, result.stderr
    assert f"batch: {batch} windows x 1 per step over {gpus} ranks" in result.stdout
    assert f"pool {pool:,} negatives ({per_window} per window" in result.stdout
    assert f"{history} items of history" in result.stdout
    if in_evaluation:
        assert f"{history} items of history, {in_evaluation} in evaluation" in result.stdout
    windows = int(re.search(r"split: ([\d,]+) training windows", result.stdout)[1].replace(",", ""))
    steps = -(-windows // batch)
    assert f"steps: {steps:,} per epoch x 5 epochs = {5 * steps:,}" in result.stdout
    assert not list(tmp_path.iterdir())


def test_every_recipe_is_tested_and_states_what_to_expect_on_what():
    scripts = {path.stem for path in (ROOT / "scripts/reproduce").glob("*.sh")}
    scripts -= {"recipe", "amazon", "amazon_scientific", "amazon_generative", "amazon_known_items"}
    assert scripts == set(RECIPES)
    for script in scripts:
        text = (ROOT / f"scripts/reproduce/{script}.sh").read_text()
        assert re.search(r"recall@10 \d\.\d\d ± 0\.\d\d", text) and "# Hardware: " in text


def test_a_recipe_on_too_few_gpus_says_which_numbers_to_keep(demo, tmp_path):
    result = run("pixel8m", demo, tmp_path)
    assert result.returncode == 2 and "is for 32 GPUs x 16 windows, this machine has 0" in result.stderr
    result = run("pixel8m", demo, tmp_path, "--dry_run", "--cache_dir", str(demo / "cache"), GPUS="8",
                 PER_DEVICE_TRAIN_BATCH_SIZE="64")  # fmt: skip
    assert "batch: 512 windows x 1 per step over 8 ranks; pool 5,632 negatives" in result.stdout


def everything(recipe, demo, tmp_path, **environment):
    """The command lines of a recipe, by an interpreter that only writes down what it is asked."""
    python, commands = recording_python(tmp_path)
    result = run(recipe, demo, tmp_path, PYTHON=python, **environment)
    assert result.returncode == 0, result.stderr
    return commands()


def recorded(recipe, demo, tmp_path, **environment):
    """[[script, flag, …]] that a recipe runs in this process."""
    lines = everything(recipe, demo, tmp_path, **environment)
    return [line for line in lines if line[0].startswith("scripts/")]


@pytest.mark.parametrize(
    "recipe, gpus", [("pixel8m", "6"), ("amazon_scientific", None), ("amazon_generative", None)]
)
def test_a_hostfile_names_the_machines_and_the_batch_stays(recipe, gpus, demo, tmp_path):
    (tmp_path / "hosts").write_text("one slots=4\ntwo slots=4\n")
    environment = {"HOSTFILE": str(tmp_path / "hosts")}
    if gpus:
        result = run(recipe, demo, tmp_path, GPUS=gpus, **environment)
        assert result.returncode == 2 and "has 8 slots, but this recipe is for 6 GPUs" in result.stderr
        environment |= {"GPUS": "8", "PER_DEVICE_TRAIN_BATCH_SIZE": "64"}
    commands = everything(recipe, demo, tmp_path, **environment)
    launched = [c for c in commands if any("scripts/train_" in word for word in c)]
    size = "64" if gpus else "8"
    for command in launched:
        flags = dict(zip(command, command[1:], strict=False))
        assert command[1] == "pixelrec_train.machine.hosts" and flags["--hostfile"] == environment["HOSTFILE"]
        assert flags["--per_device_train_batch_size"] == size
    assert launched


def test_slots_that_do_not_share_the_batch_are_refused(demo, tmp_path):
    (tmp_path / "hosts").write_text("one slots=3\n")
    result = run("amazon_scientific", demo, tmp_path, HOSTFILE=str(tmp_path / "hosts"))
    assert result.returncode == 2 and "3 slots, which do not share a batch of 64 windows" in result.stderr
    (tmp_path / "hosts").write_text("one:3\n")
    for recipe in ("pixel1m", "amazon_scientific"):
        result = run(recipe, demo, tmp_path, HOSTFILE=str(tmp_path / "hosts"))
        assert result.returncode == 2 and "has a line 'one:3'" in result.stderr


def test_our_own_results_recipe_passes_flags_that_are_read(demo, tmp_path):
    commands = recorded("amazon_scientific", demo, tmp_path)
    trained = [parse_args(TrainConfig, flags) for script, *flags in commands if "train" in script]
    assert [Path(config.output_dir).name for config in trained] == [
        "text_ids_42", "text_ids_1", "text_ids_2", "text", "text_title", "ids",
        "joint_pretrained", "joint_random",
    ]  # fmt: skip
    assert [config.seed for config in trained[:3]] == [42, 1, 2] and trained[5].num_train_epochs == 10
    assert [config.random_init for config in trained[-2:]] == [(), ("item",)]
    (compared,) = (parse_args(CompareConfig, flags) for script, *flags in commands if "compare" in script)
    assert len(compared.checkpoint) == 10
    written = {f"{config.output_dir}/best_model" for config in trained}
    assert {part for checkpoint in compared.checkpoint for part in checkpoint.split("+")} == written


@pytest.mark.parametrize("kept", [{}, {"ITEM_MODEL_DIR": ""}, {"SPLIT_DATA": "rows.csv", "SEEDS": "42 1"}])
def test_the_recipe_that_starts_from_what_is_known_passes_flags_that_are_read(demo, tmp_path, kept):
    commands = recorded("amazon_known_items", demo, tmp_path, **kept)
    trained = [parse_args(TrainConfig, flags) for script, *flags in commands if "train" in script]
    (compared,) = (parse_args(CompareConfig, flags) for script, *flags in commands if "compare" in script)
    assert {config.offsets for config in trained} == {
        ("item_knn", "tfidf") if "SEEDS" not in kept else ("ease", "tfidf", "last", "seen")
    }
    assert all(config.id_only == ("ITEM_MODEL_DIR" in kept) for config in trained)
    assert all(config.keep_seen == ("SPLIT_DATA" in kept) for config in (*trained, compared))
    written = [f"{config.output_dir}/best_model" for config in trained]
    assert list(compared.checkpoint) == (written if len(written) == 1 else [*written, "+".join(written)])


def test_the_recipe_of_the_generative_results_trains_on_every_kind_of_ids(demo, tmp_path):
    split, published = tmp_path / "rows.csv", "theirs=a.index.json others=b.index.json"
    commands = recorded("amazon_generative", demo, tmp_path, SPLIT_DATA=str(split), PUBLISHED=published)
    configs = {
        "train_pixelrec": TrainConfig, "evaluate_pixelrec": EvaluateConfig, "build_semantic_ids": BuildConfig,
        "expand_vocabulary": ExpandConfig, "train_generative": GenerativeConfig, "compare": CompareConfig,
    }  # fmt: skip
    by_script = {name: [] for name in configs}
    for script, *flags in commands:
        name = Path(script).stem
        if name != "make_demo":
            by_script[name].append(parse_args(configs[name], flags))
    kinds = ["rq_kmeans", "rq_kmeans_balanced", "rq_vae", "rq_kmeans_plus", "text", "shuffled"]
    kinds += ["theirs", "others"]
    trained, (compared,) = by_script["train_generative"], by_script["compare"]
    assert [Path(config.output_dir).name for config in trained] == kinds
    assert {config.semantic_ids for config in trained} == {
        f"{config.output_dir}/semantic_ids.json" for config in by_script["build_semantic_ids"]
    }
    assert [config.model_dir for config in trained] == [
        config.output_model_dir for config in by_script["expand_vocabulary"]
    ]
    judged = [*by_script["train_pixelrec"], *trained]
    assert list(compared.checkpoint) == [f"{config.output_dir}/best_model" for config in judged]
    for config in [*judged, compared, *by_script["evaluate_pixelrec"]]:
        assert config.split_data == str(split) and config.keep_seen
