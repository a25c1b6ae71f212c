"""OpenOneRec's tasks from two tables and semantic ids, under the names of its benchmark, RecIF.

task             chat                                             document (its segments)
video_rec        history of ids -> ids of the items taken next    both, end to end
item_understand  id -> text, as a sentence, as lines, as JSON     id and text together, in three ways
user_profile                                                      what a user took, in ids and words
label_pred       history, an item -> whether it gets the label    -
label_cond_rec   history, a label -> ids of items that get it     -
rec_reason       history -> id of an item, and why it fits        -

The words are our own. Reasons are templated: they name what an item's text has in common with those of the
history (see common.py), and no model has written them.
"""

import json

from pixelrec_train.data.views.common import mostly, shared, traits_of
from pixelrec_train.data.views.rows import PARTS, facts
from pixelrec_train.data.views.view import CHAT, LABELS, TEXTS, LeftOut, Row, View

YES, NO = "是", "否"  # as OpenOneRec answers label_pred
THOUGHT = "<think>\n{}\n</think>\n"
MOST_LABELLED = 10  # items that are told to have had a label
MOST_REASONS, MOST_WITNESSES = 3, 2  # what a reason names, and in how many items
MOST_LABELS = 20  # different ones a column may hold

SYSTEM = "You recommend items of a catalogue. Each item has an id, and histories list ids, oldest first."


def ids_before(known, stretch):
    return {"history": known.said(stretch.history)}


def next_items(known, part, asked):
    """Of chats what was taken and what was taken next; of documents whole sequences."""
    if asked.form == CHAT:
        stretches = part.stretches(asked.history, asked.targets, asked.samples)
    else:
        stretches = part.windows(asked.history + asked.targets, asked.samples)
    for stretch in stretches:
        said = {"history": known.said(stretch.history), "targets": known.said(stretch.targets)}
        yield Row(stretch.key, said, facts(known, stretch))


def item_texts(known, part, asked):
    """Every item of the catalogue that has a text, whoever took it."""
    for item, fields in enumerate(known.fields):
        told = {key: text for key, text in zip(known.text_keys, fields or (), strict=False) if text}
        if not told:
            yield LeftOut("items without a text")
            continue
        said = {
            "item": known.ids[item],
            "sentence": "; ".join(told.values()),
            "lines": "\n".join(f"{key}: {text}" for key, text in told.items()),
            "json": json.dumps(told, ensure_ascii=False),
            "json_with_id": json.dumps({"id": known.ids[item]} | told, ensure_ascii=False),
        }
        yield Row((known.item_ids[item],), said, {"item_id": known.item_ids[item]})


def profiles(known, part, asked):
    """What a user took, with the first text of each item, and what most of it is."""
    traits = traits_of(known)
    names = [next(filter(None, fields or ()), "") for fields in known.fields]
    listed = [f"{item_id} {name}".strip() for item_id, name in zip(known.ids, names, strict=True)]
    for stretch in part.windows(asked.history, asked.samples):
        most = mostly(traits, stretch.history, MOST_REASONS)
        told = ", ".join(f"{trait.words} ({count})" for trait, count in most)
        said = {
            "listed": "; ".join(listed[item] for item in stretch.history),
            "mostly": f" Often: {told}." if told else "",
            "count": str(len(stretch.history)),
        }
        yield Row(stretch.key, said, facts(known, stretch))


def label_questions(known, part, asked):
    """Whether the next item gets a label that is a yes."""
    for stretch in part.stretches(asked.history, 1, asked.samples):
        (label,) = stretch.target_labels
        if not label:
            yield LeftOut("targets without a label")
            continue
        said = {
            "history": known.said(stretch.history),
            "liked": labelled(known, stretch, asked.positive),
            "item": known.said(stretch.targets),
            "answer": YES if label in asked.positive else NO,
        }
        yield Row(stretch.key, said, facts(known, stretch) | {"label": label})


def labelled_items(known, part, asked):
    """Those of the next items that get a label, for each label they get."""
    for stretch in part.stretches(asked.history, asked.targets, asked.samples):
        labels = list(dict.fromkeys(filter(None, stretch.target_labels)))
        if not labels:
            yield LeftOut("targets without a label")
        for label in labels:
            pairs = zip(stretch.targets, stretch.target_labels, strict=True)
            own = stretch._replace(targets=[item for item, name in pairs if name == label])
            said = {
                "history": known.said(stretch.history),
                "label": label,
                "liked": labelled(known, stretch, {label}),
                "targets": known.said(own.targets),
            }
            yield Row((*stretch.key, label), said, facts(known, own) | {"label": label})


