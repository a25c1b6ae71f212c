"""Checking samples for what is held out: planted leaks are found, training rows and real builds pass."""

import csv
import itertools
from collections import defaultdict

import numpy as np
import pytest
from test_check_samples import check, kinds, write
from test_check_what_samples_say import chat

from pixelrec_train.commands import build_samples
from pixelrec_train.data.checks import held_out
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.trainings import check_samples as report

SIZES = (8, 8)
FORWARD, BACKWARD, BY_CATEGORY = held_out.FORWARD, held_out.BACKWARD, held_out.BY_CATEGORY


class World:
    """Users, 40 items under 39 ids, and their tables in a folder."""

    def __init__(self, folder, users=60, seed=0):
        rng = np.random.default_rng(seed)
        self.folder, self.items = folder, [f"i{n}" for n in range(40)]
        numbers = rng.permutation(64)[:40]
        numbers[7] = numbers[3]
        codes = np.stack(np.unravel_index(numbers, SIZES), 1).astype(np.int32)
        SemanticIds(self.items, codes, SIZES).save(folder / "sid.json")
        self.ids = [CODECS["onerec"].text(row, SIZES) for row in codes]
        self.logs = {f"u{u}": rng.integers(0, 40, rng.integers(4, 9)).tolist() for u in range(users)}
        rows = [(f"i{item}", user) for user, log in self.logs.items() for item in log]
        (folder / "interactions.csv").write_text("\n".join(map(",".join, [("item_id", "user_id"), *rows])))
        tables = {"semantic_ids": "sid.json", "interaction_data": "interactions.csv", "cache_dir": "cache"}
        self.flags = tuple(part for name, file in tables.items() for part in (f"--{name}", folder / file))

    def text(self, items):
        return " ".join(self.ids[item] for item in items)

    def taken(self, n):
        """Sets of n ids that lie in succession in what somebody took in training."""
        return {
            tuple(self.ids[i] for i in log[k : k + n])
            for log in self.logs.values()
            for k in range(len(log) - 2 - n + 1)
        }

    def distinct(self):
        """(user, items) of users who took six or more items, each once, whatever their ids."""
        for user, log in self.logs.items():
            if len({self.ids[item] for item in log}) == len(log) > 5:
                yield user, log

    def check(self, capsys, rows):
        """(exit status, {what: [row, …]})"""
        write(self.folder / "a.parquet", rows, row_group_size=16)
        code, out = check(capsys, self.folder / "a.parquet", *self.flags)
        places = {w: [int(p.split(" row ")[1].split()[0]) for p in at[1] if " row " in p]
                  for w, at in kinds(out).items()}  # fmt: skip
        return code, places, out


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def facts(user, *targets, history=3):
    return {"user_id": user, "history_items": history, "target_item_ids": [f"i{item}" for item in targets]}


def test_a_row_that_names_its_user_is_held_against_what_is_held_out_of_that_user(world, capsys):
    (one, log), (two, other) = itertools.islice(world.distinct(), 2)
    train, valid, test = log[:-2], log[-2], log[-1]
    rows = [
        chat(
            f"{world.text(train[:-1])}?", world.text(train[-1:]), source="x", metadata=facts(one, train[-1])
        ),
        chat(f"{world.text(train)}?", world.text([valid]), source="x", metadata=facts(one, valid)),
        chat("a title?", "another title", source="title_history_to_title", metadata=facts(one, test)),
        chat(f"{world.text([*train, valid])}?", "a title", metadata=facts(one)),
        {"segments": [world.text(log)], "metadata": facts(one)},
        chat(f"{world.text(other[:-2])}?", "a title", metadata=facts(two)),
        chat(f"{world.text([valid])}?", "a title", metadata={"item_id": f"i{valid}"}),
    ]
    code, wrong, out = world.check(capsys, rows)
    assert (code, wrong) == (1, {held_out.USERS: [2, 3, 4, 5]})
    path = world.folder / "a.parquet"
    assert f"{path} row 2 (user {one!r}, item 'i{valid}', of valid)" in out
    assert f"{path} row 3 (user {one!r}, item 'i{test}', of test)" in out
    code, out = check(capsys, path, *world.flags[2:])
    assert code == 1 and kinds(out)[held_out.USERS][0] == 2  # without ids the metadata alone
    assert "without --semantic_ids only metadata is held against" in out


