"""A model of a hub is a directory once its name was read; served here by a hub of our own."""

import hashlib
import json
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from urllib.parse import unquote

import huggingface_hub
import pytest

from pixelrec_train.engine.session import open_log
from pixelrec_train.errors import InputError
from pixelrec_train.run import hub
from pixelrec_train.run.hub import Named, described, fetched, named, taken
from pixelrec_train.tasks.two_tower import TwoTowerTask
from pixelrec_train.trainings import train_two_tower

COMMIT, OLD = "a" * 40, "b" * 40


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks for: a listing of a revision, and files with their hash and commit."""

    repositories, asked = {}, []  # {"org/name": {"files": {name: bytes}, "revisions": {name: commit}}}

    def do_GET(self):
        self.asked.append(f"{self.command} {self.path}")
        parts = unquote(self.path.split("?")[0]).strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        org, name, kind, *rest = parts[2:] if api else parts
        found = self.repositories.get(f"{org}/{name}")
        commit = found and (found["revisions"] | {COMMIT: COMMIT, OLD: OLD}).get(rest[0])
        if commit is None:
            return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound" if found else "RepoNotFound"})
        if api and kind == "revision":
            files = [{"rfilename": name} for name in found["files"]]
            listing = {"_id": "1", "id": f"{org}/{name}", "sha": commit, "siblings": files, "private": False}
            return self.answer(200, json.dumps(listing | {"tags": [], "downloads": 0, "likes": 0}).encode())
        if api and kind == "tree":
            tree = [{"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in found["files"].items()]  # fmt: skip
            return self.answer(200, json.dumps(tree).encode())
        data = found["files"]["/".join(rest[1:])]
        marks = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}
        return self.answer(200, data, marks)

    do_HEAD = do_GET

    def answer(self, status, data, headers=()):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def served(demo, tmp_path, monkeypatch):
    """A hub with the item tower as tiny/item, in two revisions, and as tiny/pickled without safetensors."""
    files = {path.name: path.read_bytes() for path in (demo / "towers/item_llm").iterdir()}
    files |= {"pytorch_model.bin": b"pickle", "modeling.py": b"evil", "onnx/model.safetensors": b"twice"}
    pickled = {name: data for name, data in files.items() if not name.endswith(".safetensors")}
    revisions = {"main": COMMIT, "v1": OLD}
    Hub.asked.clear()
    Hub.repositories = {
        "tiny/item": {"files": files, "revisions": revisions},
        "tiny/pickled": {"files": pickled, "revisions": revisions},
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", url := f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield url
    server.shutdown()
    server.server_close()


def test_what_is_a_name_and_what_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named("Qwen/Qwen3-0.6B") == Named("hf", "Qwen/Qwen3-0.6B", None)
    assert named("Qwen/Qwen3-0.6B@refs/pr/3") == Named("hf", "Qwen/Qwen3-0.6B", "refs/pr/3")
    assert named("hf:gpt2@v1") == Named("hf", "gpt2", "v1")
    assert named("modelscope:Qwen/Qwen3-0.6B") == Named("modelscope", "Qwen/Qwen3-0.6B", None)
    (tmp_path / "results").mkdir()
    for path in ("results/llm", "gpt2", "./a/b", "../a/b", "/a/b", "a/b/c", "~/a", "a/b@", "other:a/b"):
        assert named(path) is None, path
    (tmp_path / "Qwen/Qwen3-0.6B").mkdir(parents=True)
    assert named("Qwen/Qwen3-0.6B") is None and named("hf:Qwen/Qwen3-0.6B")


def test_a_name_becomes_a_directory_with_nothing_in_it_that_runs(served, demo, config_with):
    user = str(demo / "towers/user_llm")
    config = fetched(config_with(item_model_dir="tiny/item"))
    directory = Path(config.item_model_dir)
    there = {path.name for path in directory.rglob("*")}
    own = {path.name for path in (demo / "towers/item_llm").iterdir()}
    assert there == own and directory.name == COMMIT and config.user_model_dir == user
    for name in own:
        assert (directory / name).read_bytes() == (demo / "towers/item_llm" / name).read_bytes()
    assert taken(config) == {"item_model_dir": f"tiny/item@{COMMIT}"}
    assert described(config) == [f"item_model_dir: tiny/item@{COMMIT} of the hub, in {directory}"]
    assert not [path for path in Hub.asked if "bin" in path or ".py" in path or "onnx/" in path]
    Hub.asked.clear()
    assert fetched(config_with(item_model_dir="tiny/item")).item_model_dir == str(directory)
    assert not [path for path in Hub.asked if path.startswith("GET /tiny")]  # no file is loaded twice
    old = fetched(config_with(item_model_dir="tiny/item@v1"))
    assert taken(old) == {"item_model_dir": f"tiny/item@{OLD}"}
    local = config_with()
    assert fetched(local) is local and taken(local) == {}


def test_offline_what_is_in_the_cache_is_taken_and_the_rest_is_a_sentence(served, config_with, monkeypatch):
    asked = config_with(item_model_dir="tiny/item")
    directory = fetched(asked).item_model_dir
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    Hub.asked.clear()
    assert fetched(asked).item_model_dir == directory and not Hub.asked
    text = (
        "^--item_model_dir tiny/pickled does not exist .looked from .*, and huggingface_hub does not get it"
    )
    with pytest.raises(InputError, match=text + ".*Name a mirror in HF_ENDPOINT, or copy the model"):
        fetched(config_with(item_model_dir="tiny/pickled"))


def test_what_the_hub_has_not_is_one_sentence(served, config_with, monkeypatch):
    for name in ("tiny/nothing", "tiny/item@v9"):
        with pytest.raises(InputError, match=f"^--user_model_dir {name} does not exist .*does not get it: "):
            fetched(config_with(user_model_dir=name))
    with pytest.raises(InputError, match="tiny/pickled: the repository holds no weights in safetensors"):
        fetched(config_with(item_model_dir="tiny/pickled"))
    with pytest.raises(
        InputError, match="--item_model_dir qwen3 does not exist .*A model of a hub: ORG/NAME.@rev"
    ):
        fetched(config_with(item_model_dir="qwen3"))
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(InputError, match="modelscope, which cannot be imported .*pip install modelscope"):
        fetched(config_with(item_model_dir="modelscope:tiny/item"))


def test_modelscope_is_asked_by_its_own_package(config_with, demo, monkeypatch):
    asked = []

    def snapshot_download(name, **settings):
        asked.append((name, settings))
        return str(demo / "towers/item_llm")

    package = SimpleNamespace(__name__="modelscope", snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "modelscope", package)
    config = fetched(config_with(item_model_dir="modelscope:tiny/item@v2"))
    assert config.item_model_dir == str(demo / "towers/item_llm")
    assert taken(config) == {"item_model_dir": "tiny/item@v2"}
    settings = {"revision": "v2", "allow_patterns": hub.WANTED, "ignore_patterns": hub.UNWANTED}
    assert asked == [("tiny/item", settings)]


def test_a_row_of_a_table_is_called_as_in_the_hub(served, demo):
    for text, label in (("tiny/item", "item"), ("mine=tiny/item@v1", "mine")):
        path, what = hub.directory_of(text, "--model_dir", in_table=True)
        assert path.startswith(f"{label}=/") and what.startswith("tiny/item@")
    local = f"x={demo / 'towers/item_llm'}"
    assert hub.directory_of(local, "--model_dir", in_table=True) == (local, None)


def test_a_training_says_which_commit_it_took_and_keeps_it(served, config_with, tmp_path, capsys):
    places = {"output_dir": str(tmp_path / "out"), "logging_dir": str(tmp_path / "log")}
    config = config_with(item_model_dir="tiny/item", **places)
    train_two_tower.main(replace(config, dry_run=2))
    assert f"item_model_dir: tiny/item@{COMMIT} of the hub, in {tmp_path}/cache" in capsys.readouterr().out
    open_log(fetched(config), TwoTowerTask.objective, {}, {"data": {}}).close()
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert run["hub"] == {"item_model_dir": f"tiny/item@{COMMIT}"}
    assert run["config"]["item_model_dir"].endswith(COMMIT)
