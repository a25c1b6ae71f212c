"""A folder in which every command works, for test_bad_inputs.py to spoil: data, models, runs."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from conftest import ROOT, inputs_of
from pyarrow import parquet

from pixelrec_train.commands.make_demo import all_text
from pixelrec_train.config import GenerativeConfig
from pixelrec_train.data.inputs import read_inputs
from pixelrec_train.data.item_text import Reader
from pixelrec_train.data.samples import Sample, writing
from pixelrec_train.data.user_places import UserPlaces, write_places
from pixelrec_train.engine import manifest
from pixelrec_train.engine.state import TrainState
from pixelrec_train.evaluation.metrics import table_row
from pixelrec_train.model.expansion import expand
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.semantic_id.quantiser import Preprocessing, Quantiser
from pixelrec_train.tasks.tokens import TokenTask

SIZES = (6, 7, 9)  # codes of each level of sid.json
GENERATIVE = {"semantic_ids": "sid.json", "model_dir": "llm", "num_beams": 10}


def write_good_folder(folder, demo, demo_config):
    """Data, towers, a DeepSpeed JSON, a finished run (done/), a stopped one (stopped/), one of ids (ids/).

    And of the generative head, see write_generative. Other projects' files are onerec_think/ and minionerec/.
    """
    shutil.copytree(demo, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache", "run", "logs"))
    shutil.copy(ROOT / "configs/ds_config_zero2.json", folder / "ds.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = flags_of(demo_config)
        inputs = inputs_of(config)
        for checkpoint, id_only in (
            ("done/best_model", False), ("stopped/checkpoint-epoch-1", False), ("ids/best_model", True),
        ):  # fmt: skip
            write_checkpoint(Path(checkpoint), dataclasses.replace(config, id_only=id_only), inputs)
        Path("done/table.json").write_text("{}")
        write_generative(config, inputs)
        write_samples()
        write_thoughts()
        write_runs()
        for name in ("onerec_think", "minionerec"):
            shutil.copytree(ROOT / "tests/fixtures" / name / "files", name)
        shutil.rmtree("cache")


def flags_of(demo_config):
    return dataclasses.replace(
        demo_config, interaction_data="interactions.csv", text_data="items.csv", cache_dir="cache",
        item_model_dir="towers/item_llm", user_model_dir="towers/user_llm", output_dir="out/run",
        logging_dir="logs/run", deepspeed="ds.json",
    )  # fmt: skip


def write_generative(config, inputs):
    """Semantic ids (sid.json), an LM (lm/), one with words for them (llm/), one that chats as well (talk/),
    and two unfinished runs of llm/: told/ and, with --split_data rows.csv, split/.

    And what else the commands read: embeddings (items.npy, ids.txt), codebooks of theirs (books/), another
    project's ids (index.json).
    """
    item_ids, rng = inputs.interactions.item_ids, np.random.default_rng(0)
    codes = np.stack(np.unravel_index(rng.integers(0, np.prod(SIZES), len(item_ids)), SIZES), 1)
    SemanticIds(item_ids, codes.astype(np.int32), SIZES).save("sid.json")
    write_causal_lm(all_text("items.csv"), "lm", hidden_size=32, layers=1, vocab_size=380)
    expand("lm", "llm", "onerec", SIZES, "mean", 0)
    write_causal_lm(all_text("items.csv"), "mute", hidden_size=32, layers=1, vocab_size=300, chat=True)
    expand("mute", "talk", "onerec", SIZES, "mean", 0)
    Path("books").mkdir()
    table = rng.normal(size=(90, 8)).astype(np.float32)
    np.save("items.npy", table)
    names = [f"i{n}" for n in range(90)]
    Path("ids.txt").write_text("\n".join(names) + "\n")
    Path("index.json").write_text(json.dumps({f"i{n}": [f"<a_{n % 8}>", f"<b_{n % 5}>"] for n in range(9)}))
    Quantiser(Preprocessing.fit(table, "none"), [table[:8], table[8:16]]).save("books", {})
    rule = {"dedup": "none", "quantiser": "rq_kmeans"}
    SemanticIds(names, np.zeros((90, 2), np.int32), (8, 8), rule).save("books/semantic_ids.json")
    first, second, third, fourth = item_ids[:4]
    Path("rows.csv").write_text(
        f"split,user_id,item_id,history\ntrain,u,{second},{first}\nvalid,u,{third},{first} {second}\n"
        f"test,u,{fourth},{first} {second} {third}\n"
    )
    settings = GenerativeConfig(**shared_flags(config), **GENERATIVE)
    task = TokenTask(TokenModel.load("llm"), settings.model_dir, settings.semantic_ids)
    for checkpoint, split_data in (("told/best_model", None), ("split/checkpoint-epoch-1", "rows.csv")):
        Path(checkpoint).mkdir(parents=True)
        task.export(checkpoint, task.state_dict())
        settings = dataclasses.replace(settings, split_data=split_data)
        complete(Path(checkpoint), settings, read_inputs(settings, settings, Reader(settings, "llm")))


def write_samples():
    """Chats and documents (samples/, with a list of them), and a dataset JSON that names them."""
    chat = [{"role": "user", "content": "what next?"}, {"role": "assistant", "content": "this one"}]
    for part in range(3):
        Path("samples").mkdir(exist_ok=True)
        columns = {
            "uuid": [f"{part}-{row}" for row in range(10)],
            "source": ["general"] * 10,
            "metadata": ["{}"] * 10,
            "messages": [json.dumps(chat)] * 9 + [None],
            "segments": [None] * 9 + [json.dumps([{"type": "text", "text": "once"}])],
        }
        parquet.write_table(pyarrow.table(columns), f"samples/part-{part:05d}.parquet")
    names = [f"part-{part:05d}.parquet" for part in range(3)]
    Path("samples/list.json").write_text(json.dumps(names))
    settings = {"name": "chat_completion_parquet", "sources": "samples/list.json", "max_length": 512}
    Path("dataset.json").write_text(json.dumps(settings))


def write_thoughts():
    """Chats with a thought in front of an item's id (thoughts/), for items of sid.json."""
    ids = SemanticIds.load("sid.json")
    Path("thoughts").mkdir()
    samples = []
    for n, item_id in enumerate(ids.item_ids[:4]):
        said = f"<think>\nit is {n}\n</think>\n{CODECS['onerec'].text(ids.codes[n], SIZES)}"
        chat = ("user", f"what next? {n}"), ("assistant", said)
        messages = tuple({"role": role, "content": content} for role, content in chat)
        samples.append((Sample(f"t{n}", "thoughts", messages, None), {"target_item_ids": [item_id]}))
    writing.write_samples("thoughts", samples, rows_per_file=10)
    Path("thoughts/dataset.json").write_text(json.dumps(writing.dataset_config(512, True)))


