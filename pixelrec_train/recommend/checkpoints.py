"""A trained checkpoint of either head, ready to rank."""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import torch

from pixelrec_train import distributed
from pixelrec_train.config import GenerativeConfig, TrainConfig
from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.inputs import Inputs, held_out_files, read_inputs
from pixelrec_train.engine.manifest import verify
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.recommender import Recommender
from pixelrec_train.evaluation.retrieval import TwoTower, encode_catalogue
from pixelrec_train.files import existing_file
from pixelrec_train.model.backbone import check_vocabulary
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.recommend.generator import Prepared
from pixelrec_train.recommend.trained import trained_config
from pixelrec_train.run.log import say
from pixelrec_train.tasks.tokens import LLM, SEMANTIC_IDS

FILES = (
    "interaction_data", "valid_data", "test_data", "text_data", "split_data", "user_column", "item_column",
    "time_column", "encoding", "allow_missing_text",
)  # fmt: skip


def is_generative(checkpoint):
    return (Path(checkpoint) / LLM).is_dir()


def config_class(checkpoint):
    """Of what it was trained with."""
    return GenerativeConfig if is_generative(checkpoint) else TrainConfig


class Loaded(NamedTuple):
    name: str  # two_tower or generative
    inputs: Inputs  # as the checkpoint reads them
    recommender: Recommender


def data_files(config):
    """{flag: value} of the files a command names, to rank them whatever a checkpoint was trained on."""
    named = {flag: getattr(config, flag, None) for flag in FILES}
    return {flag: value for flag, value in named.items() if value}


def check_same_split(checkpoint, flag_name, config):
    """Raises InputError where a checkpoint may have learned from what is held out here."""
    trained, here = (
        held_out_files(c) for c in (trained_config(checkpoint, flag_name, config_class(checkpoint)), config)
    )
    then, now = (
        f"--split_data {' '.join(map(str, files))}" if files else "no --split_data"
        for files in (trained, here)
    )
    if trained and here:
        rows = fingerprint(*(existing_file(path, "--split_data") for path in here))
        same, now = rows in split_of_run(checkpoint), f"{now} with other rows"
    else:
        same = not trained and not here
    if not same:
        raise InputError(
            f"{flag_name} {checkpoint} was trained with {then}, but here is {now}: it may have learned from "
            f"what is held out. Use the same rows."
        )


def split_of_run(checkpoint):
    """What run.json says about the split; Split.origin."""
    record = json.loads((Path(checkpoint) / "run.json").read_text(encoding="utf-8"))
    return record.get("data", {}).get("split", "")


def load(checkpoint, config, files, read=None):
    """A two-tower checkpoint, Loaded; every rank calls it. As load_towers; config: RetrievalFlags, too."""
    inputs, model, catalogue, length = load_towers(checkpoint, config, files, read)
    return Loaded("two_tower", inputs, TwoTower.of(model, catalogue, length, config.retrieval))


def load_towers(checkpoint, config, files, read=None):
    """(Inputs, HLLMModel, its [num_items, D] embeddings of the catalogue, items of history + target).

    Args:
        config: CacheFlags, TrustFlags, CatalogueFlags.
        files: of data_files; what it does not name is as the checkpoint was trained.
        read: a dict of what item LLMs have read so far; several checkpoints of one frozen item LLM read once.
    """
    trained_config(checkpoint, "--checkpoint")  # is it one at all
    verify(checkpoint, to_resume=False)
    settings = read_run(Path(checkpoint), config, files)
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
    return inputs, model, catalogue, settings.seq_length_in_evaluation


def read_once(model, item_text, item_dir, eval_tokens, read):
    """Let the item LLM read all texts, unless one with the same weights has read the same."""
    token = model.item_llm.item_token
    token = None if token is None else token.float().tolist()
    weights = Path(item_dir) / "model.safetensors"
    mark = fingerprint(item_text.fingerprint, weights, token, eval_tokens)
    if mark not in read:
        read[mark] = torch.from_numpy(encode_catalogue(model.encode_texts, item_text, eval_tokens))
    model.store_texts(read[mark])


def read_run(checkpoint, config, files):
    """The TrainConfig a checkpoint was made with, its weights and these data files in place of its own."""
    return dataclasses.replace(
        trained_config(checkpoint, "--checkpoint"),
        init_from=str(checkpoint), item_model_dir=None, user_model_dir=None, random_init=(),
        cache_dir=config.cache_dir,
        trust_remote_code=config.trust_remote_code,  # said now, not by what lies in the checkpoint
        **files,
    )  # fmt: skip


def load_generative(checkpoint, config, files, num_beams=None):
    """As load, for a generative model: it reads no texts, and its semantic ids lie in the checkpoint.

    num_beams: None = as it was judged when it was trained.
    """
    checkpoint = Path(checkpoint)
    trained = trained_config(checkpoint, "--checkpoint", GenerativeConfig)
    verify(checkpoint, to_resume=False)
    settings = dataclasses.replace(
        trained, model_dir=str(checkpoint / LLM), semantic_ids=str(checkpoint / SEMANTIC_IDS), align=False,
        cache_dir=config.cache_dir, trust_remote_code=config.trust_remote_code,
        **files,
    )  # fmt: skip
    inputs = read_inputs(settings)
    for line in inputs.describe():
        say(line)
    trust = "item" in config.trust_remote_code
    model = TokenModel.load(settings.model_dir, "the checkpoint", dtype="auto", trust=trust)
    model = model.to(distributed.device()).eval()
    prepared = Prepared.of(model, settings.model_dir, settings.semantic_ids, inputs, trust)
    length, beams = settings.seq_length_in_evaluation, num_beams or settings.num_beams
    return Loaded("generative", inputs, prepared.recommender(length, beams, settings.normalised_over))
