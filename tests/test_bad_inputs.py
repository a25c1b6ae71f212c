"""Bad input ends in one sentence on stderr and leaves nothing behind. The inputs are data: bad_inputs/*.json.

A case of bad_inputs/<theme>.json changes one thing in a folder that would train:
    name     what is wrong
    command  plan (train with --dry_run 1; the usual one), train, evaluate, compare, demo; of the generative
             head: generative_plan, generative, build_ids, expand, verify, judge (evaluate_qwen3); of samples:
             read_samples (all rows of "sources", as training reads them), check_samples (of "samples", with
             spaces between them, or of "dataset_config"), build_samples,
             qwen3 (train_qwen3 with --dry_run 1); convert; prep (of "source", onerec_think unless given);
             merge (merge_adapter); predict; report (of "run"); runs (compare --runs); keep (keep_thoughts);
             export; serve; embed (embed_items)
    flags    flags of the command to set; null leaves one out
    files    {path: how it changes}, see `change`
    says     what the sentence must contain, a regular expression
"""

import gzip
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from conftest import ROOT, as_flags
from good_folder import GENERATIVE, flags_of, shared_flags, write_good_folder
from pyarrow import parquet

from pixelrec_train.commands import (
    build_samples,
    build_semantic_ids,
    check_samples,
    compare,
    embed_items,
    expand_vocabulary,
    keep_thoughts,
    predict,
    prep,
    report,
    serve,
    train_qwen3,
    verify_model,
)
from pixelrec_train.commands import convert_checkpoint as convert
from pixelrec_train.commands import evaluate_pixelrec as evaluate
from pixelrec_train.commands import evaluate_qwen3 as judge
from pixelrec_train.commands import export as export_command
from pixelrec_train.commands import make_demo as demo
from pixelrec_train.commands import merge_adapter as merge
from pixelrec_train.commands import train_generative as generative
from pixelrec_train.commands import train_pixelrec as train
from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.samples import Sample, rows
from pixelrec_train.data.samples.files import sources_of
from pixelrec_train.engine.manifest import MANIFEST, write_manifest
from pixelrec_train.errors import InputError
from pixelrec_train.recommend.generator import Prepared
from pixelrec_train.run import rendezvous
from pixelrec_train.run.exit_status import speak_plainly

THEMES = sorted((ROOT / "tests/bad_inputs").glob("*.json"))
CASES = [
    pytest.param(case, id=f"{theme.stem}: {case['name']}")
    for theme in THEMES
    for case in json.loads(theme.read_text(encoding="utf-8"))
]


@speak_plainly
def read_samples(argv):
    """Every row of what --sources names; the first that is no sample is an error."""
    for source in sources_of(argv[1], argv[0]):
        for path in source.files:
            for group in range(len(rows.row_counts(path))):
                for _, found in rows.samples(path, group):
                    if not isinstance(found, Sample):
                        raise InputError(str(found))


COMMANDS = {
    "plan": train.main, "train": train.main, "evaluate": evaluate.main, "compare": compare.main,
    "demo": demo.main, "generative_plan": generative.main, "generative": generative.main,
    "read_samples": read_samples, "check_samples": check_samples.main,
    "build_ids": build_semantic_ids.main, "expand": expand_vocabulary.main, "verify": verify_model.main,
    "build_samples": build_samples.main,
    "judge": judge.main, "qwen3": train_qwen3.main, "predict": predict.main,
    "report": report.main, "runs": compare.main,
    "convert": convert.main, "prep": prep.main, "merge": merge.main, "keep": keep_thoughts.main,
    "export": export_command.main,
    "serve": serve.main, "embed": embed_items.main,
}  # fmt: skip
# Of samples what is tokenised already stays: the next start goes on there.
COMPLETE = re.compile(
    r"cache(/((sequences|item_text|text_embeddings)-[0-9a-f]{16}(/\w+\.(npy|json))?"
    r"|sample_files\.json|samples-[0-9a-f]{16}(/(locks|index|\d{6})(/\w+\.\w+)?)?))?"
)


