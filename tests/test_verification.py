"""Every way in which a model directory can be wrong is found, and by the check that names it."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, run_command
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Qwen3ForCausalLM

from pixelrec_train.commands import verify_model
from pixelrec_train.errors import InputError
from pixelrec_train.model.expansion import expand
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.model.verification import (
    CHECKS,
    PLAIN_CHECKS,
    Subject,
    answers_a_chat,
    goes_on,
    has_moved,
    rows_differ,
    stays_in_catalogue,
    weights_moved,
    words_have_rows,
)
from pixelrec_train.model.vocabulary import ItemicVocabulary
from pixelrec_train.semantic_id.codes import SemanticIds

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TABLE = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verified")
    base = write_causal_lm(["a tale of two cities"] * 3, folder / "base", hidden_size=32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(base)
    expand(base, folder / "before", "onerec", (4, 6), "mean_cov", 0)
    return folder / "before"


@pytest.fixture(scope="module")
def trained(before, tmp_path_factory):
    """An export whose new rows have moved."""
    model = TokenModel.load(before)
    with torch.no_grad():
        model.embedding.new_rows.add_(0.01)
    out = tmp_path_factory.mktemp("trained") / "model"
    model.export(out, dict(model.named_parameters()), before)
    return out


@pytest.fixture(scope="module")
def semantic_ids(tmp_path_factory):
    path = tmp_path_factory.mktemp("ids") / "sid.json"
    codes = np.array([[0, 0], [0, 5], [3, 1], [2, 2], [1, 4]], np.int32)
    SemanticIds([f"i{n}" for n in range(5)], codes, (4, 6)).save(path)
    return path


def run(capsys, directory, **flags):
    """(status, [titles of the checks that failed], all that was printed)"""
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    with pytest.raises(SystemExit) as ended:
        verify_model.main.__wrapped__(["--hf_model_dir", str(directory), *words])
    lines = capsys.readouterr().out
    failed = [line[6:].split(": ")[0] for line in lines.splitlines() if line.startswith("FAIL")]
    return int(ended.value.code), failed, lines


def change_weights(directory, change):
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


def change_json(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_trained_model_passes_every_check(capsys, before, trained, semantic_ids):
    status, failed, lines = run(capsys, trained, before=before, semantic_ids=semantic_ids)
    assert (status, failed) == (0, []) and "all checks passed" in lines
    assert [line[6:] for line in lines.splitlines() if line[:2] == "ok"] == [c.__doc__ for c in CHECKS]


@pytest.mark.parametrize(
    "change, title",
    [
        (lambda w: w.pop("model.norm.weight"), "weight files hold"),
        (lambda w: w.update(surplus=torch.zeros(1)), "weight files hold"),
        (lambda w: w["model.norm.weight"].fill_(torch.nan), "no weight is NaN"),
        (lambda w: w.update({TABLE: w[TABLE][:-256].clone()}), "rows of the tables agree"),
        (lambda w: w["model.norm.weight"].fill_(3e38), "logits are finite"),
    ],
)
def test_a_wrong_weight_file_is_found(capsys, trained, tmp_path, change, title):
    shutil.copytree(trained, tmp_path / "m")
    change_weights(tmp_path / "m", change)
    status, failed, _ = run(capsys, tmp_path / "m")
    assert status == 1 and any(title in name for name in failed), failed


def test_tokens_that_share_a_row_are_found(capsys, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    first = ItemicVocabulary.load(trained).first_new_id
    change_weights(tmp_path / "m", lambda w: w[TABLE][first].copy_(w[TABLE][first + 3]))
    status, failed, lines = run(capsys, tmp_path / "m")
    assert (status, failed) == (1, [rows_differ.__doc__]) and "1 of 12 rows are copies" in lines


def test_rows_that_training_has_not_moved_are_found(capsys, before):
    status, failed, lines = run(capsys, before, before=before)
    assert status == 1 and failed == [has_moved.__doc__]


@pytest.mark.parametrize(
    "file, changes, title",
    [
        ("itemic_meta.json", {"begin_id": 1}, "itemic_meta.json, config.json, tokenizer"),
        ("config.json", {"vocab_size": 300}, "itemic_meta.json, config.json, tokenizer"),
        ("config.json", {"num_hidden_layers": 3, "layer_types": None}, "weight files hold"),
        ("config.json", {"model_type": "granite", "logits_scaling": 3.0}, "those of the training code"),
    ],
)
def test_settings_that_do_not_fit_are_found(capsys, trained, tmp_path, file, changes, title):
    shutil.copytree(trained, tmp_path / "m")
    change_json(tmp_path / "m" / file, **changes)
    status, failed, _ = run(capsys, tmp_path / "m")
    assert status == 1 and any(title in name for name in failed), failed


def test_a_tokenizer_that_forgets_a_token_is_found(capsys, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    file = tmp_path / "m/tokenizer.json"
    tokens = json.loads(file.read_text())["added_tokens"]
    change_json(
        file, added_tokens=[t | {"special": t["content"] == "<s_a_2>" or t["special"]} for t in tokens]
    )
    status, failed, _ = run(capsys, tmp_path / "m")
    assert status == 1 and failed == ["items become their ids and their text again"]


def test_silence_and_items_that_do_not_exist_are_found(capsys, trained, semantic_ids, monkeypatch):
    """Weights alone hardly bring these about: generation that gives back what it was given, or anything."""
    monkeypatch.setattr(Qwen3ForCausalLM, "generate", lambda self, prompt, **_: prompt)
    silent = run(capsys, trained, semantic_ids=semantic_ids)[1]
    assert {goes_on.__doc__, answers_a_chat.__doc__} <= set(silent)
    first = ItemicVocabulary.load(trained).first_new_id
    wrong = torch.tensor([[first, first + 4 + 3]])  # codes 0 and 3: of no item
    monkeypatch.setattr(Qwen3ForCausalLM, "generate", lambda self, p, **_: torch.cat([p, wrong], 1))
    assert run(capsys, trained, semantic_ids=semantic_ids)[1] == [stays_in_catalogue.__doc__]


@pytest.mark.parametrize(
    "template, says",
    [
        (CHATML.replace("<|im_start|>", "<|turn|>"), r"<\|turn\|> of its template is \d+ tokens"),
        (CHATML.replace("{{ m.content }}", ""), "its template makes"),
        ("{% for %}", "Expected"),
    ],
    ids=["marks", "silent", "broken"],
)
def test_a_chat_template_that_does_not_go_with_the_vocabulary_is_found(
    capsys, trained, tmp_path, template, says
):
    shutil.copytree(trained, tmp_path / "m")
    (tmp_path / "m/chat_template.jinja").write_text(template)
    status, failed, lines = run(capsys, tmp_path / "m")
    assert (status, failed) == (1, [answers_a_chat.__doc__])
    assert re.search(says, lines), lines


def test_without_a_chat_template_no_chat_is_asked_for(capsys, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    (tmp_path / "m/chat_template.jinja").unlink()
    status, _, lines = run(capsys, tmp_path / "m")
    assert status == 0 and answers_a_chat.__doc__ not in lines


def test_a_history_is_read_by_its_words(trained, monkeypatch):
    """What goes_on gives to the model is what the tokenizer makes of the items' text."""
    seen = []
    monkeypatch.setattr(Qwen3ForCausalLM, "generate", lambda self, p, **_: seen.append(p) or p)
    subject = Subject(trained)
    goes_on(subject)
    text = "".join(f"<|sid_begin|><s_a_{n % 4}><s_b_{n % 6}><|sid_end|>" for n in range(5))
    assert seen[0].tolist() == [subject.tokenizer.encode(text.removesuffix("<s_b_4><|sid_end|>"))]


