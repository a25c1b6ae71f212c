"""Are the itemic tokens of a directory whole, and has training moved them? Checks of model/verification.py.

Each takes a verification.Subject and gives what is wrong, or None.
"""

import dataclasses

import numpy as np

from pixelrec_train.model.expansion import table_names
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import ABSENT


def ids_agree(subject):
    """itemic_meta.json, config.json, tokenizer and rows of the tables agree"""
    rows = subject.vocabulary.rows  # loading has held it against config.json and tokenizer
    for name in table_names(subject.skeleton, str(subject.directory)):
        if len(subject.weights[name]) != rows:
            return f"{name} has {len(subject.weights[name])} rows, itemic_meta.json says {rows}"
    return None


def rows_differ(subject):
    """no two itemic tokens have the same row"""
    for name, rows in subject.tables:
        if twins := len(rows) - len(rows.unique(dim=0)):
            return f"{name}: {twins} of {len(rows)} rows are copies of others"
    return None


def has_moved(subject):
    """training has moved the row of every code of an item"""
    old = dict(dataclasses.replace(subject, directory=subject.before).tables)
    ids = subject.vocabulary.token_ids(subject.codes)
    used = np.unique(ids[ids != ABSENT]) - subject.vocabulary.first_new_id
    for name, rows in subject.tables:
        if still := int((rows[used] == old[name][used]).all(1).sum()):
            return f"{name}: {still} of {len(used)} rows are as they were in {subject.before}"
    return None


def text_comes_back(subject):
    """items become their ids and their text again"""
    codec, levels = CODECS[subject.vocabulary.codec], subject.vocabulary.levels
    words = codec.tokens(subject.vocabulary.codebook_sizes)
    ids = subject.vocabulary.token_ids(subject.codes)
    for row, expected in zip(subject.codes.tolist(), ids.tolist(), strict=True):
        text = "".join(words[level][row[level]] for level in range(levels) if row[level] != ABSENT)
        found = subject.tokenizer.encode(text, add_special_tokens=False)
        if found != [n for n in expected if n != ABSENT]:
            return f"{text} becomes {found}"
        if (back := subject.tokenizer.decode(found, skip_special_tokens=True)) != text:
            return f"{text} comes back as {back!r}"
    return None
