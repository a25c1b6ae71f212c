"""The loop's bookkeeping with a small stand-in for the engine, and the optimizer's groups and schedule."""

import math
import signal
from types import SimpleNamespace

import pytest
import torch

from pixelrec_train.engine import loop, preflight
from pixelrec_train.engine.optim import build_optimizer, decay_groups
from pixelrec_train.engine.session import Session
from pixelrec_train.engine.state import TrainState, total_steps
from pixelrec_train.errors import InputError, StopRequested, TrainingStopped
from pixelrec_train.run import rehearsal, signals
from pixelrec_train.tasks.two_tower import COLLAPSED_LOG_STEPS, TwoTowerTask


class Batch(SimpleNamespace):
    def to(self, device):
        return self


class Loader:
    def __init__(self, *batches):
        """batches: micro-batches of each epoch; the last number is that of all that follow."""
        self.batches = batches

    def batches_in(self, epoch):
        return self.batches[min(epoch, len(self.batches) - 1)]

    def epoch(self, epoch, skip=0):
        return (
            Batch(counts={"users": 2, "items": 3, "tokens": 10}, nth=n)
            for n in range(skip, self.batches_in(epoch))
        )


class Engine:
    """Counts what it is asked to do; its losses are given."""

    device = "cpu"

    def __init__(self, losses=lambda n: 1.0, weight=lambda batch: None):
        self.losses, self.boundaries, self.scales, self.modes = losses, [], [], []
        self.module = SimpleNamespace(
            watch=lambda report: None, objective=TwoTowerTask.objective, flops=lambda batch: 3e12,
            weight=weight,
        )  # fmt: skip

    def train(self):
        self.modes.append("train")

    def eval(self):
        self.modes.append("eval")

    def zero_optimization_stage(self):
        return 2

    def __call__(self, batch):
        return torch.tensor(float(self.losses(batch.nth))), {"nce_samples": torch.tensor(5.0)}

    def set_gradient_accumulation_boundary(self, boundary):
        self.boundaries.append(boundary)

    def backward(self, loss, scale_wrt_gas):
        assert scale_wrt_gas is False
        self.scales.append(loss.item())

    def step(self):
        pass

    def get_lr(self):
        return [0.1]

    def get_global_grad_norm(self):
        return 0.5


class Signals:
    """Stands where StopSignals stands; a signal comes at the call `at`."""

    def __init__(self, at=math.inf):
        self.at, self.calls = at, 0

    def asked(self):
        self.calls += 1
        return signal.SIGTERM if self.calls >= self.at else None

    breaking_off = signals.StopSignals.breaking_off


class Log:
    def __init__(self):
        self.steps, self.notes, self.evaluations = [], [], []

    def note(self, text):
        self.notes.append(text)

    def step(self, state, report, epochs):
        self.steps.append((state.step, report))

    def evaluation(self, state, results, position, epochs, is_best):
        self.evaluations.append((state.step, position, epochs, is_best))


