"""Ranked items for every user of a split: a language model's that is asked, a checkpoint's or a blend's."""

from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from pixelrec_train import distributed
from pixelrec_train.config import DataFlags
from pixelrec_train.data.inputs import Inputs
from pixelrec_train.data.views.parts import user_names
from pixelrec_train.evaluation.faiss_index import way_of_search
from pixelrec_train.evaluation.generation import Generated
from pixelrec_train.evaluation.places import Judged, judge
from pixelrec_train.evaluation.progress import saying
from pixelrec_train.files import possible_directory
from pixelrec_train.flags import given
from pixelrec_train.model.vocabulary import ItemicVocabulary
from pixelrec_train.recommend.checkpoints import (
    check_split_as_trained,
    data_files,
    load_either,
    with_files,
)
from pixelrec_train.recommend.parts import UNTRAINED, check_hybrid, checkpoints_of, is_blend
from pixelrec_train.recommend.trained import is_generative, settings_of
from pixelrec_train.run import rendezvous
from pixelrec_train.run.log import say
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.tasks.tokens import LLM
from pixelrec_train.trainings.asking import ask, asked_in, read_users
from pixelrec_train.trainings.evaluate_models import by_beams, prepared_of, report, speaker_of
from pixelrec_train.trainings.load_blend import load_blend, named, told


class Ranked(NamedTuple):
    name: str  # of its row in the table
    inputs: Inputs
    held_out: object  # HeldOut
    users: list[str]  # tables' ids of the users that the split numbers
    titles: list[str | None] | None  # of every item
    judged: Judged  # with its lists
    facts: dict
    spelled: list[str] | None  # every item's semantic id
    how: str  # of what, and how, was ranked


def main(config):
    """config: PredictConfig."""
    rendezvous.initialise(config.collective_timeout_minutes)
    predict(config)
    rendezvous.finish()


def predict(config):
    possible_directory(config.cache_dir, "--cache_dir")
    possible_directory(config.output_dir, "--output_dir")
    ranked = by_checkpoint(config) if config.checkpoint else by_model(config)
    if distributed.rank() == 0:
        write(config, ranked)
    if len(ranked.judged.places):
        judged, facts = {ranked.name: ranked.judged}, {ranked.name: ranked.facts}
        report(config, ranked.inputs.split, ranked.held_out, judged, facts, ranked.how)
    distributed.barrier()


def by_model(config):
    """Ranked, by a language model."""
    (form,), trust = config.prompts, "item" in config.trust_remote_code
    asked_in(config)
    speaker = speaker_of(config.model_dir, config, trust)
    users = read_users(config)
    for line in users.inputs.describe():
        say(line)
    prepared, name = prepared_of(config.model_dir, config, users, trust), f"{config.model_dir} · {form}"
    titles = titles_of(config, users.inputs)
    judged, facts = ask(prepared, speaker, form, users, config, saying(name), keep_lists=True)
    return Ranked(
        name, users.inputs, users.held_out, user_names(users.inputs.interactions, config), titles, judged,
        facts | {"model_dir": config.model_dir}, speaker.spelled(prepared.codes),
        by_beams(config),
    )  # fmt: skip


def by_checkpoint(config):
    """Ranked, by a checkpoint of either head or a blend, as it is evaluated."""
    check_hybrid(config.hybrid, config.checkpoint)
    blends = is_blend(config.checkpoint) or config.hybrid
    if blends or not is_generative(config.checkpoint):
        way_of_search(config.retrieval)
    loaded, data, how = load_blended(config) if blends else load_alone(config)
    held_out = getattr(loaded.inputs.split, config.split)
    if config.users:
        held_out = held_out.sample(config.users, config.seed)
    titles = titles_of(config, loaded.inputs)
    judged = judge(loaded.recommender, held_out, config, saying(loaded.name), keep_lists=True)
    spelled = None
    if isinstance(loaded.recommender, Generated):
        spelled = spelled_in(loaded.recommender.trie, Path(config.checkpoint) / LLM)
    names = user_names(loaded.inputs.interactions, data)
    facts, how = {"checkpoint": config.checkpoint}, f"{data.interaction_data}, {how}"
    return Ranked(loaded.name, loaded.inputs, held_out, names, titles, judged, facts, spelled, how)


def load_alone(config):
    """(Loaded, its DataFlags, by what it ranks), of one checkpoint."""
    path, beams = config.checkpoint, given_beams(config)
    trained = settings_of(path, "--checkpoint", DataFlags)
    check_split_as_trained(path, "--checkpoint", config)
    files = data_files(config, text_data=config.text_data)
    loaded = load_either(path, files, config.trust_remote_code, config, beams)
    generated = isinstance(loaded.recommender, Generated)
    how = f"at least {loaded.recommender.beams} beams" if generated else "by cosine"
    return loaded, with_files(trained, files), how


def load_blended(config):
    """The same, of a blend; what was not given is as its blend.json or its parts say."""
    own = {"num_beams": given_beams(config), "text_keys": config.text_keys * ("text_keys" in given(config))}
    config = SimpleNamespace(**vars(config) | own)
    loaded, blended = load_blend(config)
    file, parts = named(config.checkpoint)
    data = told(DataFlags, file, checkpoints_of(parts, "--checkpoint", UNTRAINED), config)
    return loaded, data, f"by {blended.file.in_words()}"


def given_beams(config):
    """--num_beams, or None = as the checkpoint was trained."""
    return config.num_beams if "num_beams" in given(config) else None


def spelled_in(trie, llm):
    """[text of every item's semantic id, as this language model reads it]"""
    vocabulary = ItemicVocabulary.load(llm, "the checkpoint")
    codes = trie.ids()[trie.leaf_of]
    return [CODECS[vocabulary.codec].text(row, vocabulary.codebook_sizes) for row in codes.tolist()]


def titles_of(config, inputs):
    """[the first text of every item], None of those that have none; None without --text_data."""
    if not config.text_data:
        return None
    from pixelrec_train.data.item_fields import first_texts  # brings pandas and pyarrow with it

    return first_texts(inputs.interactions.item_ids, config)


def write(config, ranked):
    """predictions.parquet and predictions.jsonl; what an earlier prediction has left of a table goes."""
    from pixelrec_train.data.predictions import FILES, write_predictions

    count = write_predictions(config.output_dir, rows(ranked))
    for name in ("table.md", "table.json"):
        (Path(config.output_dir) / name).unlink(missing_ok=True)
    names = ", ".join(FILES)
    print(f"{count:,} users, at most {max(config.topk)} items each; in {config.output_dir}/: {names}")


def rows(ranked):
    """Yields what predictions.SCHEMA names, for every user in the order of the split."""
    item_ids, held_out = list(ranked.inputs.interactions.item_ids), ranked.held_out
    lists, titles = ranked.judged.lists, ranked.titles
    for e, user in enumerate(held_out.users.tolist()):
        target, items = int(held_out.target[e]), lists.items[e]
        there = items >= 0
        items = items[there].tolist()
        yield {
            "user_id": ranked.users[user],
            "history": [item_ids[item] for item in held_out.history(e).tolist()],
            "target": item_ids[target] if target >= 0 else None,
            "item_ids": [item_ids[item] for item in items],
            "titles": titles and [titles[item] for item in items],
            "scores": lists.scores[e][there].tolist(),
            "semantic_ids": ranked.spelled and [ranked.spelled[item] for item in items],
        }
