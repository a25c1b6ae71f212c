"""Real DeepSpeed, real launchers, one and two ranks. A launch costs seconds, so each one checks much."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forks
import pytest
import torch
from conftest import ROOT, as_flags, deepspeed, events, run_command
from pyarrow import parquet as pq
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from transformers import AutoConfig, AutoModel

from pixelrec_train.files import tokenizer_files
from pixelrec_train.model.backbone import write_backbone

pytestmark = pytest.mark.launch


@pytest.fixture(scope="module")
def findings(demo_config, tmp_path_factory):
    """What tests/launched/equivalence.py found on one rank (plain python) and on two, same global batch."""
    folder, found = tmp_path_factory.mktemp("equivalence"), {}
    for ranks in (1, 2):
        out = folder / f"{ranks}.json"
        flags = as_flags(
            demo_config, per_device_train_batch_size=8 // ranks, logging_steps=1, learning_rate=1e-3,
            output_dir=folder / f"run{ranks}", dry_run="None",
        )  # fmt: skip
        script = [ROOT / "tests/launched/equivalence.py", *flags, out]
        result = run_command([sys.executable, *script]) if ranks == 1 else deepspeed(2, *script)
        assert result.returncode == 0, result.stdout + result.stderr
        found[ranks] = json.loads(out.read_text())
        assert found[ranks]["ranks"] == ranks
    return found


def close(ours, theirs, tolerance):
    pairs = list(zip(ours, theirs, strict=True))
    return all(
        a[name] == pytest.approx(b[name], rel=tolerance, abs=tolerance) for a, b in pairs for name in a
    )


def test_zero2_and_zero3_and_one_and_two_ranks_train_the_same(findings):
    reference = findings[1]["zero2"][:12]
    assert len(reference) == 12 and reference[-1]["loss"] < reference[0]["loss"]
    for ranks in (1, 2):
        for stage in ("zero2", "zero3"):
            for name in ("loss", "nce_samples", "logit_scale"):
                for step, (a, b) in enumerate(zip(findings[ranks][stage][:12], reference, strict=True)):
                    assert a[name] == pytest.approx(b[name], rel=1e-5), (ranks, stage, name, step)


@pytest.mark.parametrize("ranks", [1, 2])
def test_stages_0_and_1_as_people_write_them_train_resume_to_the_bit_and_export(findings, ranks):
    assert close(findings[ranks]["zero0"]["whole"][:4], findings[ranks]["zero2"][:4], 1e-5)
    for name in ("zero0", "zero0_bf16", "zero1_monitors"):
        run = findings[ranks][name]
        assert run["again"] == run["whole"][2:] and run["exported"], name


def test_torchs_compiler_is_not_loaded_by_who_does_not_ask_for_it(findings):
    assert not any(found["compiler_loaded"] for found in findings.values())


def test_deepspeeds_own_monitors_write(findings):
    written = " ".join(findings[1]["zero1_monitors"]["monitors"])
    assert "events.out.tfevents" in written and "Train_Samples_lr.csv" in written


def test_a_job_embeds_the_catalogue_to_the_bits_of_encode_catalogue_on_one_and_two_ranks(findings):
    digests = [digest for found in findings.values() for digest in found["embedded"]]
    assert len(digests) == 4 and len(set(digests)) == 1


def test_ranks_that_hold_a_part_of_the_catalogue_each_find_the_places_and_lists_of_one_to_the_bit(findings):
    assert len(findings[1]["ranked"]) == 6 and findings[2]["ranked"] == findings[1]["ranked"]


@pytest.mark.parametrize("kind", ["ids", "frozen"])
def test_item_ids_and_frozen_texts_train_the_same_on_any_stage_and_ranks(findings, kind):
    reference = findings[1][f"{kind}2"]
    assert reference[3]["loss"] != pytest.approx(findings[1]["zero2"][3]["loss"], rel=1e-6)  # ids start at 0
    for ranks in (1, 2):
        for stage in (2, 3):
            assert close(findings[ranks][f"{kind}{stage}"], reference, 1e-4), (ranks, stage)


@pytest.mark.parametrize("ranks", [1, 2])
def test_texts_that_an_earlier_command_embedded_train_the_same_to_the_bit(findings, ranks):
    for stage in (2, 3):
        assert findings[ranks][f"frozen_again{stage}"] == findings[ranks][f"frozen{stage}"]


def test_activation_checkpointing_changes_nothing(findings):
    for found in findings.values():
        assert close(found["checkpointing"], found["zero3"][:4], 1e-5)


def test_reading_and_scoring_in_chunks_changes_nothing(findings):
    for found in findings.values():
        for number in (2, 3):
            assert close(found[f"chunked{number}"], found[f"zero{number}"][:4], 1e-5)


def test_encoding_each_item_once_over_all_ranks_changes_nothing(findings):
    for found in findings.values():
        assert close(found["unshared"], found["zero2"][:4], 1e-5)


def test_a_resumed_run_goes_on_to_the_bit_and_on_another_stage_to_rounding(findings):
    for found in findings.values():
        for number in (2, 3):
            reports = found[f"resumed{number}"]
            assert len(reports["again"]) >= 1 and reports["again"] == reports["whole"]
            assert close(reports["other_stage"], reports["whole"], 1e-5)


def test_the_same_seed_gives_the_same_numbers_to_the_bit(findings):
    assert all(found["again"] == found["zero3"][:4] for found in findings.values())


def test_gradients_of_gathered_negatives_are_the_sum_over_ranks(findings):
    assert findings[2]["gather_error"] < 1e-5
    assert findings[2]["uneven_rows"]


def test_every_rank_reports_the_same_and_places_do_not_depend_on_ranks(findings):
    assert findings[2]["ranks_agree"]
    for stage in (2, 3):
        ours, theirs = findings[2][f"places{stage}"], findings[1][f"places{stage}"]
        assert sum(a != b for a, b in zip(ours, theirs, strict=True)) <= 0.02 * len(
            ours
        )  # weights differ by 1e-6
        assert findings[2][f"validation{stage}"]["valid_loss"] == pytest.approx(
            findings[1][f"validation{stage}"]["valid_loss"], rel=1e-4
        )


def test_exports_are_what_the_engine_holds(findings):
    assert all(found["exports_hold"] for found in findings.values())


def test_bf16_follows_fp32(findings):
    for found in findings.values():
        assert found["bf16"] == pytest.approx([r["loss"] for r in found["zero2"][:3]], rel=0.02)
        assert found["fp32_gradients2"] == pytest.approx(found["fp32_gradients3"], rel=0.01)


def test_ranks_without_a_window_take_part(findings):
    """Fewer windows than slots: part of every batch is nowhere valid, and the step is an ordinary one."""
    for found in findings.values():
        assert all(0 < r["loss"] < 20 and r["grad_norm"] > 0 for r in found["empty_slots"])


def test_weighting_by_rank_is_the_same_on_one_rank_and_another_mean_on_two(findings):
    assert findings[1]["by_rank"] == pytest.approx([r["loss"] for r in findings[1]["zero2"]][:2], rel=1e-6)
    assert findings[2]["by_rank"][0] == pytest.approx(findings[1]["by_rank"][0], rel=0.1)
    assert findings[2]["by_rank"][0] != findings[1]["by_rank"][0]


def test_accumulated_steps_are_the_same_under_both_stages(findings):
    for found in findings.values():
        assert close(found["accumulated"]["2"], found["accumulated"]["3"], 1e-5)


def with_biases(tower, directory):
    """The same tower with biases in its attention: where they are added, bf16 rounds."""
    config = AutoConfig.from_pretrained(tower, attention_bias=True)
    model = AutoModel.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    write_backbone(model, directory, model.state_dict())
    for file in tokenizer_files(tower):
        shutil.copy(file, directory)
    return directory


@pytest.fixture(scope="module")
def trained(demo_config, tmp_path_factory):
    """A whole run of the command line: ZeRO-3, bf16, layers with biases, two ranks, no compiler, no hub."""
    folder = tmp_path_factory.mktemp("trained")
    biased = with_biases(demo_config.item_model_dir, folder / "item_llm")
    flags = as_flags(
        demo_config, deepspeed=ROOT / "configs/ds_config_zero3.json", num_train_epochs=3, save_total_limit=2,
        learning_rate=3e-3, logging_steps=5,
        item_model_dir=biased, output_dir=folder / "run", logging_dir=folder / "logs/run",
        dataloader_num_workers=1, gradient_checkpointing=True, dry_run="None",
        bf16=True, max_text_length=8,  # few words: older processors take 20 times as long in bf16
    )  # fmt: skip
    environment = dict(
        CXX="/nonexistent", CC="/nonexistent", TORCH_EXTENSIONS_DIR=str(folder / "extensions"),
        HF_HUB_OFFLINE="1", HF_HOME=str(folder / "hf"),
    )  # fmt: skip
    result = deepspeed(2, ROOT / "scripts/train_pixelrec.py", *flags, afresh=True, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder, flags, result.stdout


def test_a_run_leaves_what_the_readme_promises(trained):
    folder, _, screen = trained
    run = folder / "run"
    assert sorted(p.name for p in run.glob("*_model")) == ["best_model"]
    assert sorted(p.name for p in run.glob("checkpoint-*")) == ["checkpoint-epoch-2", "checkpoint-epoch-3"]
    assert not list(run.glob("*.partial"))
    for name in ("run.json", "ds_config.json", "metrics.jsonl", "table.md", "table.json", "curves.png",
                 "places.parquet", "report.json", "report.html"):  # fmt: skip
        assert (run / name).stat().st_size > 0
    assert "left no" not in (run / "report.html").read_text(encoding="utf-8")
    recorded = json.loads((run / "run.json").read_text())
    assert recorded["ranks"] == 2 and recorded["versions"]["deepspeed"] and recorded["data"]["interactions"]
    assert len(events(run, "eval")) == 3
    steps = events(run, "step")
    wanted = "loss lr grad_norm nce_samples nce_top1_acc nce_top10_acc logit_scale item_cosine items_per_s"
    wanted = {*wanted.split(), "tokens_per_s", "data_wait_pct", "memory_gb", "eta_s"}
    assert wanted <= set(steps[0])
    log = (folder / "logs/run_train.log").read_text()
    assert "two_tower" in log and "popularity" in log and log in screen
    assert (run / "train.log").read_text() == log
    assert "successfully" not in screen  # no operator was compiled
    assert list((folder / "logs/tensorboard/run").glob("*/events.out.tfevents.*"))


def figures(run, kind):
    """What a run logged, but for times and rates."""
    times = {"users_per_s", "items_per_s", "tokens_per_s", "step_ms", "data_wait_pct", "memory_gb", "eta_s"}
    return [{k: v for k, v in event.items() if k not in times} for event in events(run, kind)]


def test_a_run_that_was_cut_short_ends_alike_with_resume_auto(trained, tmp_path):
    """Other figures and weights than before would not be a resumed run."""
    folder, flags, _ = trained
    run, again = folder / "run", tmp_path / "run"
    shutil.copytree(run, again)
    shutil.rmtree(again / "checkpoint-epoch-3")
    (again / "table.json").unlink()
    more = ("--output_dir", again, "--logging_dir", tmp_path / "logs/run", "--resume", "auto")
    more += ("--preflight", True)  # which changes nothing
    result = deepspeed(2, ROOT / "scripts/train_pixelrec.py", *flags, *more)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"resumed from {again / 'checkpoint-epoch-2'}" in result.stdout
    assert "preflight: a block of evaluation and a checkpoint, tried in" in result.stdout
    assert not list(again.glob("*.partial"))
    assert all(figures(again, kind) == figures(run, kind) for kind in ("step", "eval"))
    files = [f for f in (run / "checkpoint-epoch-3").rglob("*.safetensors") if f.parent.name != "optimizer"]
    for file in files:  # ZeRO fills up its buffers with anything, so those may differ where nothing lies
        ours = load_tensors(again / file.relative_to(run))
        assert all(torch.equal(ours[k], v) for k, v in load_tensors(file).items()), file
    assert json.loads((again / "table.json").read_text()) == json.loads((run / "table.json").read_text())
    result = run_command([sys.executable, ROOT / "scripts/train_pixelrec.py", *flags, *more])
    assert result.returncode == 0 and "is finished; nothing to do" in result.stdout


@pytest.fixture(scope="module")
def stopped(demo_config, tmp_path_factory):
    """(flags, run, screen) of a run on one rank, ZeRO-2, that was sent SIGUSR1 in its first epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    flags = as_flags(
        demo_config, num_train_epochs=2, learning_rate=3e-3, logging_steps=1, per_device_train_batch_size=8,
        dataloader_num_workers=1, output_dir=folder / "run", logging_dir=folder / "logs/run", dry_run="None",
    )  # fmt: skip
    process = subprocess.Popen(
        [forks.folder() / "python", ROOT / "scripts/train_pixelrec.py", *map(str, flags)], cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    said = []
    for line in process.stdout:
        said.append(line)
        if " step 00003/" in line:
            process.send_signal(signal.SIGUSR1)
            started = time.monotonic()
    process.wait()
    assert time.monotonic() - started < 30
    return flags, folder / "run", process.returncode, "".join(said)


def test_sigusr1_saves_and_ends_with_0(stopped):
    _, run, status, said = stopped
    saved = [p.name for p in run.glob("checkpoint-*")]
    assert status == 0 and len(saved) == 1 and saved[0].startswith("checkpoint-step-"), said
    assert f"stopped after step {saved[0].split('-')[-1]}: SIGUSR1 received" in said
    assert "--resume auto" in said and "Traceback" not in said


def test_what_was_stopped_goes_on_with_more_ranks_as_one_rank_would_have(stopped, tmp_path):
    """By the command it ended with. The same global batch on two ranks and under ZeRO-3: the same order of
    windows, losses to rounding."""
    flags, run, _, said = stopped
    elsewhere = tmp_path / "run"
    shutil.copytree(run, elsewhere)
    (to_go_on,) = (line for line in said.splitlines() if line.startswith("To go on: "))
    result = run_command(shlex.split(to_go_on.removeprefix("To go on: ")))
    assert result.returncode == 0, result.stdout + result.stderr
    two = ("--output_dir", elsewhere, "--logging_dir", tmp_path / "logs/run", "--resume", "auto")
    two += ("--per_device_train_batch_size", 4, "--deepspeed", ROOT / "configs/ds_config_zero3.json")
    result = deepspeed(2, ROOT / "scripts/train_pixelrec.py", *flags, *two)
    assert result.returncode == 0, result.stdout + result.stderr
    for kind, names in (("step", ("loss", "grad_norm", "lr")), ("eval", ("valid_loss", "ndcg@10"))):
        pairs = list(zip(events(run, kind), events(elsewhere, kind), strict=True))
        assert len(pairs) == (2 if kind == "eval" else events(run, "step")[-1]["step"])
        for one, other in pairs:
            assert one["step"] == other["step"]
            assert [one[n] for n in names] == pytest.approx([other[n] for n in names], rel=1e-5)


def test_evaluation_reproduces_the_runs_own_test_figures_exactly(trained, tmp_path):
    folder, _, _ = trained
    expected = json.loads((folder / "run/table.json").read_text())
    alone = [sys.executable, ROOT / "scripts/evaluate_pixelrec.py"]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        alone[1],
    ]
    for name, launcher in (("alone", alone), ("torchrun", torchrun)):
        flags = [
            "--checkpoint",
            folder / "run/best_model",
            "--output_dir",
            tmp_path / name,
            "--cache_dir",
            tmp_path,
        ]
        result = run_command([*launcher, *flags], afresh=name == "torchrun")
        assert result.returncode == 0, result.stdout + result.stderr
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        assert metrics["metrics"] == expected
        of_run, of_any = (pq.read_table(at / "places.parquet") for at in (folder / "run", tmp_path / name))
        assert of_any.equals(of_run.select(of_any.column_names)) and of_any.num_rows > 100
        examples = (json.loads((at / "report.json").read_text()) for at in (folder / "run", tmp_path / name))
        assert len({json.dumps(told["examples"]) for told in examples}) == 1
        assert metrics["split"] == "test" and "history 1-4" in metrics["slices"]
        vectors = load_file(tmp_path / name / "item_embeddings.safetensors")["item_embeddings"]
        ids = (tmp_path / name / "item_ids.txt").read_text().splitlines()
        assert len(ids) == len(vectors) == json.loads((folder / "run/run.json").read_text())["data"]["items"]
        assert (tmp_path / name / "index.faiss").stat().st_size > 4 * vectors.size