def run_epoch(config_with, batches, engine=None, **changes):
    config, engine, log = config_with(**changes), engine or Engine(), Log()
    steps = -(-batches // config.gradient_accumulation_steps)
    state = TrainState(total_steps=steps)
    loop.train_epoch(Session(engine, Loader(batches), state, config, log, Signals(), "ndcg@10"), ())
    return engine, state, log


def test_accumulation_steps_at_every_nth_batch_and_at_the_end_of_the_epoch(config_with):
    engine, state, _ = run_epoch(config_with, 7, gradient_accumulation_steps=3)
    assert engine.boundaries == [False, False, True, False, False, True, True]
    assert engine.scales == pytest.approx(
        [1 / 3] * 6 + [1.0]
    )  # the last step holds one micro-batch, at full weight
    assert (state.step, state.batch) == (3, 7)


def test_micro_batches_of_a_step_count_by_their_labels(config_with):
    """Means over 30, 0 and 10 labels: the step's loss is the mean over all 40, not that of three means."""
    labels, means = [30.0, 0.0, 10.0, 5.0], [1.0, 0.0, 3.0, 7.0]
    engine = Engine(means.__getitem__, weight=lambda batch: labels[batch.nth])
    _, _, log = run_epoch(config_with, 4, engine, gradient_accumulation_steps=3, logging_steps=1)
    assert engine.scales == pytest.approx([30 / 40, 0.0, 30 / 40, 7.0])
    assert [report["loss"] for _, report in log.steps] == pytest.approx([60 / 40, 7.0])
    silent = Engine(weight=lambda batch: 0.0)
    run_epoch(config_with, 2, silent, gradient_accumulation_steps=2)
    assert silent.scales == [0.5, 0.5]  # of no label at all nothing is divided by 0


def test_a_report_averages_its_window_and_the_last_step_always_reports(config_with):
    engine = Engine(losses=lambda n: n)
    _, _, log = run_epoch(config_with, 5, engine, logging_steps=2)
    assert [(step, report["loss"]) for step, report in log.steps] == [(2, 0.5), (4, 2.5), (5, 4.0)]
    assert log.steps[0][1]["grad_norm"] == 0.5 and log.steps[0][1]["eta_s"] >= 0
    for _, report in log.steps:  # the engine's task counts 3e12 operations per batch of two users
        assert report["tflops_per_s"] == pytest.approx(1.5 * report["users_per_s"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_stops_at_the_next_log_line_and_names_the_way_out(config_with, bad):
    engine = Engine(losses=lambda n: bad if n == 3 else 1.0)
    with pytest.raises(TrainingStopped, match="loss is (nan|inf) at step 4.*--learning_rate"):
        run_epoch(config_with, 9, engine, logging_steps=4)


def test_a_non_finite_gradient_stops_too(config_with):
    engine = Engine()
    engine.get_global_grad_norm = lambda: math.inf
    with pytest.raises(TrainingStopped, match="grad_norm is inf"):
        run_epoch(config_with, 4, engine, logging_steps=2)


def test_a_collapse_stops_after_twenty_log_lines_in_a_row_and_says_what_to_change(config_with):
    task = TwoTowerTask(torch.nn.Linear(1, 1), config_with(), None)
    collapsed, healthy = ({"nce_samples": n, "item_cosine": 0.999} for n in (1.0, 300.0))
    for report in (
        [collapsed] * (COLLAPSED_LOG_STEPS - 1) + [healthy] + [collapsed] * (COLLAPSED_LOG_STEPS - 1)
    ):
        task.watch(report)
    with pytest.raises(TrainingStopped, match="collapsed.*--learning_rate.*--nce_thres"):
        task.watch(collapsed)


def test_matrices_decay_and_vectors_do_not_and_frozen_weights_are_left_out():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3), torch.nn.Embedding(4, 3))
    module[2].weight.requires_grad_(False)
    matrices, vectors = decay_groups(module, 0.1)
    assert [tuple(p.shape) for p in matrices["params"]] == [(3, 3)] and matrices["weight_decay"] == 0.1
    assert {tuple(p.shape) for p in vectors["params"]} == {(3,)} and vectors["weight_decay"] == 0.0


def test_the_schedule_warms_up_linearly_and_ends_at_zero_on_a_cosine(config_with):
    config = config_with(learning_rate=1.0, warmup_ratio=0.1)
    optimizer, schedule = build_optimizer(torch.nn.Linear(2, 2), config, total_steps=50)
    rates = []
    for _ in range(50):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    expected = [s / 5 if s < 5 else 0.5 * (1 + math.cos(math.pi * (s - 5) / 45)) for s in range(50)]
    assert rates == pytest.approx(expected) and schedule.get_last_lr()[0] == pytest.approx(0)


def test_the_best_epoch_is_the_first_with_the_highest_score():
    state = TrainState(total_steps=9)
    judged = [state.judge(score, epoch) for epoch, score in enumerate((0.1, 0.3, 0.3, 0.2), 1)]
    assert judged == [True, True, False, False]
    assert (state.best_epoch, state.best_score, state.since_best) == (2, 0.3, 2)
    falling = TrainState(total_steps=9)
    assert [falling.judge(score, 1, less_is_better=True) for score in (0.3, 0.1, 0.1)] == [True, True, False]


def run_all(
    config_with,
    stop,
    saves,
    scores,
    epochs=3,
    best_by="ndcg@10",
    patience=None,
    loader=None,
    stands=None,
    **changes,
):
    """loop.train with given scores and given answers of save_checkpoint; names of what was saved.

    stands: what a run that stopped has saved, as its checkpoint has it.
    """
    config, log = config_with(num_train_epochs=epochs, logging_steps=1, **changes), Log()
    loader = loader or Loader(4)
    state, saved, answers = TrainState(total_steps=total_steps(loader.batches_in, config)), [], iter(saves)
    state.restore(stands or {})
    session = Session(Engine(), loader, state, config, log, stop, best_by, patience)

    def save(session, is_best=False):
        saved.append((state.epoch, state.batch, is_best))
        return next(answers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save)
        scores = scores if scores is None else iter(scores)
        evaluators = [] if scores is None else [lambda: signals.go_on() or {best_by: next(scores)}]
        try:
            loop.train(session, evaluators)
        finally:
            run_all.state, run_all.saved, run_all.log = state, saved, log
    return state, saved


def test_epochs_of_different_length_are_counted_as_they_are(config_with):
    loader = Loader(4, 2, 3)
    state, saved = run_all(config_with, Signals(), ["a", "b", "c"], [0.1, 0.2, 0.3], loader=loader)
    assert (state.step, state.epoch, state.total_steps) == (9, 3, 9)
    config = config_with(max_steps=8)
    session = Session(Engine(), loader, TrainState(total_steps=8), config, None, None, "ndcg@10")
    session.state.epoch, session.state.batch = 1, 1
    assert (session.position, session.epochs) == (1.5, 3)


def test_a_signal_saves_after_the_step_and_stops(config_with):
    with pytest.raises(StopRequested, match="SIGTERM received, saved here"):
        run_all(config_with, Signals(at=3), ["here"], [])
    assert run_all.saved == [(0, 3, False)]


def test_a_signal_in_the_last_step_of_an_epoch_saves_before_the_evaluation(config_with):
    with pytest.raises(StopRequested):
        run_all(config_with, Signals(at=4), ["here"], [])
    assert run_all.saved == [(0, 4, False)]


def test_a_signal_after_an_evaluation_stops_after_its_checkpoint(config_with):
    with pytest.raises(StopRequested, match="saved epoch"):
        run_all(config_with, Signals(at=6), ["epoch"], [0.5])
    assert run_all.saved == [(1, 0, True)]


@pytest.mark.parametrize(
    "calls, saved, owes", [(2, (0, 2, False), True), (6, (0, 4, False), False), (10, (1, 2, False), True)]
)
def test_a_signal_in_an_evaluation_breaks_it_off_and_a_resumed_run_does_it_first(
    config_with, calls, saved, owes
):
    """It may last longer than the grace of a scheduler. In step 2, at the first epoch's end, in step 6."""
    options, scores = dict(epochs=2, eval_steps=2), [0.1, 0.5, 0.4, 0.6]
    whole, _ = run_all(config_with, Signals(), "abcdef", scores, **options)
    evaluations = run_all.log.evaluations
    with pytest.raises(StopRequested):
        run_all(config_with, Signals(at=calls), "abcdef", scores, **options)
    assert run_all.saved[-1] == saved and run_all.state.owes_evaluation == owes
    done, stands = run_all.log.evaluations, run_all.state.as_dict()
    again, _ = run_all(config_with, Signals(), "ghijkl", scores[len(done) :], stands=stands, **options)
    assert done + run_all.log.evaluations == evaluations
    assert again.as_dict() == whole.as_dict()


def test_where_a_checkpoint_is_not_written_training_goes_on_and_the_best_is_one_that_exists(config_with):
    state, saved = run_all(config_with, Signals(), ["a", None, "c"], [0.1, 0.9, 0.3])
    assert [is_best for *_, is_best in saved] == [True, True, True]
    assert (state.best_score, state.best_epoch) == (0.3, 3)


def test_a_run_whose_last_checkpoint_is_not_written_does_not_end_as_if_all_were_well(config_with):
    for stop, saves in ((Signals(), ["a", "b", None]), (Signals(at=3), [None])):
        with pytest.raises(TrainingStopped, match="last checkpoint could not be written.*--resume auto"):
            run_all(config_with, stop, saves, [0.1, 0.2, 0.3])


def test_judging_by_steps_saves_what_is_best_and_counts_epochs_in_parts(config_with):
    state, saved = run_all(config_with, Signals(), "abcdef", [0.1, 0.5, 0.4, 0.6], epochs=2, eval_steps=2)
    assert [(step, position) for step, position, *_ in run_all.log.evaluations] == [
        (2, 0.5), (4, 1), (6, 1.5), (8, 2),
    ]  # fmt: skip
    # The third evaluation is not the best, and no epoch's end: nothing is saved.
    assert saved == [(0, 2, True), (1, 0, True), (2, 0, True)]
    assert (state.best_epoch, state.best_score) == (2, 0.6)


def test_max_steps_ends_in_the_middle_of_an_epoch_with_an_evaluation_and_a_checkpoint(config_with):
    state, saved = run_all(config_with, Signals(), "ab", [0.1, 0.2], max_steps=6)
    assert (state.step, state.epoch, state.batch) == (6, 2, 0) and saved == [(1, 0, True), (2, 0, True)]


def test_patience_ends_a_run_and_the_loss_is_best_when_it_is_least(config_with):
    scores = [0.5, 0.4, 0.6, 0.7]
    state, _ = run_all(config_with, Signals(), "abcde", scores, epochs=9, best_by="valid_loss", patience=2)
    assert (state.step, state.best_epoch, state.best_score) == (16, 2, 0.4)
    assert "no better valid_loss in 2 evaluations" in run_all.log.notes[0]


def test_without_evaluators_the_newest_checkpoint_is_the_best(config_with):
    state, saved = run_all(config_with, Signals(), "abc", None)
    assert saved == [(1, 0, True), (2, 0, True), (3, 0, True)] and state.best_score is None


def test_saving_by_steps_alone_keeps_the_best_and_the_last(config_with):
    options = dict(save_strategy="steps", save_steps=3, epochs=3)
    _, saved = run_all(config_with, Signals(), "abcdefg", [0.3, 0.2, 0.1], **options)
    assert saved == [(0, 3, False), (1, 0, True), (1, 2, False), (2, 1, False), (3, 0, False)]


def test_a_figure_the_task_does_not_have_is_refused_by_name():
    objective = TwoTowerTask.objective
    assert objective.chosen_by(None) == "ndcg@10" and objective.chosen_by("cold_recall@5") == "cold_recall@5"
    for wrong in ("accuracy", "ndcg@", "ndcg@ten", "loss@10"):
        with pytest.raises(InputError, match=f"--best_by {wrong} is no figure of this task.*valid_loss"):
            objective.chosen_by(wrong)


def test_a_signal_where_nothing_would_be_saved_saves(config_with):
    """The second epoch is not the best, and with --save_strategy steps its end is no place to save."""
    options = dict(save_strategy="steps", save_steps=1000)
    with pytest.raises(StopRequested, match="saved two"):
        run_all(config_with, Signals(at=13), ["one", "two"], [0.5, 0.1], **options)
    assert run_all.saved == [(1, 0, True), (2, 0, False)]


def test_what_is_best_and_due_at_one_step_is_saved_once(config_with):
    _, saved = run_all(config_with, Signals(), "abc", [0.1, 0.2], epochs=1, eval_steps=2, save_steps=2)
    assert saved == [(0, 2, True), (1, 0, True)]


@pytest.mark.parametrize("asked", [None, True, False])
def test_what_comes_late_is_tried_early_in_a_long_run(config_with, monkeypatch, asked):
    """One block of each evaluator, once: behind the first line of a long run, or before it if asked."""
    blocks, saves = [], []

    def evaluator():
        for n in range(3):
            blocks.append((len(saves), n))
            rehearsal.block_done()
        return {"ndcg@10": 0.5}

    monkeypatch.setattr(preflight, "try_to_save", lambda session: saves.append(session.state.step))
    monkeypatch.setattr(loop, "save_checkpoint", lambda session, is_best: "saved")
    for long_s, due in ((0.0, {None: [2], True: [0], False: []}), (1e9, {None: [], True: [0], False: []})):
        monkeypatch.setattr(preflight, "LONG_S", long_s - 1)
        blocks.clear(), saves.clear()
        state, log = TrainState(total_steps=6), Log()
        config = config_with(logging_steps=2, preflight=asked, num_train_epochs=1)
        loop.train(Session(Engine(), Loader(6), state, config, log, Signals(), "ndcg@10"), [evaluator] * 2)
        assert saves == due[asked]
        tried = [(0, 0)] * 2 * len(saves)  # then comes the evaluation of the epoch
        assert blocks == tried + [(len(saves), n) for n in range(3)] * 2
        assert [note for note in log.notes if "tried in" in note] == log.notes[: len(saves)]
        assert state.step == 6


def test_where_no_checkpoint_can_be_written_a_run_ends_before_it_has_begun(config_with, monkeypatch):
    monkeypatch.setattr(preflight, "try_to_save", lambda session: "2.00 GB are needed, 1.00 GB are free")
    session = Session(
        Engine(), Loader(6), TrainState(6), config_with(preflight=True), Log(), Signals(), "ndcg@10"
    )
    with pytest.raises(TrainingStopped, match="no checkpoint can be written to .*2.00 GB are needed"):
        loop.train(session, ())
    assert session.state.step == 0
