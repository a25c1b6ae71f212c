"""What a run says: one line per event on stdout and in the log file, metrics.jsonl, TensorBoard, trackers.

Every rank calls it; only rank 0 speaks.
"""

import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.run import board
from pixelrec_train.run.trackers import Trackers, trackers_of

OF_ANY_TASK = {"loss": ".4f", "lr": ".2e", "grad_norm": ".2f"}  # in the log line, before the task's own
SPEED = {
    "tflops_per_s": "{:.4g} TFLOP/s per rank", "mfu_pct": "mfu {:.1f}%", "step_ms": "{:.0f} ms/step",
    "data_wait_pct": "data {:.1f}%", "memory_gb": "mem {:.1f}G",
    "gpu_utilisation": "gpu {:.0f}%",
}  # fmt: skip


class RunLog:
    """Opens its files on rank 0 and appends; a reader can `tail -f` the log at any time.

    What cannot be written (a read-only directory, a full disk) is said once, and the run goes on. A file that
    can be written again later goes on too; TensorBoard's does not.
    """

    def __init__(self, log_files, metrics_file, tensorboard_dir, objective, resumed_at=None):
        """objective: what the lines show of a task's figures; metrics.jsonl and TensorBoard get all."""
        self.objective, self.failed = objective, False  # failed: it has ended before its end
        self.judged = None  # (step, figures) of the newest evaluation
        self.trackers = Trackers((), None, self.note)
        self.speaks = distributed.rank() == 0
        if not self.speaks:
            return
        self.unwritable, self.log_files, self.metrics_file, self.tensorboard = set(), {}, None, None
        for path in log_files:
            with self.tolerating(path):
                self.log_files[path] = opened(path)
        with self.tolerating(metrics_file):
            self.metrics_file = opened(metrics_file)
        with self.tolerating(tensorboard_dir):
            from torch.utils.tensorboard import SummaryWriter

            purge = None if resumed_at is None else resumed_at + 1  # what was drawn beyond is drawn again
            self.tensorboard = SummaryWriter(str(tensorboard_dir), purge_step=purge)

    def track(self, flags, run_directory, name, resumed):
        """Tell trackers, too; see trackers.trackers_of."""
        if self.speaks:
            self.trackers = trackers_of(flags, run_directory, name, resumed, self.note)

    @contextmanager
    def tolerating(self, path):
        """Logging must not cost a run: an OSError inside is a warning, once for each path."""
        try:
            yield
        except OSError as error:
            if path not in self.unwritable:
                self.unwritable.add(path)
                text = f"{path} cannot be written ({error.strerror or error}); the run goes on without it"
                print(f"warning: {text}", file=sys.stderr, flush=True)
                self._to_files(f"{time.strftime('%H:%M:%S')} note | warning: {text}")

    def note(self, text):
        """A line that is no measurement."""
        self._line("note", text)

    def step(self, state, report, epochs):
        """One training step's report."""
        if not self.speaks:
            return
        shown = OF_ANY_TASK | self.objective.shown
        fields = [f"{name} {report[name]:{form}}" for name, form in shown.items() if name in report]
        rates = {n: x for n, x in report.items() if n.endswith("_per_s") and n not in SPEED and x}
        fields += [f"{value:.0f} {name.removesuffix('_per_s')}/s" for name, value in rates.items()]
        fields += [form.format(report[name]) for name, form in SPEED.items() if name in report]
        fields.append(f"eta {duration(report['eta_s'])}")
        self._line(
            f"step {state.step:05d}/{state.total_steps:05d}", f"epoch {state.epoch + 1}/{epochs}", *fields
        )
        self._record("step", state.step, report)

    def evaluation(self, state, results, position, epochs, is_best):
        """Figures of validation, `position` epochs from the beginning."""
        self.judged = state.step, results
        shown = dict.fromkeys((*self.objective.judged, self.objective.best_by))
        fields = [f"{name} {results[name]:.4f}" for name in shown if name in results]
        best = ["new best"] if is_best else []
        self._line(f"eval {state.step:05d}", f"epoch {position:.4g}/{epochs}", *fields, *best)
        self._record("eval", state.step, results)

    def so_far(self, state, text, figures):
        """How an evaluation of many users goes, before it is over."""
        self._line(f"part {state.step:05d}", text)
        self._record("part", state.step, {f"{name}_so_far": value for name, value in figures.items()})

    def sample(self, state, number, title, parts):
        """What the model answers: {"asked": text, …}, a line each in the log, and in TensorBoard."""
        self._line(f"sample {state.step:05d}", title)
        told = {name: text.replace("\n", "\\n") for name, text in parts.items()}
        self.block("\n".join(f"  {name}: {text}" for name, text in told.items()))
        if self.speaks and self.tensorboard:
            text = "\n\n".join(f"**{name}**\n\n```\n{text}\n```" for name, text in parts.items())
            with self.tolerating(self.tensorboard.log_dir):
                self.tensorboard.add_text(f"sample/{number}", f"{title}\n\n{text}", state.step)

    def items(self, vectors, labels, seed):
        """Embeddings of items at the end of a run, for TensorBoard; see board.write_projector."""
        if self.speaks and self.tensorboard:
            with self.tolerating(self.tensorboard.log_dir):
                board.write_projector(self.tensorboard.log_dir, vectors, labels, seed)

    def concluded(self, state, flags):
        """The run has left its table, of which the last row is its own, and its curves."""
        run = Path(flags.output_dir)
        rows = json.loads((run / "table.json").read_text(encoding="utf-8"))
        if self.tensorboard and rows:
            with self.tolerating(self.tensorboard.log_dir):
                board.add_hparams(self.tensorboard, flags, list(rows.values())[-1], state.step)
        if self.trackers.running:
            text = (run / "table.md").read_text(encoding="utf-8")
            self.trackers.show(state.step, rows, text, run / "curves.png")

    def saved(self, state, path, seconds):
        size = sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file()) if self.speaks else 0
        self._line(f"save {state.step:05d}", f"{path}", f"{size / 1e9:.2f}G", f"{seconds:.0f}s")

    def failed_save(self, state, path, problem):
        """A checkpoint that is not there; as loud as a line can be."""
        text = f"{path} NOT SAVED: {problem}; earlier checkpoints are intact, the run goes on"
        self._line(f"save {state.step:05d}", text)
        if self.speaks:
            print(f"error: {text}", file=sys.stderr, flush=True)

    def block(self, text):
        """Several lines as they are: a table."""
        if self.speaks:
            with self.tolerating("standard output"):
                print(text, flush=True)
            self._to_files(text)

    def _to_files(self, text):
        for path, file in self.log_files.items():
            with self.tolerating(path):
                file.write(text + "\n")

    def _line(self, kind, *fields):
        text = f"{time.strftime('%H:%M:%S')} {kind} " + " | ".join(("", *fields)).strip()
        self.block(" ".join(text.splitlines()))  # one event, one line: a source may be called anything

    def _record(self, kind, step, values):
        """One JSON object per event, and one tag per scalar elsewhere: train/loss, eval/recall@10."""
        if not self.speaks:
            return
        if self.metrics_file:
            with self.tolerating(self.metrics_file.name):
                self.metrics_file.write(json.dumps({"kind": kind, "step": step} | values) + "\n")
        prefix = "train" if kind == "step" else kind
        scalars = {f"{prefix}/{name}": x for name, x in values.items() if isinstance(x, (int, float))}
        self.trackers.log(step, scalars)
        if self.tensorboard:
            with self.tolerating(self.tensorboard.log_dir):
                self._draw(step, scalars)
            if self.tensorboard.log_dir in self.unwritable:
                self.tensorboard = None  # its writing thread has ended

    def _draw(self, step, scalars):
        for tag, value in scalars.items():
            self.tensorboard.add_scalar(tag, value, step)
        self.tensorboard.flush()

    def close(self):
        self.trackers.close(self.failed)
        if self.speaks:
            for file in filter(None, (self.tensorboard, self.metrics_file, *self.log_files.values())):
                with self.tolerating(getattr(file, "name", "TensorBoard")):
                    file.close()


