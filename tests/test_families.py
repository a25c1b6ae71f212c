"""MiniOneRec's and OneRec-Think's views: equal to what theirs make, and true of catalogues of any shape."""

import copy
import json
import re
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, as_flags
from test_build_samples import flags, folder, make, read  # noqa: F401 (folder is a fixture)
from test_vectors import change
from test_views import ASKED, WAYS, World

from pixelrec_train.commands import build_samples
from pixelrec_train.config.tasks import FAMILIES, MIXES
from pixelrec_train.data.samples.dataset_file import DatasetFile
from pixelrec_train.data.tokens.chat import Renderer
from pixelrec_train.data.tokens.mixture import Entry, Mixture
from pixelrec_train.data.tokens.token_store import TokenStore
from pixelrec_train.data.views.families import VIEWS
from pixelrec_train.data.views.graphs import EXAMPLES
from pixelrec_train.data.views.parts import Part
from pixelrec_train.data.views.view import CHAT, Known, LeftOut, sample_name
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.chat_template import CHAT_TEMPLATES
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import ABSENT

sys.path.insert(0, str(ROOT))
from benchmarks import minionerec, onerec_think, vectors  # noqa: E402

FIXTURES = ROOT / "tests/fixtures"
PROJECTS = {"minionerec": minionerec, "onerec_think": onerec_think}
OF_ITEMS = [task for task, view in VIEWS.items() if view.splits == ("train",)]


# beside what their own code makes


@pytest.mark.parametrize(("project", "quantities"), [("minionerec", 60), ("onerec_think", 55)])
def test_every_quantity_of_the_originals_is_reproduced(project, quantities, capsys):
    assert vectors.main([project, str(FIXTURES / project)]) == 0
    assert f"{quantities} of {quantities} quantities agree" in capsys.readouterr().out


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """{project: what ours makes of its files}"""
    return {
        name: project.Case(FIXTURES / name, tmp_path_factory.mktemp(name))
        for name, project in PROJECTS.items()
    }


def first_answer(rows, task):
    """The first row of a type that has an answer."""
    return next(row for row in rows["rows"] if row["type"] == task and row["assistant"])


@pytest.mark.parametrize(
    ("project", "file", "spoil", "named"),
    [
        ("minionerec", "sft", lambda v: v[0]["rows"][3].update(response="<a_1><b_1><c_1>\n"),
         "SidSFTDataset: their rows that ours lack"),
        ("minionerec", "sft", lambda v: v[3]["rows"][0]["labels"].__setitem__(-1, 1),
         "TitleHistory2SidSFTDataset: labels"),
        ("minionerec", "sft", lambda v: v[2]["rows"][0]["input_ids"].pop(5), "FusionSeqRecDataset: tokens"),
        ("minionerec", "allowed", lambda v: v["allowed_at_step"][1][0].pop(), "what may follow 1 codes"),
        ("minionerec", "rl_prompts", lambda v: v[0]["rows"][0].update(completion="<a_9>\n"),
         "SidDataset: inputs and targets that ours lack"),
        ("onerec_think", "conversations", lambda v: v.update(system=v["system"] + " "), "system prompt"),
        ("onerec_think", "conversations",
         lambda v: first_answer(v, "type_c_seq_full").update(assistant="<|sid_start|><|sid_1|><|sid_end|>"),
         "type_c_seq_full: rows"),
        ("onerec_think", "conversations",
         lambda v: v["rows"].remove(first_answer(v, "type_d_similar_items")),
         "type_d_similar_items: number of rows"),
        ("onerec_think", "preparation", lambda v: v["val"][0].update(target_sid="x"),
         "sequences_val: target_sid"),
        ("onerec_think", "preparation", lambda v: v["items"][2].update(semantic_id_1=255),
         "items_onerec: semantic_id_1"),
    ],
)  # fmt: skip
def test_a_number_that_is_off_is_noticed_and_named(cases, project, file, spoil, named, tmp_path):
    case = copy.copy(cases[project])
    case.directory = shutil.copytree(FIXTURES / project, tmp_path / "numbers")
    change(case.directory / f"expected_{file}.json", spoil)
    off = [check.name for check in PROJECTS[project].checks(case) if not check.holds]
    assert off == [named]


# limits and mixes


def counts_of(directory):
    return json.loads((directory / "facts.json").read_text())["samples"]


