"""Judge a checkpoint on the validation or test split, and leave its embeddings and index for serving."""

from pathlib import Path

import torch

from pixelrec_train import distributed
from pixelrec_train.config import DataFlags, TextFlags
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.faiss_index import save_index, way_of_search
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.progress import saying
from pixelrec_train.evaluation.report import (
    beside_popularity,
    candidates,
    counted_otherwise,
    table_rows,
    table_text,
)
from pixelrec_train.evaluation.retrieval import TwoTower
from pixelrec_train.files import possible_directory, write_json
from pixelrec_train.model.backbone import save_tensors
from pixelrec_train.recommend.blend_file import blend_file
from pixelrec_train.recommend.checkpoints import check_split_as_trained, data_files, load_either
from pixelrec_train.recommend.item_cache import write_item_ids
from pixelrec_train.recommend.parts import UNTRAINED, check_hybrid, checkpoints_of, is_blend
from pixelrec_train.report.end import EVIDENCE, attempt
from pixelrec_train.report.evidence import example_users, items_on_map, leave
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run import rendezvous
from pixelrec_train.run.log import say
from pixelrec_train.trainings import blending
from pixelrec_train.trainings.load_blend import load_blend, named, told

AS_VECTORS = "blend, as vectors"


def main(config):
    """config: EvaluateConfig."""
    rendezvous.initialise(config.collective_timeout_minutes)
    evaluate(config)
    rendezvous.finish()


def evaluate(config):
    possible_directory(config.cache_dir, "--cache_dir")
    blends = is_blend(config.checkpoint) or config.hybrid
    check_hybrid(config.hybrid, config.checkpoint)
    if not blends:
        check_split_as_trained(config.checkpoint, "--checkpoint", config)
    possible_directory(*results_directory(config))
    way_of_search(config.retrieval)
    loaded, blended = load_blend(config) if blends else (load_alone(config), None)
    held_out, split = loaded.inputs.split.judged(config.split), loaded.inputs.split
    vectors = vectors_of(loaded, blended, config.retrieval)
    shown = example_users(held_out)
    judged = {loaded.name: judge(loaded.recommender, held_out, config, saying(loaded.name), shown)}
    if blended and vectors:
        judged[AS_VECTORS] = judge(vectors, held_out, config, saying(AS_VECTORS))
    judged = beside_popularity(judged, held_out, split, config)
    if distributed.rank() == 0:
        report(config, loaded, held_out, judged, vectors, blended)
    distributed.barrier()


def load_alone(config):
    """Loaded, of one checkpoint."""
    files = data_files(config, text_data=config.text_data)
    return load_either(config.checkpoint, files, config.trust_remote_code, config, config.num_beams)


def vectors_of(loaded, blended, retrieval):
    """The TwoTower that serving needs; None where the model is none."""
    if blended:
        return blended.vectors(retrieval)
    return loaded.recommender if isinstance(loaded.recommender, TwoTower) else None


def results_directory(config):
    """(path, the flag that says so)"""
    if config.output_dir:
        return Path(config.output_dir), "--output_dir"
    if file := blend_file(config.checkpoint):
        return file.parent / f"eval-{config.split}", "--checkpoint"
    if is_blend(config.checkpoint):
        raise InputError(f"--checkpoint {config.checkpoint} has no directory of its own. Name --output_dir.")
    name = f"eval-{config.split}" + "-hybrid" * bool(config.hybrid)
    return Path(config.checkpoint) / name, "--checkpoint"


def report(config, loaded, held_out, judged, vectors, blended):
    """Table on screen, metrics.json on disk; of a vector model what serving needs, of a blend blend.json."""
    inputs, ranked_by = loaded.inputs, {"two_tower": way_of_search(config.retrieval), "generative": "beams"}
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
            "retrieval": ranked_by.get(loaded.name, "scores"),
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
    if blended:
        say(f"blend: {blended.note}; in {directory}/blend.json")
        blending.write(directory, blended, inputs.split)
    if vectors:
        write_index(config, vectors, loaded.inputs.interactions.item_ids, directory)
        say(f"Embeddings and index beside: {directory}/")
    attempt(EVIDENCE, lambda: leave_evidence(config, directory, loaded, held_out, judged, vectors), say)


def leave_evidence(config, directory, loaded, held_out, judged, vectors):
    """places.parquet and report.json, of which reports and comparisons of runs are made."""
    file, parts = named(config.checkpoint)
    checkpoints = checkpoints_of(parts, "--checkpoint", UNTRAINED)
    data, texts = (told(group, file, checkpoints, config) for group in (DataFlags, TextFlags))
    items, on_map = items_on_map(loaded.inputs.interactions.num_items), None
    if vectors:
        on_map = vectors.catalogue[items]
    elif loaded.item_vectors:
        on_map = loaded.item_vectors(items)
    names = directory, judged, loaded.name, loaded.inputs, held_out
    leave(*names, config, data, config.split, texts, on_map)


def write_index(config, vectors, item_ids, directory):
    """item_embeddings.safetensors, item_ids.txt and, where FAISS makes lists, index.faiss."""
    write_items(vectors.catalogue, item_ids, directory)
    if way_of_search(config.retrieval) != "exact":
        save_index(*vectors.catalogue.shape, vectors.parts(), directory / "index.faiss")


def write_items(catalogue, item_ids, directory):
    """[num_items, D] as item_embeddings.safetensors, and item_ids.txt, in which line i names row i."""
    save_tensors({"item_embeddings": torch.from_numpy(catalogue)}, directory / "item_embeddings.safetensors")
    write_item_ids(item_ids, directory)
