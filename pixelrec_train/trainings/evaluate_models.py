"""Language models with itemic tokens, each asked in several ways, in one table beside popularity."""

import dataclasses
import json
from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.data.views.parts import user_names
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.passes import THEIRS, passes_text
from pixelrec_train.evaluation.places import with_targets
from pixelrec_train.evaluation.progress import saying
from pixelrec_train.evaluation.report import (
    ONE_TARGET,
    beside_popularity,
    candidates,
    counted_otherwise,
    table_rows,
    with_hits,
    write_table,
)
from pixelrec_train.files import possible_directory, write_whole
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.model.vocabulary import check_codes
from pixelrec_train.recommend.generator import Prepared
from pixelrec_train.recommend.questions import Speaker
from pixelrec_train.recommend.trained import refuse_checkpoint
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run import rendezvous
from pixelrec_train.run.log import say
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.trainings.asking import ask, asked_in, check_labelled, read_users


def main(config):
    """config: EvaluateQwen3Config."""
    rendezvous.initialise(config.collective_timeout_minutes)
    evaluate(config)
    rendezvous.finish()


def evaluate(config):
    possible_directory(config.cache_dir, "--cache_dir")
    possible_directory(config.output_dir, "--output_dir")
    directories, trust = named(config.model_dir), "item" in config.trust_remote_code
    asked_in(config)
    # All of them before the first is judged: it takes a while.
    speakers = {name: speaker_of(directory, config, trust) for name, directory in directories.items()}
    users = read_users(config)
    for line in users.inputs.describe():
        say(line)
    check_labelled(users, config.split)

    judged, facts = {}, {}
    for name, directory in directories.items():
        prepared = prepared_of(directory, config, users, trust)
        for form in config.prompts:
            row = f"{name} · {form}"
            judged[row], facts[row] = ask(
                prepared, speakers[name], form, users, config, saying(row), bool(config.save_results)
            )
            facts[row] |= {"model_dir": directory}
            say(f"{row}: {len(users.held_out):,} users in {facts[row]['seconds']:.0f} s")
    rows = report(config, users.inputs.split, users.held_out, judged, facts, by_beams(config))
    if distributed.rank() == 0 and config.save_results:
        save(config, users, judged, rows)
    distributed.barrier()


def speaker_of(directory, config, trust):
    """The Speaker of a model that is asked as AskFlags say. Raises InputError where it cannot be asked."""
    refuse_checkpoint(directory)
    speaker = Speaker(directory, config.prompts, config.add_think_pattern, trust)
    found = SemanticIds.load(config.semantic_ids)
    check_codes(speaker.vocabulary, directory, found, config.semantic_ids)
    return speaker


def prepared_of(directory, config, users, trust):
    """Prepared, on this rank's device."""
    model = TokenModel.load(directory, "--model_dir", dtype="auto", trust=trust)
    model = model.to(distributed.device()).stand_still()
    return Prepared.of(model, directory, config.semantic_ids, users.inputs, trust)


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


def by_beams(config):
    """How language models have ranked, in words. config: DataFlags and DecodingFlags."""
    over = "vocabulary" if config.normalised_over == "full" else "level"
    return (
        f"{config.interaction_data}, at least {config.num_beams} beams, none outside the catalogue, "
        f"probabilities over the {over}"
    )


def report(config, split, held_out, judged, facts, how):
    """Both tables on screen and in table.md; figures and facts in table.json. All ranks call it.

    Args:
        config: RankingFlags with --split, --num_beams and --output_dir.
        held_out: HeldOut, of which the users with a target were judged.
        judged, facts: {name of a row: Judged}, {name: {what else is to be told of it}}.
        how: of what, and how, was ranked.

    Returns:
        rows of the table
    """
    held_out = with_targets(held_out)
    judged = beside_popularity(judged, held_out, split, config)
    rows = table_rows(judged, split.train_counts[held_out.target] == 0, config.topk)
    for name, about in facts.items():
        rows[name] |= about
    if distributed.rank():
        return rows
    note = (
        f"{config.split} split of {how} ({split.origin}); {candidates(len(split.train_counts), config)}; "
        f"{ONE_TARGET}; ± is half the width of the 95 % bootstrap interval; commit {run_directory.commit()}."
    )
    lines = [f"{name}: {in_words(f['thoughts'])}" for name, f in facts.items() if "thoughts" in f]
    asked = {name: rows[name] for name in facts if f"{THEIRS}pass@1" in rows[name]}
    theirs = [passes_text(asked, config.num_beams)] if asked else []
    note = "\n".join([*theirs, *counted_otherwise(judged, config.topk), *lines, note])
    Path(config.output_dir).mkdir(parents=True, exist_ok=True)
    print(f"\n{write_table(config.output_dir, rows, config.topk, note)}\n{note}\n")
    print(f"Files in {config.output_dir}/: table.md, table.json")
    return rows


def save(config, users, judged, rows):
    """--save_results: the flags, the table, and the ranked items of every user, best first, in one JSON."""
    item_ids, held_out = list(users.inputs.interactions.item_ids), users.held_out
    names, targets = user_names(users.inputs.interactions, config), held_out.target.tolist()

    def ranked(e):
        lists = {row: one.lists.items[e].tolist() for row, one in judged.items()}
        return {row: [item_ids[item] for item in items if item >= 0] for row, items in lists.items()}

    answers = [
        {"user_id": names[user], "target": item_ids[target] if target >= 0 else None, "ranked": ranked(e)}
        for e, (user, target) in enumerate(zip(held_out.users.tolist(), targets, strict=True))
    ]
    found = {
        "args": dataclasses.asdict(config), "num_samples": len(answers),
        "metrics": {name: with_hits(row) for name, row in rows.items()}, "users": answers,
    }  # fmt: skip
    Path(config.save_results).parent.mkdir(parents=True, exist_ok=True)
    write_whole(config.save_results, json.dumps(found, ensure_ascii=False) + "\n")
    print(f"Table and ranked items of {len(answers):,} users: {config.save_results}")


def in_words(thoughts):
    """thoughts: of Thinking.facts."""
    return (
        f"{thoughts['mean_tokens']:.1f} tokens of a thought on average; {thoughts['ended']:,} of "
        f"{thoughts['different']:,} ended by themselves, the others were ended (at "
        f"{thoughts['most_tokens']} tokens, or where the model ended the text)"
    )
