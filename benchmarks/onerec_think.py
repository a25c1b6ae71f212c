"""What OneRec-Think's preparation and generator make of its files, beside ours (benchmarks/vectors.py).

Types that theirs draws at random are held to their form, their number, and to being true. Theirs is wrong in
rows with an empty answer or question, which are none of ours.
"""

import json
import re
from pathlib import Path

import pyarrow.parquet

from benchmarks.checks import Check, apart, difference
from benchmarks.minionerec import made_by, run
from pixelrec_train.commands import prep
from pixelrec_train.config.tasks import FAMILIES

ID = re.compile(r"<\|sid_start\|>(?:<\|sid_\d+\|>)+<\|sid_end\|>")
DRAWN = (
    "type_b_description_contains_to_sid", "type_d_prefix_category", "type_d_prefix_examples",
    "type_d_similar_items", "type_e_category_transition",
)  # fmt: skip


class Case:
    """A directory of theirs, and what ours makes of its files."""

    def __init__(self, directory, cache_dir):
        self.directory, self.made = directory, f"{cache_dir}/tables"
        run(prep, source="onerec_think", data_dir=directory / "files", output_dir=self.made, their_files=True)
        samples = made_by(
            f"{cache_dir}/samples", task="onerec_think", codec="semantic_ids_llm", split_protocol="last_item",
            interaction_data=f"{self.made}/interactions.csv", text_data=f"{self.made}/items.csv",
            text_keys="title,tag,description", semantic_ids=f"{self.made}/semantic_ids.json",
            cache_dir=f"{cache_dir}/cache",
        )  # fmt: skip
        self.chats = [[message["content"] for message in sample.messages] for sample in samples]
        self.rows = {task: [] for task in FAMILIES["onerec_think"]}
        for sample, (_, question, answer) in zip(samples, self.chats, strict=True):
            self.rows[sample.source].append((question, answer))

    def json(self, name):
        return json.loads((self.directory / name).read_text(encoding="utf-8"))

    def of_prefix(self, words):
        """The items whose ids begin so."""
        return [item for item in self.items if item["semantic_id"].startswith(words)]


def all_checks(directory, cache_dir):
    yield from checks(Case(directory, cache_dir))


def checks(case):
    """Every Check; the expected numbers are read as they are now."""
    case.prepared = case.json("expected_preparation.json")
    case.items = case.prepared["items"]
    yield from check_preparation(case)
    yield from check_conversations(case)
    for check in (snippets, categories, examples, similar, transitions):
        yield from check(case)


def check_preparation(case):
    """The items and sequences that their step writes."""
    name = next(Path(case.made).glob("*_items_onerec.parquet")).name.removesuffix("_items_onerec.parquet")
    tables = {"items": "items_onerec"} | {part: f"sequences_{part}" for part in ("train", "val", "test")}
    for kind, file in tables.items():
        ours = pyarrow.parquet.read_table(f"{case.made}/{name}_{file}.parquet").to_pylist()
        theirs = case.prepared[kind]
        yield Check(f"{file}: rows", difference([len(ours)], [len(theirs)]))
        for column in theirs[0]:
            pairs = ((json.dumps(row.get(column)) for row in rows) for rows in (ours, theirs))
            yield Check(f"{file}: {column}", difference(*pairs))


def check_conversations(case):
    """The same rows of each type that is not drawn; of the others as many."""
    expected = case.json("expected_conversations.json")
    yield Check("system prompt", float(sum(chat[0] != expected["system"] for chat in case.chats)))
    for task, ours in case.rows.items():
        theirs = [(row["user"], row["assistant"]) for row in expected["rows"] if row["type"] == task]
        right = [row for row in theirs if row[1] and "''" not in row[0]]
        if task in DRAWN:
            yield Check(f"{task}: number of rows", difference([len(ours)], [len(right)]))
        else:
            yield Check(f"{task}: rows", apart(ours, right))


def wrong(rows, is_right):
    return float(sum(not is_right(*row) for row in rows))


def snippets(case):
    described = {}
    for item in case.items:
        described.setdefault(item["semantic_id"], []).append(item["description_text"])

    def is_right(question, answer):
        found = re.fullmatch(r"Find the product with description containing '(.{50})'\.", question, re.DOTALL)
        return found and any(found[1] in text for text in described[answer])

    yield Check("snippets: 50 characters of the item's description", wrong(case.rows[DRAWN[0]], is_right))


def categories(case):
    def is_right(question, answer):
        prefix = question.split("prefix ")[1].split(" belong")[0]
        own = case.of_prefix(prefix)
        return len(own) > 1 and answer in {item["categories_text"] for item in own}

    yield Check("prefix categories: of an item with these codes", wrong(case.rows[DRAWN[1]], is_right))


def examples(case):
    def is_right(question, answer):
        prefix, ids = question.split("prefix ")[1].rstrip("."), ID.findall(answer)
        own = [item["semantic_id"] for item in case.of_prefix(prefix)]
        return len(ids) == 3 and " ".join(ids) == answer and all(ids.count(i) <= own.count(i) for i in ids)

    yield Check("prefix examples: three items with these codes", wrong(case.rows[DRAWN[2]], is_right))


def similar(case):
    known = {item["semantic_id"] for item in case.items}

    def is_right(question, answer):
        (own,) = ID.findall(question)
        return answer in known and answer != own and answer.split(">")[1:3] == own.split(">")[1:3]

    yield Check("similar items: another id with the same first codes", wrong(case.rows[DRAWN[3]], is_right))


def transitions(case):
    told = {}
    for item in case.items:
        told.setdefault(item["semantic_id"], set()).add(item["categories_text"])
    valid = {
        (before, after, second)
        for row in case.prepared["train"]
        for first, second in zip(row["semantic_id_sequence"], row["semantic_id_sequence"][1:], strict=False)
        for before in told[first]
        for after in told[second]
    }

    def is_right(question, answer):
        found = re.fullmatch(
            "After purchasing items from '(.*)', what product from '(.*)' might a user buy\\?", question
        )
        return found and (*found.groups(), answer) in valid

    yield Check("transitions: neighbours in a training history", wrong(case.rows[DRAWN[4]], is_right))
