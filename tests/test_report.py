"""Table, curves and log lines."""

import json

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pixelrec_train.engine.state import TrainState
from pixelrec_train.evaluation.metrics import table_row
from pixelrec_train.evaluation.report import draw_curves, table_text, write_table
from pixelrec_train.run.log import RunLog, duration, log_path, show_under_tensorboard
from pixelrec_train.tasks.two_tower import TwoTowerTask


def rows():
    ranks, cold = np.array([0, 3, 50, 50, 12]), np.array([True, False, False, True, False])
    return {"popularity": table_row(ranks, cold, (5, 10)), "two_tower": table_row(ranks[::-1], cold, (5, 10))}


def test_the_table_shows_percent_with_intervals_for_all_and_for_cold_targets(tmp_path):
    text = write_table(tmp_path, rows(), (5, 10), "note")
    assert "all users (5), %" in text and "target never seen in training (2), %" in text
    line = next(line for line in text.splitlines() if line.startswith("| popularity"))
    assert line.split("|")[2].strip().startswith("40.00 ± ")
    assert (tmp_path / "table.md").read_text() == f"{text}\nnote\n"
    data = json.loads((tmp_path / "table.json").read_text())
    assert data["popularity"]["recall@5"] == 0.4 and len(data["popularity"]["recall@5_ci95"]) == 2
    assert data["popularity"]["cold_recall@10"] == 0.5 and data["popularity"]["cold_users"] == 2
    assert text == table_text(rows(), (5, 10))


def test_a_runs_words_reach_the_log_metrics_and_tensorboard(tmp_path, capsys):
    logging_dir = tmp_path / "logs/pixelrec"
    show_under_tensorboard(logging_dir)
    log = RunLog(
        [log_path(logging_dir)], tmp_path / "metrics.jsonl", logging_dir / "run", TwoTowerTask.objective
    )
    state = TrainState(total_steps=200, step=20)
    log.step(
        state, {"loss": 4.21834, "lr": 9.8e-5, "grad_norm": 0.7, "nce_samples": 352.0, "eta_s": 95}, epochs=5
    )
    log.evaluation(state, {"valid_loss": 3.9, "recall@10": 0.06, "ndcg@10": 0.03}, 1, epochs=1, is_best=True)
    log.close()
    written = (tmp_path / "logs/pixelrec_train.log").read_text()
    assert written == capsys.readouterr().out
    step, evaluation = written.splitlines()
    assert step[9:] == (
        "step 00020/00200 | epoch 1/5 | loss 4.2183 | lr 9.80e-05 | grad_norm 0.70 | nce_samples 352.0 | "
        "eta 1m35s"
    )
    assert (
        evaluation[9:]
        == "eval 00020 | epoch 1/1 | valid_loss 3.9000 | recall@10 0.0600 | ndcg@10 0.0300 | new best"
    )
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["step", "eval"]
    for place in (logging_dir / "run", tmp_path / "logs/tensorboard/pixelrec/run"):
        scalars = EventAccumulator(str(place)).Reload()
        assert scalars.Scalars("train/loss")[0].step == 20
        assert scalars.Scalars("eval/recall@10")[0].value == np.float32(0.06)

    draw_curves(tmp_path, TwoTowerTask.objective.panels)
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_curves_take_any_name(tmp_path):
    """Of a source, say; $…$ is a formula to matplotlib."""
    event = {"kind": "step", "step": 1, "a$\\frac$b/loss": 2.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    draw_curves(tmp_path, {"loss by source": ("a$\\frac$b/loss",)})
    assert (tmp_path / "curves.png").is_file()


def test_an_event_is_one_line_whatever_a_source_is_called(tmp_path, capsys):
    log = RunLog([tmp_path / "x.log"], tmp_path / "m.jsonl", tmp_path / "tb", TwoTowerTask.objective)
    log.note("samples: 2 line\nbreak")
    log.close()
    assert (tmp_path / "x.log").read_text()[9:] == "note | samples: 2 line break\n"


def test_durations_read_well():
    assert [duration(s) for s in (9.6, 95, 5400, 90061)] == ["9s", "1m35s", "1h30m", "25h01m"]


def test_what_cannot_be_logged_is_said_once_and_the_rest_goes_on(tmp_path, capsys):
    (tmp_path / "occupied").write_text("a file where TensorBoard wants a directory")
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    log = RunLog(
        [tmp_path / "x.log"], tmp_path / "full.jsonl", tmp_path / "occupied/run", TwoTowerTask.objective
    )
    state = TrainState(total_steps=9)
    for score in (0.1, 0.2):
        log.evaluation(state, {"recall@10": score}, 1, 5, False)
    log.close()
    for said in (capsys.readouterr().err, (tmp_path / "x.log").read_text()):
        warnings = [line for line in said.splitlines() if "warning" in line]
        assert len(warnings) == 2
        assert "occupied/run cannot be written" in warnings[0] and "goes on without it" in warnings[0]
        assert "full.jsonl cannot be written (No space left on device)" in warnings[1]
    assert (tmp_path / "x.log").read_text().count(" eval ") == 2
