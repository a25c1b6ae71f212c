"""A two-tower checkpoint for programs that have none of this code; what they get is measured and compared."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from pixelrec_train.batch import pad_histories
from pixelrec_train.config import HllmFlags
from pixelrec_train.data.inputs import Inputs
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.retrieval import TwoTower, encode_histories
from pixelrec_train.export import indexes, sentences, towers
from pixelrec_train.files import (
    made_whole,
    possible_directory,
    replaceable_directory,
    tokenizer_files,
    write_json,
)
from pixelrec_train.libraries import import_faiss, import_onnx
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.recommend.checkpoints import data_files, load_towers, with_files
from pixelrec_train.recommend.trained import is_generative, settings_of
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run.log import say
from pixelrec_train.trainings.evaluate_checkpoint import write_items

RECORD, SENTENCES = "export.json", "sentence_transformers"
CHOOSE_BY, JUDGE_BY = 1000, 10_000  # users at most
COMPARED = 32  # items and histories by which towers are compared with the model


class Towers(NamedTuple):
    """What load_towers gives."""

    inputs: Inputs
    model: HLLMModel
    catalogue: np.ndarray  # [num_items, D] fp32
    length: int  # items of a history + target


def main(config):
    """config: ExportConfig."""
    hllm = check(config)
    files = data_files(
        config, text_data=config.text_data, text_keys=config.text_keys,
        allow_missing_text=config.allow_missing_text,
    )  # fmt: skip
    loaded = Towers(*load_towers(config.checkpoint, files, config.trust_remote_code, config.eval_tokens))
    hllm, trust = with_files(hllm, files), "item" in config.trust_remote_code
    made_whole(config.output_dir, lambda directory: write(config, loaded, hllm, trust, directory))
    say(f"made {config.output_dir}: {', '.join(sorted(os.listdir(config.output_dir)))}")


def check(config):
    """HllmFlags of the checkpoint, once nothing is in the way that can be known before it is loaded."""
    if is_generative(config.checkpoint):
        raise InputError(
            f"--checkpoint {config.checkpoint} is a generative model, which has neither towers nor vectors. "
            f"scripts/convert_checkpoint.py writes its language model as a Hugging Face directory."
        )
    hllm = settings_of(config.checkpoint, "--checkpoint", HllmFlags)
    possible_directory(config.cache_dir, "--cache_dir")
    output, checkpoint = Path(config.output_dir).resolve(), Path(config.checkpoint).resolve()
    if output.is_relative_to(checkpoint) or checkpoint.is_relative_to(output):
        raise InputError(
            f"--output_dir {config.output_dir} and --checkpoint {config.checkpoint} lie in each other, and a "
            f"checkpoint stays as it was written. Choose a directory elsewhere."
        )
    replaceable_directory(
        config.output_dir, "--output_dir", (RECORD,), "export", "an export", config.overwrite
    )
    if config.index:
        import_faiss()
    if "onnx" in config.towers:
        import_onnx()
    return hllm


def write(config, loaded, hllm, trust, directory):
    """Everything, into an empty directory."""
    inputs, model = loaded.inputs, loaded.model
    write_items(loaded.catalogue, inputs.interactions.item_ids, directory)
    if config.index:
        write_indexes(config, loaded, directory)
    # Programs compute in fp32; what the model itself gives is computed so, too, to be compared with.
    model.cpu().float().stored = None
    lacks = {
        "the item tower": towers.why_no_item_tower(model),
        "the user tower": towers.why_no_user_tower(model),
    }
    why, left_out = lacks["the item tower"], {}
    if config.sentence_transformers and why:
        raise InputError(
            f"--sentence_transformers True, but {why}, which no text encoder holds. Leave it out."
        )
    differences = {}
    if config.towers:
        left_out |= {name: clause for name, clause in lacks.items() if clause}
        differences |= write_towers(config, loaded, trust, directory, lacks)
    if config.sentence_transformers is not False:
        if why:
            left_out[SENTENCES] = why
        else:
            differences[SENTENCES] = write_sentences(config, loaded, hllm, trust, directory)
    for name, clause in left_out.items():
        say(f"{name} is left out: {clause}")
    for name, difference in differences.items():
        say(f"{name}: differs from the model by {difference:.1e} at most, in fp32")
    write_json(directory / RECORD, {
        "checkpoint": config.checkpoint, "left_out": left_out, "largest_difference": differences,
        "reads": {
            "text_keys": hllm.text_keys, "item_prompt": hllm.item_prompt,
            "max_text_length": hllm.max_text_length, "history": loaded.length - 1,
        },
        "commit": run_directory.commit(), "versions": run_directory.versions(),
    } | inputs.facts())  # fmt: skip


def write_indexes(config, loaded, directory):
    """KIND.faiss, and the table of what each gives."""
    tower = TwoTower.of(loaded.model, loaded.catalogue, loaded.length, "exact")
    vectors, sizes = tower.items, indexes.Sizes(config.nlist, config.hnsw_m, config.pq_m)
    indexes.check_learnable(config.index, *vectors.shape, sizes)
    groups = [users_of(tower, loaded.inputs, config.split, part) for part in drawn(loaded.inputs, config)]
    tuning, judging = (indexes.Truth(vectors, queries) for queries in groups)
    rows = indexes.write(
        config.index, vectors, sizes, config.wanted_recall, tuning, judging, directory, tower.cosines
    )
    count, width = vectors.shape
    say(f"\n{indexes.table(rows, judging.k)}\n")
    say(
        f"{count:,} items of width {width}; {len(judging.queries):,} users of the {config.split} split ask, "
        f"one after the other on one thread; settings chosen by {len(tuning.queries):,} others for a "
        f"recall of {config.wanted_recall}"
    )
    write_json(directory / "index_table.json", {
        "k": judging.k, "items": count, "width": width, "cosines": tower.cosines,
        "wanted_recall": config.wanted_recall, "split": config.split, "asked": len(judging.queries),
        "chosen_by": len(tuning.queries), "cpus": os.cpu_count(), "load": os.getloadavg()[0],
        "rows": [row._asdict() for row in rows],
    })  # fmt: skip


def drawn(inputs, config):
    """Two groups of a split's users: by the first settings are chosen, by the second they are judged."""
    held_out = getattr(inputs.split, config.split)
    if len(held_out) < 2:
        raise InputError(
            f"--split {config.split} has {len(held_out)} users: one must choose the settings of an index and "
            f"another must judge them. Use the other split, or --index none."
        )
    order = np.random.default_rng(config.seed).permutation(len(held_out))
    first = min(CHOOSE_BY, len(order) // 2)
    return np.sort(order[:first]), np.sort(order[first : first + JUDGE_BY])


def users_of(tower, inputs, split, users):
    """[n, D] vectors of these users of a split."""
    held_out = getattr(inputs.split, split)
    parts = np.array_split(users, -(-len(users) // 256))
    return np.concatenate([
        tower.users([held_out.history(e) for e in part], held_out.times_of(part)) for part in parts
    ])  # fmt: skip


@torch.no_grad()
def write_towers(config, loaded, trust, directory, lacks):
    """{file: the largest difference to the model} of the towers that there are."""
    model, item_text, found = loaded.model, loaded.inputs.item_text, {}
    if not lacks["the item tower"]:
        numbers, expected = compared_items(loaded)
        examples = towers.padded_texts(item_text, numbers, model.item_llm.item_token is not None)
        tower = towers.ItemTower(model, config.checkpoint, trust)
        found |= towers.export(tower, "item_tower", examples, expected, config.towers, directory)
        (directory / "tokenizer").mkdir()
        for file in tokenizer_files(Path(config.checkpoint) / "item_llm"):
            shutil.copy(file, directory / "tokenizer")
    if not lacks["the user tower"]:
        test = loaded.inputs.split.test
        histories = [test.history(e) for e in spread(test.end - test.start)]
        catalogue = torch.from_numpy(loaded.catalogue)
        expected = encode_histories(model.user_llm, catalogue, histories, loaded.length)
        places, lengths = pad_histories(histories, loaded.length - 1)
        places = F.pad(places, (0, max(0, 2 - places.shape[1])))  # torch.export wants two columns to see
        mask = torch.arange(places.shape[1]) < lengths[:, None]
        examples = {"item_embeddings": catalogue[places], "mask": mask.long()}
        found |= towers.export(
            towers.UserTower(model), "user_tower", examples, expected, config.towers, directory
        )
    return found


def compared_items(loaded):
    """(numbers of items, short and long; [I, D] what the model makes of them)."""
    numbers = spread(loaded.inputs.item_text.lengths)
    return numbers, loaded.model.encode_items(loaded.inputs.item_text.items(numbers))


def spread(lengths):
    """COMPARED places of lengths, from the shortest to the longest."""
    order = np.argsort(lengths, kind="stable")
    return order[np.unique(np.linspace(0, len(order) - 1, COMPARED).astype(int))]


@torch.no_grad()
def write_sentences(config, loaded, hllm, trust, directory):
    """The largest difference between what the written directory and the model make of items' texts."""
    made = directory / SENTENCES
    sentences.write(loaded.model, config.checkpoint, hllm, made, trust)
    numbers, expected = compared_items(loaded)
    names = [loaded.inputs.interactions.item_ids[n] for n in numbers]
    packed = loaded.inputs.item_text.pack(numbers)
    tokens = [ids.numpy() for ids in packed.token_ids.split(packed.lengths.tolist())]
    return sentences.check(made, names, tokens, expected, hllm, trust)
