"""MiniOneRec's views of two tables and semantic ids, in its words: an instruction, an input, a response.

task                        input -> response
sid_history_to_sid          ids -> id of the item taken next
sid_to_title, title_to_sid  what an item is called, and which it is
description_to_sid          which item is described
sid_history_to_title        ids -> title of the item taken next
sid_history_to_description  ids -> its description
title_history_to_sid        titles -> id of the item taken next
title_history_to_title      titles -> its title
preference                  ids -> what the user often takes, in words, and the id

The system message is the instruction; the chat template "minionerec" puts it where theirs stands. Training,
rewards and evaluation ask in these words alone. Each row of a table of rows (--split_data) is one sample, and
every item has its own, also one that shares its title or id: nothing is looked up by what is said.
Source: github.com/AkaliKong/MiniOneRec, data.py, which lets prompts of items hold their answer, cuts ids to
three codes, and keeps one item of each title and id. preference is templated from the texts, unless somebody
has written what users often take: preferences.py.
"""

from pixelrec_train.data.views.common import mostly, traits_of
from pixelrec_train.data.views.rows import PARTS, facts, of_items
from pixelrec_train.data.views.view import ALL, DESCRIPTION, TEXTS, TITLE, LeftOut, Row, View

HISTORY = 10  # items that a row of theirs names, at most
MOST_TRAITS = 3  # that a preference names
NEXT_ID = "Can you predict the next possible item that the user may expect?"
IDENTIFY = "Answer the question about item identification."
NEXT_TITLE = "Can you recommend the next item for the user based on their interaction history?"
BY_TITLES = (
    "Based on the user's historical interaction with item titles, predict the semantic ID of the next item "
    "they may expect."
)
TITLE_BY_TITLES = (
    "Based on the user's historical interaction with item titles, predict the title of the next item "
    "they may expect."
)
ANALYSE = (
    "Analyze the user's interaction history, provide insights about their preferences, and predict the next "
    "item's semantic ID."
)


def ids_before(known, stretch):
    return {"history": known.said(stretch.history, ", ")}


def titles_before(known, stretch):
    titles = (known.text(item, TITLE) for item in stretch.history)
    return {"history": ", ".join(f'"{title}"' for title in titles), "category": known.category}


def next_items(before, *texts):
    """Rows of what was taken next, behind a history in ids or titles; texts: what of the item is said."""

    def rows(known, part, asked):
        for stretch in part.nexts(asked.history, asked.samples):
            (target,) = stretch.targets
            said = {name: known.text(target, name) for name in texts}
            if lacking := [name for name, text in said.items() if not text]:
                yield LeftOut(f"targets without a {lacking[0]}")
            elif before is titles_before and not all(known.text(item, TITLE) for item in stretch.history):
                yield LeftOut("histories with an item without a title")
            else:
                said |= before(known, stretch) | {"target": known.ids[target]}
                yield Row(stretch.key, said, facts(known, stretch))

    return rows


def preferences(known, part, asked):
    """The next item behind what most of the history has in common."""
    traits = traits_of(known)
    for stretch in part.nexts(asked.history, asked.samples):
        most = mostly(traits, stretch.history, MOST_TRAITS)
        if not most:
            yield LeftOut("histories that have nothing in common")
            continue
        told = ", ".join(f"{trait.words} ({count} of {len(stretch.history)} items)" for trait, count in most)
        said = ids_before(known, stretch) | {"target": known.said(stretch.targets)}
        said["preference"] = f"The user often takes {told}."
        yield Row(stretch.key, said, facts(known, stretch))


def view(task, system, prompt, answer, rows, texts=(), splits=PARTS, asks=None):
    return View(
        task, splits, rows, system, chats=((prompt, answer),), needs=(TEXTS,) if texts else (),
        texts=texts, most_history=HISTORY, most_samples=ALL, asks=asks,
        asks_with=(TITLE,) if asks is titles_before else (),
    )  # fmt: skip


def item_view(task, prompt, answer, *texts):
    return view(task, IDENTIFY, prompt, answer, of_items(*texts), texts, ("train",))


BY_IDS = (
    "The user has interacted with items {history} in chronological order. Can you predict the next possible "
    "item that the user may expect?"
)
TELL = "The user has sequentially interacted with items {history}. Can you recommend the next item for him? "
TITLES = "The user has interacted with the following {category} items in chronological order: {history}. "
AND_REASON = (
    "The user has interacted with items {history} in chronological order. Can you analyze the user's "
    "preferences and predict the next item?"
)

VIEWS = (
    view("sid_history_to_sid", NEXT_ID, BY_IDS, "{target}", next_items(ids_before), asks=ids_before),
    item_view("sid_to_title", 'What is the title of item "{item}"?', "{title}", TITLE),
    item_view("title_to_sid", "Which item has the title: {title}?", "{item}", TITLE),
    view(
        "sid_history_to_title", NEXT_TITLE, TELL + "Tell me the title of the item", "{title}",
        next_items(ids_before, TITLE), (TITLE,),
    ),
    view(
        "title_history_to_sid", BY_TITLES, TITLES + "Can you predict the next item the user may expect?",
        "{target}", next_items(titles_before), (TITLE,), asks=titles_before,
    ),
    item_view(
        "description_to_sid",
        'An item can be described as follows: "{description}". Which item is it describing?', "{item}",
        DESCRIPTION,
    ),
    view(
        "sid_history_to_description", NEXT_TITLE, TELL + "Tell me the description of the item",
        "{description}", next_items(ids_before, DESCRIPTION), (DESCRIPTION,),
    ),
    view(
        "title_history_to_title", TITLE_BY_TITLES,
        TITLES + "Can you predict the title of the next item the user may expect?", '"{title}"',
        next_items(titles_before, TITLE), (TITLE,),
    ),
    view(
        "preference", ANALYSE, AND_REASON, "### Reasoning:\n{preference}\n### Response:\n{target}",
        preferences, (TITLE,),
    ),
)  # fmt: skip
