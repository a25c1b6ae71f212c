"""A trained checkpoint of either head, ready to rank."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.config import DataFlags, DecodingFlags, HllmFlags, WindowFlags
from pixelrec_train.config.reading import LEAVE_LAST_TWO, TIME_811
from pixelrec_train.data import item_text
from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.inputs import Inputs, held_out_files, read_inputs
from pixelrec_train.data.item_text import ItemText, Reader
from pixelrec_train.engine.manifest import verify
from pixelrec_train.engine.resume import recorded
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.recommender import Recommender
from pixelrec_train.evaluation.retrieval import TwoTower, encode_catalogue
from pixelrec_train.files import existing_file
from pixelrec_train.model.backbone import check_vocabulary
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.recommend import item_cache
from pixelrec_train.recommend.frozen_texts import embed_texts
from pixelrec_train.recommend.generator import Prepared
from pixelrec_train.recommend.placing import Placer
from pixelrec_train.recommend.trained import is_generative, settings_of
from pixelrec_train.run.log import say
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.tasks.tokens import LLM, SEMANTIC_IDS


class Loaded(NamedTuple):
    name: str  # two_tower or generative
    inputs: Inputs  # as the checkpoint reads them
    recommender: Recommender
    item_vectors: Callable | None = None  # [n] item numbers -> [n, D], where the recommender has no vectors
    placer: Placer | None = None  # of a two-tower model in which an item is its text


def data_files(data, **texts):
    """{flag: value} of the files a command names, to rank them whatever a checkpoint was trained on.

    Args:
        data: DataFlags.
        texts: those of TextFlags that the command has.
    """
    named = {f.name: getattr(data, f.name) for f in dataclasses.fields(DataFlags)} | texts
    return {flag: value for flag, value in named.items() if value}


def with_files(group, files):
    """A group of flags as a checkpoint was trained, but for what is read and where it is cached."""
    return dataclasses.replace(group, **{name: files[name] for name in files.keys() & vars(group).keys()})


def check_split_as_trained(checkpoint, flag_name, data):
    """check_same_split, where what `data` leaves out is as the checkpoint was trained."""
    trained = settings_of(checkpoint, flag_name, DataFlags)
    table = data.interaction_data or trained.interaction_data
    own = data if data.split_data or data.valid_data or data.split_protocol else trained
    check_same_split(checkpoint, flag_name, dataclasses.replace(own, interaction_data=table))


def check_same_split(checkpoint, flag_name, data):
    """Raises InputError where a checkpoint may have learned from what is held out here, by DataFlags."""
    trained = settings_of(checkpoint, flag_name, DataFlags)
    (protocol, before), (here, files) = (decided_by(flags) for flags in (trained, data))
    then, now = (said(*flags) for flags in ((protocol, before, here), (here, files, protocol)))
    same = protocol == here
    if same and files:
        flag = "--interaction_data" if here == TIME_811 else "--split_data"
        rows = fingerprint(*(existing_file(path, flag) for path in files))
        same = rows in recorded(checkpoint, flag_name).get("data", {}).get("split", "")  # Split.origin
        now += " with other rows"
    if not same:
        raise InputError(
            f"{flag_name} {checkpoint} was trained with {then}, but here is {now}: it may have learned from "
            f"what is held out. Use the same rows."
        )


def decided_by(data):
    """(The protocol by which DataFlags hold out, None = files say it; the files that decide it.)"""
    if files := held_out_files(data):
        return None, files
    protocol = data.split_protocol or LEAVE_LAST_TWO
    return protocol, [Path(data.interaction_data)] if protocol == TIME_811 else []


def said(protocol, files, other):
    """What decided_by gives, in words; other: the protocol it is compared with."""
    if protocol is None:
        return f"--split_data {' '.join(map(str, files))}"
    if protocol == LEAVE_LAST_TWO and other is None:
        return "no --split_data"
    return " of ".join([f"--split_protocol {protocol}", *map(str, files)])


def load_either(checkpoint, files, trust, retrieval, num_beams=None, new_items=None):
    """A checkpoint of either head, Loaded; every rank calls it.

    num_beams, new_items: as of load_generative and load_towers, for the head they are of.
    """
    if is_generative(checkpoint):
        return load_generative(checkpoint, files, trust, num_beams)
    if num_beams:
        raise InputError(f"--num_beams is for a generative model; {checkpoint} is a two-tower one.")
    return load(checkpoint, files, trust, retrieval, new_items)


def load(checkpoint, files, trust, retrieval, new_items=None):
    """A two-tower checkpoint, Loaded; every rank calls it. As load_towers; retrieval: RetrievalFlags."""
    inputs, model, catalogue, length = load_towers(checkpoint, files, trust, retrieval.eval_tokens, new_items)
    two_tower = TwoTower.of(model, catalogue, length, retrieval.retrieval)
    hllm = with_files(settings_of(checkpoint, "--checkpoint", HllmFlags), files)
    reader = Reader.of(hllm, Path(checkpoint) / "item_llm", trust)
    return Loaded("two_tower", inputs, two_tower, placer=Placer.of(model, reader, length))


def load_towers(checkpoint, files, trust, eval_tokens, new_items=None):
    """(Inputs, HLLMModel, its [num_items, D] embeddings of the catalogue, items of history + target).

    The embeddings are those that scripts/embed_items.py has left of them, if it has.

    Args:
        files, trust, new_items: as of read_towers.
    """
    inputs, model, hllm = read_towers(checkpoint, files, trust, new_items)
    mark = item_cache.mark_of_checkpoint(checkpoint, inputs, model)
    catalogue = item_cache.find(hllm.cache_dir, mark, eval_tokens)
    if catalogue is None:
        if hllm.freeze_item_llm:
            item_dir = Path(checkpoint) / "item_llm"
            texts, _ = embed_texts(model.item_llm, inputs.item_text, item_dir, eval_tokens, hllm.cache_dir)
            model.store_texts(texts)
        catalogue = encode_catalogue(model.encode_items, inputs.item_text, eval_tokens)
    return inputs, model, catalogue, hllm.seq_length_in_evaluation


def read_towers(checkpoint, files, trust, new_items=None):
    """(Inputs, HLLMModel on this rank's device, HllmFlags as it was trained but for the files).

    Args:
        files: of data_files; what it does not name is as the checkpoint was trained.
        trust: towers that may run code of their own; said now, not by what lies in the checkpoint.
        new_items: table like --text_data of items that nobody took yet; they stand behind the others.
    """
    hllm, data = (
        with_files(settings_of(checkpoint, "--checkpoint", group), files) for group in (HllmFlags, DataFlags)
    )
    verify(checkpoint, to_resume=False)
    item_dir = Path(checkpoint) / "item_llm"
    inputs = read_inputs(data, hllm, Reader.of(hllm, item_dir, trust), hllm.time_features)
    if new_items:
        inputs = with_new_items(inputs, hllm, item_dir, trust, new_items)
    for line in inputs.describe():
        say(line)
    model = HLLMModel.load(checkpoint, hllm.max_text_length, inputs.interactions.item_ids, trust=trust)
    model = model.to(distributed.device())
    if model.item_llm is not None:
        check_vocabulary(model.item_llm.backbone, inputs.item_text, item_dir)
    return inputs, model, hllm


def with_new_items(inputs, hllm, item_dir, trust, new_items):
    """Inputs whose catalogue has the items of another table too.

    Raises:
        InputError: the model reads no texts, or the catalogue has one of them already.
    """
    if not inputs.item_text.is_read:
        raise InputError(f"--new_items {new_items}: the checkpoint reads no texts, so it cannot place them.")
    from pixelrec_train.data import item_fields  # brings pandas and pyarrow with it

    texts = dataclasses.replace(hllm, text_data=str(new_items))
    item_ids = item_fields.item_ids(texts)
    refuse_known(new_items, item_ids, inputs.interactions.item_ids)
    items = SimpleNamespace(item_ids=item_ids, fingerprint=fingerprint("new items", Path(new_items)))
    read = item_text.read(items, Reader.of(texts, item_dir, trust))
    data = dataclasses.replace(inputs.interactions, item_ids=[*inputs.interactions.item_ids, *item_ids])
    return dataclasses.replace(inputs, interactions=data, item_text=inputs.item_text.beside(read))


def refuse_known(new_items, item_ids, known):
    """Raises InputError where the catalogue has one of the new items already."""
    if known := set(item_ids) & set(known):
        raise InputError(
            f"--new_items {new_items} holds {len(known):,} items that the catalogue has already, such as "
            f"{min(known)!r}. Leave them out: their texts are those of --text_data."
        )


def load_generative(checkpoint, files, trust, num_beams=None, more_ids=None):
    """As load, for a generative model: it reads no texts, and its semantic ids lie in the checkpoint.

    Args:
        num_beams: None = as it was judged when it was trained.
        more_ids: its SemanticIds -> those of more items; those behind the catalogue can be recommended too.
    """
    data, windows, decoding = (
        with_files(settings_of(checkpoint, "--checkpoint", group), files)
        for group in (DataFlags, WindowFlags, DecodingFlags)
    )
    verify(checkpoint, to_resume=False)
    inputs = read_inputs(data, windows)
    for line in inputs.describe():
        say(line)
    llm, path = Path(checkpoint) / LLM, Path(checkpoint) / SEMANTIC_IDS
    ids = SemanticIds.load(path)
    if more_ids:
        known, ids = set(ids.item_ids), more_ids(ids)
        inputs = with_more_items(inputs, [item_id for item_id in ids.item_ids if item_id not in known])
    model = TokenModel.load(llm, "the checkpoint", dtype="auto", trust="item" in trust)
    prepared = Prepared.of(
        model.to(distributed.device()).stand_still(), llm, path, inputs, "item" in trust, ids
    )
    length, beams = windows.seq_length_in_evaluation, num_beams or decoding.num_beams
    ranks = prepared.recommender(length, beams, decoding.normalised_over)
    return Loaded("generative", inputs, ranks, prepared.item_vectors)


def with_more_items(inputs, item_ids):
    """Inputs of a model that reads no texts, with more items, which nobody took, behind the others."""
    data, split = inputs.interactions, inputs.split
    data = dataclasses.replace(data, item_ids=[*data.item_ids, *item_ids])
    split = dataclasses.replace(split, train_counts=np.pad(split.train_counts, (0, len(item_ids))))
    return Inputs(data, split, ItemText.unread(data.num_items))