def test_a_limit_keeps_so_many_of_a_type_drawn_by_the_seed(folder):  # noqa: F811
    tasks = "type_c_seq_last_2,type_c_seq_full,type_a_sid_to_title,type_e_copurchase_forward"
    every = make(task=tasks, output_dir="every")
    some = make(task=tasks, output_dir="some", limit_type_c=30, limit_type_e=5)
    counts, limited = counts_of(every), counts_of(some)
    assert limited["type_c_seq_last_2"] + limited["type_c_seq_full"] == 30
    assert limited["type_e_copurchase_forward"] == 5 < counts["type_e_copurchase_forward"]
    assert limited["type_a_sid_to_title"] == counts["type_a_sid_to_title"]
    assert 5 < limited["type_c_seq_full"] < 25  # of both tasks, as there are
    facts = json.loads((some / "facts.json").read_text())
    beyond = {left["task"]: left["samples"] for left in facts["left_out"] if "beyond" in left["why"]}
    assert beyond == {task: counts[task] - n for task, n in limited.items() if n < counts[task]}
    all_samples, drawn = read(every)[2], read(some)[2]
    assert [sample for sample in all_samples if sample in drawn] == drawn
    assert read(make(task=tasks, output_dir="again", limit_type_c=30, limit_type_e=5))[2] == drawn
    other = read(make(task=tasks, output_dir="other", limit_type_c=30, limit_type_e=5, seed=1))[2]
    assert {s.uuid for s in other} != {s.uuid for s in drawn}


def write_general():
    """Files of text alone, of which a mix has its share."""
    make(task="video_rec", form="segments", output_dir="general", samples_per_user=9)
    return "general"


@pytest.mark.parametrize("given", ["name", "weights"])
def test_a_mix_is_read_with_its_shares(folder, given):  # noqa: F811
    shares = MIXES["onerec_think"] if given == "name" else {"sid_prediction": 3, "title_to_sid": 1.5}
    how = {"mix": "onerec_think", "general": write_general()} if given == "name" else {}
    how = how or {"weights": ",".join(f"{task}={share}" for task, share in shares.items())}
    directory = make(**how)
    dataset = DatasetFile.load(directory / "dataset.json")
    names = [file.parent.name for source in dataset.sources for file in source.files[:1]]
    assert names == [*shares] and [source.weight for source in dataset.sources] == list(shares.values())
    assert counts_of(directory).keys() == shares.keys() - {"general"}
    tokenizer_dir = FIXTURES / "openonerec/tokenizer"
    tokenizer = load_tokenizer(tokenizer_dir)
    store = TokenStore.open_or_build(dataset.sources, tokenizer, tokenizer_dir, "cache")
    entries = [
        Entry(first, stop, source.epochs, source.weight)
        for (first, stop), source in zip(store.entry_bounds, dataset.sources, strict=True)
    ]
    mixture, total = Mixture(entries, np.ones(store.num_samples, bool)), sum(shares.values())
    expected = [store.num_samples * share / total for share in shares.values()]
    for epoch in range(3):
        order, entry = mixture.order(7, epoch), np.cumsum([stop for _, stop in store.entry_bounds])
        entry = np.searchsorted([stop for _, stop in store.entry_bounds], order, "right")
        read_of = np.bincount(entry, minlength=len(expected))
        assert np.abs(read_of - expected).max() <= 1 and read_of.tolist() == mixture.counts(epoch)


# who follows whom


@pytest.fixture(scope="module")
def world(demo, tmp_path_factory):
    return World(demo, tmp_path_factory.mktemp("families"))


WHOLE = ASKED._replace(history=None)  # all of a history, as E has it


def training_pairs(world):
    """[(item, the next)] of what everybody took in training but for the last, which C asks about."""
    return [
        pair
        for _, _, items in world.parts()["train"]
        for pair in zip(items[:-1], items[1:-1], strict=False)
    ]  # fmt: skip


def asked_and_answered(made, pattern):
    for sample in made.samples:
        question, answer = (message["content"] for message in sample.messages[-2:])
        yield re.fullmatch(pattern, question), answer


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("task", ["type_e_copurchase_forward", "type_e_copurchase_backward"])
def test_neighbours_are_those_that_are_counted_by_hand(world, way, task):
    graph = defaultdict(Counter)
    for first, second in training_pairs(world):
        one, other = (first, second) if task.endswith("forward") else (second, first)
        graph[one][other] += 1
    made, found = world.make(way, "train", task, asked=WHOLE), defaultdict(Counter)
    for sample, facts in made:
        question, answer = (message["content"] for message in sample.messages[-2:])
        ((one,), (other,)) = world.items_in(question), world.items_in(answer)
        found[one][other] = facts["times"]
    expected = {one: others for one, others in graph.items() if others.total() > 1}
    assert max(map(len, expected.values())) <= 30  # of more, some are left out
    assert found == expected and made.left_out == {"ids with one neighbour alone": len(graph) - len(expected)}
    assert max(map(Counter.total, expected.values())) > 2 and made.left_out.total() > 0