def test_staged_training_with_ids_ends_with_figures_a_comparison_reproduces(demo_config, tmp_path):
    """Ids and [ITEM] learned jointly, then a frozen item LLM; one table of both runs and all baselines."""
    flags = as_flags(
        demo_config, item_id_embedding=True, num_train_epochs=1, learning_rate=3e-3, logging_steps=5,
        logging_dir=tmp_path / "logs/run", dry_run="None", cache_dir=tmp_path / "cache",
        bf16=True, max_text_length=8,
    )  # fmt: skip
    script = [sys.executable, ROOT / "scripts/train_pixelrec.py"]
    first, second = tmp_path / "first", tmp_path / "second"
    towers = ("--item_model_dir", "none", "--user_model_dir", "none", "--init_from", first / "best_model")
    for extra in (
        ("--output_dir", first),
        (
            *towers,
            "--output_dir",
            second,
            "--freeze_item_llm",
            "--num_negatives",
            "300",
            "--profile",
            "2",
            "--eval_seq_length",
            "4",
        ),
    ):
        result = run_command([*script, *flags, *extra])
        assert result.returncode == 0, result.stdout + result.stderr
    assert "texts embedded once" in result.stdout and f"weights: of {first}" in result.stdout
    weights = [(run / "best_model/item_llm/model.safetensors").read_bytes() for run in (first, second)]
    assert weights[0] == weights[1]  # frozen to the bit
    assert "top costs of 2 micro-batches" in result.stdout
    spans = {event.get("name") for event in json.loads((second / "trace.json").read_text())["traceEvents"]}
    assert "user_llm" in spans and "item_llm" not in spans  # the item LLM has read before the first step

    compare = [
        sys.executable, ROOT / "scripts/compare.py", "--interaction_data", demo_config.interaction_data,
        "--text_data", demo_config.text_data, "--text_keys", "title,tag", "--num_train_epochs", "2",
        "--checkpoint", first / "best_model", "--checkpoint", second / "best_model",
        "--output_dir", tmp_path / "table", "--logging_dir", tmp_path / "logs/table",
        "--cache_dir", tmp_path / "cache", "--max_seq_length", demo_config.max_seq_length,
    ]  # fmt: skip
    result = run_command(compare)
    assert result.returncode == 0, result.stdout + result.stderr
    table = json.loads((tmp_path / "table/table.json").read_text())
    assert list(table) == [
        "popularity",
        "item_knn",
        "tfidf",
        "knn_tfidf",
        "ease",
        "sasrec",
        "first",
        "second",
    ]
    for run in (first, second):
        own = json.loads((run / "table.json").read_text())["two_tower"]
        assert table[run.name]["checkpoint"] == str(run / "best_model")
        for name in own:
            if not name.startswith("cold"):  # a run calls cold what none of its windows holds
                assert own[name] == table[run.name][name], name
    lead = table["second"]["recall@10_against"]
    assert lead["baseline"] in list(table)[:5] and 0 < lead["p"] <= 1
    assert f"second: recall@10 {lead['change']:+.1%} against {lead['baseline']}" in result.stdout
    for command, words in (
        (compare, "already holds a finished run"),
        ([*script, *flags, *towers[:4], "--init_from", first, "--output_dir", tmp_path / "x"],
         f"is a run. Did you mean {first}/best_model?"),
        ([*script, *flags, *towers, "--output_dir", first, "--overwrite"], "which this run replaces"),
    ):  # fmt: skip
        result = run_command(command)
        assert result.returncode == 2 and words in result.stderr, result.stderr
    assert (first / "best_model/run.json").is_file()