def write_runs():
    """Two finished runs that were judged on the same users, before/ and after/, and a comparison."""
    for name, places in (("before", [0, 3, 9, 12, 50, 50]), ("after", [0, 2, 12, 9, 4, 50])):
        run, places = Path(name), np.array(places)
        run.mkdir()
        cold, taken = np.arange(6) < 2, np.array([0, 0, 3, 5, 5, 9])
        rows = {"two_tower": table_row(places, cold, (5, 10, 50))}
        facts = {"config": {"seed": 1}, "ranks": 1, "versions": {}, "data": {}}
        (run / "run.json").write_text(json.dumps(facts))
        (run / "table.json").write_text(json.dumps(rows))
        event = {"kind": "step", "step": 1, "loss": 2.0, "step_ms": 3.0, "eta_s": 4.0}
        (run / "metrics.jsonl").write_text(json.dumps(event) + "\n")
        users, targets = (np.array([f"{letter}{n}" for n in range(6)], object) for letter in "ui")
        write_places(run, UserPlaces(
            users, targets, np.arange(3, 9), taken, cold, {"two_tower": places}, "two_tower", "test",
            "by hand", 40, [5, 10, 50], False,
        ))  # fmt: skip
    Path("compared").mkdir()
    rows = {"item_knn": rows["two_tower"], "after": rows["two_tower"] | {"checkpoint": "after/best_model"}}
    Path("compared/table.json").write_text(json.dumps(rows))


def shared_flags(config):
    """Those of the generative head that the two-tower head has, too."""
    return {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(GenerativeConfig)
        if hasattr(config, f.name) and f.name != "random_init"  # which names towers there
    }


def write_checkpoint(checkpoint, config, inputs):
    """An untrained one, of a run as `config` describes it."""
    model = HLLMModel.starting(config, inputs.interactions.item_ids, inputs.split.train_counts)
    checkpoint.mkdir(parents=True)
    model.export(checkpoint, model.state_dict(), config.item_model_dir)
    complete(checkpoint, config, inputs)


def complete(checkpoint, config, inputs):
    """What a run writes beside the weights."""
    config = dataclasses.replace(config, output_dir=str(checkpoint.parent))
    run = {"config": dataclasses.asdict(config), "ranks": 1} | inputs.facts()
    for place in (checkpoint, checkpoint.parent):
        (place / "run.json").write_text(json.dumps(run))
    (checkpoint / "train_state.json").write_text(json.dumps(TrainState(total_steps=20, step=20).as_dict()))
    manifest.write_manifest(checkpoint, {})
