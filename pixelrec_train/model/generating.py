"""Does a model directory generate, in plain transformers? Checks of model/verification.py.

Each takes a verification.Subject and gives what is wrong, or None.
"""

import itertools
import re

import torch

from pixelrec_train.semantic_id.codes import ABSENT

PROMPTS, BEAMS, HISTORY = 8, 4, 5
QUESTION = "What comes next?"
MARK = r"<\|[^|\s]+\|>"  # of a chat template, as <|im_start|>


def goes_on(subject):
    """a history whose last item is cut short is gone on with, greedily"""
    items = [words_of(subject, row) for row in subject.codes[:HISTORY]]
    inside = int(subject.vocabulary.end_id is not None) + 1  # its end, and a code
    history = [n for item in items for n in item]
    return nothing_new(subject, history[:-inside] or history[:1], 4)


def text_goes_on(subject):
    """a text is gone on with, greedily"""
    return nothing_new(subject, subject.tokenizer.encode(QUESTION, add_special_tokens=False), 4)


def answers_a_chat(subject):
    """a chat is put in marks of its vocabulary, and answered, greedily"""
    asked = QUESTION
    if subject.is_itemic:
        words = [word for row in subject.codes[:HISTORY] for word in words_of(subject, row)]
        asked = f"{subject.tokenizer.decode(words)} {QUESTION}"
    text = subject.tokenizer.apply_chat_template(
        [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
    )
    if asked not in text:
        return f"its template makes {text!r} of {asked!r}"
    ids = {mark: subject.tokenizer.encode(mark, add_special_tokens=False) for mark in re.findall(MARK, text)}
    if split := [mark for mark, found in ids.items() if len(found) > 1]:
        return f"{split[0]} of its template is {len(ids[split[0]])} tokens of its vocabulary, not one"
    return nothing_new(subject, subject.tokenizer.encode(text, add_special_tokens=False), 16)


def words_of(subject, codes):
    """[L] codes -> ids of an item as text has it, begin and end included."""
    ids = [n for n in subject.vocabulary.token_ids(codes[None])[0].tolist() if n != ABSENT]
    around = subject.vocabulary.begin_id, subject.vocabulary.end_id
    return [n for n in (around[0], *ids, around[1]) if n is not None]


def nothing_new(subject, prompt, count):
    """What is wrong where greedy generation adds no text to a prompt."""
    prompt = torch.tensor([prompt])
    out = subject.plain.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, do_sample=False, num_beams=1
    )
    text = subject.tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)
    return None if text else "nothing was generated"


def stays_in_catalogue(subject):
    """beams under the catalogue's prefixes end in items of the catalogue"""
    ids = [[n for n in row if n != ABSENT] for row in subject.vocabulary.token_ids(subject.codes).tolist()]
    items, end = {tuple(row) for row in ids}, subject.tokenizer.eos_token_id
    nexts = {}  # {prefix: tokens that may follow}
    for row in items:
        for place, token in enumerate((*row, end)):
            nexts.setdefault(row[:place], set()).add(token)
    begin = subject.vocabulary.begin_id or subject.vocabulary.first_new_id
    for row in ids[:PROMPTS]:
        read = len(row) + 1

        def allowed(_, seen, read=read):
            return list(nexts.get(tuple(seen[read:].tolist()), {end}))

        out = subject.plain.generate(
            torch.tensor([[*row, begin]]), attention_mask=torch.ones(1, read, dtype=torch.long),
            do_sample=False, num_beams=BEAMS, num_return_sequences=min(BEAMS, len(items)),
            max_new_tokens=subject.vocabulary.levels + 1, prefix_allowed_tokens_fn=allowed,
            eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
        for beam in out[:, read:].tolist():
            if tuple(itertools.takewhile(lambda n: n != end, beam)) not in items:
                return f"{subject.tokenizer.decode(beam)!r} is no item"
    return None
