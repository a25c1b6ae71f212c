"""Samples whose answers begin with a thought, asked of a model that is to think by itself."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from pixelrec_train.data.checks.ids_in_texts import Catalogue, any_id
from pixelrec_train.data.samples.rewriting import read_rows
from pixelrec_train.data.tokens.chat import THINK_EMPTY, THOUGHT
from pixelrec_train.errors import InputError
from pixelrec_train.recommend.questions import THINK
from pixelrec_train.semantic_id.trie import Trie

NO_THOUGHT = "no thought in front of the answer"
NO_ITEM = "a thought, but the answer begins with no item's id"


class Question(NamedTuple):
    key: tuple  # of the sample, see read_rows
    uuid: str
    prompt: np.ndarray  # [T] token ids, up to where the thought begins; int32, as all lie in memory
    leaves: frozenset  # of the trie: the ids of its own items
    without: str  # the answer with an empty thought


class Items(NamedTuple):
    """Those that may be named."""

    catalogue: Catalogue
    trie: Trie
    leaf_of: dict  # {number of an id in the catalogue: its leaf}

    @staticmethod
    def of(semantic_ids, codec):
        """codec: the name of the spelling."""
        catalogue, trie = Catalogue(semantic_ids, codec), Trie.of(semantic_ids.codes)
        numbers = (catalogue.number_of_item[item_id] for item_id in semantic_ids.item_ids)
        return Items(catalogue, trie, dict(zip(numbers, trie.leaf_of.tolist(), strict=True)))


def read_questions(files, items, speaker):
    """([Question], short ones first, {why a sample is not asked: samples})"""
    questions, left = [], Counter()
    for key, sample, facts in read_rows(files):
        thought, answer = parted(sample)
        if thought is None:
            left[NO_THOUGHT] += 1
        elif not (leaves := targets(sample, facts, answer, items)):
            left[NO_ITEM] += 1
        else:
            prompt = speaker.prompt(sample.messages[:-1], THINK).numpy().astype(np.int32)
            questions.append(Question(key, sample.uuid, prompt, leaves, THINK_EMPTY + answer))
    questions.sort(key=lambda question: len(question.prompt))  # so that blocks hold little padding; stable
    return questions, dict(left)


def parted(sample):
    """(thought, what is said behind it) of an answer that follows a question; (None, "") where none is."""
    if not sample.messages or [m["role"] for m in sample.messages[-2:]] != ["user", "assistant"]:
        return None, ""
    answer = sample.messages[-1]["content"].lstrip()
    found = THOUGHT.match(answer)
    if not found or not found[1].strip():
        return None, ""
    return found[1], answer[found.end() :].lstrip("\n")


def targets(sample, facts, answer, items):
    """Leaves of the ids of a sample's own items; empty where the answer begins with no id.

    Raises:
        InputError: its answer has another spelling than the model, or an id of no item, or of another one
            than its metadata names.
    """
    catalogue, where = items.catalogue, f"sample {sample.uuid}"
    spelled, numbers = catalogue.read(answer)
    if not (spelled and answer.startswith(spelled[0])):
        if other := any_id().match(answer):
            raise InputError(
                f"{where} answers with {other[0]!r}, but the vocabulary of --model_dir spells ids as "
                f"{catalogue.codec.text([0] * len(catalogue.sizes), catalogue.sizes)}. Build the samples "
                f"with this --model_dir."
            )
        return frozenset()
    named = facts.get("target_item_ids") or []
    if not isinstance(named, list) or not all(isinstance(item_id, str) for item_id in named):
        raise InputError(
            f"{where}: target_item_ids of its metadata is {str(named)[:60]!r}; it must be a list of item ids."
        )
    if absent := [item_id for item_id in named if item_id not in catalogue.number_of_item]:
        raise InputError(
            f"{where} is about item {absent[0]!r}, which is none of the catalogue. Name the --semantic_ids "
            f"(and --interaction_data) that the samples were built from."
        )
    own = [catalogue.number_of_item[item_id] for item_id in named] or numbers[:1]
    if numbers[0] is None or numbers[0] not in own:
        whose = f"that of its item {named[0]!r}" if named else "the id of an item"
        raise InputError(
            f"{where} answers with {spelled[0]}, which is not {whose} in --semantic_ids. Name the file that "
            f"the samples were built from."
        )
    return frozenset(items.leaf_of[number] for number in own)
