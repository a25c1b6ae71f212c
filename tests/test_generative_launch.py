"""The generative model under real DeepSpeed, on one rank and on two."""

import json
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, deepspeed, run_command
from launched import generative
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

from pixelrec_train.model.expansion import expand
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.token_model import TokenModel

pytestmark = pytest.mark.launch
RUNS = [f"tied{tied}-zero{stage}" for tied in (True, False) for stage in (2, 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """tiedTrue/ and tiedFalse/, two tiny Qwen3 with itemic tokens; baseTrue/ and baseFalse/ without."""
    folder = tmp_path_factory.mktemp("generative")
    for tied in (True, False):
        base = write_causal_lm(
            ["a tale of two cities"] * 3, folder / f"base{tied}", hidden_size=32, tied=tied
        )
        expand(base, folder / f"tied{tied}", "onerec", (4, 6), "mean_cov", 0)
    return folder


@pytest.fixture(scope="module")
def findings(folder):
    """{ranks: what tests/launched/generative.py found}, always the same global batches."""
    found = {}
    for ranks in (1, 2):
        out = folder / f"{ranks}.json"
        script = [ROOT / "tests/launched/generative.py", folder, out]
        result = run_command([sys.executable, *script]) if ranks == 1 else deepspeed(2, *script)
        assert result.returncode == 0, result.stdout + result.stderr
        found[ranks] = json.loads(out.read_text())
        assert found[ranks]["ranks"] == ranks
    return found


def same(ours, theirs, tolerance):
    pairs = list(zip(ours, theirs, strict=True))
    return all(a.keys() == b.keys() for a, b in pairs) and all(
        a[name] == pytest.approx(b[name], rel=tolerance, abs=tolerance) for a, b in pairs for name in a
    )


@pytest.mark.parametrize("run", RUNS)
def test_every_stage_and_number_of_ranks_trains_the_same_though_a_rank_has_no_label(findings, run):
    reference = findings[1][f"{run[:-1]}2"]
    assert reference[3]["loss"] != reference[0]["loss"] and "level1_loss" in reference[0]
    for ranks in (1, 2):
        assert same(findings[ranks][run], reference, 1e-4), ranks


@pytest.mark.parametrize("tied", [True, False])
def test_the_engine_trains_as_plain_transformers_and_adamw_do(folder, findings, tied):
    """One table in one piece, all scores at once, no DeepSpeed; rows that are no token are cut off."""
    plain = AutoModelForCausalLM.from_pretrained(folder / f"tied{tied}")
    model = TokenModel.load(folder / f"tied{tied}")
    groups = [[p for p in plain.parameters() if (p.dim() > 1) == matrix] for matrix in (True, False)]
    groups = [{"params": g, "weight_decay": decay} for g, decay in zip(groups, (0.1, 0.0), strict=True)]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, 100)
    for step, report in enumerate(findings[2][f"tied{tied}-zero3"]):
        batch = generative.batch_of(model, step)
        logits = plain(batch.texts.token_ids.reshape(-1, generative.LENGTH)).logits.flatten(0, 1)
        loss = F.cross_entropy(logits[batch.positions][:, : model.num_tokens], batch.labels)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert report["loss"] == pytest.approx(loss.item(), rel=1e-4), step
        assert report["grad_norm"] == pytest.approx(norm.item(), rel=1e-3), step


@pytest.mark.parametrize("run", RUNS)
def test_the_export_computes_what_the_engine_computes(findings, run):
    assert findings[1][f"export-{run}"] and findings[2][f"export-{run}"]


@pytest.mark.parametrize("tied", [True, False])
def test_a_loss_put_together_label_by_label_trains_the_same_under_zero3(findings, tied):
    for ranks in (1, 2):
        assert same(findings[ranks][f"by-token-tied{tied}"], findings[1][f"tied{tied}-zero3"], 1e-4), ranks


def test_a_plain_causal_lm_trains_and_is_exported_under_zero3(findings):
    assert same(findings[1]["plain"], findings[2]["plain"], 1e-4)
    assert findings[1]["plain"][3]["loss"] != findings[1]["plain"][0]["loss"]
    assert "text_loss" in findings[1]["plain"][0] and "itemic_loss" not in findings[1]["plain"][0]
    assert findings[1]["export-plain"] and findings[2]["export-plain"]


def test_recomputing_activations_changes_nothing(findings):
    for ranks in (1, 2):
        for tied in (True, False):
            found = findings[ranks]
            assert same(found[f"recomputed-tied{tied}"], found[f"tied{tied}-zero3"][:2], 1e-4)


def test_half_precision_starts_where_full_precision_does(findings):
    for ranks in (1, 2):
        for half, full in zip(findings[ranks]["bf16"], findings[ranks]["tiedTrue-zero3"], strict=False):
            assert half["loss"] == pytest.approx(full["loss"], rel=0.01)


@pytest.mark.parametrize("run", ["tiedTrue-zero2", "tiedTrue-zero3", "tiedFalse-zero3"])
def test_fifty_steps_with_decay_move_only_new_rows_and_the_optimizer_holds_only_them(findings, run):
    tables = ["embedding", "head"] if run.startswith("tiedFalse") else ["embedding"]
    for ranks in (1, 2):
        found = findings[ranks][f"one-{run}"]
        # Every other tensor is equal to the bit.
        assert found["moved"] == [f"{table}.new_rows" for table in tables]
        assert len(found["losses"]) == 50
        reference = findings[1][f"one-{run}" if len(tables) == 2 else "one-tiedTrue-zero2"]
        assert found["losses"] == pytest.approx(reference["losses"], rel=1e-4)
        needed = 12 * found["new_values"]  # master weight and two moments, fp32
        assert (
            needed <= found["optimizer_bytes"] <= needed + 256 and found["values"] > 50 * found["new_values"]
        )
