"""What the generative head is asked: exactly these labels, on any number of ranks."""

import numpy as np
import pytest

from pixelrec_train.data.interactions import Interactions
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.data.loader import Slot
from pixelrec_train.data.protocols import leave_last_two_out
from pixelrec_train.data.tokens.histories import (
    HISTORY,
    ID_TO_TEXT,
    NEXT,
    TEXT_TO_ID,
    HistoryCollator,
    HistoryDataset,
)

EOS, BEGIN, END = 1, 90, 91
CODES = np.array([[10, 20], [11, 21], [12, -1]])  # the last id is shorter
TEXT = ItemText(np.array([5, 6, 7], np.int32), np.array([0, 2, 2, 3]), 0, 0, "x")  # item 1 has no text


def collator(**around):
    return HistoryCollator(TEXT, CODES, **{"begin_id": BEGIN, "end_id": END, "eos_id": EOS} | around)


def asked(kind, items, **around):
    """Tokens of a sample, the supervised ones marked with a minus; a position stands one place earlier."""
    batch = collator(**around)([(kind, np.array(items))])
    tokens = batch.texts.token_ids.tolist()
    assert batch.labels.tolist() == [tokens[p + 1] for p in batch.positions.tolist()]
    return [-t if n - 1 in batch.positions.tolist() else t for n, t in enumerate(tokens)]


def test_codes_after_the_first_item_are_asked_for_and_what_surrounds_them_is_not():
    assert asked(HISTORY, [0, 2, 1]) == [BEGIN, 10, 20, END, BEGIN, -12, END, BEGIN, -11, -21, END]
    assert asked(HISTORY, [0, 1], begin_id=None, end_id=None) == [10, 20, -11, -21]


def test_to_validate_only_the_item_that_was_taken_next_is_asked_for():
    assert asked(NEXT, [0, 2, 1]) == [BEGIN, 10, 20, END, BEGIN, 12, END, BEGIN, -11, -21, END]
    assert asked(NEXT, [0, 2], begin_id=None, end_id=None) == [10, 20, -12]
    assert collator().tokens_per_item == 4 and collator(end_id=None).tokens_per_item == 3


def test_a_text_is_asked_for_with_its_end_and_an_id_after_its_text():
    assert asked(ID_TO_TEXT, [0]) == [BEGIN, 10, 20, END, -5, -6, -EOS]
    assert asked(ID_TO_TEXT, [1]) == [BEGIN, 11, 21, END, -EOS]
    assert asked(TEXT_TO_ID, [0]) == [5, 6, BEGIN, -10, -20, END]
    assert asked(TEXT_TO_ID, [1], begin_id=None) == [EOS, -11, -21, END]  # never a text's own first token


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_ranks_share_the_samples_and_an_empty_one_reads_a_token(ranks):
    samples = [(HISTORY, np.array([0, 1])), (ID_TO_TEXT, np.array([2])), (TEXT_TO_ID, np.array([1]))]
    samples += [(HISTORY, np.zeros(0, np.int64))]  # an empty slot
    batches = []
    for rank in range(ranks):
        batches.append(collator()(samples[rank::ranks]))
    assert sum(len(batch.labels) for batch in batches) == 2 + 2 + 2
    assert sum(batch.counts["users"] for batch in batches) == 3
    assert all(len(batch.texts.lengths) >= 1 and batch.texts.lengths.min() >= 1 for batch in batches)
    assert all(int(batch.texts.lengths.sum()) == batch.counts["tokens"] for batch in batches)


def test_a_prompt_is_a_history_as_it_is_trained_on_up_to_the_first_code():
    tokens = collator()([(HISTORY, np.array([0, 2, 1]))]).texts.token_ids.tolist()
    prompt = collator().prompt([0, 2]).tolist()
    assert prompt == tokens[: len(prompt)] == [BEGIN, 10, 20, END, BEGIN, 12, END, BEGIN]


def test_windows_come_first_and_alignment_tells_every_item_in_both_directions():
    none = np.array([], np.int64)
    data = Interactions(np.arange(10), np.array([0, 5, 10]), none, none, [str(i) for i in range(10)], {}, "")
    split = leave_last_two_out(data, 3)
    dataset = HistoryDataset(split, align=True)
    assert len(HistoryDataset(split, align=False)) == len(split.windows) == 2
    got = [dataset[Slot(0, 0, place)] for place in range(len(dataset))]
    assert [(kind, items.tolist()) for kind, items in got[:2]] == [(HISTORY, [0, 1, 2]), (HISTORY, [5, 6, 7])]
    assert [items.tolist() for kind, items in got if kind == ID_TO_TEXT] == [[i] for i in range(10)]
    assert [items.tolist() for kind, items in got if kind == TEXT_TO_ID] == [[i] for i in range(10)]
    kind, items = dataset[Slot(0, 0, -1)]
    assert kind == HISTORY and not len(items)