def test_what_its_user_took_in_training_as_well_is_no_leak(world, capsys):
    user, log = next((u, log) for u, log in world.logs.items() if log[-1] in log[:-2])
    rows = [chat(f"{world.text(log[:1])}?", world.text(log[-1:]), source="x", metadata=facts(user, log[-1]))]
    assert world.check(capsys, rows)[:2] == (0, {})


def test_users_that_nobody_knows_are_said_and_their_order_is_looked_at(world, capsys):
    user, log = next(world.distinct())
    rows = [
        chat(f"{world.text(log[:2])}?", world.text(log[2:3]), source="mine", metadata=facts("nobody")),
        chat(f"{world.text(log[:-2])}?", world.text(log[-2:-1]), source="mine", metadata=facts("nobody")),
    ]
    code, wrong, out = world.check(capsys, rows)
    assert (code, wrong) == (1, {held_out.SUCCESSION: [2]})
    assert (
        f"warn   mine: {held_out.UNKNOWN}: 2, the first in {world.folder}/a.parquet row 1 ('nobody')" in out
    )


def test_rows_without_a_user_are_found_by_the_order_of_their_ids(world, capsys):
    """Against a slow look: a row leaks where it holds somebody's last two items and a held-out one, and no
    training row has these in succession; or one item and a held-out one, where its view lists histories."""
    held = {
        n: {
            tuple(world.ids[item] for item in log[len(log) - back - n + 1 : len(log) - back + 1])
            for log in world.logs.values()
            for back in (1, 2)
            if len(log) - back - n + 1 >= 0
        }
        - world.taken(n)
        for n in (2, 3)
    }
    asked, rows, leaks = ((2, "type_c_seq_last_2"), (9, "type_c_seq_full"), (2, "x"), (9, "x")), [], []
    for log, last, (length, source) in itertools.product(world.logs.values(), (3, 2, 1), asked):
        end = len(log) - last
        history = log[max(0, end - length) : end]
        rows.append(chat(f"After {world.text(history)}, what?", world.ids[log[end]], source=source))
        own = [world.ids[item] for item in (*history, log[end])]
        for n in (3,) if source == "x" else (2, 3):
            if {tuple(own[k : k + n]) for k in range(len(own) - n + 1)} & held[n]:
                leaks.append(len(rows))
                break
    assert 100 < len(leaks) < len(rows)
    write(world.folder / "a.parquet", rows)
    code, out = check(capsys, world.folder / "a.parquet", *world.flags)
    count, places = kinds(out)[held_out.SUCCESSION]
    assert (code, count) == (1, len(leaks))
    assert [int(p.split(" row ")[1].split()[0]) for p in places[:20]] == leaks[:20]
    good = [row for n, row in enumerate(rows, 1) if n not in leaks]
    assert world.check(capsys, good)[:2] == (0, {})


def test_the_pairs_of_type_e_are_those_of_training_rows(world, capsys):
    """Against a slow look at all transitions, in training and behind it."""
    trained, anywhere = world.taken(2), defaultdict(set)
    for log in world.logs.values():
        for a, b in itertools.pairwise(log):
            anywhere[world.ids[a]].add(world.ids[b])
    held = {
        (world.ids[log[-back - 1]], world.ids[log[-back]]) for log in world.logs.values() for back in (1, 2)
    }
    next_items = {b for _, b in trained}
    rows, leaks, never = [], [], []
    for a, others in anywhere.items():
        for b in others:
            for asked, answer, source in ((a, b, FORWARD), (b, a, BACKWARD), ("'X' to 'Y'", b, BY_CATEGORY)):
                rows.append(chat(f"{source}: {asked}?", answer, source=source))
                if source != BY_CATEGORY and (a, b) in held - trained:
                    leaks.append(len(rows))
                elif source == BY_CATEGORY and b not in next_items:
                    never.append(len(rows))
    assert len(leaks) > 50
    write(world.folder / "a.parquet", rows)
    code, out = check(capsys, world.folder / "a.parquet", *world.flags)
    found = kinds(out)
    assert code == 1 and found[held_out.PAIR][0] == len(leaks)
    assert [int(p.split(" row ")[1].split()[0]) for p in found[held_out.PAIR][1][:20]] == leaks[:20]
    assert found.get(held_out.NEVER_NEXT, (0,))[0] == len(never)
    good = [row for n, row in enumerate(rows, 1) if n not in {*leaks, *never}]
    similar = [row | {"source": "type_d_similar_items"} for row in rows]  # of ids alone, whoever took them
    assert world.check(capsys, [*good, *similar])[:2] == (0, {})


