"""Flags of training adapters in place of weights: LoRA (arXiv:2106.09685), QLoRA (arXiv:2305.14314)."""

import re
from dataclasses import dataclass, fields

from pixelrec_train.errors import InputError
from pixelrec_train.flags import DISTINCT, POSITIVE, SHARE, Flags, Rule, as_text, at_least, flag

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALL_LINEAR = "all-linear"
TOWERS = {"item"}, {"user"}, {"item", "user"}


@dataclass(frozen=True, kw_only=True)
class LoraFlags(Flags):
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
        "layers that get an adapter, by the last parts of their names; or one regular expression that fits "
        "whole names (.*layers\\.[01]\\..*_proj); or all-linear",
        PROJECTIONS,
        Rule("needs at least one name", bool),
        DISTINCT,
        alias=("target_modules",),
    )
    lora_use_rslora: bool = flag(
        "an adapter's product is scaled by --lora_alpha / the root of --lora_r (rsLoRA, arXiv:2312.03732)",
        False,
    )
    lora_use_dora: bool = flag(
        "the length of every row of an adapted weight is trained as well (DoRA, arXiv:2402.09353); needs "
        "ZeRO-2 or lower",
        False,
    )

    def __post_init__(self):
        super().__post_init__()
        try:
            re.compile(self.lora_pattern or "")
        except re.error as error:
            raise InputError(
                f"--lora_target_modules {self.lora_pattern} is neither names nor a regular expression: "
                f"{error}."
            ) from None
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

    @property
    def lora_pattern(self):
        """--lora_target_modules where it is one regular expression, by a sign that no name has, or None."""
        text = ",".join(self.lora_target_modules)
        plain = text == ALL_LINEAR or re.fullmatch(r"[\w.,]*", text)
        return None if plain else text

    def refuse_random(self, drawn):
        """Raises InputError where adapters would be trained upon weights that no file holds."""
        if self.lora_r and drawn:
            raise InputError(
                "--lora_r with --random_init would train adapters upon random weights, which no directory "
                "holds. Leave one of the two out."
            )

    def check_stage(self, stage):
        """Raises InputError where a ZeRO stage does not know what is asked for."""
        if self.lora_use_dora and stage == 3:
            raise InputError(
                "--lora_use_dora with ZeRO-3: it reads whole weights beside their layers, where ZeRO-3 has "
                "cut them to shards. Use configs/ds_config_zero2.json, or leave out --lora_use_dora."
            )


@dataclass(frozen=True, kw_only=True)
class TowerAdapterFlags(LoraFlags):
    """LoRA in the towers of the two-tower head; for a group that has TowerFlags too."""

    lora_towers: tuple[str, ...] = flag(
        "towers that get adapters (a frozen item LLM has none); what is beside the LLMs trains in full",
        ("item", "user"),
        Rule("takes item, user or item,user", lambda towers: set(towers) in TOWERS),
        DISTINCT,
    )

    @property
    def adapted_towers(self):
        """Names of the towers with adapters."""
        trained = {"user", "item"} if self.reads_texts else {"user"}
        named = trained & {*self.lora_towers} if self.lora_r else ()
        return tuple(name for name in ("item", "user") if name in named)

    def check_adapters(self):
        """Raises InputError where no tower could have them, or one would have random weights."""
        if self.lora_r and not self.adapted_towers:
            why = "--id_only leaves out" if self.id_only else "--freeze_item_llm freezes"
            raise InputError(f"--lora_towers item names the tower that {why}. Leave one of the two out.")
        self.refuse_random({*self.random_init} & {*self.adapted_towers})


@dataclass(frozen=True, kw_only=True)
class AdapterFlags(LoraFlags):
    """LoRA in a language model whose vocabulary has new rows."""

    lora_train_new_rows: bool = flag(
        "train the rows of itemic tokens (or from --first_new_row on) beside the adapters; False = where an "
        "earlier stage has trained them: untrained rows make no valid items",
        True,
    )

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
        alias=("qlora",),
    )

    def __post_init__(self):
        super().__post_init__()
        if self.load_in_4bit and not self.lora_r:
            raise InputError(
                "--load_in_4bit needs --lora_r: weights in 4 bits do not train, adapters beside them do."
            )
        if self.load_in_4bit and self.lora_use_dora:
            raise InputError(
                "--load_in_4bit with --lora_use_dora would make every weight whole again at every step. "
                "Leave one of the two out."
            )

    def check_stage(self, stage):
        super().check_stage(stage)
        if self.load_in_4bit and stage == 3:
            raise InputError(
                "--load_in_4bit with ZeRO-3: weights in 4 bits cannot be cut to shards. Use "
                "configs/ds_config_zero2.json, or leave out --load_in_4bit."
            )
