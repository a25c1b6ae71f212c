"""What SFT made is judged before anything is learned behind it, and only a better model replaces it."""

from pathlib import Path

from pixelrec_train.engine import checkpoint, loop
from pixelrec_train.engine.weights import load_weights
from pixelrec_train.evaluation.report import conclude
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.report.end import report_at_end
from pixelrec_train.report.evidence import leave
from pixelrec_train.run import watchdog
from pixelrec_train.tasks.tokens import LLM
from pixelrec_train.trainings.asking import asking
from pixelrec_train.trainings.in_run import AskedInRun
from pixelrec_train.trainings.train_samples import trusted

SFT = "sft"


def judge_first(training, evaluators):
    """Before the first step: what is not better than this does not become best_model. All ranks call it."""
    if training.state.best_score is None:
        loop.judge_and_save(training, evaluators, keep=True)


def conclude_beside(training, model, config, name, how=""):
    """Judge SFT's model and the best one on the test split, and leave table and curves. All ranks call it.

    Args:
        model: the TokenModel in training's task, whose weights are replaced.
        config: has RankedFlags, --model_dir and AdapterFlags.
        name: the row of the best model.
        how: of evaluation.report.conclude, besides.
    """
    watchdog.at("test")
    test = AskedInRun(model, config.model_dir, asking(config, "test"), trusted(config))
    best = Path(config.output_dir) / checkpoint.BEST / LLM
    kept, judged = training.state.best_epoch == 0, {}  # nothing was better than SFT's
    for row, directory in {SFT: Path(config.model_dir), name: best}.items():
        if kept and row != SFT:
            judged[row] = judged[SFT]
            continue
        weights = TokenModel.load(
            directory, str(directory), config.loss_chunk, dtype="auto", trust=trusted(config)
        )
        if config.lora_r:
            weights.train_adapters(config, config.seed)  # which do nothing: its layers have them in already
        load_weights(model, weights)
        with loop.judging(training.engine):
            judged[row] = test.judged()
    over = "vocabulary" if config.normalised_over == "full" else "level"
    what = "no evaluation was better than SFT's, whose model is shipped; " * kept
    how = (
        f"{what}asked by {config.prompt}, at least {config.num_beams} beams, probabilities over the {over}; "
        f"{how}"
    )
    inputs, users = test.users.inputs, test.users.held_out
    judged = conclude(training, judged, inputs.split, config, how, against={name: SFT})
    report_at_end(
        training.log, config.output_dir,
        lambda: leave(config.output_dir, judged, name, inputs, users, config, config),
    )  # fmt: skip
