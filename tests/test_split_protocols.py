"""--split_protocol: what each holds out, unseen in training, and judged only where there are labels."""

import csv
import dataclasses
import json
import re
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, as_flags, events, run_command

from pixelrec_train.commands import train_generative, train_qwen3
from pixelrec_train.commands.evaluate_pixelrec import EvaluateConfig
from pixelrec_train.config import DataFlags, TrainConfig
from pixelrec_train.config.reading import PROTOCOLS
from pixelrec_train.data.inputs import Inputs, read_interactions, split_of, taken_in_training
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.data.views.parts import part_of
from pixelrec_train.errors import InputError
from pixelrec_train.flags import parse_args
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.recommend.checkpoints import check_same_split, check_split_as_trained
from pixelrec_train.trainings.plan import ENDS_WITH_TEST, RANDOM

PARTS = ("train", "valid", "test")


def write(path, rows, header=("item_id", "user_id", "timestamp")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def some_rows(seed, users=40, days=30):
    """Rows of a table, mixed: few days, so that many times are equal, and items taken again."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"i{rng.integers(25)}", f"u{user}", 1_500_000_000 + 86400 * int(rng.integers(days)))
        for user in range(users)
        for _ in range(rng.integers(1, 14))
    ]
    return [rows[n] for n in rng.permutation(len(rows))]


def flags_for(folder, protocol, rows=None, **more):
    path = write(folder / "log.csv", rows) if rows else str(folder / "log.csv")
    return DataFlags(interaction_data=path, split_protocol=protocol, cache_dir=str(folder / "cache"), **more)


def read_split(flags, size=6):
    read = read_interactions(flags)
    return read, split_of(read, flags, size)


def by_user(rows):
    """{user: their rows by time, ties in the file's order}; users in the order of their first row."""
    own = {}
    for row in rows:
        own.setdefault(row[1], []).append(row)
    return {user: sorted(taken, key=lambda row: row[2]) for user, taken in own.items()}


def rows_of(read, held_out):
    """[(user, history, target)] of a HeldOut, by the table's ids."""
    names, ids = read.user_ids, read.item_ids
    return [
        (names[u], tuple(ids[i] for i in held_out.history(e)), ids[held_out.target[e]])
        for e, u in enumerate(held_out.users)
    ]


def taken_of(read, split):
    """{user: items} of what was taken in training."""
    taken, ids = split.taken, read.item_ids
    stretches = zip(taken.users, taken.start, taken.end, strict=True)
    return {read.user_ids[u]: [ids[i] for i in taken.items[a:b]] for u, a, b in stretches}


@pytest.mark.parametrize("seed", range(6))
def test_time_811_is_what_sorting_all_rows_by_time_gives(tmp_path, seed):
    """The slow twin: every (history, next) of every user in one list, sorted by time, cut in three."""
    rows = some_rows(seed)
    made = [
        (user, tuple(row[0] for row in own[:n]), own[n][0], own[n][2])
        for user, own in by_user(rows).items()
        for n in range(1, len(own))
    ]
    made.sort(key=lambda row: row[3])
    cuts = 0, int(len(made) * 0.8), int(len(made) * 0.9), len(made)
    expected = {part: made[a:b] for part, a, b in zip(PARTS, cuts, cuts[1:], strict=False)}
    read, split = read_split(flags_for(tmp_path, "time_811", rows))
    for part in ("valid", "test"):
        assert rows_of(read, getattr(split, part)) == [row[:3] for row in expected[part]]
    longest = {user: [] for user in by_user(rows)}
    for user, history, target, _ in expected["train"]:
        longest[user] = max(longest[user], [*history, target], key=len)
    assert taken_of(read, split) == longest
    assert "as MiniOneRec's" in split.origin and "log.csv" in split.origin
    assert re.search(r"training ends 2017-\d\d-\d\d, validation ends 2017-\d\d-\d\d", split.origin)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", range(4))
def test_no_held_out_row_is_in_training(tmp_path, protocol, seed):
    """Not in what was taken, windows, counts, or the part that views read; by its place, not its item."""
    flags = flags_for(tmp_path, protocol, some_rows(seed))
    read, split = read_split(flags)
    # Every row an item of its own: what is taken twice does not look like a leak, nor hide one.
    places = np.arange(len(read.items))
    own = dataclasses.replace(read, items=places, item_ids=[str(n) for n in places])
    by_place = split_of(own, flags, 6)
    held = [getattr(by_place, part) for part in ("valid", "test")]
    targets = np.concatenate([part.target for part in held if part.labelled])
    assert len(targets) and len(set(targets)) == len(targets)
    trained = set(by_place.taken.pairs()[1].tolist())
    assert not trained & set(targets.tolist())
    assert {i for a, b in by_place.windows for i in by_place.taken.items[a:b]} <= trained
    assert set(np.flatnonzero(by_place.train_counts)) <= trained
    part = part_of("train", own, flags)
    seen = {i for s in part.windows(100, 9) for i in (*s.history, *s.targets)}
    seen |= {i for s in part.stretches(100, 3, 9) for i in (*s.history, *s.targets)}
    assert seen <= trained
    for part in held:  # a history is the user's own, and all of it lies before its target
        for e in range(len(part)):
            first = read.offsets[part.users[e]]
            end = part.target[e] if part.labelled else read.offsets[part.users[e] + 1]
            assert part.history(e).tolist() == list(range(first, end)) and end > first
    if protocol == "time_811":
        last = read.times[sorted(trained)].max()
        assert (read.times[held[0].target] >= last).all()
        assert read.times[held[1].target].min() >= read.times[held[0].target].max()


def test_last_item_validates_by_the_last_and_leaves_test_without_labels(tmp_path):
    rows = some_rows(1)
    own = by_user(rows)
    read, split = read_split(flags_for(tmp_path, "last_item", rows))
    assert rows_of(read, split.valid) == [
        (user, tuple(row[0] for row in taken[:-1]), taken[-1][0])
        for user, taken in own.items()
        if len(taken) > 1
    ]
    assert taken_of(read, split) == {user: [row[0] for row in taken[:-1]] for user, taken in own.items()}
    assert [read.user_ids[u] for u in split.test.users] == list(own)
    for e, taken in enumerate(own.values()):
        assert [read.item_ids[i] for i in split.test.history(e)] == [row[0] for row in taken]
    assert split.test.target.tolist() == [-1] * len(own)
    assert split.valid.labelled and not split.test.labelled and not split.test.sample(5, 0).labelled
    lines = "\n".join(Inputs(read, split, ItemText.unread(read.num_items)).describe())
    assert f"{len(own)} test histories without a target; last_item: the last item of every user is" in lines


def test_nobody_judges_users_whose_next_item_is_unknown(tmp_path):
    flags = flags_for(tmp_path, "last_item", some_rows(2))
    read, split = read_split(flags)
    assert split.judged("valid") is split.valid
    with pytest.raises(InputError, match="no labelled test rows.*Use --split valid, or scripts/predict.py"):
        split.judged("test")
    with pytest.raises(InputError, match="no labelled test rows.*ends with a table.*scripts/train_qwen3.py"):
        split.judged("test", ENDS_WITH_TEST)
    with pytest.raises(InputError, match="no labelled test rows"):
        part_of("test", read, flags, labelled=True)
    part = part_of("test", read, flags)  # to predict for them
    stretches = list(part.stretches(100, 5))
    assert [s.history for s in stretches] == [split.test.history(e).tolist() for e in range(len(split.test))]
    assert all(s.targets == [] for s in stretches) and part.origin == split.origin
    valid = part_of("valid", read, flags, labelled=True)
    assert all(len(s.targets) == 1 for s in valid.stretches(100, 5))


def test_labels_of_an_unlabelled_test_are_refused_and_those_of_time_811_follow_their_rows(tmp_path):
    rows = [(*row, f"of {n}") for n, row in enumerate(some_rows(3))]
    write(tmp_path / "log.csv", rows, ("item_id", "user_id", "timestamp", "label"))
    flags = flags_for(tmp_path, "last_item")
    with pytest.raises(InputError, match="no labelled test rows"):
        part_of("test", read_interactions(flags, "label"), flags)
    flags = flags_for(tmp_path, "time_811")
    read = read_interactions(flags, "label")
    for part in PARTS:
        for stretch in part_of(part, read, flags).stretches(100, 1):
            for item, label in zip(
                (*stretch.history, *stretch.targets), (*stretch.history_labels, *stretch.target_labels),
                strict=True,
            ):  # fmt: skip
                row = rows[int(label.removeprefix("of "))]
                assert (row[0], row[1]) == (read.item_ids[item], stretch.key[0])


def test_by_default_and_by_name_the_last_two_are_left_out(tmp_path):
    rows = some_rows(4)
    (_, none), (_, named) = (read_split(flags_for(tmp_path, name, rows)) for name in (None, "leave_last_two"))
    assert none.origin == named.origin == "everybody's last two items are held out"
    assert none.windows.tolist() == named.windows.tolist()
    assert none.test.target.tolist() == named.test.target.tolist()


@pytest.mark.parametrize(("protocol", "count"), [("leave_last_two", 2), ("last_item", 1)])
def test_what_was_taken_is_counted_where_nobody_took_enough_to_train_on(tmp_path, protocol, count):
    rows = [(f"i{n}", f"u{user}", n) for user in range(4) for n in range(count + 1)]
    flags = flags_for(tmp_path, protocol, rows)
    read = read_interactions(flags)
    with pytest.raises(InputError, match=f"no user has {count + 2} interactions"):
        split_of(read, flags, 6)
    assert taken_in_training(read, flags).counts(read.num_items).tolist() == [4] + [0] * count


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_was_taken_is_what_the_split_says_was_taken(tmp_path, protocol):
    flags = flags_for(tmp_path, protocol, some_rows(5))
    read, split = read_split(flags)
    assert taken_in_training(read, flags).counts(read.num_items).tolist() == split.popularity.tolist()


def test_time_811_needs_times_and_ten_rows(tmp_path):
    write(tmp_path / "log.csv", [(f"i{n}", "u", 0) for n in range(20)], ("item_id", "user_id", "turn"))
    flags = flags_for(tmp_path, "time_811")
    with pytest.raises(InputError, match="log.csv has no column timestamp. Name it with --time_column"):
        split_of(read_interactions(flags), flags, 6)
    named = dataclasses.replace(flags, time_column="turn")
    assert "training ends at 0, validation ends at 0" in split_of(read_interactions(named), named, 6).origin
    flags = flags_for(tmp_path, "time_811", [(f"i{n}", "u", n) for n in range(6)])
    with pytest.raises(InputError, match="time_811: .*log.csv holds no row of valid"):
        split_of(read_interactions(flags), flags, 6)


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("files", [{"split_data": "x"}, {"valid_data": "x", "test_data": "y"}])
def test_files_and_a_protocol_are_not_both_named(name, files):
    with pytest.raises(InputError, match=f"--split_protocol {name} .* but --{next(iter(files))} does, too"):
        DataFlags(interaction_data="z", split_protocol=name, **files)


def test_sessions_have_no_protocol(tmp_path):
    path = tmp_path / "log.inter"
    lines = [f"s{n}\ti1 i2\ti{n % 3}" for n in range(40)]
    path.write_text("\n".join(["session_id:token\titem_id_list:token_seq\titem_id:token", *lines]) + "\n")
    flags = DataFlags(
        interaction_data=str(path), split_protocol="leave_last_two", cache_dir=str(tmp_path / "cache")
    )
    with pytest.raises(InputError, match="--split_protocol leave_last_two splits .* holds sessions"):
        split_of(read_interactions(flags), flags, 6)


def checkpoint(folder, flags):
    """What the guards read of a checkpoint that was trained so."""
    folder.mkdir()
    config = dataclasses.asdict(TrainConfig(
        **vars(flags), text_data="x", item_model_dir="x", user_model_dir="x"
    ))  # fmt: skip
    _, split = read_split(flags)
    run = {"config": config, "ranks": 1, "data": {"split": split.origin}}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.mark.parametrize("trained", [None, *PROTOCOLS])
@pytest.mark.parametrize("here", [None, *PROTOCOLS])
def test_a_checkpoint_is_judged_by_the_protocol_it_was_trained_with_alone(tmp_path, trained, here):
    flags = flags_for(tmp_path, trained, some_rows(6))
    made, other = checkpoint(tmp_path / "made", flags), dataclasses.replace(flags, split_protocol=here)
    names = [name or "leave_last_two" for name in (trained, here)]
    if names[0] == names[1]:
        return check_same_split(made, "--checkpoint", other)
    says = "trained with --split_protocol {}.*, but here is --split_protocol {}.*may have learned"
    with pytest.raises(InputError, match=says.format(*names)):
        check_same_split(made, "--checkpoint", other)


def test_what_a_command_leaves_out_is_as_the_checkpoint_was_trained(tmp_path):
    flags = flags_for(tmp_path, "time_811", some_rows(7))
    made = checkpoint(tmp_path / "made", flags)

    def check(**changes):
        check_split_as_trained(made, "--checkpoint", EvaluateConfig(checkpoint=str(made), **changes))

    check()
    check(split_protocol="time_811")
    check(interaction_data=str(shutil.copy(flags.interaction_data, tmp_path / "copy.csv")))
    with pytest.raises(InputError, match="with --split_protocol time_811 of .*here is --split_protocol last"):
        check(split_protocol="last_item")
    # Of another table another tenth is the last: what was trained on may be held out there.
    other = write(tmp_path / "other.csv", some_rows(7)[:-9])
    with pytest.raises(InputError, match="time_811 of .*other.csv with other rows"):
        check(interaction_data=other)


def plan_of(command, argv, capsys):
    capsys.readouterr()
    command.main([*map(str, argv), "--dry_run", "1"])
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def folder(demo, demo_config, tmp_path_factory):
    """Models, ids and samples of the demo: llm/, sid.json, made/; and flags of two commands."""
    from pixelrec_train.commands import build_samples, expand_vocabulary
    from pixelrec_train.commands.make_demo import all_text
    from pixelrec_train.data import interactions
    from pixelrec_train.model.tiny import write_causal_lm
    from pixelrec_train.semantic_id.codes import SemanticIds

    folder = tmp_path_factory.mktemp("protocols")
    data = interactions.read([demo_config.interaction_data], demo_config)
    sizes = (6, 7, 9)
    codes = np.random.default_rng(0).integers(0, sizes, (data.num_items, 3))
    SemanticIds(data.item_ids, codes.astype(np.int32), sizes).save(folder / "sid.json")
    write_causal_lm(all_text(demo_config.text_data), folder / "lm", hidden_size=32, vocab_size=600, chat=True)
    expand = {"hf_model_dir": folder / "lm", "output_model_dir": folder / "llm"}
    expand_vocabulary.main(as_flags(expand | {"semantic_ids": folder / "sid.json"}))
    shared = {
        "interaction_data": demo_config.interaction_data, "semantic_ids": folder / "sid.json",
        "model_dir": folder / "llm", "cache_dir": demo_config.cache_dir, "bf16": False,
    }  # fmt: skip
    build = {name: shared[name] for name in ("interaction_data", "semantic_ids", "model_dir", "cache_dir")}
    more = {"split_protocol": "last_item", "output_dir": folder / "made", "max_length": 256, "history": 12}
    build_samples.main(as_flags(build | more))
    generative = shared | {
        "max_seq_length": 6, "gradient_checkpointing": False, "align": False, "learning_rate": 1e-3,
        "num_beams": 20, "dataloader_num_workers": 0, "logging_dir": folder / "logs/run", "random_init": True,
        "split_protocol": "time_811", "max_steps": 4, "per_device_train_batch_size": 16, "valid_users": 20,
    }  # fmt: skip
    samples = shared | {
        "dataset_config": folder / "made/dataset.json", "split_protocol": "last_item", "valid_users": 10,
        "max_steps": 3, "history": 12, "num_workers": 0, "logging_per_step": 1,
    }  # fmt: skip
    return SimpleNamespace(path=folder, generative=generative, samples=samples)


def test_samples_say_how_they_were_split(folder):
    facts = json.loads((folder.path / "made/facts.json").read_text())
    assert facts["origin"].startswith("last_item: the last item of every user is validation")


@pytest.mark.parametrize("seed", [1, 2])
def test_random_init_draws_weights_by_seed_and_keeps_words_and_tokens(folder, tmp_path, seed):
    shutil.copytree(folder.path / "llm", tmp_path / "llm")
    (tmp_path / "llm/model.safetensors").unlink()  # they are not read
    models = []
    for _ in range(2):
        torch.manual_seed(seed)
        models.append(TokenModel.load(tmp_path / "llm", random_init=True))
    torch.manual_seed(seed + 10)
    other, trained = TokenModel.load(tmp_path / "llm", random_init=True), TokenModel.load(folder.path / "llm")
    weights = [dict(model.named_parameters()) for model in (*models, other, trained)]
    assert weights[0].keys() == weights[3].keys()
    for name, first in weights[0].items():
        assert first.equal(weights[1][name]) and first.shape == weights[3][name].shape
        if first.ndim > 1:
            assert not first.equal(weights[2][name]) and not first.equal(weights[3][name])
    assert models[0].vocabulary == trained.vocabulary and models[0].num_tokens == trained.num_tokens
    with pytest.raises(InputError, match="could not be loaded"):
        TokenModel.load(tmp_path / "llm")


def test_the_plans_say_the_protocol_and_that_weights_are_new(folder, capsys, tmp_path):
    told = plan_of(train_generative, as_flags(folder.generative | {"output_dir": tmp_path / "a"}), capsys)
    assert "time_811: rows of all users by time" in told and RANDOM in told
    told = plan_of(train_generative, as_flags(
        folder.generative | {"output_dir": tmp_path / "a", "random_init": False, "split_protocol": "None"}
    ), capsys)  # fmt: skip
    assert "everybody's last two items are held out" in told and RANDOM not in told
    flags = folder.samples | {"output_dir": tmp_path / "b", "train_from_scratch": True}
    assert RANDOM in plan_of(train_qwen3, as_flags(flags), capsys)


@pytest.mark.launch
def test_a_model_of_time_811_from_random_weights_is_judged_with_other_beams(folder):
    run = folder.path / "run"
    script = ROOT / "scripts/train_generative.py"
    result = run_command([sys.executable, script, *as_flags(folder.generative | {"output_dir": run})])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "time_811: rows of all users by time" in (run / "table.md").read_text()
    assert json.loads((run / "run.json").read_text())["config"]["split_protocol"] == "time_811"
    evaluate = [sys.executable, ROOT / "scripts/evaluate_pixelrec.py", "--checkpoint", run / "best_model"]
    own = {"cache_dir": folder.generative["cache_dir"], "output_dir": folder.path / "judged", "num_beams": 3}
    result = run_command([*evaluate, *as_flags(own | {"topk": "1,3"})])
    assert result.returncode == 0, result.stdout + result.stderr
    judged = json.loads((folder.path / "judged/metrics.json").read_text())
    assert judged["data"]["split"].startswith("time_811:") and "recall@3" in judged["metrics"]["generative"]
    result = run_command([*evaluate, *as_flags(own | {"split_protocol": "leave_last_two"})])
    assert result.returncode == 2 and "was trained with --split_protocol time_811 of" in result.stderr


@pytest.mark.launch
def test_training_on_samples_is_judged_inside_the_run_by_the_last_item(folder):
    run = folder.path / "judged_run"
    script = ROOT / "scripts/train_qwen3.py"
    result = run_command([sys.executable, script, *as_flags(folder.samples | {"output_dir": run})])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "recall@10" in events(run, "eval")[0]
    assert "10 of 120 validation targets; last_item: the last item of every user is" in result.stdout


OF_OTHERS = {  # names of OneRec-Think's and MiniOneRec's scripts -> our flag, and a value
    "model_name": ("model_dir", "llm"), "model_path": ("model_dir", "llm"),
    "base_model": ("model_dir", "llm"),
    "batch_size": ("per_device_train_batch_size", 32), "micro_batch_size": ("per_device_train_batch_size", 4),
    "num_workers": ("dataloader_num_workers", 2), "num_epochs": ("num_train_epochs", 10),
    "gradient_clip_norm": ("max_grad_norm", 0.5), "steps_per_train_log": ("logging_steps", 60),
    "steps_per_val_log": ("eval_steps", 60), "freeze_LLM": ("new_rows_only", True),
    "freeze_llm": ("new_rows_only", True), "train_from_scratch": ("random_init", True),
    "learning_rate": ("learning_rate", 2e-5),
    "gradient_accumulation_steps": ("gradient_accumulation_steps", 2),
    "max_steps": ("max_steps", 600), "warmup_steps": ("warmup_steps", 60), "save_steps": ("save_steps", 5000),
    "weight_decay": ("weight_decay", 0.01), "lr_scheduler_type": ("lr_scheduler_type", "cosine"),
    "gradient_checkpointing": ("gradient_checkpointing", True), "eval_steps": ("eval_steps", 1000),
    "save_total_limit": ("save_total_limit", 3), "num_train_epochs": ("num_train_epochs", 3),
    "logging_steps": ("logging_steps", 100), "seed": ("seed", 42),
    "deepspeed": ("deepspeed", "configs/ds_config_zero2.json"), "output_dir": ("output_dir", "models/x"),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_OTHERS)
def test_a_flag_of_onerec_think_or_minionerec_sets_ours(name):
    ours, value = OF_OTHERS[name]
    config = parse_args(train_qwen3.Qwen3Config, ["--dataset_config", "x", f"--{name}", str(value)])
    assert getattr(config, ours) == value


def test_a_share_of_warm_up_wins_over_our_default_of_none_in_steps():
    own = ["--dataset_config", "x"]
    for words, steps in (([], 0), (["--warmup_ratio", "0.03"], None), (["--warmup_steps", "7"], 7)):
        config = train_qwen3.settled(parse_args(train_qwen3.Qwen3Config, [*own, *words]))
        assert config.warmup_steps == steps
    with pytest.raises(InputError, match="--batch_size 128 and --micro_batch_size 4 are two names of one"):
        parse_args(train_qwen3.Qwen3Config, [*own, "--batch_size", "128", "--micro_batch_size", "4"])


@pytest.mark.parametrize("name", ["warmup_steps", "decay_steps", "save_steps"])
def test_none_is_a_value_of_a_flag_whose_default_is_another(name):
    config = parse_args(train_qwen3.Qwen3Config, ["--dataset_config", "x", f"--{name}", "None"])
    assert getattr(config, name) is None
