"""What MiniOneRec's own code makes of its files, beside what ours makes of them (benchmarks/vectors.py).

Theirs is wrong in three places, where ours is held to what is right: prompts of items hold their answer (it
is taken off before the comparison), of items that share an id or a title one alone has its row, and rewards
and evaluation ask in other words than training does.
"""

import contextlib
import csv
import io
import json
from collections import Counter

import numpy as np

from benchmarks import minionerec_policy as policy
from benchmarks.checks import Check, apart, difference
from pixelrec_train.commands import build_samples, prep
from pixelrec_train.data.samples.files import sources_of
from pixelrec_train.data.samples.rows import row_counts, samples
from pixelrec_train.data.tokens.chat import Renderer
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.chat_template import CHAT_TEMPLATES
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.semantic_id.trie import Trie

VIEWS = {  # their data set -> our views
    "SidSFTDataset": ("sid_history_to_sid",), "SidItemFeatDataset": ("sid_to_title", "title_to_sid"),
    "FusionSeqRecDataset": ("sid_history_to_title",),
    "TitleHistory2SidSFTDataset": ("title_history_to_sid",),
}  # fmt: skip
OF_ITEMS = ("sid_to_title", "title_to_sid")
SAME_WORDS = ("SidDataset", "RLTitle2SidDataset")  # of rewards: training's input, without its instruction


class Case:
    """A directory of theirs, and what ours makes of its files."""

    def __init__(self, directory, cache_dir):
        self.directory = directory
        self.tokenizer = load_tokenizer(directory / "tokenizer")
        self.tokenizer.chat_template = CHAT_TEMPLATES["minionerec"]
        self.renderer = Renderer(self.tokenizer)
        made = f"{cache_dir}/tables"
        run(prep, source="minionerec", data_dir=directory / "files", output_dir=made)
        with open(f"{made}/split.csv", encoding="utf-8", newline="") as file:
            self.rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
        complete(f"{made}/split.csv", self.rows[-1])
        self.ids = SemanticIds.load(f"{made}/semantic_ids.json")
        self.samples = made_by(
            f"{cache_dir}/samples", task="minionerec,description_to_sid", codec="minionerec",
            interaction_data=f"{made}/interactions.csv", split_data=f"{made}/split.csv",
            text_data=f"{made}/items.csv", text_keys="title,description",
            semantic_ids=f"{made}/semantic_ids.json", cache_dir=f"{cache_dir}/cache",
        )  # fmt: skip
        self.texts = {id(sample): self.renderer.text(sample)[0] for sample in self.samples}

    def json(self, name):
        return json.loads((self.directory / name).read_text(encoding="utf-8"))

    def of(self, *tasks):
        return [sample for sample in self.samples if sample.source in tasks]


def run(command, **flags):
    """A command as a person calls it; what it prints is left out."""
    with contextlib.redirect_stdout(io.StringIO()):
        command.main([part for name, value in flags.items() for part in (f"--{name}", str(value))])


def made_by(directory, **flags):
    """[Sample] that scripts/build_samples.py makes."""
    run(build_samples, output_dir=directory, **flags)
    files = [file for source in sources_of(directory, "samples") for file in source.files]
    return [
        sample for file in files for group in range(len(row_counts(file)))
        for _, sample in samples(file, group)
    ]  # fmt: skip


def complete(path, row):
    """Add rows of the parts that the vectors do not have: a split needs all three."""
    with open(path, encoding="utf-8", newline="") as file:
        there = {line["split"] for line in csv.DictReader(file)}
    with open(path, "a", encoding="utf-8", newline="") as file:
        for part in {"valid", "test"} - there:
            csv.DictWriter(file, row).writerow(row | {"split": part})


def all_checks(directory, cache_dir):
    yield from checks(Case(directory, cache_dir))


def checks(case):
    """Every Check; the expected numbers are read as they are now."""
    yield from check_training(case)
    yield from check_prompts(case)
    yield from check_decoding(case)
    yield from policy.checks(case)


def right_prompt(row):
    """Their prompt without the answer that some end in."""
    answer = row.get("response", row.get("completion", "")).split("\n")[0]
    return row["prompt"].removesuffix(answer) if answer else row["prompt"]