def test_an_item_that_is_only_ever_held_out_is_no_next_item(tmp_path, capsys):
    world = World(tmp_path, users=3)
    user = "u0"
    world.logs[user][-1] = rare = next(i for i in range(40) if not any(i in g for g in world.logs.values()))
    rows = [(f"i{item}", user) for user, log in world.logs.items() for item in log]
    (tmp_path / "interactions.csv").write_text("\n".join(map(",".join, [("item_id", "user_id"), *rows])))
    good = world.logs["u1"][1]
    rows = [chat("'X' to 'Y'?", world.ids[item], source=BY_CATEGORY) for item in (good, rare)]
    assert world.check(capsys, rows)[:2] == (1, {held_out.NEVER_NEXT: [2]})


TASKS = ("video_rec", "item_understand", "user_profile", "label_pred", "label_cond_rec", "rec_reason")


@pytest.fixture(scope="module")
def made(demo, tmp_path_factory):
    """The demo with labels and semantic ids, and a function that builds samples and gives check's flags."""
    folder = tmp_path_factory.mktemp("made")
    with open(demo / "interactions.csv") as file:
        rows = list(csv.DictReader(file))
    items = sorted({row["item_id"] for row in rows})
    rng = np.random.default_rng(0)
    codes = np.stack(np.unravel_index(rng.permutation(1024)[: len(items)], (32, 32)), 1).astype(np.int32)
    SemanticIds(items, codes, (32, 32)).save(folder / "sid.json")
    for row in rows:
        row["like"] = str(rng.integers(0, 2))
    with open(folder / "interactions.csv", "w", newline="") as file:
        (writer := csv.DictWriter(file, rows[0].keys())).writeheader()
        writer.writerows(rows)
    common = ["--interaction_data", folder / "interactions.csv", "--semantic_ids", folder / "sid.json"]
    common = [*map(str, common), "--cache_dir", str(folder / "cache")]

    def build(name, *flags):
        texts = ["--text_data", str(demo / "items.csv"), "--text_keys", "title,tag,description"]
        build_samples.main([*common, *texts, *flags, "--output_dir", str(folder / name)])
        return [folder / name / "file_list.json", *common]

    return build


@pytest.mark.parametrize("task", TASKS)
def test_good_samples_of_every_task_have_nothing_wrong(task, made, capsys):
    for form in ("chat", "segments"):
        labels = ["--label_column", "like"] if task.startswith("label") else []
        if (
            form == "segments"
            and (labels or task == "rec_reason")
            or (form, task) == ("chat", "user_profile")
        ):
            continue
        flags = made(f"{task}-{form}", "--task", task, "--form", form, "--samples_per_user", "3", *labels)
        code, out = check(capsys, *flags)
        assert code == 0 and "ok     nothing wrong" in out, out


def test_samples_of_validation_are_not_to_be_trained_on(made, capsys):
    flags = made("valid", "--split", "valid", "--task", "video_rec")
    samples = int(capsys.readouterr().out.split("samples of valid")[0].split()[-1].replace(",", ""))
    code, out = check(capsys, *flags)
    count = kinds(out)[held_out.USERS][0]
    assert code == 1 and 0.8 * samples < count <= samples  # the others were taken in training as well


def test_several_processes_say_what_one_says_of_all_that(world, capsys, monkeypatch):
    monkeypatch.setattr(report, "FEW", 10)
    rows = [
        chat(f"After {world.text(log[:-2])}", world.text(log[-2:-1]), source="type_c_seq_full")
        for log in world.logs.values()
    ]
    write(world.folder / "a.parquet", rows, row_group_size=9)
    one = check(capsys, world.folder / "a.parquet", *world.flags, "--processes", 1)
    assert check(capsys, world.folder / "a.parquet", *world.flags, "--processes", 3) == one and one[0] == 1


def test_a_given_split_says_what_is_held_out(world, capsys):
    user, log = next(world.distinct())
    lines = ["split,user_id,item_id,history"]
    for name, n in (("train", 2), ("valid", 3), ("test", 4)):
        lines.append(f"{name},{user},i{log[n]},{' '.join(f'i{item}' for item in log[:n])}")
    (world.folder / "split.csv").write_text("\n".join(lines))
    world.flags += ("--split_data", world.folder / "split.csv")
    rows = [
        chat(f"{world.text(log[:n])}?", world.text([log[n]]), source="sid_history_to_sid") for n in (2, 3, 4)
    ]
    code, wrong, out = world.check(capsys, rows)
    assert (code, wrong) == (1, {held_out.SUCCESSION: [2, 3]})
    assert "note   held out: rows of split.csv" in out
