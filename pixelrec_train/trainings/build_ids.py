"""Give every item a semantic id: embeddings, a quantiser, a rule for collisions, a report card."""

import dataclasses
from pathlib import Path

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.data.semantic_id_files import check_index, read_index, write_index
from pixelrec_train.engine.session import on_all_ranks
from pixelrec_train.errors import InputError
from pixelrec_train.files import possible_directory, possible_file, write_json
from pixelrec_train.libraries import import_faiss
from pixelrec_train.recommend.checkpoints import data_files
from pixelrec_train.recommend.item_embeddings import of_checkpoint, of_encoder, of_matrix
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run import watchdog
from pixelrec_train.run.log import say
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.semantic_id.giving import give_ids, rule_of
from pixelrec_train.semantic_id.quantiser import Preprocessing, Quantiser
from pixelrec_train.semantic_id.report_card import card_text, report_card
from pixelrec_train.semantic_id.rq_kmeans import rq_kmeans, rq_kmeans_balanced
from pixelrec_train.trainings.train_rq_vae import deepspeed_settings, train_rq_vae

IDS, CARD = "semantic_ids.json", "report_card.json"
TRAINED = ("rq_vae", "rq_kmeans_plus")


def main(config):
    """config: BuildConfig."""
    if config.export_index:
        check_export(config)
    if config.import_index or config.semantic_ids:
        convert(config)
        return
    config = dataclasses.replace(config, codebook_size=config.codebook_size or 256)
    check_free(config)
    import_faiss()
    on_all_ranks(config, lambda: build(config), can_resume=False)


def convert(config):
    """Another project's index becomes semantic_ids.json, or a semantic_ids.json another project's index."""
    if config.import_index:
        check_free(config)
        ids = read_index(config.import_index, config.codec, config.codebook_size, config.code_base)
        write(config, ids, report_card(ids))
    else:
        ids = SemanticIds.load(config.semantic_ids)
        say(card_text(report_card(ids)))
    if config.export_index:
        export(config, ids)


def check_free(config):
    """Raises InputError where output_dir holds ids already, or cannot be written."""
    directory = possible_directory(config.output_dir, "--output_dir")
    if (directory / IDS).exists() and not config.overwrite:
        raise InputError(
            f"--output_dir {directory} already holds {IDS}. Choose another, or add --overwrite to replace it."
        )
    if config.codebooks and Path(config.codebooks).resolve() == directory.resolve():
        raise InputError(f"--codebooks and --output_dir are both {directory}. Choose another --output_dir.")


def check_export(config):
    """Raises InputError where the index file cannot be written, or something is there already."""
    path = possible_file(config.export_index, "--export_index")
    check_index(path, config.codec, config.code_base or 0)
    read = ("import_index", "semantic_ids", "matrix", "matrix_ids")
    for name in (*read, "interaction_data", "valid_data", "test_data", "split_data", "text_data"):
        given = getattr(config, name)
        if given and path.resolve() == Path(given).resolve():
            raise InputError(f"--export_index {path} is --{name} itself. Choose another.")
    if path.exists() and not config.overwrite:
        raise InputError(
            f"--export_index {path} is there already. Choose another, or add --overwrite to replace it."
        )


def build(config):
    """Embed, quantise, tell apart, report; every rank calls it, the first one writes."""
    if config.quantiser in TRAINED:
        deepspeed_settings(config)
        run_directory.check_free(Path(config.output_dir) / "rq_vae", config.overwrite)
    kept = kept_ids(config)
    items = embed(config).check()
    say(f"embeddings: {len(items.item_ids):,} items, width {items.embeddings.shape[1]}, from {items.source}")
    quantiser, codes = quantise(config, items.embeddings)
    vectors = quantiser.vectors(items.embeddings)
    codes = quantiser.encode(vectors) if codes is None else codes
    ids = tell_apart(config, items, quantiser, vectors, codes, kept)
    errors = quantiser.errors(vectors, ids.of(items.item_ids))
    card = report_card(ids, interactions_of(ids, items), errors)
    if distributed.rank() == 0:
        write(config, ids, card, quantiser)
        if config.export_index:
            export(config, ids)
    distributed.barrier()