def test_ids_of_other_codebooks_are_no_items_of_this_model(capsys, trained, tmp_path):
    SemanticIds([], np.zeros((0, 2), np.int32), (4, 7)).save(tmp_path / "sid.json")
    status, failed, lines = run(capsys, trained, semantic_ids=tmp_path / "sid.json")
    assert status == 1 and "codebooks of (4, 7) in --semantic_ids, of (4, 6) in the model" in lines


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A causal LM without itemic tokens, with a chat template."""
    return write_causal_lm(["What comes next?"] * 3, tmp_path_factory.mktemp("plain") / "lm", 32, chat=True)


def test_a_plain_language_model_is_held_to_what_it_promises(capsys, plain, tmp_path):
    shutil.copytree(plain, tmp_path / "m")
    change_weights(tmp_path / "m", lambda w: w["model.norm.weight"].mul_(1.5))
    status, failed, lines = run(capsys, tmp_path / "m", before=plain)
    assert (status, failed) == (0, []), lines
    assert [line[6:] for line in lines.splitlines() if line[:2] == "ok"] == [c.__doc__ for c in PLAIN_CHECKS]
    assert lines.startswith(f"note  {tmp_path}/m has no itemic_meta.json: checked as a plain language model")
    assert lines.count("note") == 1


@pytest.mark.parametrize(
    "change, failing",
    [
        (lambda w: w.pop("model.norm.weight"), "weight files hold"),
        (lambda w: w["model.norm.weight"].fill_(torch.nan), "no weight is NaN"),
        (lambda w: w.update({TABLE: w[TABLE][:40].clone()}), words_have_rows.__doc__),
        (lambda w: None, weights_moved.__doc__),
    ],
    ids=["missing", "nan", "rows", "unmoved"],
)
def test_what_is_wrong_with_a_plain_language_model_is_found(capsys, plain, tmp_path, change, failing):
    shutil.copytree(plain, tmp_path / "m")
    change_weights(tmp_path / "m", change)
    status, failed, lines = run(capsys, tmp_path / "m", before=plain)
    assert status == 1 and any(failing in name for name in failed), lines


def test_an_expanded_directory_without_its_file_of_ids_is_said_to_be_one(capsys, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    (tmp_path / "m/itemic_meta.json").unlink()
    status, failed, lines = run(capsys, tmp_path / "m")
    assert (status, failed) == (0, []) and "note  <s_a_0> is a word of it, but nothing says which" in lines


def test_a_plain_language_model_has_no_items_to_be_asked_for(capsys, plain, semantic_ids):
    with pytest.raises(InputError, match=r"has no itemic_meta\.json"):
        run(capsys, plain, semantic_ids=semantic_ids)


def test_the_script_ends_with_the_status_of_the_checks(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    change_weights(tmp_path / "m", lambda w: w["model.norm.weight"].fill_(torch.nan))
    result = run_command(["bash", ROOT / "scripts/test_hf_model.sh"], HF_MODEL_DIR=str(tmp_path / "m"))
    assert result.returncode == 1 and "FAIL  no weight is NaN" in result.stdout, result.stderr
