"""Views of OpenOneRec's tasks: what they say is so, and none of them says in training what is held out."""

import csv
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import pytest

from pixelrec_train.config import DataFlags, TextFlags
from pixelrec_train.data.item_fields import plain_text
from pixelrec_train.data.views import build
from pixelrec_train.data.views.common import LONGEST_VALUE, MOST, WORD, shared, traits_of
from pixelrec_train.data.views.families import VIEWS
from pixelrec_train.data.views.openonerec import NO, YES
from pixelrec_train.data.views.parts import Part
from pixelrec_train.data.views.view import (
    CATEGORIES,
    CHAT,
    LABELS,
    SEGMENTS,
    TEXTS,
    Asked,
    Known,
    LeftOut,
    drawn,
    sample_name,
)
from pixelrec_train.semantic_id.codes import SemanticIds

KEYS = ("title", "tag", "description")
ID = re.compile(r"<\|sid_begin\|><s_a_(\d+)><s_b_(\d+)><\|sid_end\|>")
WAYS = ("last_two", "tables", "rows")
MADE = [
    pytest.param(way, task, form, id=f"{way}-{task}-{form}")
    for way in WAYS
    for task, view in VIEWS.items()
    for form in view.forms
    if way != "rows" or LABELS not in view.needs
]
ASKED = Asked(None, 512, 10, 3, True, frozenset({"1"}))
EVERYTHING = "u99999"  # a user who takes the whole catalogue first: its numbers are the same in all tables


@dataclass(frozen=True, kw_only=True)
class Tables(DataFlags, TextFlags):
    """What views read."""


class Made:
    """What a view has made, and from what."""

    def __init__(self, plan):
        self.plan, (view, asked) = plan, plan.views[0]
        made = list(view.samples(plan.known, plan.part, asked, plan.seed))
        self.left_out = Counter(sample.why for sample, _ in made if isinstance(sample, LeftOut))
        self.samples = [sample for sample, _ in made if not isinstance(sample, LeftOut)]
        self.facts = [facts for sample, facts in made if not isinstance(sample, LeftOut)]

    def __iter__(self):
        return iter(zip(self.samples, self.facts, strict=True))


class World:
    """The demo's users, the tables that say them in each of WAYS, and the samples of those."""

    def __init__(self, demo, folder):
        self.folder, self.texts = folder, {r["item_id"]: r for r in read_rows(demo / "items.csv")}
        self.text_data, self.items = str(demo / "items.csv"), sorted(self.texts)
        numbers = np.random.default_rng(0).permutation(32 * 32)[: len(self.items)]
        codes = np.stack(np.unravel_index(numbers, (32, 32)), 1).astype(np.int32)
        SemanticIds(self.items, codes, (32, 32)).save(folder / "sid.json")
        self.item_of = dict(zip(map(tuple, codes.tolist()), self.items, strict=True))
        self.ids = {
            item: f"<|sid_begin|><s_a_{a}><s_b_{b}><|sid_end|>" for (a, b), item in self.item_of.items()
        }
        logs = defaultdict(list)
        for row in read_rows(demo / "interactions.csv"):  # sorted by time
            logs[row["user_id"]].append(row["item_id"])
        self.logs = {user: items for user, items in logs.items() if len(items) > 5}
        self.tables = {}

    def parts(self, variant="own"):
        """{part: [(user, history, what is taken)]}; of the variant "others" other items are held out.

        Of "fewer" there are fewer users, and they come in another order.
        """
        logs = self.logs if variant != "fewer" else dict(sorted(self.logs.items())[::-2])
        parts = {"train": [], "valid": [], "test": []}
        for user, items in ({EVERYTHING: [*self.items, *self.items[:2]]} | logs).items():
            held_out = items[-2:]
            if variant == "others" and user != EVERYTHING:
                held_out = [item for item in self.items if item not in items][:2]
            parts["train"].append((user, [], items[:-2]))
            parts["valid"].append((user, items[:-2], held_out[:1]))
            parts["test"].append((user, [*items[:-2], held_out[0]], held_out[1:]))
        return parts

    def flags(self, way, variant):
        """Tables that say these parts, with a column `label`."""
        if (way, variant) not in self.tables:
            folder = self.folder / f"{way}-{variant}"
            folder.mkdir()
            self.tables[way, variant] = Tables(
                **write_tables(folder, way, self.parts(variant)), text_data=self.text_data, text_keys=KEYS,
                cache_dir=str(folder / "cache"),
            )  # fmt: skip
        return self.tables[way, variant]

    def make(self, way, split, task, form=None, variant="own", asked=ASKED, seed=42):
        views = build.views_of([task], split, form, {TEXTS, LABELS}, ("title", CATEGORIES, "description"))
        ids = str(self.folder / "sid.json")
        label = "label" if LABELS in VIEWS[task].needs else None
        asked, tables = asked._replace(seed=seed), self.flags(way, variant)
        return Made(build.plan(views, asked, tables, label, ids, "onerec", split, categories_key="tag"))

    def items_in(self, text):
        return [self.item_of[int(a), int(b)] for a, b in ID.findall(text)]


