"""Semantic ids for items that nobody took yet: from their texts, by the codebooks of a model's ids."""

from pathlib import Path

from pixelrec_train.config import DataFlags, TokenFlags
from pixelrec_train.errors import InputError
from pixelrec_train.recommend.checkpoints import refuse_known
from pixelrec_train.recommend.item_embeddings import of_checkpoint, of_encoder
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.semantic_id.giving import give_ids, rule_of
from pixelrec_train.semantic_id.quantiser import Quantiser


def with_new_ids(ids, codebooks, new_items, files, trust, eval_tokens):
    """SemanticIds: those of a model's catalogue, and behind them those of new items.

    Args:
        ids: SemanticIds of the model.
        codebooks: directory that scripts/build_semantic_ids.py wrote, from which the ids are.
        new_items: table like --text_data of items that nobody took yet.
        files, trust, eval_tokens: as of load_towers.

    Raises:
        InputError: the ids are of other codebooks, or what embedded the items is not known or not there.
    """
    said, path = f"--codebooks {codebooks}", Path(codebooks) / "semantic_ids.json"
    kept, quantiser = SemanticIds.load(path, "--codebooks"), Quantiser.load(codebooks)
    policy = rule_of(kept, quantiser, codebooks)
    if kept.codebook_sizes != ids.codebook_sizes or not (kept.of(ids.item_ids) == ids.codes).all():
        raise InputError(
            f"{said}: the checkpoint was trained with other ids. Name those it was trained with."
        )
    embedder = kept.facts.get("embedder")
    if not embedder:
        raise InputError(
            f"{said}: what embedded its items cannot be had again ({kept.facts.get('source', 'unknown')}). "
            f"Build it anew from --checkpoint or --encoder_model_dir to give new items ids."
        )
    model = Path(embedder.get("checkpoint") or embedder["encoder_model_dir"])
    if not model.exists():
        raise InputError(
            f"{said}: {model}, which embedded its items, is not there (looked from {Path.cwd()}). Start the "
            f"command where it is found."
        )
    if "checkpoint" in embedder:
        items = of_checkpoint(model, files, trust, eval_tokens, new_items)
    else:
        texts = TokenFlags(
            text_data=str(new_items), text_keys=tuple(embedder["text_keys"]),
            max_text_length=embedder["max_text_length"],
        )  # fmt: skip
        data = DataFlags(interaction_data=None)
        items = of_encoder(model, data, texts, "item" in trust, eval_tokens, embedder["pooling"])
        refuse_known(new_items, items.item_ids, ids.item_ids)
    vectors = quantiser.vectors(items.check().embeddings)
    codes = quantiser.encode(vectors)
    return give_ids(items.item_ids, items.interactions, quantiser, vectors, codes, policy, kept)