def labelled(known, stretch, labels):
    """The newest items of a history with one of these labels, or "none"."""
    pairs = zip(stretch.history, stretch.history_labels, strict=True)
    return known.said([item for item, label in pairs if label in labels][-MOST_LABELLED:]) or "none"


def reasons(known, part, asked):
    """The next item, with what its text has in common with those of the history."""
    traits = traits_of(known)
    for stretch in part.stretches(asked.history, 1, asked.samples):
        (target,) = stretch.targets
        others = [item for item in stretch.history if item != target]  # it may be taken again
        found = shared(traits, target, others, MOST_REASONS)
        if not found:
            yield LeftOut("targets that have no word in common with their history")
            continue
        seen = ", ".join(f"{s.trait.words} ({len(s.items)} of {len(others)} items)" for s in found)
        told = "; ".join(f"{s.trait.words} with {known.said(s.items[:MOST_WITNESSES])}" for s in found)
        said = {
            "history": known.said(stretch.history),
            "thought": THOUGHT.format(f"What the history has: {seen}.") if asked.thoughts else "",
            "item": known.said(stretch.targets),
            "reason": f"It shares {told}.",
        }
        yield Row(stretch.key, said, facts(known, stretch))


VIDEO_REC = View(
    "video_rec", PARTS, next_items, SYSTEM,
    chats=(
        ("A user took these items: {history}\nWhat will the user take next?", "{targets}"),
        ("History: {history}\nName the items that follow.", "{targets}"),
        ("Someone has gone through {history} in this order. Recommend what comes next.", "{targets}"),
        ("Go on with this list of items, as its user would: {history}", "{targets}"),
        ("Given what was taken before, {history}, which items are taken now?", "{targets}"),
    ),
    documents=("{history}{targets}",), asks=ids_before,
)  # fmt: skip
ITEM_UNDERSTAND = View(
    "item_understand", ("train",), item_texts, "You know the items of a catalogue by their ids.",
    chats=(
        ("What is {item}?", "{sentence}"),
        ("Describe the item {item} in a sentence.", "{sentence}"),
        ("List what is known of {item}, a line each.", "{lines}"),
        ("Which entries does the catalogue have for {item}?", "{lines}"),
        ("Give the entry of {item} as JSON.", "{json}"),
        ("{item}: its texts as a JSON object, please.", "{json}"),
    ),
    documents=("{item} is this item: {sentence}", "{lines}\nid: {item}", "{json_with_id}"),
    needs=(TEXTS,),
)  # fmt: skip
USER_PROFILE = View(
    "user_profile", ("train",), profiles,
    documents=(
        "A user took {count} items, oldest first: {listed}.{mostly}",
        "What one user went through, in this order: {listed}.{mostly}",
        "Profile of a user of {count} items.{mostly} The items: {listed}.",
    ),
    needs=(TEXTS,),
)  # fmt: skip
LABEL_PRED = View(
    "label_pred", PARTS, label_questions, SYSTEM,
    chats=tuple((f"{question} Answer {YES} for yes, {NO} for no.", "{answer}") for question in (
        "A user took {history} and marked these well: {liked}. Will {item} be marked well, too?",
        "History: {history}\nOf it with a good mark: {liked}\nDoes {item} get a good mark next?",
        "After {history}, of which {liked} pleased, the user takes {item}. Will it please?",
        "Candidate: {item}. History: {history}. Liked in it: {liked}. Will the candidate be liked?",
    )),
    needs=(LABELS,),
)  # fmt: skip
LABEL_COND_REC = View(
    "label_cond_rec", PARTS, labelled_items, SYSTEM,
    chats=(
        ('A user took {history}. Marked "{label}" were: {liked}. Which items will be next?', "{targets}"),
        ('History: {history}\nWith "{label}": {liked}\nRecommend more that will get "{label}".', "{targets}"),
        ('Wanted: items that this user marks "{label}", as {liked}. The history: {history}', "{targets}"),
        ('{history} was taken, {liked} of it with "{label}". What follows with that mark?', "{targets}"),
    ),
    needs=(LABELS,),
)  # fmt: skip
REC_REASON = View(
    "rec_reason", PARTS, reasons, SYSTEM,
    chats=tuple((prompt, "{thought}{item}\n{reason}") for prompt in (
        "A user took these items: {history}\nRecommend one more, and say why it fits.",
        "History: {history}\nName the next item with a reason.",
        "What should be offered after {history}, and what speaks for it?",
        "Choose an item for someone who took {history}. Explain the choice.",
    )),
    needs=(TEXTS,), asks=ids_before,
)  # fmt: skip

VIEWS = (VIDEO_REC, ITEM_UNDERSTAND, USER_PROFILE, LABEL_PRED, LABEL_COND_REC, REC_REASON)