@pytest.fixture(scope="module")
def world(demo, tmp_path_factory):
    return World(demo, tmp_path_factory.mktemp("views"))


def label_of(user, item):
    """A label that follows from user and item; "" = none."""
    return ("0", "1", "1", "")[(int(user[1:]) * 7 + int(item[1:])) % 4]


def read_rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path, names, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def write_tables(folder, way, parts):
    """{flag: value} of tables that say these parts in one of WAYS."""
    names, later = (
        ("user_id", "item_id", "timestamp", "label"),
        {"train": 0, "valid": 10**6, "test": 2 * 10**6},
    )
    rows = {
        part: [
            (user, item, later[part] + n, label_of(user, item))
            for user, _, taken in own
            for n, item in enumerate(taken)
        ]
        for part, own in parts.items()
    }
    tables = {"log": [row for own in rows.values() for row in own]}
    if way == "tables":
        tables = {"log": rows["train"], "valid": rows["valid"], "test": rows["test"]}
    for name, own in tables.items():
        write_rows(folder / f"{name}.csv", names, own)
    flags = {"interaction_data": str(folder / "log.csv")}
    if way == "tables":
        return flags | {"valid_data": str(folder / "valid.csv"), "test_data": str(folder / "test.csv")}
    if way == "rows":
        write_rows(folder / "rows.csv", ("split", "user_id", "item_id", "history"), [
            (part, user, item, " ".join([*history, *taken[:n]]))
            for part, own in parts.items()
            for user, history, taken in own
            for n, item in enumerate(taken)
        ])  # fmt: skip
        flags["split_data"] = str(folder / "rows.csv")
    return flags


def text_of(sample):
    return "\n".join(sample.segments or [message["content"] for message in sample.messages])


def answer_of(sample):
    return sample.messages[-1]["content"]


def said_in(task, question):
    """{name: what stands for it} of the view's words."""
    for prompt, _ in VIEWS[task].chats:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>(?:<[^>]+>)+|none)", re.escape(prompt))
        if found := re.fullmatch(pattern, question):
            return found.groupdict()


# leaks


@pytest.mark.parametrize(("way", "task", "form"), MADE)
def test_training_samples_are_the_same_whatever_is_held_out(world, way, task, form):
    own, others = (world.make(way, "train", task, form, variant) for variant in ("own", "others"))
    assert list(own) == list(others) and own.left_out == others.left_out
    assert own.plan.known == others.plan.known  # the catalogue is told apart from who took what
    if "test" in VIEWS[task].splits:  # and what is held out is not the same
        assert list(world.make(way, "test", task, form)) != list(
            world.make(way, "test", task, form, "others")
        )


@pytest.mark.parametrize(("way", "task", "form"), MADE)
def test_no_training_sample_names_what_its_user_took_later(world, way, task, form):
    made, later = world.make(way, "train", task, form), defaultdict(set)
    parts = world.parts()
    taken = {user: set(items) for user, _, items in parts["train"]}
    for part in ("valid", "test"):
        for user, _, items in parts[part]:
            later[user] |= set(items) - taken[user]
    assert sum(map(len, later.values())) > 50 and len(made.samples) > 30
    for sample, facts in made:
        named = set(world.items_in(text_of(sample))) | set(facts.get("target_item_ids", ()))
        if task.startswith("type_d"):  # of the catalogue
            assert "user_id" not in facts
        elif "item_id" in facts:
            assert named == {facts["item_id"]} and not any(user in text_of(sample) for user in taken)
        elif "user_id" not in facts:
            assert task.startswith("type_e")  # see test_families.py
        else:
            assert named and named <= taken[facts["user_id"]] and not named & later[facts["user_id"]]


def test_a_view_refuses_a_part_it_does_not_name(world):
    made = world.make("last_two", "test", "video_rec")
    for task in ("item_understand", "user_profile"):
        with pytest.raises(ValueError, match=f"{task} may not read test"):
            next(VIEWS[task].samples(made.plan.known, made.plan.part, ASKED, 42))


