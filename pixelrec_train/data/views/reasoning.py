"""The original OneRec-Think's samples from two tables and semantic ids, in its words.

purchase_alignment   a document: the items a user took, each with its title and categories
sid_prediction       ids of the items taken -> id of the next
item_caption         id -> title, categories, description
reasoned_prediction  as sid_prediction, behind a thought that names the categories of the next item

The thought of reasoned_prediction is a template and knows the answer; scripts/keep_thoughts.py takes it away
where a model does not find the item behind thoughts of its own, for a second epoch.
Source: github.com/wangshy31/OneRec-Think, data and train_beauty_RA.py; item_caption by puyuanOT's fork, whose
captions an LLM writes.
"""

from pixelrec_train.data.views.rows import PARTS, facts, of_items
from pixelrec_train.data.views.view import (
    CATEGORIES,
    DESCRIPTION,
    TEXTS,
    TITLE,
    LeftOut,
    Row,
    View,
)

HISTORY = 49  # items
SYSTEM = (
    "You are a professional recommendation expert who needs to recommend the next possible purchase for "
    "users based on their purchase history. Please predict the most likely next product that the user will "
    "purchase based on the user's historical purchase information."
)
PURCHASED = "The user has purchased the following items: {history};"
THOUGHT = "<think>\nThe user is likely to buy items in {categories} category\n</think>\n"


def ids_before(known, stretch):
    return {"history": known.said(stretch.history, "; ")}


def histories(known, part, asked):
    """Whole sequences with what each item is called."""
    for stretch in part.windows(asked.history, asked.samples):
        told = [
            f'{known.ids[item]}, its title is "{title}", its categories are "{categories}"'
            for item in stretch.history
            if (title := known.text(item, TITLE)) and (categories := known.text(item, CATEGORIES))
        ]
        if told:
            yield Row(stretch.key, {"history": "; ".join(told)}, facts(known, stretch))
        else:
            yield LeftOut("histories without an item that has a title and categories")


def next_items(*texts):
    def rows(known, part, asked):
        for stretch in part.nexts(asked.history, asked.samples):
            (target,) = stretch.targets
            said = {name: known.text(target, name) for name in texts}
            if not all(said.values()):
                yield LeftOut(f"targets without {' and '.join(texts)}")
                continue
            said |= ids_before(known, stretch) | {"item": known.ids[target]}
            yield Row(stretch.key, said, facts(known, stretch))

    return rows


def captions(known, part, asked):
    for row in of_items(TITLE, may_lack=(CATEGORIES, DESCRIPTION))(known, part, asked):
        if not isinstance(row, LeftOut):
            told = (row.said[name] for name in (TITLE, CATEGORIES, DESCRIPTION))
            row.said["caption"] = "; ".join(filter(None, told))
        yield row


VIEWS = (
    View(
        "purchase_alignment", ("train",), histories, documents=(PURCHASED,), needs=(TEXTS,),
        texts=(TITLE, CATEGORIES), most_history=HISTORY,
    ),
    View(
        "sid_prediction", PARTS, next_items(), SYSTEM, chats=((PURCHASED, "{item}"),), most_history=HISTORY,
        asks=ids_before,
    ),
    View(
        "item_caption", ("train",), captions, SYSTEM, chats=(("Describe the item {item}.", "{caption}"),),
        needs=(TEXTS,), texts=(TITLE, CATEGORIES, DESCRIPTION),
    ),
    View(
        "reasoned_prediction", PARTS, next_items(CATEGORIES), SYSTEM,
        chats=((PURCHASED, THOUGHT + "{item}"),), needs=(TEXTS,), texts=(CATEGORIES,), most_history=HISTORY,
        asks=ids_before,
    ),
)  # fmt: skip