@pytest.mark.parametrize("way", WAYS)
def test_transitions_are_those_that_are_counted_by_hand(world, way):
    made = world.make(way, "train", "type_e_category_transition", asked=WHOLE)
    expected = Counter()
    for pair in training_pairs(world):
        before, after = (world.texts[item]["tag"].strip() for item in pair)
        if before and after:
            expected[before, after, world.ids[pair[1]]] += 1
    pattern = "After purchasing items from '(.*)', what product from '(.*)' might a user buy\\?"
    found = Counter((*asked.groups(), answer) for asked, answer in asked_and_answered(made, pattern))
    assert found == expected and expected.total() + made.left_out.total() == len(training_pairs(world))


# catalogues of other shapes


SHAPES = {"2 levels": (3, 4), "3 levels": (2, 3, 3), "4 levels": (2, 2, 3, 3), "shorter": (2, 3, 3)}
CATEGORIES = (*(f"Beauty > {letter}" for letter in "abcdefghijk"), "")  # few have the same


class Small:
    """40 items, some of which share an id, and 12 users; of "shorter", every fourth id ends a level early."""

    def __init__(self, shape, codec):
        self.sizes, self.codec = SHAPES[shape], CODECS[codec]
        rng = np.random.default_rng(len(shape) + len(self.sizes))
        self.codes = np.stack([rng.integers(0, size, 40) for size in self.sizes], 1)
        if shape == "shorter":
            self.codes[::4, -1] = ABSENT
        fields = [
            (f"title number {n} of forty", f"what {n} is, told " * 5, CATEGORIES[n % len(CATEGORIES)])
            for n in range(40)
        ]
        self.known = Known.spelled(
            [f"i{n}" for n in range(40)], self.codes, self.codec, self.sizes,
            text_keys=("title", "description", "categories"), fields=fields, category="hair",
        )  # fmt: skip
        self.number = {item_id: n for n, item_id in enumerate(self.known.item_ids)}
        items = rng.integers(0, 40, (12, 9))
        starts = np.arange(12) * 9
        keys = [(f"u{n}", 0) for n in range(12)]
        flat = items.astype(np.int32).ravel()
        self.parts = {
            "train": Part("train", keys, starts, starts + 7, flat, None),
            "valid": Part("valid", keys, starts, starts + 7, flat, flat[starts + 7]),
            "test": Part("test", keys, starts, starts + 8, flat, flat[starts + 8]),
        }

    def made(self, task, part="train"):
        """[(Sample, facts)]"""
        view = VIEWS[task]
        asked = view.settled(ASKED._replace(form=CHAT, history=None, samples=None))
        found = [
            made for made in view.samples(self.known, self.parts[part], asked, 42)
            if not isinstance(made[0], LeftOut)
        ]  # fmt: skip
        assert found, task
        return found

    def words_in(self, text):
        """[[token of an id]] in a text, as they stand behind each other."""
        token = re.escape(self.codec.pattern.format(letter="@", level="%", code="#", number="#"))
        token = token.replace("@", "[a-z]").replace("%", r"\d+").replace(re.escape("#"), r"\d+")
        begin, end = map(re.escape, (self.codec.begin, self.codec.end))
        return [re.findall(token, run) for run in re.findall(f"{begin}(?:{token})+(?:{end})?", text)]


@pytest.fixture(scope="module", params=[(shape, codec) for shape in SHAPES for codec in CODECS])
def small(request):
    return Small(*request.param)


IN_ANSWER = [
    task for family in ("minionerec", "onerec_think", "reasoning") for task in FAMILIES[family]
    if CHAT in VIEWS[task].forms and not task.startswith(("type_d", "type_e"))
]  # fmt: skip