def test_a_rank_that_fails_ends_the_others_and_its_traceback_is_the_only_one(demo_config, tmp_path):
    flags = as_flags(
        demo_config, output_dir=tmp_path / "run", logging_dir=tmp_path / "logs/run", logging_steps=1,
        dry_run="None",
    )  # fmt: skip
    started = time.monotonic()
    result = deepspeed(2, ROOT / "tests/launched/failing.py", *flags, afresh=True)
    assert time.monotonic() - started < 180  # the start included, on a busy machine
    assert result.returncode == 1 and result.stderr.count("Traceback") == 1, result.stderr
    assert "ZeroDivisionError: planted on rank 1" in result.stderr
    assert "stopped after step 2" in (tmp_path / "run/train.log").read_text()


def test_more_ranks_than_windows_and_than_users_train_and_end(demo_config, tmp_path):
    """Three ranks, ZeRO-3, two windows, two users to judge: every rank takes part in every collective."""
    rows = [f"i{user}{n},u{user},{n}\n" for user in range(2) for n in range(6)]
    (tmp_path / "few.csv").write_text("item_id,user_id,timestamp\n" + "".join(rows))
    (tmp_path / "texts.csv").write_text(
        "item_id,title\n" + "".join(f"{r.split(',')[0]},ramen\n" for r in rows)
    )
    flags = as_flags(
        demo_config, interaction_data=tmp_path / "few.csv", text_data=tmp_path / "texts.csv",
        text_keys="title", num_train_epochs=2, num_negatives=1, nce_thres=1, dry_run="None",
        output_dir=tmp_path / "run", logging_dir=tmp_path / "logs/run",
        deepspeed=ROOT / "configs/ds_config_zero3.json", per_device_train_batch_size=1,
        dataloader_num_workers=0, collective_timeout_minutes=0.5,
    )  # fmt: skip
    result = deepspeed(3, ROOT / "scripts/train_pixelrec.py", *flags, timeout=100)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(events(tmp_path / "run", "eval")) == 2 and (tmp_path / "run/table.json").is_file()


def test_a_finished_run_is_not_overwritten_and_a_bad_flag_is_one_sentence(trained):
    folder, flags, _ = trained
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    for extra, words in (
        ((), "already holds a finished run"),
        (("--learning_rat", "3"), "Did you mean --learning_rate?"),
    ):
        result = deepspeed(2, ROOT / "scripts/train_pixelrec.py", *flags, *extra)
        assert result.returncode != 0
        lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == 1 and words in lines[0]
        assert "Traceback" not in result.stdout + result.stderr
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_a_dry_run_prints_the_plan_and_writes_nothing(demo_config, tmp_path):
    flags = as_flags(demo_config, output_dir=tmp_path / "run", logging_dir=tmp_path / "logs", dry_run=32,
                     per_device_train_batch_size=16)  # fmt: skip
    result = run_command([sys.executable, ROOT / "scripts/train_pixelrec.py", *flags])
    assert result.returncode == 0, result.stderr
    assert (
        "batch: 512 windows x 1 per step over 32 ranks; pool 3,072 negatives (6 per window, drawn"
        in result.stdout
    )
    assert not list(Path(tmp_path).iterdir())
