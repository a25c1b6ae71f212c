"""Flags of direct preference optimisation, by the names that Genesis' documents and TRL have."""

from dataclasses import dataclass

from pixelrec_train.config.samples import RankedFlags
from pixelrec_train.config.texts import TextModelFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import POSITIVE, Flags, Rule, flag, one_of

SIGMOID, IPO, HINGE = "sigmoid", "ipo", "hinge"
BEAMS, POPULAR, PREFIX = KINDS = "beams", "popular", "prefix"  # of worse items


@dataclass(frozen=True, kw_only=True)
class PreferenceFlags(Flags):
    """How two answers are compared."""

    beta: float = flag(
        "how much a log-ratio counts: the smaller, the further from the reference", 0.1, POSITIVE
    )
    loss_type: str = flag(
        "sigmoid = DPO; ipo = squared distance from 1 / 2 beta, of log-ratios per token; hinge",
        SIGMOID,
        one_of(SIGMOID, IPO, HINGE),
    )
    label_smoothing: float = flag(
        "sigmoid: share of pairs that are taken to be the wrong way round",
        0.0,
        Rule("must be in [0, 0.5)", lambda share: 0 <= share < 0.5),
    )
    reference_free: bool = flag("log-probabilities themselves in place of log-ratios", False)
    length_normalised: bool | None = flag(
        "log-probabilities per token of an answer; None = with ipo", None, alias=("length_normalized",)
    )

    def __post_init__(self):
        super().__post_init__()
        if self.length_normalised is None:
            self.set(length_normalised=self.loss_type == IPO)
        if self.label_smoothing and self.loss_type != SIGMOID:
            raise InputError(
                f"--label_smoothing {self.label_smoothing} is for --loss_type sigmoid, not {self.loss_type}."
            )


@dataclass(frozen=True, kw_only=True)
class DpoConfig(PreferenceFlags, TextModelFlags, RankedFlags):
    """Train a language model on pairs of answers, the better and the worse, beside what it was (DPO)."""

    algorithms = ("dpo",)  # sections of a --config file that are for it

    as_text: bool = flag(
        "prompts and answers are texts as they stand, one behind the other: no chat, no template", False
    )
    learning_rate: float = flag("peak of its schedule, reached after the warm-up", 5e-6, POSITIVE)
    output_dir: str = flag("run directory: checkpoints, metrics.jsonl, table", "results/dpo", may_differ=True)
    logging_dir: str = flag(
        "TensorBoard events; the log file is <logging_dir>_train.log", "logs/dpo", may_differ=True
    )

    def __post_init__(self):
        super().__post_init__()
        if self.as_text and self.template:
            raise InputError(f"--template {self.template} is for chats, --as_text has none. Leave one out.")
