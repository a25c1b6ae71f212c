"""Judge a checkpoint on the validation or test split, and leave its embeddings and index for serving."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pixelrec_train import distributed, rendezvous, run_directory
from pixelrec_train.commands.inputs import Inputs, read_inputs
from pixelrec_train.commands.start import trained_config
from pixelrec_train.config import RankingConfig
from pixelrec_train.data.cache import fingerprint
from pixelrec_train.ending import speak_plainly
from pixelrec_train.engine.manifest import verify
from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.index import FaissIndex, import_faiss, unit
from pixelrec_train.evaluation.report import beside_popularity, candidates, table_text
from pixelrec_train.evaluation.retrieval import encode_catalogue, rank_held_out
from pixelrec_train.flags import flag, parse_args, possible_directory, require, require_minutes
from pixelrec_train.model.backbone import check_vocabulary, save_tensors
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.runlog import say


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(RankingConfig):
    """Rank the whole catalogue for every held-out user with a trained checkpoint."""

    checkpoint: str = flag("a checkpoint-epoch-N or best_model directory")
    split: str = flag("valid = second-last item of every user; test = last item", "test")
    interaction_data: str | None = flag("CSV; None = the one the checkpoint was trained on", None)
    text_data: str | None = flag("CSV; None = the one the checkpoint was trained on", None)
    output_dir: str | None = flag(
        "where metrics.json and the index go; None = <checkpoint>/eval-<split>", None
    )
    collective_timeout_minutes: float = flag("a rank that waits this long for the others gives up", 30.0)
    local_rank: int = flag("set by the launcher", -1)

    def __post_init__(self):
        super().__post_init__()
        require(self.split in ("valid", "test"), "--split must be valid or test", self.split)
        require_minutes(self.collective_timeout_minutes, "--collective_timeout_minutes")


@speak_plainly
def main(argv=None):
    config = parse_args(EvaluateConfig, argv)
    rendezvous.initialise(config.collective_timeout_minutes)
    evaluate(config)
    rendezvous.finish()


def evaluate(config):
    possible_directory(config.cache_dir, "--cache_dir")
    trained_config(config.checkpoint, "--checkpoint")
    possible_directory(*results_directory(config))
    if config.retrieval == "faiss":
        import_faiss()
    loaded = load(config.checkpoint, config, config.interaction_data, config.text_data)
    held_out = getattr(loaded.inputs.split, config.split)
    ranks, _ = rank_held_out(loaded.model, loaded.catalogue, held_out, config, loaded.max_seq_length)
    if distributed.rank() == 0:
        report(config, loaded.inputs, held_out, ranks, loaded.catalogue)
    distributed.barrier()


class Loaded(NamedTuple):
    inputs: Inputs  # as the checkpoint reads them
    model: HLLMModel
    catalogue: np.ndarray  # [num_items, D]
    max_seq_length: int  # items of history + target in evaluation


def load(checkpoint, config, interaction_data, text_data, read=None):
    """A checkpoint's model and its embeddings of the catalogue; every rank calls it.

    Args:
        config: RankingConfig.
        interaction_data, text_data: None = those it was trained on.
        read: a dict of what item LLMs have read so far; several checkpoints of one frozen item LLM read once.
    """
    trained_config(checkpoint, "--checkpoint")  # is it one at all
    verify(checkpoint, to_resume=False)
    settings = read_run(Path(checkpoint), config, interaction_data, text_data)
    inputs = read_inputs(settings)
    for line in inputs.describe():
        say(line)
    model = HLLMModel.load(
        settings.init_from, settings.max_text_length, inputs.interactions.item_ids,
        trust=settings.trust_remote_code,
    )  # fmt: skip
    model = model.to(distributed.device())
    if model.item_llm is not None:
        check_vocabulary(model.item_llm.backbone, inputs.item_text, settings.item_dir)
        if read is not None:
            read_once(model, inputs.item_text, settings.item_dir, config.eval_tokens, read)
    catalogue = encode_catalogue(model.encode_items, inputs.item_text, config.eval_tokens)
    return Loaded(inputs, model, catalogue, settings.seq_length_in_evaluation)


def read_once(model, item_text, item_dir, eval_tokens, read):
    """Let the item LLM read all texts, unless one with the same weights has read the same."""
    token = model.item_llm.item_token
    token = None if token is None else token.float().tolist()
    weights = Path(item_dir) / "model.safetensors"
    mark = fingerprint(item_text.fingerprint, weights, token, eval_tokens)
    if mark not in read:
        read[mark] = torch.from_numpy(encode_catalogue(model.encode_texts, item_text, eval_tokens))
    model.store_texts(read[mark])


def read_run(checkpoint, config, interaction_data, text_data):
    """The TrainConfig a checkpoint was made with, its weights and these data files in place of its own."""
    trained = trained_config(checkpoint, "--checkpoint")
    return dataclasses.replace(
        trained, init_from=str(checkpoint), item_model_dir=None, user_model_dir=None, random_init=(),
        interaction_data=interaction_data or trained.interaction_data,
        text_data=text_data or trained.text_data, cache_dir=config.cache_dir,
        trust_remote_code=config.trust_remote_code,  # said now, not by what lies in the checkpoint
    )  # fmt: skip


def results_directory(config):
    """(path, the flag that says so)"""
    if config.output_dir:
        return Path(config.output_dir), "--output_dir"
    return Path(config.checkpoint) / f"eval-{config.split}", "--checkpoint"


def report(config, inputs, held_out, ranks, catalogue):
    """Table on screen; metrics.json, item_embeddings.safetensors, item_ids.txt and index.faiss on disk."""
    rows = beside_popularity({"two_tower": ranks}, held_out, inputs.split.train_counts, config)
    target_counts = inputs.split.train_counts[held_out.target]
    directory, _ = results_directory(config)
    directory.mkdir(parents=True, exist_ok=True)
    run_directory.write_json(
        directory / "metrics.json",
        {
            "split": config.split,
            "unit": "fraction",
            "candidates": candidates(inputs.interactions.num_items, config),
            "retrieval": config.retrieval,
            "checkpoint": config.checkpoint,
            "metrics": rows,
            "slices": metrics.slices(ranks, target_counts, held_out.end - held_out.start, config.topk),
            "commit": run_directory.commit(),
            "versions": run_directory.versions(),
        }
        | inputs.facts(),
    )
    save_tensors({"item_embeddings": torch.from_numpy(catalogue)}, directory / "item_embeddings.safetensors")
    lines = [item_id.replace("\\", "\\\\").replace("\n", "\\n") for item_id in inputs.interactions.item_ids]
    (directory / "item_ids.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if config.retrieval == "faiss":
        FaissIndex(unit(catalogue)).save(directory / "index.faiss")
    say(f"\n{table_text(rows, config.topk)}")
    say(
        f"{config.split} split; figures, slices and versions in {directory}/metrics.json; embeddings and "
        "index beside."
    )
