"""OneRec-Think's conversations, types A to E, from two tables and semantic ids, in its words.

type  question -> answer                                      made of
A     an id -> title, description, categories, or all three   every item
B     (a part of) title, description, categories -> id        every item
C     the last 2, 3, 5 or all items -> id of the next         histories
D     the first two codes -> categories, or three examples;   ids and texts of the catalogue, no history
      an id -> a similar one, of the same first codes
E     an id -> one taken next, or before; a category and      pairs of neighbours in histories of C
      that of the next item -> an id

Only rows of the part that is asked for are seen, so D and E know nothing of what is held out. As theirs, E
counts the pairs inside the history that C asks about, and never C's own target.
Source: github.com/ZLHe0/OneRec-Think, src/generate_training_data_onerec.py, which has rows with empty answers
(here left out and counted) and draws D with numbers that its --seed does not reach.
"""

from pixelrec_train.data.views.graphs import (
    neighbours,
    prefix_categories,
    prefix_examples,
    random_of,
    similar,
    transitions,
)
from pixelrec_train.data.views.rows import PARTS, facts, of_items
from pixelrec_train.data.views.view import (
    ALL,
    CATEGORIES,
    DESCRIPTION,
    TEXTS,
    TITLE,
    LeftOut,
    Row,
    View,
)

SYSTEM = (
    "You are a helpful AI assistant that understands and works with semantic IDs for product "
    "recommendations. Semantic IDs are hierarchical identifiers in the format {format} that encode product "
    "relationships and categories."
)
PREFIX_WORDS, MIDDLE_WORDS = slice(0, 3), slice(1, 4)  # of a title
BEGINNING, SNIPPET = 100, 50  # characters of a description


def by_title(words, least):
    """Rows with a part of each title that has at least so many words."""

    def rows(known, part, asked):
        for row in of_items(TITLE)(known, part, asked):
            if not isinstance(row, LeftOut):
                title = row.said["title"].split()
                if len(title) < least:
                    row = LeftOut(f"items whose title has fewer than {least} words")
                else:
                    row.said["words"] = " ".join(title[words])
            yield row

    return rows


def by_description(known, part, asked):
    for row in of_items(DESCRIPTION)(known, part, asked):
        if not isinstance(row, LeftOut):
            row.said["beginning"] = row.said["description"][:BEGINNING]
        yield row


def by_snippet(known, part, asked):
    """A piece out of each description that is longer."""
    for row in of_items(DESCRIPTION)(known, part, asked):
        if not isinstance(row, LeftOut):
            text = row.said["description"]
            if len(text) <= SNIPPET:
                row = LeftOut(f"items whose description has at most {SNIPPET} characters")
            else:
                first = random_of(asked, "snippet", *row.key).randint(0, len(text) - SNIPPET)
                row.said["snippet"] = text[first : first + SNIPPET]
        yield row


def before(last=None):
    """What a question says of a history: its newest items, or all."""

    def said(known, stretch):
        return {"history": known.said(stretch.history[-last:] if last else stretch.history, " ")}

    return said


def next_items(last=None):
    def rows(known, part, asked):
        for stretch in part.nexts(asked.history, asked.samples):
            if last and len(stretch.history) < last:
                yield LeftOut(f"histories of fewer than {last} items")
                continue
            said = before(last)(known, stretch) | {"item": known.said(stretch.targets)}
            yield Row(stretch.key, said, facts(known, stretch))

    return rows


def view(task, prompt, answer, rows, texts=(), parts=("train",), asks=None):
    return View(
        task, parts, rows, SYSTEM, chats=((prompt, answer),), needs=(TEXTS,) if texts else (), texts=texts,
        most_history=ALL, group=task[: len("type_a")], asks=asks,
    )  # fmt: skip


ALL_TEXTS = (TITLE, DESCRIPTION, CATEGORIES)
VIEWS = (
    view(
        "type_a_sid_to_title", "What is the title of the product with semantic ID {item}?", "{title}",
        of_items(TITLE), (TITLE,),
    ),
    view(
        "type_a_sid_to_description", "What is the description of the product {item}?", "{description}",
        of_items(DESCRIPTION), (DESCRIPTION,),
    ),
    view(
        "type_a_sid_to_category", "What category does the product {item} belong to?", "{categories}",
        of_items(CATEGORIES), (CATEGORIES,),
    ),
    view(
        "type_a_sid_to_context", "Tell me about the product {item}.",
        "{title} | {description} | {categories}",
        of_items(TITLE, may_lack=(DESCRIPTION, CATEGORIES)), ALL_TEXTS,
    ),
    view(
        "type_b_title_to_sid", "What is the semantic ID for the product titled '{title}'?", "{item}",
        of_items(TITLE), (TITLE,),
    ),
    view(
        "type_b_title_prefix_to_sid", "What is the semantic ID for the product starting with '{words}'?",
        "{item}", by_title(PREFIX_WORDS, 3), (TITLE,),
    ),
    view(
        "type_b_title_contains_to_sid",
        "Find the semantic ID for a product whose title contains '{words}'.", "{item}",
        by_title(MIDDLE_WORDS, 5), (TITLE,),
    ),
    view(
        "type_b_description_to_sid", "What product has this description: '{beginning}'?", "{item}",
        by_description, (DESCRIPTION,),
    ),
    view(
        "type_b_description_contains_to_sid", "Find the product with description containing '{snippet}'.",
        "{item}", by_snippet, (DESCRIPTION,),
    ),
    view(
        "type_b_categories_to_sid", "What is the semantic ID for a product in category '{categories}'?",
        "{item}", of_items(CATEGORIES), (CATEGORIES,),
    ),
    view(
        "type_c_seq_last_2", "A user purchased these items in sequence: {history}. What might they buy next?",
        "{item}", next_items(2), parts=PARTS, asks=before(2),
    ),
    view(
        "type_c_seq_last_3", "Based on this purchase history: {history}, predict the next item.", "{item}",
        next_items(3), parts=PARTS, asks=before(3),
    ),
    view(
        "type_c_seq_last_5", "Given the purchase sequence {history}, what is the likely next purchase?",
        "{item}", next_items(5), parts=PARTS, asks=before(5),
    ),
    view(
        "type_c_seq_full",
        "A user has the following purchase history: {history}. What should we recommend next?", "{item}",
        next_items(), parts=PARTS, asks=before(),
    ),
    view(
        "type_d_prefix_category", "What category do products with semantic ID prefix {prefix} belong to?",
        "{categories}", prefix_categories, (CATEGORIES,),
    ),
    view(
        "type_d_prefix_examples",
        "Give me some example products that share the semantic prefix {prefix}.", "{items}", prefix_examples,
    ),
    view("type_d_similar_items", "What is a product similar to {item}?", "{other}", similar),
    view(
        "type_e_copurchase_forward", "A user just purchased {item}. What might they buy next?", "{other}",
        neighbours(forward=True),
    ),
    view(
        "type_e_copurchase_backward", "What do users often purchase before buying {item}?", "{other}",
        neighbours(forward=False),
    ),
    view(
        "type_e_category_transition",
        "After purchasing items from '{before}', what product from '{after}' might a user buy?", "{item}",
        transitions, (CATEGORIES,),
    ),
)  # fmt: skip