@pytest.fixture(scope="session")
def good_folder(demo, demo_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    write_good_folder(folder, demo, demo_config)
    return folder


@pytest.fixture
def folder(good_folder, tmp_path, monkeypatch):
    """A copy of it to spoil, as the current directory of the only rank."""
    shutil.copytree(good_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rendezvous, "initialise", lambda timeout_minutes: None)
    return tmp_path


def arguments(command, demo_config, changes):
    """The command line; without any changes it is a good one."""
    config = vars(flags_of(demo_config))
    some = {name: config[name] for name in ("cache_dir", "output_dir", "logging_dir", "deepspeed")}
    data = {"interaction_data": "interactions.csv", "text_data": "items.csv", "text_keys": "title"}
    judged = {"checkpoint": "done/best_model", "cache_dir": "cache", "output_dir": "out/run"}
    generative = shared_flags(flags_of(demo_config)) | GENERATIVE
    samples = {"task": "video_rec,rec_reason", "semantic_ids": "sid.json", "text_keys": "title,tag"}
    samples |= {"cache_dir": "cache", "output_dir": "out/samples"}
    good = {
        "plan": config | {"dry_run": 1},
        "train": config,
        "evaluate": judged,
        "compare": judged | some | data,
        "demo": {name: f"new/{name}" for name in ("text_data", "interaction_data", "towers_dir")},
        "generative_plan": generative | {"dry_run": 1},
        "generative": generative,
        "build_ids": some | {"matrix": "items.npy", "matrix_ids": "ids.txt", "codebook_size": 8, "levels": 2},
        "expand": {"hf_model_dir": "lm", "output_model_dir": "out/llm", "semantic_ids": "sid.json"},
        "verify": {"hf_model_dir": "llm"},
        "read_samples": {"sources": "samples"},
        "check_samples": {} if "samples" in changes else {"dataset_config": "dataset.json"},
        "build_samples": data | samples,
        "judge": {
            "model_dir": "talk",
            "prompts": "history,chat,think",
            "users": 4,
            "thought_tokens": 3,
            "interaction_data": "interactions.csv",
            "semantic_ids": "sid.json",
            "cache_dir": "cache",
            "output_dir": "out/judged",
        },
        "export": judged | {"index": "flat,ivf", "towers": "none", "sentence_transformers": "False"},
        "predict": {
            "model_dir": "talk",
            "users": 4,
            "interaction_data": "interactions.csv",
            "semantic_ids": "sid.json",
            "cache_dir": "cache",
            "output_dir": "out/predicted",
        },
        "keep": {
            "samples": "thoughts",
            "model_dir": "talk",
            "semantic_ids": "sid.json",
            "thought_tokens": 3,
            "cache_dir": "cache",
            "output_dir": "out/kept",
        },
        "qwen3": {
            "model_dir": "talk",
            "dataset_config": "dataset.json",
            "output_dir": "out/run",
            "dry_run": 1,
            "cache_dir": "cache",
            "bf16": False,
        },
        "merge": {"adapter_dir": "adapter", "output_model_dir": "out/merged"},
        "serve": {"checkpoint": "done/best_model", "cache_dir": "cache", "port": 0},
        "embed": {"checkpoint": "done/best_model", "cache_dir": "cache"},
        "convert": {"base_model_dir": "llm", "model_home": "told", "step": "best"},
        "report": {"html": "out/page.html"},
        "runs": {"runs": "before,after", "html": "out/page.html"},
        "prep": prepared(changes.get("source", "onerec_think")),
    }[command]
    flags = {name: value for name, value in (good | changes).items() if value is not None}
    files = flags.pop("samples", "").split() if command == "check_samples" else ()
    if command == "report":
        files = flags.pop("run", "before").split()
    return [*files, *as_flags(flags)]


def prepared(source):
    """Flags of prep."""
    if source == "text":
        ids = {"input": "onerec_think/Beauty.pretrain.json", "codec_from": "onerec", "codec_to": "cb"}
        return {"source": source, "output": "out.json"} | ids
    return {"source": source, "data_dir": source, "output_dir": "out/tables"}


def change(path, how):
    """Spoil a file. None: it goes. A string: its new text. Else one of the ways below."""
    path, (way, value) = Path(path), next(iter(how.items())) if isinstance(how, dict) else ("text", how)
    before = path.read_bytes() if path.is_file() else b""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if how is None:
        return
    if way == "folder":
        return path.mkdir()
    path.write_bytes({
        "text": lambda: value.encode(),
        "latin1": lambda: value.encode("latin1"),
        "encoding": lambda: before.decode().encode(value),
        "hex": lambda: bytes.fromhex(value),
        "gzip": lambda: gzip.compress(before),
        "keep_bytes": lambda: before[:value],
        "keep_lines": lambda: b"".join(before.splitlines(keepends=True)[:value]),
        "append": lambda: before + value.encode(),
        "replace": lambda: before.replace(value[0].encode(), value[1].encode()),
        "json": lambda: json.dumps(value).encode(),
        "npz_of": lambda: as_bytes(np.savez, items=np.load(value)),
        "parquet": lambda: as_bytes(lambda file: parquet.write_table(pyarrow.table(value), file)),
        "set": lambda: json.dumps(json.loads(before) | value).encode(),
        "copy_of": lambda: Path(value).read_bytes(),
        "rows": lambda: with_rows(before, value),
        "zeros": lambda: before[: value[0]] + bytes(value[1] - value[0]) + before[value[1] :],
    }[way]())  # fmt: skip


def with_rows(before, changes):
    """A Parquet file with other cells: {number of a row, from 1: {column: value}}."""
    table = parquet.read_table(io.BytesIO(before))
    cells = table.to_pylist()
    for number, change in changes.items():
        cells[int(number) - 1] |= change
    return as_bytes(lambda file: parquet.write_table(pyarrow.Table.from_pylist(cells, table.schema), file))


def as_bytes(write, **what):
    file = io.BytesIO()
    write(file, **what)
    return file.getvalue()


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(case, folder, demo_config, capfd):
    for path, how in case.get("files", {}).items():
        change(path, how)
    command, before = case.get("command", "plan"), everything(folder)
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        COMMANDS[command](arguments(command, demo_config, case.get("flags", {})))
    out, err = capfd.readouterr()
    assert stop.value.code == 2
    assert re.fullmatch(r"error: .*[.?)]\n", err) and len(err) < 600, err
    assert re.search(case["says"], err), err
    assert "Traceback" not in out + err
    after = everything(folder)
    new = {path for path in after if not COMPLETE.fullmatch(path)} - before.keys()
    changed = {path for path in before if path not in after or before[path] != after[path]}
    assert not new | changed


def test_what_the_system_says_of_a_place_is_a_sentence_and_a_bug_keeps_its_traceback(tmp_path, capfd):
    @speak_plainly
    def reads(path):
        open(path).close()

    with pytest.raises(SystemExit) as stop:
        reads(tmp_path)
    assert (stop.value.code, capfd.readouterr().err) == (2, f"error: {tmp_path}: Is a directory.\n")
    with pytest.raises(SystemExit) as stop:
        reads(tmp_path / "a file that we should have written")
    assert stop.value.code == 1 and "FileNotFoundError" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        ("plan", {}), ("evaluate", {}), ("evaluate", {"checkpoint": "told/best_model"}),
        ("evaluate", {"checkpoint": "split/checkpoint-epoch-1"}), ("generative_plan", {}),
        ("generative_plan", {"split_data": "rows.csv", "beside": None}),
        ("generative_plan", {"beside": "done/best_model", "align": False}), ("build_ids", {}),
        ("build_ids", {"codebooks": "books"}), ("expand", {}), ("read_samples", {}),
        ("read_samples", {"sources": "samples/list.json"}),
        ("read_samples", {"sources": "samples/*.parquet"}),
        ("build_samples", {}),
        ("keep", {}), ("keep", {"interaction_data": "interactions.csv", "temperature": 0}),
        ("judge", {}), ("judge", {"model_dir": "llm", "prompts": "history"}),
        ("predict", {}), ("predict", {"prompts": "think", "text_data": "items.csv", "text_keys": "title"}),
        ("predict", {"question": "rec_reason", "text_data": "items.csv", "text_keys": "title,tag"}),
        ("judge", {"save_results": "out/results.json", "metrics": "hit@1,ndcg@5", "split_type": "val"}),
        ("qwen3", {}), ("qwen3", {"valid_samples": "samples/list.json", "sample_generations": 2}),
        ("qwen3", {"valid_samples": "samples/list.json", "pack": "greedy", "freeze_llm": True}),
        ("qwen3", {"interaction_data": "interactions.csv", "semantic_ids": "sid.json", "max_steps": 3}),
        ("qwen3", {"lora_r": 4, "lora_target_modules": "q_proj,up_proj"}),
        ("generative_plan", {"lora_r": 4, "lora_alpha": 4, "beside": None}),
        ("convert", {}), ("report", {}), ("report", {"run": "after", "compared": "compared"}),
        ("runs", {}), ("runs", {"runs": "after,before", "html": None}),
        ("generative_plan", {"output_dir": "."}),
        ("prep", {"their_files": True}), ("prep", {"source": "minionerec"}), ("prep", {"source": "text"}),
        ("build_ids", {"matrix": None, "semantic_ids": "sid.json", "export_index": "new/x.json"}),
    ],
)  # fmt: skip
def test_the_same_folder_is_fine_before_it_is_spoilt(command, changes, folder, demo_config, capfd):
    COMMANDS[command](arguments(command, demo_config, changes))
    assert "error" not in capfd.readouterr().err