def opened(path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return open(path, "a", encoding="utf-8", buffering=1)


def log_path(logging_dir):
    """logs/pixelrec -> logs/pixelrec_train.log"""
    return Path(f"{Path(logging_dir)}_train.log")


def tensorboard_dir(loop):
    """Each run directory has its own curves: logs/pixelrec/results-demo for results/demo."""
    run = Path(loop.output_dir).resolve()
    parts = run.relative_to(Path.cwd()).parts if run.is_relative_to(Path.cwd()) else run.parts[1:]
    return Path(loop.logging_dir) / ("-".join(parts) or "run")


def show_under_tensorboard(logging_dir):
    """Make `tensorboard --logdir logs/tensorboard` show this run too: a link logs/tensorboard/<name>."""
    logging_dir = Path(logging_dir)
    logging_dir.mkdir(parents=True, exist_ok=True)
    link = logging_dir.parent / "tensorboard" / logging_dir.name
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(logging_dir, link.parent)
    if link.is_symlink() and os.readlink(link) != target:
        link.unlink()
    if not link.exists():
        link.symlink_to(target)


def duration(seconds):
    """95 -> 1m35s, 5400 -> 1h30m"""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def say(text):
    """A line on rank 0's screen before a run has its log, or the ranks have met."""
    if distributed.rank() == 0 and (distributed.world_size() > 1 or os.environ.get("RANK", "0") == "0"):
        print(text, file=sys.stdout, flush=True)
