"""Texts and chats about the items of a table: something small to pretrain and to answer on."""

import json
from pathlib import Path

from pixelrec_train.data.tables import open_table

HELD_OUT = 20  # every so many rows, one validates


def write_texts(text_data, directory):
    """Files to train on and held out: documents, dialogues, chats, pairs of answers, about an item table with
    title, tag, description.

    Returns the numbers of documents and chats to train on.
    """
    directory, table = Path(directory), open_table(text_data)
    directory.mkdir(parents=True, exist_ok=True)
    columns = [name for name in ("title", "tag", "description") if name in table.names]
    rows = [dict(zip(columns, row, strict=True)) for row in table.rows(columns)]
    documents, chats = list(map(document, rows)), [chat for row in rows for chat in chats_about(row)]
    train, held_out = parted(documents)
    Path(directory, "documents.txt").write_text("\n".join(train) + "\n", encoding="utf-8")
    write_lines(directory / "held_out.jsonl", [{"text": text} for text in held_out])
    asked, held_out = parted(chats)
    pairs, judged = parted(pairs_about(rows))
    write_lines(directory / "pairs.jsonl", pairs)
    write_lines(directory / "held_out_pairs.jsonl", judged)
    # Adapters leave word embeddings alone, so pretraining has to have met the words of chats, their marks
    # too.
    read, asked = asked[::3], [chat for n, chat in enumerate(asked) if n % 3]
    write_lines(directory / "dialogues.jsonl", [{"text": as_chatml(chat)} for chat in read])
    write_lines(directory / "chats.jsonl", asked)
    write_lines(directory / "held_out_chats.jsonl", held_out)
    return len(train), len(asked)


def document(row):
    return " ".join(f"{name}: {text}." for name, text in row.items() if text).replace("\n", " ") or "nothing"


def chats_about(row):
    """Chats of one or two turns, in the form of `messages`."""
    title, tag, description = (row.get(name) or "" for name in ("title", "tag", "description"))
    if not (title and tag):
        return
    turns = [asked(title), f"It is about {tag}."]
    if description:
        turns += ["Tell me more.", description]
    roles = ("user", "assistant") * 2
    yield {"messages": [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]}


def pairs_about(rows):
    """An answer above none, in the form of `prompt`, `chosen`, `rejected`."""
    for row in rows:
        if row.get("title") and row.get("tag"):
            chosen = f"It is about {row['tag']}."
            yield {
                "prompt": asked(row["title"]),
                "chosen": chosen,
                "rejected": f"{row['tag']}, tell me more.",
            }


def asked(title):
    return f"What is the video “{title}” about?"


def as_chatml(chat):
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in chat["messages"])


def parted(rows):
    rows = list(rows)
    return [r for n, r in enumerate(rows) if n % HELD_OUT], rows[::HELD_OUT]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
