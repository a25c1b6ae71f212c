"""Rows that say which of two answers is better, as pairs of chats.

Source of the forms: the documents of Genesis (self_model/rlhf), and TRL's for conversations.
"""

from pixelrec_train.data.samples import Sample
from pixelrec_train.data.samples.cells import Odd, encodable, nothing, shown
from pixelrec_train.data.texts.forms import chat, check_object, keys_of, source_of

PROMPTS = ("prompt", "question", "query", "instruction")
CHOSEN = ("chosen", "response_chosen", "answer")
REJECTED = ("rejected", "response_rejected", "negative")


def pair(place, row, remarks):
    """(Sample of the better chat, Sample of the worse): alike but for the assistant's last words.

    prompt is a text or messages; chosen and rejected are texts, or messages, which may hold the prompt.

    Raises:
        Odd: one of the three is missing or empty, or both answers are the same.
    """
    prompt, chosen, rejected = parts(row)
    if not isinstance(prompt, str | list | None):
        raise Odd("prompt is neither a text nor messages", shown(prompt))
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt or []
    if isinstance(prompt, str) and not prompt.strip():
        asked = []
    if row.get("system"):
        asked = [{"role": "system", "content": row["system"]}, *asked]
    chats = [
        chat(place, {"messages": whole(asked, answer)}, remarks).messages for answer in (chosen, rejected)
    ]
    for messages in chats:
        if messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
            raise Odd("an answer does not end with words of the assistant")
    if chats[0][:-1] != chats[1][:-1]:
        raise Odd("chosen and rejected answer different chats")
    if len(chats[0]) == 1:
        raise Odd("it has no prompt", keys_of(row))
    if chats[0] == chats[1]:
        raise Odd("chosen and rejected are the same")
    source = source_of(place, row)
    return tuple(
        Sample(f"{place} {name}", source, messages, None) for name, messages in zip("+-", chats, strict=True)
    )


def text_pair(place, row):
    """The same of three texts that stand as they are: each Sample has two segments, a prompt and an answer.

    Raises:
        Odd: one of them is missing, empty or no text, or both answers are the same.
    """
    texts = parts(row)
    for names, text in zip((PROMPTS, CHOSEN, REJECTED), texts, strict=True):
        if not isinstance(text, str) or not text:
            raise Odd(f"{names[0]} is not a text", shown(text))
    prompt, *answers = (encodable(text, "a text") for text in texts)
    if answers[0] == answers[1]:
        raise Odd("chosen and rejected are the same")
    return tuple(
        Sample(f"{place} {name}", source_of(place, row), None, (prompt, answer))
        for name, answer in zip("+-", answers, strict=True)
    )


def parts(row):
    """(prompt, chosen, rejected) of a row, both answers there. Raises Odd."""
    if isinstance(row, str):
        raise Odd("a line of text is no pair of answers")
    check_object(row)
    prompt, chosen, rejected = (first_of(row, names) for names in (PROMPTS, CHOSEN, REJECTED))
    for names, value in ((CHOSEN, chosen), (REJECTED, rejected)):
        if nothing(value) or value in ("", []):
            raise Odd(f"it has no {names[0]}", keys_of(row))
    return prompt, chosen, rejected


def first_of(row, names):
    return next((row[name] for name in names if not nothing(row.get(name))), None)


def whole(asked, answer):
    """The messages of a prompt and an answer; an answer in messages may begin with the prompt's own."""
    if isinstance(answer, str):
        return [*asked, {"role": "assistant", "content": encodable(answer, "an answer")}]
    if not isinstance(answer, list):
        raise Odd("an answer is neither a text nor messages", shown(answer))
    return answer if answer[: len(asked)] == asked else [*asked, *answer]
