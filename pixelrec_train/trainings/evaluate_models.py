"""Language models with itemic tokens, each asked in several ways, in one table beside popularity."""

import dataclasses
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.config import WindowFlags
from pixelrec_train.data.inputs import read_inputs
from pixelrec_train.data.views.parts import part_of
from pixelrec_train.data.views.view import Known
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.metrics import figures
from pixelrec_train.evaluation.passes import Asked, passes_text
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.report import (
    beside_popularity,
    candidates,
    counted_otherwise,
    table_rows,
    write_table,
)
from pixelrec_train.files import possible_directory
from pixelrec_train.model.thoughts import Sampling
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.model.vocabulary import check_codes
from pixelrec_train.recommend.generator import Prepared
from pixelrec_train.recommend.questions import HISTORY, THINK, Questions, Speaker
from pixelrec_train.recommend.thinking import Thinking
from pixelrec_train.recommend.trained import refuse_checkpoint
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run import rendezvous
from pixelrec_train.run.log import say
from pixelrec_train.semantic_id.codes import SemanticIds


class Users(NamedTuple):
    """Those who are judged."""

    inputs: object  # data.inputs.Inputs
    held_out: object  # HeldOut
    numbers: np.ndarray  # [E] theirs in the part
    part: object  # data.views.parts.Part


def main(config):
    """config: EvaluateQwen3Config."""
    rendezvous.initialise(config.collective_timeout_minutes)
    evaluate(config)
    rendezvous.finish()


def evaluate(config):
    possible_directory(config.cache_dir, "--cache_dir")
    possible_directory(config.output_dir, "--output_dir")
    directories, trust = named(config.model_dir), "item" in config.trust_remote_code
    found = SemanticIds.load(config.semantic_ids)
    speakers = {}
    for name, directory in directories.items():  # all of them before the first is judged: it takes a while
        refuse_checkpoint(directory)
        speakers[name] = Speaker(directory, config.prompts, config.add_think_pattern, trust)
        check_codes(speakers[name].vocabulary, directory, found, config.semantic_ids)
    users = read_users(config)
    for line in users.inputs.describe():
        say(line)

    judged, facts = {}, {}
    for name, directory in directories.items():
        model = TokenModel.load(directory, "--model_dir", dtype="auto", trust=trust)
        model = model.to(distributed.device()).eval()
        prepared = Prepared.of(model, directory, config.semantic_ids, users.inputs, trust)
        for form in config.prompts:
            row = f"{name} · {form}"
            judged[row], facts[row] = ask(prepared, speakers[name], form, users, config)
            facts[row] |= {"model_dir": directory, "prompt": form}
            say(f"{row}: {len(users.held_out):,} users in {facts[row]['seconds']:.0f} s")
    judged = beside_popularity(judged, users.held_out, users.inputs.split, config)
    if distributed.rank() == 0:
        report(config, users, judged, facts)
    distributed.barrier()


def asked_in_run(model, model_dir, asking, trust=False):
    """An evaluator of the model as it stands: () -> {figure: value} of the users that `asking` names.

    asking: AskFlags of one prompt.
    """
    (form,) = asking.prompts
    speaker, users = Speaker(model_dir, asking.prompts, asking.add_think_pattern, trust), read_users(asking)
    prepared = Prepared.of(model, model_dir, asking.semantic_ids, users.inputs, trust)

    def evaluator():
        judged, _ = ask(prepared, speaker, form, users, asking)
        return figures(judged.places, asking.topk) | judged.counts

    return evaluator


def named(model_dirs):
    """{name of a row: directory} of DIRECTORY or NAME=DIRECTORY each."""
    directories = {}
    for given in model_dirs:
        name, mark, directory = given.partition("=")
        if not mark or Path(given).exists():
            name = directory = given
        if not name or not directory:
            raise InputError(f"--model_dir {given!r} must be a directory, or NAME=DIRECTORY.")
        if name in directories:
            raise InputError(f"--model_dir names {name} twice. Give each a name of its own: NAME=DIRECTORY.")
        directories[name] = directory
    return directories


def read_users(config):
    inputs = read_inputs(config, WindowFlags(max_seq_length=config.history + 1))
    held_out = getattr(inputs.split, config.split)
    numbers = np.arange(len(held_out))
    if config.users:
        numbers = dataclasses.replace(held_out, users=numbers).sample(config.users, config.seed).users
        held_out = held_out.sample(config.users, config.seed)
    return Users(inputs, held_out, numbers, part_of(config.split, inputs.interactions, config))


def ask(prepared, speaker, form, users, config):
    """(Judged, {"seconds": …, …}) of a model asked in one way."""
    start, prompt = time.monotonic(), prompts(prepared, speaker, form, users, config)
    thinking = None
    if form == THINK:
        how = Sampling(config.temperature, config.top_k, config.top_p)
        thinking = Thinking(speaker, how, config.thought_tokens, config.seed)
    check_positions(prepared, speaker, form, prompt, users, config)
    search = prepared.search(config.normalised_over, thinking)
    asked = Asked(
        lambda numbers, beams: search([prompt(e) for e in numbers], beams),
        prepared.trie, config.num_beams, users.held_out,
    )  # fmt: skip
    judged = judge(asked, users.held_out, config)
    return judged, {"seconds": time.monotonic() - start} | (thinking.facts() if thinking else {})


def prompts(prepared, speaker, form, users, config):
    """A function: number of a judged user -> [T] token ids."""
    if form == HISTORY:
        return lambda e: prepared.collator.prompt(users.held_out.history(e)[-config.history :])
    known = Known(users.inputs.interactions.item_ids, speaker.spelled(prepared.codes))
    questions = Questions(known, users.part, config.history, config.seed)
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


def report(config, users, judged, facts):
    """Both tables on screen and in table.md; figures and facts in table.json."""
    split, held_out = users.inputs.split, users.held_out
    rows = table_rows(judged, split.train_counts[held_out.target] == 0, config.topk)
    for name, about in facts.items():
        rows[name] |= about
    over = "vocabulary" if config.normalised_over == "full" else "level"
    note = (
        f"{config.split} split of {config.interaction_data} ({split.origin}), "
        f"{candidates(len(split.train_counts), config)}, at least {config.num_beams} beams, none outside "
        f"the catalogue, probabilities over the {over}; ± is half the width of the 95 % bootstrap interval; "
        f"commit {run_directory.commit()}."
    )
    lines = [f"{name}: {in_words(f['thoughts'])}" for name, f in facts.items() if "thoughts" in f]
    theirs = passes_text({name: rows[name] for name in facts}, config.num_beams)
    note = "\n".join([theirs, *counted_otherwise(judged, config.topk), *lines, note])
    Path(config.output_dir).mkdir(parents=True, exist_ok=True)
    print(f"\n{write_table(config.output_dir, rows, config.topk, note)}\n{note}\n")
    print(f"Files in {config.output_dir}/: table.md, table.json")


def in_words(thoughts):
    """thoughts: of Thinking.facts."""
    return (
        f"{thoughts['mean_tokens']:.1f} tokens of a thought on average; {thoughts['ended']:,} of "
        f"{thoughts['different']:,} ended by themselves, the others were ended (at "
        f"{thoughts['most_tokens']} tokens, or where the model ended the text)"
    )