def embed(config):
    """Items of the source the flags name."""
    trust, eval_tokens = config.trust_remote_code, config.eval_tokens
    if config.encoder_model_dir:
        return of_encoder(
            config.encoder_model_dir, config, config, "item" in trust, eval_tokens, config.pooling
        )
    if config.matrix:
        return of_matrix(config.matrix, config.matrix_ids, config)
    files = data_files(config, text_data=config.text_data, allow_missing_text=config.allow_missing_text)
    return of_checkpoint(config.checkpoint, files, trust, eval_tokens)


def kept_ids(config):
    """SemanticIds of the build --codebooks names, whose items keep their ids; None without."""
    return SemanticIds.load(Path(config.codebooks) / IDS, "--codebooks") if config.codebooks else None


def quantise(config, embeddings):
    """(Quantiser, [N, L] codes, or None where they are what the quantiser encodes)"""
    if config.codebooks:
        quantiser = Quantiser.load(config.codebooks)
        if embeddings.shape[1] != len(quantiser.preprocessing.mean):
            raise InputError(
                f"the embeddings have width {embeddings.shape[1]}, but those of --codebooks "
                f"{config.codebooks} had {len(quantiser.preprocessing.mean)}. They must come from the same "
                f"model."
            )
        return quantiser, None
    preprocessing = Preprocessing.fit(embeddings, config.normalisation)
    if config.quantiser in TRAINED:
        return train_rq_vae(config, preprocessing, embeddings, say), None
    quantise = {"rq_kmeans": rq_kmeans, "rq_kmeans_balanced": rq_kmeans_balanced}[config.quantiser]
    with watchdog.busy("k-means"):
        codebooks, codes = quantise(
            preprocessing(embeddings), config.levels, config.codebook_size, config.kmeans_iterations,
            config.seed, say,
        )  # fmt: skip
    return Quantiser(preprocessing, codebooks), codes


def tell_apart(config, items, quantiser, vectors, codes, kept):
    """SemanticIds: those that are kept as they are, then the new items by the rule for collisions."""
    policy = config.dedup
    if kept:
        policy = rule_of(kept, quantiser, config.codebooks)
        if config.dedup not in ("auto", policy):
            raise InputError(
                f"--dedup {config.dedup}, but the ids of --codebooks follow {policy}. Leave it out."
            )
    ids = give_ids(items.item_ids, items.interactions, quantiser, vectors, codes, policy, kept)
    facts = ids.facts
    say(f"quantiser: collision rate {facts['collision_rate_before']:.3%} before --dedup {facts['dedup']}")
    if "moved" in facts:
        say(
            f"reassign: {facts['moved']:,} items moved to a free id, {facts['fell_through']:,} fell through "
            f"(no free id near; they share theirs)"
        )
    if kept:
        say(f"kept: the ids of {len(kept.item_ids):,} items; new: {len(ids.item_ids) - len(kept.item_ids):,}")
    more = {"source": items.source, "embedder": items.embedder, "seed": config.seed}
    more |= {"quantiser": kept.facts["quantiser"] if kept else config.quantiser}
    more |= {"codebooks": config.codebooks, "commit": run_directory.commit()}
    return dataclasses.replace(ids, facts=facts | more)


def interactions_of(ids, items):
    """[N] interactions of the items of ids, in their order, or None."""
    if items.interactions is None:
        return None
    count = dict(zip(items.item_ids, items.interactions.tolist(), strict=True))
    return np.array([count.get(item_id, 0) for item_id in ids.item_ids])


def write(config, ids, card, quantiser=None):
    """Card on screen; codebooks, card and ids on disk, the ids last: where they are, all is."""
    directory = Path(config.output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / IDS).unlink(missing_ok=True)
    if quantiser:
        quantiser.save(directory, ids.facts)
    write_json(directory / CARD, card | {"facts": ids.facts})
    ids.save(directory / IDS)
    say(f"\n{card_text(card)}\n")
    say(f"Files in {directory}/: {IDS}, {CARD}{', codebooks.safetensors' if quantiser else ''}")


def export(config, ids):
    Path(config.export_index).parent.mkdir(parents=True, exist_ok=True)
    write_index(ids, config.export_index, config.codec, config.code_base or 0)
    say(f"wrote {config.export_index} in the spelling {config.codec}")