@pytest.mark.parametrize("task", IN_ANSWER)
def test_ids_stand_whole_in_prompts_and_answers_whatever_their_number_of_levels(small, task):
    """All codes of every id, and those of the items that the metadata names."""
    known, names_target = small.known, VIEWS[task].chats[0][1].endswith(("{item}", "{target}"))
    for sample, facts in small.made(task):
        question, answer = (message["content"] for message in sample.messages[-2:])
        wanted = facts.get("target_item_ids") or [facts["item_id"]]
        if names_target:
            assert answer.endswith("".join(known.ids[small.number[item]] for item in wanted))
        for words in small.words_in(f"{question} | {answer}"):
            assert words in known.words
        if task in OF_ITEMS:
            assert small.words_in(question + answer) == [known.words[small.number[facts["item_id"]]]]
        else:
            told = [known.words[small.number[item]] for item in wanted] * names_target
            assert small.words_in(answer) == told
            assert len(small.words_in(question)) in (0, facts["history_items"], *(2, 3, 5))
        assert not (names_target and task in OF_ITEMS and answer in question)


def test_every_item_has_its_row_though_ids_are_shared(small):
    assert len(set(small.known.ids)) < 40
    for task in ("sid_to_title", "title_to_sid", "description_to_sid", "type_a_sid_to_title", "item_caption"):
        assert [facts["item_id"] for _, facts in small.made(task)] == small.known.item_ids


def begins(small, words):
    return [n for n, own in enumerate(small.known.words) if own[: len(words)] == words]


def test_what_shares_a_prefix_does(small):
    """The answers of D are right: of items whose ids begin so, and never the very id that is asked about."""
    known, told = small.known, Counter()
    for sample, facts in small.made("type_d_prefix_category"):
        (prefix,) = small.words_in(sample.messages[-2]["content"])
        own = begins(small, prefix)
        assert len(own) > 1 and 0 < len(prefix) < max(len(known.words[n]) for n in own)
        answer = sample.messages[-1]["content"]
        assert answer in {known.text(n, "categories") for n in own if n == small.number[facts["item_id"]]}
        told["category"] += 1
    for sample, facts in small.made("type_d_prefix_examples"):
        (prefix,) = small.words_in(sample.messages[-2]["content"])
        ids = sample.messages[-1]["content"].split(" ")
        own = [small.number[item] for item in facts["item_ids"]]
        assert ids == [known.ids[n] for n in own] and set(own) <= set(begins(small, prefix))
        assert len(set(own)) == EXAMPLES
        told["examples"] += 1
    for sample, _ in small.made("type_d_similar_items"):
        question, answer = (message["content"] for message in sample.messages[-2:])
        (one,), (other,) = small.words_in(question), small.words_in(answer)
        shared = min(2, len(one) - 1, len(other) - 1)
        assert one != other and one[:shared] == other[:shared] and shared and answer in known.ids
        told["similar"] += 1
    assert min(told.values()) > 2 and len(told) == 3


@pytest.fixture(scope="module")
def renderer():
    tokenizer = load_tokenizer(FIXTURES / "minionerec/tokenizer")
    tokenizer.chat_template = CHAT_TEMPLATES["minionerec"]
    return Renderer(tokenizer)


@pytest.mark.parametrize("part", ["train", "valid", "test"])
@pytest.mark.parametrize("task", [t for t in IN_ANSWER if VIEWS[t].asks_for_id])
def test_what_is_asked_is_how_a_training_text_begins_under_minionerecs_template(renderer, task, part):
    small, view = Small("shorter", "minionerec"), VIEWS[task]
    asked = view.settled(ASKED._replace(form=CHAT, history=None, samples=None))
    samples = {sample.uuid: sample for sample, _ in small.made(task, part)}
    asks = 0
    for stretch in small.parts[part].nexts(asked.history, asked.samples):
        if sample := samples.get(sample_name(task, part, CHAT, stretch.key)):
            unknown = stretch._replace(targets=[])  # who asks does not know the answer
            prompt = renderer.prompt(view.ask(small.known, unknown, part))
            text = renderer.text(sample)[0]
            answer = sample.messages[-1]["content"]
            assert text == f"{prompt}{answer}\n<|im_end|>{renderer.tokenizer.pad_token}"
            asks += 1
    assert asks == len(samples) >= 10


def test_the_command_makes_a_thinking_mix_only_where_it_is_asked_for(folder):  # noqa: F811
    """What dataset.json says of /think follows from the tasks of a mix."""
    for weights, thinks in (("sid_prediction=1", False), ("sid_prediction=1,reasoned_prediction=2", True)):
        directory = Path(flags(output_dir=f"mix {thinks}")["output_dir"])
        build_samples.main(as_flags(flags(output_dir=directory, weights=weights)))
        assert json.loads((directory / "dataset.json").read_text())["add_think_pattern"] is thinks
