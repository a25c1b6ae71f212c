"""A checkpoint's language model becomes a directory that plain transformers loads, weight for weight."""

import json
import shutil

import pytest
import torch
from conftest import ROOT, recording_python, run_command
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pixelrec_train.commands import convert_checkpoint, verify_model
from pixelrec_train.engine import manifest
from pixelrec_train.engine.finding import named_by_tag, of_step
from pixelrec_train.engine.resume import checkpoint_to_resume
from pixelrec_train.engine.state import TrainState
from pixelrec_train.errors import InputError
from pixelrec_train.model import conversion
from pixelrec_train.model.expansion import expand
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.run import checkpoints
from pixelrec_train.tasks.tokens import TokenTask


def write_run(folder, tied, plain=False):
    """base/ and run/, with a checkpoint of either layout, one after an epoch, and best_model.

    plain: base/ is a language model without itemic tokens.
    """
    base = folder / "base"
    lm = write_causal_lm(
        ["a tale of two cities"] * 3, base if plain else folder / "lm", hidden_size=32, tied=tied
    )
    if not plain:
        expand(lm, base, "onerec", (4, 6), "mean_cov", 0)
    (base / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (base / "generation_config.json").write_text('{"temperature": 0.6}')
    model = TokenModel.load(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 50)
    task = TokenTask(model, base)
    for name, step in (("step4", 4), ("checkpoint-step-6", 6), ("checkpoint-epoch-1", 8), ("best_model", 8)):
        place = checkpoints.inside(folder / "run" / name)
        place.mkdir(parents=True)
        task.export(place, task.state_dict())
        state = TrainState(total_steps=9, step=step).as_dict()
        (place / "train_state.json").write_text(json.dumps(state))
        manifest.write_manifest(place, {})
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def written(request, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("converted"), request.param), request.param


@pytest.fixture
def run(written, tmp_path):
    """The same, to be written into."""
    shutil.copytree(written[0], tmp_path, dirs_exist_ok=True)
    return tmp_path, written[1]


def convert(folder, step, *more):
    flags = ("--base_model_dir", folder / "base", "--model_home", folder / "run", "--step", step, *more)
    convert_checkpoint.main.__wrapped__(list(map(str, flags)))


def all_weights(directory):
    files = sorted(directory.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("shard_gb", ["5", "2e-5"], ids=["whole", "shards"])
def test_a_converted_checkpoint_is_its_model_in_bf16_and_loads_in_transformers(run, shard_gb, capsys):
    folder, tied = run
    convert(folder, "4", "--max_shard_gb", shard_gb)
    place = folder / "run/step4/global_step4"
    out, trained = place / "converted", load_file(place / "llm/model.safetensors")
    assert f"made {out}" in capsys.readouterr().out
    made = all_weights(out)
    assert made.keys() == trained.keys() and ("lm_head.weight" in made) == (not tied)
    assert all(torch.equal(made[name], trained[name].bfloat16()) for name in made)
    files = sorted(out.glob("*.safetensors"))
    if shard_gb == "5":
        assert [file.name for file in files] == ["model.safetensors"]
    else:
        index = json.loads((out / "model.safetensors.index.json").read_text())
        assert len(files) > 2 and index["metadata"]["total_size"] == sum(t.nbytes for t in made.values())
        assert index["weight_map"] == {name: file.name for file in files for name in load_file(file)}
        for file in files:
            sizes = [tensor.nbytes for tensor in load_file(file).values()]
            assert sum(sizes) <= 2e4 or len(sizes) == 1
    for file in (folder / "base").iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            assert (out / file.name).read_bytes() == file.read_bytes(), file
    settings, before = (json.loads((d / "config.json").read_text()) for d in (out, folder / "base"))
    assert settings == before | {"dtype": "bfloat16"}
    model, report = AutoModelForCausalLM.from_pretrained(out, dtype="auto", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.bfloat16
    assert len(model.get_input_embeddings().weight) == model.config.vocab_size
    assert AutoTokenizer.from_pretrained(out)("<s_a_1><s_b_2>").input_ids
    with pytest.raises(SystemExit) as ended:
        verify_model.main.__wrapped__(["--hf_model_dir", str(out), "--before", str(folder / "base")])
    assert ended.value.code == 0, capsys.readouterr().out


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_plain_language_model_is_converted_too(tmp_path, tied, capsys):
    folder = write_run(tmp_path, tied, plain=True)
    (folder / "base/chat_template.jinja").unlink()  # the one of write_run says nothing of an assistant
    convert(folder, "4", "--dtype", "fp32")
    place = folder / "run/step4/global_step4"
    made, trained = (all_weights(place / part) for part in ("converted", "llm"))
    assert made.keys() == trained.keys() and all(torch.equal(made[name], trained[name]) for name in made)
    with pytest.raises(SystemExit) as ended:
        before = "--before", str(folder / "base")
        verify_model.main.__wrapped__(["--hf_model_dir", str(place / "converted"), *before])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and "without itemic tokens" in out, out


def test_in_fp32_nothing_is_rounded_and_the_checkpoint_is_whole_as_before(run):
    folder, _ = run
    place = folder / "run/checkpoint-step-6"
    convert(folder, "6", "--dtype", "fp32")
    made, trained = (all_weights(place / part) for part in ("converted", "llm"))
    assert all(torch.equal(made[name], trained[name]) for name in trained)
    manifest.verify(place)
    assert checkpoint_to_resume("auto", folder / "run") == folder / "run/checkpoint-epoch-1"
    assert checkpoint_to_resume(place, folder / "run") == place


def test_a_conversion_that_fails_leaves_what_was_there(run, monkeypatch):
    folder, _ = run
    place = folder / "run/best_model"
    convert(folder, "best", "--output_model_dir", folder / "out")
    before = (folder / "out/model.safetensors").read_bytes()
    with pytest.raises(InputError, match="already holds a conversion.*--overwrite"):
        convert(folder, "best", "--output_model_dir", folder / "out")

    def fail(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "write_beside", fail)
        for more in (("--output_model_dir", folder / "out", "--overwrite"), ()):
            with pytest.raises(OSError, match="disk full"):
                convert(folder, "best", *more)
    usage = shutil.disk_usage(folder)
    with monkeypatch.context() as patch:
        patch.setattr(conversion.shutil, "disk_usage", lambda path: usage._replace(free=100))
        with pytest.raises(InputError, match="GB are needed for .*0.00 GB are free. Make room"):
            convert(folder, "best", "--output_model_dir", folder / "out", "--overwrite")
    assert (folder / "out/model.safetensors").read_bytes() == before
    assert not (place / "converted").exists() and not list(folder.rglob("*.partial"))
    (place / "converted.partial").mkdir()  # as if killed in the middle
    (place / "converted.partial/model.safetensors").touch()
    manifest.verify(place)
    convert(folder, "best")
    convert(folder, "best", "--overwrite", "--dtype", "fp32")
    assert json.loads((place / "converted/conversion.json").read_text())["dtype"] == "fp32"
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize(
    "step, place",
    [
        ("4", "step4/global_step4"), ("step4", "step4/global_step4"), ("6", "checkpoint-step-6"),
        ("8", "checkpoint-epoch-1"), ("checkpoint-epoch-1", "checkpoint-epoch-1"), ("best", "best_model"),
        ("latest", "checkpoint-epoch-1"),
    ],
)  # fmt: skip
def test_a_checkpoint_is_found_by_its_step(written, step, place):
    assert of_step(written[0] / "run", step) == written[0] / "run" / place


@pytest.mark.parametrize("step", ["5", "..", "checkpoint-step-6/llm", "llm", "step", "-4", "²"])
def test_a_step_that_is_not_there_is_named_with_those_that_are(written, step):
    with pytest.raises(InputError, match="holds no checkpoint --step .*There are: 4, 6, 8, best"):
        of_step(written[0] / "run", step)


def test_what_openonerec_wrote_itself_is_refused_and_its_pickle_not_read(tmp_path):
    theirs = tmp_path / "step5/global_step5"
    theirs.mkdir(parents=True)
    (theirs / ".metadata").write_bytes(b"cos\nsystem\n")
    with pytest.raises(InputError, match="written by OpenOneRec's own training; its .metadata is a pickle"):
        of_step(tmp_path, "5")
    with pytest.raises(InputError, match="--resume_from .*its .metadata is a pickle"):
        named_by_tag(tmp_path / "step5", "global_step5", False, tmp_path, "llm")


@pytest.mark.parametrize("tag", ["global_step4", None])
def test_resume_from_and_its_tag_name_weights_or_the_state_of_training(written, tag):
    run = written[0] / "run"
    place = run / "step4/global_step4"
    assert named_by_tag(None, None, False, run, "llm") == (None, None)
    assert named_by_tag(run / "step4", tag, False, "elsewhere", "llm") == (None, place / "llm")
    resume, weights = named_by_tag(run / "step4", tag, True, run, "llm")
    assert (checkpoint_to_resume(resume, run), weights) == (place, None)
    assert named_by_tag(run / "best_model", None, False, run, "llm")[1] == run / "best_model/llm"


@pytest.mark.parametrize(
    "name, tag, state, says",
    [
        (None, "global_step4", False, "--resume_from_tag says nothing without --resume_from"),
        (None, None, True, "--resume_training_state says nothing without --resume_from"),
        ("step5", "global_step5", False, "--resume_from .*step5 does not exist"),
        ("step4", "global_step5", False, "holds no global_step5. It holds global_step4: change"),
        (".", "global_step4", False, "holds no global_step4. Did you mean .*checkpoint-epoch-1"),
        (".", None, False, "has no manifest.json, so it is no whole checkpoint. Did you mean"),
        ("best_model", None, True, "goes on in the run directory of that checkpoint, but --output_dir"),
        ("step4", None, True, "but --output_dir is elsewhere. Set --output_dir to it, or leave out"),
    ],
)  # fmt: skip
def test_what_resume_from_cannot_mean_is_said(written, name, tag, state, says):
    run = written[0] / "run"
    output = run if name == "best_model" else "elsewhere"
    with pytest.raises(InputError, match=says):
        named_by_tag(name and run / name, tag, state, output, "llm")
    with pytest.raises(InputError, match="holds no item_llm/: it is of another kind"):
        named_by_tag(run / "step4", None, False, output, "item_llm")


@pytest.mark.parametrize(
    "arguments, environment",
    [
        (["b", "h", "20"], {}),
        ([], {"BASE_MODEL_DIR": "b", "MODEL_HOME": "h", "STEP": "20"}),
        (["b", "h", "20", "--dtype", "fp32"], {"STEP": "7"}),
    ],
    ids=["arguments", "environment", "both"],
)
def test_the_script_takes_base_home_and_step(tmp_path, arguments, environment):
    python, commands = recording_python(tmp_path)
    script = ROOT / "scripts/convert_checkpoint_to_hf.sh"
    result = run_command(["bash", script, *arguments], cwd=tmp_path, PYTHON=python, **environment)
    assert result.returncode == 0, result.stderr
    expected = ["--base_model_dir", "b", "--model_home", "h", "--step", "20", *arguments[3:]]
    assert commands()[-1][1:] == expected and commands()[-1][0].endswith("scripts/convert_checkpoint.py")
    result = run_command(["bash", script, "b", "h"], cwd=tmp_path, PYTHON=python)
    assert result.returncode == 2 and "error: STEP is missing. Usage: bash" in result.stderr


def test_a_checkpoint_that_its_run_drops_meanwhile_is_said_to_be_gone(run, monkeypatch):
    folder, _ = run
    check = conversion.check_tokenizers

    def dropped_meanwhile(base, trained, trust):
        shutil.rmtree(folder / "run/step4")
        check(base, trained, trust)

    monkeypatch.setattr(conversion, "check_tokenizers", dropped_meanwhile)
    with pytest.raises(InputError, match="step4/global_step4 is gone: its run has dropped or replaced it"):
        convert(folder, 4)
    assert not list((folder / "run").glob("step4/**/*"))