# what is said


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("split", ["valid", "test"])
def test_what_is_held_out_is_the_answer_behind_all_that_came_before(world, way, split):
    made = world.make(way, split, "video_rec", CHAT)
    assert len(made.samples) == len(world.logs) + 1
    for (user, history, taken), (sample, facts) in zip(world.parts()[split], made, strict=True):
        question, answer = sample.messages[-2]["content"], answer_of(sample)
        assert (facts["user_id"], facts["target_item_ids"]) == (user, taken)
        assert world.items_in(question) == history[-512:] and answer == world.ids[taken[0]]
    documents = world.make(way, split, "video_rec", SEGMENTS)
    for (_, history, taken), sample in zip(world.parts()[split], documents.samples, strict=True):
        assert world.items_in(sample.segments[0]) == [*history[-522:], *taken]


@pytest.mark.parametrize("way", WAYS)
def test_every_item_but_a_users_first_is_a_target_once_where_enough_samples_are_asked_for(world, way):
    made, targets = world.make(way, "train", "video_rec", asked=ASKED._replace(samples=99)), defaultdict(list)
    logs = {user: items for user, _, items in world.parts()["train"]}
    for sample, facts in made:
        history, taken = world.items_in(sample.messages[-2]["content"]), facts["target_item_ids"]
        assert world.items_in(answer_of(sample)) == taken and 1 <= len(taken) <= min(10, len(history))
        targets[facts["user_id"]][:0] = taken
        first = len(logs[facts["user_id"]]) - len(targets[facts["user_id"]])
        assert history == logs[facts["user_id"]][:first][-512:]
    del logs[EVERYTHING], targets[EVERYTHING]  # 99 samples are not enough
    assert targets == {user: items[1:] for user, items in logs.items()}


def test_documents_hold_every_item_once_in_windows_without_overlap(world):
    asked = ASKED._replace(history=3, targets=1, samples=99)
    made, held = world.make("last_two", "train", "video_rec", SEGMENTS, asked=asked), defaultdict(list)
    for sample, facts in made:
        items = world.items_in(sample.segments[0])
        assert len(items) <= 4 and sample.segments[0] == "".join(world.ids[item] for item in items)
        held[facts["user_id"]][:0] = items
    for user, _, items in world.parts()["train"]:
        assert held[user] == items[-4 * 99 :]


@pytest.mark.parametrize("form", [CHAT, SEGMENTS])
def test_an_items_texts_are_told_in_three_ways(world, form):
    made, ways = world.make("last_two", "train", "item_understand", form), Counter()
    for sample, facts in made:
        own = world.texts[facts["item_id"]]
        told = {key: plain_text(own[key]) for key in KEYS if own[key]}
        text, item = (answer_of(sample) if form == CHAT else sample.segments[0]), world.ids[facts["item_id"]]
        lines, sentence = "\n".join(f"{k}: {v}" for k, v in told.items()), "; ".join(told.values())
        if text.startswith("{"):
            assert json.loads(text) == ({} if form == CHAT else {"id": item}) | told
            ways["json"] += 1
        elif form == CHAT:
            assert text in (lines, sentence)
            ways["lines" if text == lines else "sentence"] += 1
        else:
            assert text in (f"{lines}\nid: {item}", f"{item} is this item: {sentence}")
            ways["lines" if text.startswith(lines) else "sentence"] += 1
        assert item in text_of(sample)
    without = sum(not any(row[key] for key in KEYS) for row in world.texts.values())
    assert made.left_out["items without a text"] == without
    assert sum(ways.values()) == len(world.items) - without and min(ways.values()) > 0.25 * len(world.items)


def test_a_profile_lists_every_item_and_counts_what_most_of_it_is(world):
    made = world.make("last_two", "train", "user_profile")
    logs = {user: items for user, _, items in world.parts()["train"]}
    counted = 0
    for sample, facts in made:
        text, items = sample.segments[0], logs[facts["user_id"]][-512:]
        if facts["user_id"] == EVERYTHING:
            continue
        assert world.items_in(text) == items
        assert all(world.texts[item]["title"] in text for item in items)
        for tag, count in re.findall(r'tag "([^"]+)" \((\d+)\)', text):
            assert sum(world.texts[item]["tag"] == tag for item in items) == int(count) > 1
            counted += 1
    assert counted > 100


