"""Rows that ask, to be answered by the model itself: a prompt, and perhaps what the answer should be."""

from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from pixelrec_train.data.samples.cells import Odd, nothing, shown
from pixelrec_train.data.texts.forms import ANSWERS, check_object, keys_of
from pixelrec_train.data.texts.preferences import PROMPTS, first_of
from pixelrec_train.data.texts.reading import rows_of
from pixelrec_train.errors import InputError

REFERENCES = (*ANSWERS, "reference", "ground_truth", "solution", "chosen")
SHOWN = 3  # bad rows that the sentence names


class TextPrompt(NamedTuple):
    token_ids: Tensor  # [T]
    messages: list[dict]
    target: str  # what the answer should be; "" = nobody says it
    key: int  # of the random numbers that decide its answers


def asked(row):
    """(messages, what the answer should be or "") of a row. Raises Odd where it asks nothing."""
    if isinstance(row, str):
        raise Odd("a line of text is no prompt")
    check_object(row)
    prompt = first_of(row, (*PROMPTS, "input", "messages"))
    if isinstance(prompt, str) and prompt.strip():
        more = row.get("input") if "instruction" in row and prompt == row["instruction"] else None
        messages = [{"role": "user", "content": "\n".join(filter(None, [prompt, more]))}]
    elif isinstance(prompt, list) and prompt and all(isinstance(m, dict) for m in prompt):
        messages = prompt
    else:
        raise Odd("it has no prompt", keys_of(row))
    target = first_of(row, REFERENCES)
    if messages[-1].get("role") == "assistant":
        *messages, answer = messages
        target = target or answer.get("content")
    if not messages or any(not isinstance(m.get("content"), str) or "role" not in m for m in messages):
        raise Odd("a message has no role and content", shown(prompt))
    if isinstance(row.get("system"), str) and row["system"]:
        messages = [{"role": "system", "content": row["system"]}, *messages]
    if isinstance(target, list) and target and isinstance(target[-1], dict):
        target = target[-1].get("content")
    if not nothing(target) and not isinstance(target, str | int | float):
        raise Odd("what its answer should be is no text", shown(target))
    return messages, "" if nothing(target) else str(target)


def read_prompts(files, skip_bad=False):
    """([(messages, answer)], how many rows were left out) of files.

    Raises:
        InputError: rows ask nothing; the first SHOWN of them are named.
    """
    found, bad, left_out = [], [], 0
    for file in files:
        for place, row in rows_of(file, "line"):
            try:
                found.append(asked(row))
            except Odd as problem:
                left_out += 1
                bad.append(f"{place}: {problem.args[0]}")
                if len(bad) == SHOWN and not skip_bad:
                    break
    if bad and not skip_bad:
        raise InputError(
            f"{'; '.join(bad[:SHOWN])}. As prompts they cannot be read; mend them, or leave such rows out "
            f"with --skip_bad_rows."
        )
    return found, left_out


class TextPromptDataset(Dataset):
    """dataset[slot] -> TextPrompt, or None in an empty slot."""

    def __init__(self, rows, say, longest):
        """
        Args:
            rows: of read_prompts.
            say: messages -> [T] token ids.
            longest: tokens of a prompt; longer ones are left out.
        """
        tokens = [say(messages) for messages, _ in rows]
        kept = [n for n, ids in enumerate(tokens) if len(ids) <= longest]
        self.rows, self.too_long = [(tokens[n], *rows[n]) for n in kept], len(rows) - len(kept)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, slot):
        if slot.sample < 0:
            return None
        return TextPrompt(*self.rows[slot.sample], (slot.epoch << 40) + slot.position)
