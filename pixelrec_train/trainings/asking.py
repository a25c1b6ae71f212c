"""Held-out users asked for their next item, in one of the ways there are, and how they were answered."""

import dataclasses
import time
from typing import NamedTuple

import numpy as np

from pixelrec_train.config import WindowFlags
from pixelrec_train.config.samples import AskFlags
from pixelrec_train.data.inputs import read_inputs
from pixelrec_train.data.views.parts import WHOLE, part_of
from pixelrec_train.data.views.view import LONG, TEXTS, View, check_texts
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.passes import Asked
from pixelrec_train.evaluation.places import judge
from pixelrec_train.model.thoughts import Sampling
from pixelrec_train.recommend.questions import CHAT, HISTORY, THINK, Questions, view_of
from pixelrec_train.recommend.thinking import Thinking
from pixelrec_train.run.log import say

SHOWN_USERS = 3  # of --verbose


class Users(NamedTuple):
    """Those who are asked."""

    inputs: object  # data.inputs.Inputs
    held_out: object  # HeldOut; a target may be -1, not known
    numbers: np.ndarray  # [E] theirs in the part
    part: object  # data.views.parts.Part
    view: View  # whose words chats have
    fields: list | None  # of data.item_fields, where these words are made of texts


def read_users(config):
    """Users of AskFlags. Raises InputError where nobody can be asked in the words of --question."""
    view = asked_in(config)
    # What was trained on is said by samples: an item of any training row was seen, however long the row.
    inputs = read_inputs(config, WindowFlags(max_seq_length=WHOLE))
    held_out = getattr(inputs.split, config.split)
    numbers = np.arange(len(held_out))
    if config.users:
        numbers = dataclasses.replace(held_out, users=numbers).sample(config.users, config.seed).users
        held_out = held_out.sample(config.users, config.seed)
    fields = None
    if view.asks_with and {CHAT, THINK} & set(config.prompts):
        from pixelrec_train.data.item_fields import read_fields  # brings pandas and pyarrow with it

        fields, about = read_fields(inputs.interactions.item_ids, config)
        for note in about["notes"]:
            say(note)
    part = part_of(config.split, inputs.interactions, config)
    return Users(inputs, held_out, numbers, part, view, fields)


def check_labelled(users, split):
    """Raises InputError where there is nothing to judge."""
    if not (users.held_out.target >= 0).any():
        raise InputError(
            f"--split {split} has no user whose target is known, so there is nothing to judge. "
            f"scripts/predict.py writes ranked items for them."
        )


def asked_in(config):
    """The View of --question; InputError where it cannot ask, or not with these texts."""
    view = view_of(config.question, config.split, {TEXTS} if config.text_data else ())
    check_texts(f"--question {config.question}", view.asks_with, config.text_keys)
    if config.category and not view.asks_with:
        raise InputError(
            f"--category stands in no words of --question {config.question}; it is for title_history_to_sid. "
            f"Leave it out."
        )
    return view


def asking(config, split, **changes):
    """How held-out users are asked inside a run: AskFlags. config: has RankedFlags, or as many."""
    shared = {name: getattr(config, name) for name in vars(config).keys() & AskFlags.__dataclass_fields__}
    users = getattr(config, "valid_users", None) if split == "valid" else None
    told = {"prompts": (config.prompt,), "split": split, "users": users} | changes
    return AskFlags(**shared | told)


def newest(config, form, view):
    """Items of a history that a prompt names, at most."""
    return config.history or (LONG if form == HISTORY else view.most_history)


def ask(prepared, speaker, form, users, config, tell=None, keep_lists=False):
    """(Judged, {"seconds": …, "prompt": form, …}) of a model asked in one way.

    tell, keep_lists: as of places.judge.
    """
    start, prompt = time.monotonic(), prompts(prepared, speaker, form, users, config)
    shown = [prompt(e) for e in range(min(SHOWN_USERS, len(users.held_out)))] if config.verbose else []
    thinking = None
    if form == THINK:
        how = Sampling(config.temperature, config.top_k, config.top_p)
        thinking = Thinking(speaker, how, config.thought_tokens, config.seed, shown)
    check_positions(prepared, speaker, form, prompt, users, config)
    search = prepared.search(config.normalised_over, thinking)
    asked = Asked(
        lambda numbers, beams: search([prompt(e) for e in numbers], beams),
        prepared.trie, config.num_beams, users.held_out,
    )  # fmt: skip
    judged = judge(asked, users.held_out, config, tell, keep_lists or config.verbose)
    thoughts = thinking.texts(shown) if thinking else [None] * len(shown)
    for e, (tokens, thought) in enumerate(zip(shown, thoughts, strict=True)):
        title = f"user {e + 1} of {len(users.held_out):,}, asked by {form}"
        say("\n".join([title, *exchange(prepared, speaker, users, e, tokens, thought, judged.lists)]) + "\n")
    facts = {"seconds": time.monotonic() - start} | how_asked(form, users.view, config)
    return judged, facts | (thinking.facts() if thinking else {})


def how_asked(form, view, config):
    """For table.json: what a prompt says, as far as flags choose it."""
    facts = {"prompt": form, "history": newest(config, form, view)}
    if form != HISTORY:
        facts |= {"question": view.task}
    return facts | ({"add_think_pattern": config.add_think_pattern} if form == CHAT else {})


def exchange(prepared, speaker, users, e, tokens, thought, lists):
    """Lines: how the e-th user was asked, and what the answer is worth."""
    item_ids, target = users.inputs.interactions.item_ids, int(users.held_out.target[e])

    def named(item):
        return f"{item_ids[item]} {speaker.spelled(prepared.codes[[item]])[0]}"

    yield f"  prompt: {speaker.tokenizer.decode(tokens)}"
    if thought is not None:
        yield f"  thought: {thought}"
    yield f"  target: {named(target) if target >= 0 else 'not known'}"
    answers = zip(lists.items[e].tolist(), lists.scores[e].tolist(), strict=True)
    for rank, (item, score) in enumerate(answers, 1):
        if item >= 0:
            yield f"  {rank:>3}. {score:9.4f}  {named(item)}{'  <- hit' if item == target else ''}"


def prompts(prepared, speaker, form, users, config):
    """A function: number of an asked user -> [T] token ids."""
    most = newest(config, form, users.view)
    if form == HISTORY:
        return lambda e: prepared.collator.prompt(users.held_out.history(e)[-most:])
    texts = {"text_keys": tuple(config.text_keys), "fields": users.fields, "category": config.category}
    known = speaker.known(users.inputs.interactions.item_ids, prepared.codes, **texts)
    questions = Questions(users.view, known, users.part, most, config.seed)
    return lambda e: speaker.prompt(questions.of(users.numbers[e]), form)


def check_positions(prepared, speaker, form, prompt, users, config):
    """Raises InputError where the longest prompt, a thought and an id are more than the LLM can read."""
    longest = int(np.argmax(users.held_out.end - users.held_out.start))
    needed = len(prompt(longest)) + prepared.trie.levels
    if form == THINK:
        needed += config.thought_tokens + max(map(len, speaker.behind))
    limit = prepared.model.longest_text
    if limit and needed > limit:
        lower = "--history or --thought_tokens" if form == THINK else "--history"
        raise InputError(
            f"--prompts {form} needs {needed:,} tokens for the user with the longest history, but the LLM "
            f"reads {limit:,}. Lower {lower}."
        )