@pytest.mark.parametrize("way", ["last_two", "tables"])
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_labels_are_those_of_the_table(world, way, split):
    made = world.make(way, split, "label_pred")
    for sample, facts in made:
        (item,), user = facts["target_item_ids"], facts["user_id"]
        label = label_of(user, item)
        assert facts["label"] == label and answer_of(sample) == (YES if label == "1" else NO)
        said = said_in("label_pred", sample.messages[-2]["content"])
        history = world.items_in(said["history"])
        liked = [i for i in history if label_of(user, i) == "1"][-10:]
        assert said["item"] == world.ids[item]
        assert said["liked"] == ("".join(world.ids[i] for i in liked) or "none")
    targets = len(made.samples) + made.left_out["targets without a label"]
    assert made.left_out["targets without a label"] > targets / 10
    answers = Counter(map(answer_of, made.samples))
    assert set(answers) == {YES, NO} and min(answers.values()) > targets / 10


@pytest.mark.parametrize("way", ["last_two", "tables"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_items_of_a_wanted_label_have_it(world, way, split):
    made, stretches = world.make(way, split, "label_cond_rec"), world.make(way, split, "video_rec", CHAT)
    found = defaultdict(list)
    for sample, facts in made:
        items = world.items_in(answer_of(sample))
        assert items == facts["target_item_ids"] and f'"{facts["label"]}"' in sample.messages[-2]["content"]
        assert {label_of(facts["user_id"], item) for item in items} == {facts["label"]}
        found[facts["user_id"]] += items
    wanted = defaultdict(list)
    for _, facts in stretches:
        user = facts["user_id"]
        wanted[user] += [item for item in facts["target_item_ids"] if label_of(user, item)]
    assert {u: sorted(i) for u, i in found.items()} == {u: sorted(i) for u, i in wanted.items() if i}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("thoughts", [True, False])
def test_reasons_are_true(world, split, thoughts):
    made = world.make("last_two", split, "rec_reason", asked=ASKED._replace(thoughts=thoughts))
    for sample, facts in made:
        question, answer = sample.messages[-2]["content"], answer_of(sample)
        history, thought = world.items_in(question), ""
        if thoughts:
            thought, answer = re.fullmatch(r"<think>\n(.+)\n</think>\n(.+)", answer, re.S).groups()
            assert not ID.search(thought)
        target, reason = re.fullmatch(r"(<.+?sid_end\|>)\nIt shares (.+)\.", answer, re.S).groups()
        assert world.items_in(target) == facts["target_item_ids"]
        claims = re.findall(r'((?:\w+ )?"[^"]+") with ((?:<[^>]+>)+)', reason)
        assert claims
        for what, witnesses in claims:
            who = world.items_in(witnesses)
            assert who and set(who) <= set(history) - set(facts["target_item_ids"])
            assert all(has(world.texts[item], what) for item in [*who, *world.items_in(target)])
            if thoughts:
                others = [item for item in history if [item] != facts["target_item_ids"]]
                everybody = {item for item in others if has(world.texts[item], what)}
                assert f"{what} ({len(everybody)} of {len(others)} items)" in thought
    assert 0 < made.left_out.total() < len(made.samples)


def has(row, what):
    """Whether an item has a trait as it is told: tag "ramen", or "broth"."""
    key, text = re.fullmatch(r'(\w*) ?"([^"]+)"', what).groups()
    return row[key] == text if key else text in WORD.findall(" ".join(row[key] for key in KEYS).lower())


# the base


def test_a_paraphrase_follows_from_seed_and_sample_alone(world):
    own, fewer = (world.make("last_two", "train", "video_rec", variant=v) for v in ("own", "fewer"))
    by_name = {sample.uuid: sample for sample in own.samples}
    assert 50 < len(fewer.samples) < len(own.samples)
    assert all(by_name[sample.uuid] == sample for sample in fewer.samples)
    again = world.make("last_two", "train", "video_rec", seed=43)
    assert [s.uuid for s in again.samples] == [s.uuid for s in own.samples]
    assert sum(a != b for a, b in zip(again.samples, own.samples, strict=True)) > len(own.samples) / 2


def test_each_paraphrase_is_drawn_as_often():
    counts = Counter(drawn("abcde", 42, f"sample {n}") for n in range(5000))
    assert set(counts) == set("abcde") and max(counts.values()) < 1.15 * min(counts.values())


def test_every_sample_has_a_name_of_its_own(world):
    made = [
        world.make("last_two", split, task, form).samples
        for task, view in VIEWS.items() for split in view.splits for form in view.forms
    ]  # fmt: skip
    names = [sample.uuid for samples in made for sample in samples]
    assert len(names) == len(set(names)) > 1000
    assert {sample.source for samples in made for sample in samples} == set(VIEWS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("task", [task for task, view in VIEWS.items() if view.asks_for_id])
def test_evaluation_asks_byte_for_byte_as_the_samples_do(world, way, task):
    made = world.make(way, "test", task, CHAT)
    view, asked = made.plan.views[0]
    stretches = list(made.plan.part.nexts(asked.history, 1))
    names = [sample_name(task, "test", CHAT, stretch.key) for stretch in stretches]
    samples = {sample.uuid: sample for sample in made.samples}
    assert samples and samples.keys() <= set(names)
    for name, stretch in zip(names, stretches, strict=True):
        if name in samples:
            assert view.ask(made.plan.known, stretch, "test") == samples[name].messages[:-1]
            unlabelled = stretch._replace(targets=[])
            assert view.ask(made.plan.known, unlabelled, "test") == samples[name].messages[:-1]


def test_what_texts_hold_is_not_taken_for_a_place_in_the_words(world):
    known = Known(["a"], ["<a>"], ("title",), [("{history} {0} {answer.__class__}",)])
    part = Part("train", [], np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), None)
    ((sample, _),) = VIEWS["item_understand"].samples(known, part, ASKED._replace(form=CHAT), 42)
    assert "{history} {0} {answer.__class__}" in answer_of(sample)


def test_a_user_with_several_sequences_has_a_sample_of_each(world, tmp_path):
    """Rows of a given split that do not go on where the one before ended, and two held-out rows."""
    a, b, c, d, e = world.items[:5]
    write_rows(tmp_path / "log.csv", ("user_id", "item_id"), [("x", item) for item in world.items])
    write_rows(tmp_path / "rows.csv", ("split", "user_id", "item_id", "history"), [
        ("train", "v", b, a), ("train", "u", b, a), ("train", "u", d, c),
        ("valid", "u", e, a), ("test", "u", c, f"{a} {b}"), ("test", "u", e, f"{c} {d}"),
    ])  # fmt: skip
    flags = Tables(
        interaction_data=str(tmp_path / "log.csv"), split_data=str(tmp_path / "rows.csv"),
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    for split, wanted in (("train", [("v", b), ("u", b), ("u", d)]), ("test", [("u", c), ("u", e)])):
        views = build.views_of(["video_rec"], split, CHAT, set())
        made = Made(build.plan(views, ASKED, flags, None, world.folder / "sid.json", "onerec", split, 42))
        assert [(f["user_id"], *f["target_item_ids"]) for f in made.facts] == wanted
        assert len({sample.uuid for sample in made.samples}) == len(wanted)


# what items have in common


def test_what_items_share_is_what_a_slow_look_at_their_texts_finds():
    rng = np.random.default_rng(3)
    words, tags = ["with", *(f"word{chr(97 + n)}" for n in range(26))], ["red", "green", "worda", ""]
    fields = [(" ".join(rng.choice(words, 3)), str(rng.choice(tags))) for _ in range(60)]
    fields[7] = None
    known = Known([str(n) for n in range(60)], [f"<{n}>" for n in range(60)], ("title", "tag"), fields)
    traits, most = traits_of(known), max(2, int(MOST * 60))

    def slow(item):
        own = {f'{k} "{v}"' for k, v in zip(known.text_keys, fields[item] or (), strict=False) if v}
        own = {value for value in own if len(value.split('"')[1]) <= LONGEST_VALUE}
        words = set(WORD.findall(" ".join(fields[item] or ()).lower())) - {"with"}
        return own | {f'"{word}"' for word in words}

    counts = Counter(trait for item in range(60) for trait in slow(item))
    for target in range(60):
        history = rng.integers(0, 60, 9).tolist()
        found = shared(traits, target, history, 99)
        wanted = {
            trait: list(dict.fromkeys(item for item in reversed(history) if trait in slow(item)))
            for trait in slow(target)
            if 2 <= counts[trait] <= most
        }
        wanted = {trait: items for trait, items in wanted.items() if items}
        if 'tag "worda"' in wanted:
            wanted.pop('"worda"', None)  # that is said already
        assert {s.trait.words: s.items for s in found} == wanted
        assert [s.trait.words for s in found] == sorted(
            (s.trait.words for s in found), key=lambda words: (words[0] == '"', counts[words], words)
        )
        assert shared(traits, target, history, 2) == found[:2]
