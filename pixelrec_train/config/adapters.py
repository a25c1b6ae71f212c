"""Flags of training adapters in place of weights: LoRA (arXiv:2106.09685), QLoRA (arXiv:2305.14314)."""

from dataclasses import dataclass, fields

from pixelrec_train.errors import InputError
from pixelrec_train.flags import DISTINCT, POSITIVE, SHARE, Flags, Rule, as_text, at_least, flag

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class AdapterFlags(Flags):
    """LoRA: every layer keeps its weights, and a product of two thin matrices beside them is trained."""

    lora_r: int | None = flag(
        "LoRA: rank of the adapters that are trained in place of the weights; None = no adapters",
        None,
        at_least(1),
    )
    lora_alpha: float | None = flag(
        "an adapter's product is scaled by this / --lora_r; None = twice --lora_r", None, POSITIVE
    )
    lora_dropout: float = flag(
        "share of what an adapter reads that is zeroed while training, in [0, 1)", 0.05, SHARE
    )
    lora_target_modules: tuple[str, ...] = flag(
        "layers that get an adapter, by the last part of their names",
        PROJECTIONS,
        Rule("needs at least one name", bool),
        DISTINCT,
    )
    lora_train_new_rows: bool = flag(
        "train the rows of itemic tokens (or from --first_new_row on) beside the adapters; False = where an "
        "earlier stage has trained them: untrained rows make no valid items",
        True,
    )

    def __post_init__(self):
        super().__post_init__()
        own = {f.name: f.default for f in fields(self) if f.name.startswith("lora_")}
        if changed := [name for name, default in own.items() if getattr(self, name) != default]:
            if self.lora_r is None:
                value = as_text(getattr(self, changed[0]))
                raise InputError(f"--{changed[0]} {value} says nothing without --lora_r, the adapters' rank.")

    @property
    def alpha(self):
        """--lora_alpha, settled; a whole number where it is one, as other programs read it."""
        alpha = 2 * self.lora_r if self.lora_alpha is None else self.lora_alpha
        return int(alpha) if alpha == int(alpha) else alpha

    def refuse_beside(self, new_rows_only):
        """Raises InputError where another flag says, too, what is trained and what stands still."""
        if self.lora_r and new_rows_only:
            raise InputError(
                "--lora_r trains adapters (and the new rows), --new_rows_only nothing but the new rows. "
                "Leave one of the two out."
            )


@dataclass(frozen=True, kw_only=True)
class QuantisedFlags(AdapterFlags):
    """QLoRA: the weights beside the adapters are held in 4 bits."""

    load_in_4bit: bool = flag(
        "QLoRA: the matrices of the layers are held in 4 bits (NF4, double quantisation, computed with in "
        "bf16); needs --lora_r, bitsandbytes, and ZeRO-2 or lower",
        False,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.load_in_4bit and not self.lora_r:
            raise InputError(
                "--load_in_4bit needs --lora_r: weights in 4 bits do not train, adapters beside them do."
            )