@pytest.mark.parametrize("files, told", [("samples/list.json", True), ("held_out.parquet", False)])
def test_validation_by_what_is_trained_on_is_said(files, told, folder, demo_config, capfd):
    shutil.copy(folder / "samples/part-00000.parquet", folder / "held_out.parquet")
    COMMANDS["qwen3"](arguments("qwen3", demo_config, {"valid_samples": files}))
    assert ("files are trained on, too (samples/part-" in capfd.readouterr().out) == told


def write_parts(folder, rows=3):
    """train.csv, valid.csv and test.csv: interactions of the folder that somebody has split by time."""
    head, *lines = (folder / "interactions.csv").read_text().splitlines()
    for name, part in (("train", lines), ("valid", lines[-2 * rows : -rows]), ("test", lines[-rows:])):
        (folder / f"{name}.csv").write_text("\n".join([head, *part]) + "\n")
    return {"valid_data": "valid.csv", "test_data": "test.csv"}


@pytest.mark.parametrize("head", ["done", "told"])
def test_a_checkpoint_is_judged_on_the_tables_it_was_trained_on_alone(folder, demo_config, capfd, head):
    """The leak guard: it has learned from rows that are held out here, unless these are its own tables."""
    checkpoint = folder / head / "best_model"
    parts, good = write_parts(folder), {"checkpoint": f"{head}/best_model"}

    def evaluate(**changes):
        COMMANDS["evaluate"](arguments("evaluate", demo_config, good | changes))
        return json.loads((folder / "out/run/metrics.json").read_text())

    def refused(says, **changes):
        with pytest.raises(SystemExit) as stop:
            evaluate(**changes)
        assert stop.value.code == 2 and re.search(says, capfd.readouterr().err)

    refused("was trained with no --split_data, but here is --split_data valid.csv test.csv", **parts)
    record = json.loads((checkpoint / "run.json").read_text())
    record["config"] |= parts | {"interaction_data": "train.csv"}
    mark = fingerprint(folder / "valid.csv", folder / "test.csv")
    record["data"]["split"] = f"rows of valid.csv and test.csv ({mark})"
    (checkpoint / "run.json").write_text(json.dumps(record))
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint, {})
    # Their rows are later than some of the history, which the split says behind the files' mark.
    assert evaluate(**parts)["data"]["split"].startswith(record["data"]["split"] + "; left out of histories")
    (folder / "test.csv").write_text((folder / "valid.csv").read_text())
    refused("but here is --split_data valid.csv test.csv with other rows: it may have learned from", **parts)


def test_a_generative_checkpoint_is_judged_at_other_cut_offs_and_with_other_beams(folder, demo_config, capfd):
    """Neither is that of the run, whose best_model was chosen by ndcg@10."""
    good, beams = {"checkpoint": "told/best_model"}, []
    with pytest.MonkeyPatch.context() as patch:
        before = Prepared.recommender
        patch.setattr(Prepared, "recommender", lambda *a: beams.append(a[2]) or before(*a))
        for changes in ({"topk": "2,5"}, {"topk": "2,5", "num_beams": 30}):
            COMMANDS["evaluate"](arguments("evaluate", demo_config, good | changes))
            rows = json.loads((folder / "out/run/metrics.json").read_text())["metrics"]
            assert {"recall@2", "recall@5"} <= rows["generative"].keys()
            assert "recall@10" not in rows["generative"]
    assert beams == [GENERATIVE["num_beams"], 30] and "error" not in capfd.readouterr().err


def test_the_table_is_long_and_no_claim_is_made_twice():
    names = [case.id for case in CASES]
    assert len(names) == len(set(names)) >= 530
