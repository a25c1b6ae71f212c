"""What a row of a text file says: a document to go on with, or a chat to answer in.

Source of the forms: the documents of Genesis (self_model/pretrain, self_model/fine_tuning).
"""

import json

from pixelrec_train.data.samples import Sample
from pixelrec_train.data.samples.cells import Odd, Remarks, Row, encodable, listed, nothing, shown

TEXT_FIELDS = ("text", "content", "document", "body")
ANSWERS = ("output", "response", "answer", "completion", "target")
QUESTIONS = ("input", "prompt", "question", "query", "source")
NAMES = {"user": "User", "assistant": "Assistant", "system": "System", "tool": "Tool"}


def document(place, row, text_fields, remarks):
    """Sample of one text: the first of `text_fields` that is not empty, else a chat's messages, one a line.

    Raises:
        Odd: there is neither.
    """
    source = source_of(place, row)
    if isinstance(row, str):
        return Sample(str(place), source, None, (row,))
    check_object(row)
    for name in text_fields:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return Sample(str(place), source, None, (encodable(value, name),))
        if not nothing(value) and not isinstance(value, str):
            raise Odd(f"{name} is no text", shown(value))
    if any(not nothing(row.get(name)) for name in ("messages", "conversations")):
        return Sample(str(place), source, None, (lines_of(chat(place, row, remarks).messages),))
    raise Odd(f"it has none of {', '.join(text_fields)}, messages, conversations", keys_of(row))


def chat(place, row, remarks):
    """Sample of messages: of `messages`, `conversations` (from, value), `instruction` with input and
    output, or a question and an answer; `system` and `history` ([[question, answer], …]) go before them.

    Raises:
        Odd: it is none of these, or nobody answers.
    """
    if isinstance(row, str):
        raise Odd("a line of text is no chat")
    check_object(row)
    source = source_of(place, row)
    told = {name: row[name] for name in ("messages", "conversations") if not nothing(row.get(name))}
    if not told:
        told = {"messages": question_and_answer(row)}
    if not nothing(row.get("system")):
        name, messages = next((name, listed(value, name)) for name, value in told.items())
        if messages and (messages[0] if isinstance(messages[0], dict) else {}).get("role") != "system":
            told[name] = [{"role": "system", "content": row["system"]}, *messages]
    cells = {"uuid": str(place), "source": source}
    cells |= {name: json.dumps(value) if isinstance(value, list) else value for name, value in told.items()}
    sample = Row(place.path, place.number, remarks).sample(cells)
    if not any(m["role"] == "assistant" and m["content"].strip() for m in sample.messages):
        raise Odd("nobody answers in it: there is no message of the assistant")
    return sample


def text_of(place, row, text_fields):
    """(all that a row says, None), or ("", why it says nothing)."""
    remarks = Remarks()
    try:
        try:
            return "".join(document(place, row, text_fields, remarks).segments), None
        except Odd:
            return lines_of(chat(place, row, remarks).messages), None
    except Odd as problem:
        return "", problem.args[0]


def lines_of(messages):
    return "\n".join(f"{NAMES[message['role']]}: {message['content']}" for message in messages)


def question_and_answer(row):
    """[messages] of instruction/input/output, or of a question and its answer."""
    answer = next((name for name in ANSWERS if isinstance(row.get(name), str)), None)
    asks = [
        name for name in ("instruction", *QUESTIONS) if isinstance(row.get(name), str) and row[name].strip()
    ]
    if answer is None or not asks:
        raise Odd(
            "it is none of messages, conversations, instruction/input/output, input/output", keys_of(row)
        )
    asked = [asks[0]] if asks[0] != "instruction" else [n for n in ("instruction", "input") if n in asks]
    messages = []
    for turn in row.get("history") or ():
        if not (isinstance(turn, list) and len(turn) == 2):
            raise Odd("history is no list of pairs, question and answer", shown(turn))
        messages += [
            {"role": role, "content": text} for role, text in zip(("user", "assistant"), turn, strict=True)
        ]
    question = "\n".join(row[name] for name in asked)
    return [*messages, {"role": "user", "content": question}, {"role": "assistant", "content": row[answer]}]


def source_of(place, row):
    """Whose figures it counts to: its own word for that, or its file's name."""
    own = row.get("source") if isinstance(row, dict) else None
    named = isinstance(own, str) and own.strip() and "messages" in row
    return own if named else place.path.name.split(".")[0] or "texts"


def check_object(row):
    if isinstance(row, Odd):
        raise row
    if not isinstance(row, dict):
        raise Odd("it is no object of names and values", shown(row))


def keys_of(row):
    return f"it has {', '.join(map(str, row)) or 'nothing'}"[:120]
