"""Flags: what the README promises. What they refuse is in bad_inputs/flags.json."""

import dataclasses

import pytest
from conftest import ROOT

from pixelrec_train.config import TrainConfig
from pixelrec_train.errors import InputError
from pixelrec_train.flags import check_paths, given, parse_args, replace

REQUIRED = [
    "--interaction_data",
    "a.csv",
    "--text_data",
    "b.csv",
    "--item_model_dir",
    "m",
    "--user_model_dir",
    "n",
]


def parse(*flags):
    return parse_args(TrainConfig, [*REQUIRED, *flags])


def test_defaults_are_the_documented_ones():
    promised = dict(
        per_device_train_batch_size=4, num_train_epochs=5, learning_rate=1e-4, warmup_ratio=0.1,
        weight_decay=0.01, max_grad_norm=1.0, gradient_checkpointing=True, max_seq_length=11,
        max_text_length=256, text_keys=("title", "description"), item_emb_token_n=1, num_negatives=None,
        bf16=True, dataloader_num_workers=4, output_dir="results/pixelrec", logging_dir="logs/pixelrec",
        logging_steps=20, save_total_limit=5, deepspeed="configs/ds_config_zero2.json",
    )  # fmt: skip
    config = dataclasses.asdict(parse())
    assert {name: config[name] for name in promised} == promised


def test_the_documented_spelling_of_every_kind_of_value():
    spelled = (
        "--bf16 False --num_negatives None --learning_rate=3e-4 --overwrite --gradient_checkpointing true"
    )
    config = parse(*spelled.split(), "--text_keys", "title, tag", "--topk", "1,10,20")
    assert (config.bf16, config.num_negatives, config.text_keys) == (False, None, ("title", "tag"))
    assert (config.learning_rate, config.overwrite, config.gradient_checkpointing) == (3e-4, True, True)
    assert config.topk == (1, 10, 20)


def test_a_launchers_local_rank_is_understood():
    assert parse("--local_rank=1").local_rank == 1


@pytest.mark.parametrize(
    "ranks, batch, num_negatives, pool",
    [
        (32, 16, None, 5632),
        (16, 8, 512, 512),
        (1, 4, 7, 8),
        (2, 1, 1, 2),
    ],  # Pixel8M and Books-512 of the paper
)
def test_pool_sizes_are_the_papers(ranks, batch, num_negatives, pool):
    config = parse("--per_device_train_batch_size", str(batch), "--num_negatives", str(num_negatives))
    assert config.negatives_per_window(ranks) * ranks * batch == pool


def test_help_shows_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_args(TrainConfig, ["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"--{f.name}" in text for f in dataclasses.fields(TrainConfig))
    assert "default: 0.0001" in text


def test_shipped_configurations_are_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).touch()
    found = check_paths(parse("--deepspeed", "configs/ds_config_zero3.json"))
    assert found.deepspeed == str(ROOT / "configs/ds_config_zero3.json")
    assert check_paths(parse()).deepspeed == str(ROOT / "configs/ds_config_zero2.json")
    with pytest.raises(InputError, match="--deepspeed configs/none.json does not exist"):
        check_paths(parse("--deepspeed", "configs/none.json"))


def test_what_stood_on_the_command_line_is_known_and_a_mistyped_flag_is_named_before_a_missing_one():
    config = parse("--seed", "7", "--topk=10")
    assert given(config) >= {"seed", "topk", "interaction_data"} and "bf16" not in given(config)
    assert given(replace(config, seed=8)) == given(config)
    with pytest.raises(InputError, match="unknown argument '--interaction_dat'. Did you mean"):
        parse_args(TrainConfig, ["--interaction_dat", "a.csv"])
