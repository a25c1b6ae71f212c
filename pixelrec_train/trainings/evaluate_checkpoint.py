"""Judge a checkpoint on the validation or test split, and leave its embeddings and index for serving."""

from pathlib import Path

import torch

from pixelrec_train import distributed
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.index import FaissIndex, unit
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.progress import saying
from pixelrec_train.evaluation.report import (
    beside_popularity,
    candidates,
    counted_otherwise,
    table_rows,
    table_text,
)
from pixelrec_train.files import possible_directory, write_json
from pixelrec_train.libraries import import_faiss
from pixelrec_train.model.backbone import save_tensors
from pixelrec_train.recommend.checkpoints import check_split_as_trained, data_files, load, load_generative
from pixelrec_train.recommend.trained import is_generative
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run import rendezvous
from pixelrec_train.run.log import say


def main(config):
    """config: EvaluateConfig."""
    rendezvous.initialise(config.collective_timeout_minutes)
    evaluate(config)
    rendezvous.finish()


def evaluate(config):
    possible_directory(config.cache_dir, "--cache_dir")
    check_split_as_trained(config.checkpoint, "--checkpoint", config)
    possible_directory(*results_directory(config))
    if config.retrieval == "faiss":
        import_faiss()
    files, trust = data_files(config, text_data=config.text_data), config.trust_remote_code
    if is_generative(config.checkpoint):
        loaded = load_generative(config.checkpoint, files, trust, config.num_beams)
    elif config.num_beams:
        raise InputError(f"--num_beams is for a generative model; {config.checkpoint} is a two-tower one.")
    else:
        loaded = load(config.checkpoint, files, trust, config)
    held_out, split = loaded.inputs.split.judged(config.split), loaded.inputs.split
    judged = {loaded.name: judge(loaded.recommender, held_out, config, saying(loaded.name))}
    judged = beside_popularity(judged, held_out, split, config)
    if distributed.rank() == 0:
        report(config, loaded, held_out, judged)
    distributed.barrier()


def results_directory(config):
    """(path, the flag that says so)"""
    if config.output_dir:
        return Path(config.output_dir), "--output_dir"
    return Path(config.checkpoint) / f"eval-{config.split}", "--checkpoint"


def report(config, loaded, held_out, judged):
    """Table on screen, metrics.json on disk; of a two-tower model what serving needs as well."""
    inputs, two_tower = loaded.inputs, loaded.name == "two_tower"
    rows = table_rows(judged, inputs.split.train_counts[held_out.target] == 0, config.topk)
    places, taken = judged[loaded.name].places, inputs.split.popularity[held_out.target]
    directory, _ = results_directory(config)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(
        directory / "metrics.json",
        {
            "split": config.split,
            "unit": "fraction",
            "candidates": candidates(inputs.interactions.num_items, config),
            "retrieval": config.retrieval if two_tower else "beams",
            "checkpoint": config.checkpoint,
            "metrics": rows,
            "slices": metrics.slices(places, taken, held_out.end - held_out.start, config.topk),
            "commit": run_directory.commit(),
            "versions": run_directory.versions(),
        }
        | inputs.facts(),
    )
    say(f"\n{table_text(rows, config.topk)}")
    for line in counted_otherwise(judged, config.topk):
        say(f"{line}\n")
    say(f"{config.split} split; figures, slices and versions in {directory}/metrics.json")
    if two_tower:
        write_index(config, loaded, directory)
        say(f"Embeddings and index beside: {directory}/")


def write_index(config, loaded, directory):
    """item_embeddings.safetensors, item_ids.txt and index.faiss."""
    catalogue, item_ids = loaded.recommender.catalogue, loaded.inputs.interactions.item_ids
    save_tensors({"item_embeddings": torch.from_numpy(catalogue)}, directory / "item_embeddings.safetensors")
    lines = [item_id.replace("\\", "\\\\").replace("\n", "\\n") for item_id in item_ids]
    (directory / "item_ids.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if config.retrieval == "faiss":
        FaissIndex(unit(catalogue)).save(directory / "index.faiss")
