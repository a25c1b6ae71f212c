"""What a chat asks and answers: answers that stand in their own question, or say nothing.

Of a chat its last answer is looked at, without its thought.
"""

import re
from typing import NamedTuple

from pixelrec_train.data.checks.ids_in_texts import any_id

THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)
BETWEEN = re.compile(r"[\s,;]*")
LONG = 12  # characters; a shorter answer may be a word of the question
ENDS = "the question ends with its answer"
ENDS_OFTEN = "questions that end with their answer, in more than half of a source's samples"
HOLDS = "the question holds the text it asks for"
HOLDS_ID = "the question holds the id it asks for"
AGAIN = "answers whose item stands in the question (taken again?)"
QUOTED = "answers whose whole text stands in the question"
EMPTY = "answers without a word"
AT_END = "questions that end with their answer"
FEW = 10  # samples of a source, of which more than half may end with their answer by chance

# Views that are given ids and asked for a text, and those that are given texts and asked for an id.
TEXT_OF_IDS = ("type_a_", "sid_to_title", "sid_history_to_title", "sid_history_to_description",
               "item_understand", "item_caption")  # fmt: skip
ID_OF_TEXT = ("type_b_", "title_to_sid", "description_to_sid", "title_history_to_sid")


class Asked(NamedTuple):
    """A chat's last question and its answer."""

    before: str  # all that is said before the answer, but what the system says
    question: str  # the message in front of the answer
    answer: str  # without its thought


def asked_of(messages):
    """Asked, or None where nobody asks or answers."""
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=0)
    if not last:
        return None
    before = [message["content"] for message in messages[:last] if message["role"] != "system"]
    answer = messages[last]["content"]
    if answer.lstrip().startswith("<think>"):
        answer = THOUGHT.sub("", answer, count=1)
    return Asked("\n".join(before), messages[last - 1]["content"], answer)


def ids_alone(text):
    """The ids that a text consists of, in any spelling; [] where it says anything else."""
    pattern = any_id()
    return pattern.findall(text) if "<" in text and BETWEEN.fullmatch(pattern.sub("", text)) else []


def check_answer(asked, source, facts, found, place):
    """Add to Found what is wrong or odd about an answer and its question.

    That a user takes again what is in the history is no mistake: where the answer is ids and the question
    names several, it is counted alone, see often_at_the_end.

    Args:
        facts: the sample's metadata.
    """
    answer = asked.answer.strip()
    if not answer:
        found.remarks.add(source, EMPTY, place)
        return
    at_end = asked.question.rstrip().endswith(answer)
    if ids := ids_alone(answer):
        found.id_answers[source] += 1
        if not any(spelled in asked.before for spelled in ids):
            return
        if source.startswith(ID_OF_TEXT):
            found.wrong.add(ENDS if at_end else HOLDS_ID, f"{place} ({ids[0]})")
        elif at_end and "history_items" not in facts and any_id().findall(asked.before) == ids:
            found.wrong.add(ENDS, f"{place} ({ids[0]})")
        elif not set(ids).isdisjoint(any_id().findall(asked.before)):
            found.notes.add(source, AGAIN, place)
            if at_end:
                found.notes.add(source, AT_END, place)
    elif answer in asked.before and (len(answer) >= LONG or is_last_line(answer, asked.question)):
        where = f'{place} ("{shortened(answer)}")'
        about_items = source.startswith((*TEXT_OF_IDS, *ID_OF_TEXT)) or any_id().search(asked.before)
        if at_end and about_items:
            found.wrong.add(ENDS, where)
        elif source.startswith(TEXT_OF_IDS):
            found.wrong.add(HOLDS, where)
        else:
            found.notes.add(source, AT_END if at_end else QUOTED, where)


def is_last_line(answer, question):
    return question.rstrip().rpartition("\n")[2].strip() == answer


def often_at_the_end(found):
    """Add to what is wrong the sources of which more than half the questions end with their answer."""
    for (source, what), (count, place) in found.notes.items():
        samples = found.id_answers[source] or found.chats[source]
        if what == AT_END and count > FEW and 2 * count > samples:
            found.wrong.add(ENDS_OFTEN, f"{source}: {count:,} of {samples:,}, the first is {place}")


def shortened(text, most=60):
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