def check_training(case):
    """Prompts, answers, tokens and labels of what sft.py trains on."""
    for group in case.json("expected_sft.json"):
        own, view = case.of(*VIEWS[group["view"]]), group["view"]
        texts = Counter(case.texts[id(sample)] for sample in own)
        pad = case.tokenizer.pad_token
        theirs = [right_prompt(row) + row["response"] + pad for row in group["rows"]]
        yield Check(f"{view}: their rows that ours lack", float((Counter(theirs) - texts).total()))
        if set(VIEWS[view]) <= set(OF_ITEMS):
            for task in VIEWS[view]:
                yield Check(f"{task}: a row for every item", difference([len(case.of(task))], [items(case)]))
        else:
            yield Check(f"{view}: rows", difference([len(own)], [len(case.rows)]))
        encoded = {case.texts[id(sample)]: case.renderer.encode([sample])[0] for sample in own}
        tokens = labels = 0.0
        for row, text in zip(group["rows"], theirs, strict=True):
            if text in encoded and row["prompt"] == right_prompt(row):
                ids, is_label = encoded[text]
                tokens = max(tokens, difference(ids[:-1], row["input_ids"]))
                asked = np.where(is_label, ids, -100)
                labels = max(labels, difference(asked, [*row["labels"], -100]))
        yield Check(f"{view}: tokens", tokens)
        yield Check(f"{view}: labels", labels)
    for task in ("sid_to_title", "title_to_sid", "description_to_sid"):
        held = sum(
            sample.messages[-1]["content"] in sample.messages[-2]["content"] for sample in case.of(task)
        )
        yield Check(f"{task}: prompts that hold their answer", float(held))


def items(case):
    return sum(bool(item["title"].strip()) for item in case.json("files/item.json").values())


def check_prompts(case):
    """The prompts of rewards are those of training; each with its own target."""
    asked = {}
    for sample in case.samples:
        prompt = case.renderer.prompt(list(sample.messages[:-1]))
        asked.setdefault(prompt, []).append(sample.messages[-1]["content"])
        assert case.texts[id(sample)].startswith(prompt)
    for group in case.json("expected_rl_prompts.json"):
        if group["view"] in SAME_WORDS:
            wanted = [(right_prompt(row), row["completion"].strip()) for row in group["rows"]]
            # A description that is empty, or an empty list, is no question.
            wanted = [w for w in wanted if '""' not in w[0] and '"[]"' not in w[0]]
            found = sum(
                any(prompt.endswith(theirs) and answer in answers for prompt, answers in asked.items())
                for theirs, answer in wanted
            )
            yield Check(f"{group['view']}: inputs and targets that ours lack", float(len(wanted) - found))
    own = [(history_of(sample), sample.messages[-1]["content"]) for sample in case.of("sid_history_to_sid")]
    spelled = dict(zip(case.ids.item_ids, spell(case.ids), strict=True))
    told = [
        (tuple(spelled[item] for item in row["history"].split()[-10:]), spelled[row["item_id"]])
        for row in case.rows
    ]
    yield Check("the target travels with its row, also where histories are the same", apart(own, told))


def spell(ids):
    return [CODECS["minionerec"].text(row, ids.codebook_sizes) for row in ids.codes.tolist()]


def history_of(sample):
    """The ids that a prompt names, in their order."""
    between = sample.messages[-2]["content"].split("items ")[1].split(" in chronological")[0]
    return tuple(between.split(", "))


def check_decoding(case):
    """What the trie allows at each step, and that all codes of an id are used."""
    expected, trie = case.json("expected_allowed.json"), Trie.of(case.ids.codes)
    codec, sizes = CODECS["minionerec"], case.ids.codebook_sizes
    index = {tuple(words) for words in case.json("files/index.json").values()}
    ours = {tuple(codec.words(row, sizes)) for row in case.ids.codes.tolist()}
    yield Check("ids, all of their codes", float(len(ours ^ index)))
    yield Check("ids in the trie", difference([trie.num_leaves], [len(index)]))
    tokens = codec.tokens(sizes)
    for step in range(trie.levels):
        error = 0.0
        for beam, theirs in zip(expected["beams"], expected["allowed_at_step"][step], strict=True):
            begin = codec.read(case.tokenizer.convert_ids_to_tokens(beam[:step]))
            words = [tokens[step][code] for code in allowed(trie, begin)]
            error = max(error, apart(case.tokenizer.convert_tokens_to_ids(words), theirs))
        yield Check(f"what may follow {step} codes", error)


def allowed(trie, codes):
    """The codes that may follow these."""
    node = 0
    for level, code in enumerate([*codes, None]):
        edges = slice(*trie.row_ptr[level][node : node + 2].tolist())
        following = trie.codes[level][edges].tolist()
        if code is None:
            return following
        node = edges.start + following.index(code)
