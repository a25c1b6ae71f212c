"""Whose files samples are written in: ours, MiniOneRec's or OneRec-Think's, and what each of them takes."""

from dataclasses import dataclass

from pixelrec_train.config.reading import TIME_811
from pixelrec_train.errors import InputError
from pixelrec_train.flags import FILE_NAME, Flags, flag, given, one_of

LAYOUTS = SAMPLES, MINIONEREC, ONEREC_THINK = "samples", "minionerec", "onerec_think"
SPELLINGS = {MINIONEREC: "minionerec", ONEREC_THINK: "semantic_ids_llm"}  # of the ids in their files
SERVES = {  # flag -> the layouts it is for
    **dict.fromkeys(
        ("mix", "weights", "general", "rows_per_file", "model_dir", "max_length", "add_think_pattern"),
        (SAMPLES,),
    ),
    **dict.fromkeys(
        (
            "task", "split", "form", "targets", "samples_per_user", "limit_type_c", "limit_type_e",
            "category", "label_column", "positive_labels", "thoughts", "seed", "preference_data",
        ),
        (SAMPLES, ONEREC_THINK),
    ),
    "name": (MINIONEREC, ONEREC_THINK),
    **dict.fromkeys(("split_data", "valid_data", "test_data"), (SAMPLES, MINIONEREC)),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LayoutFlags(Flags):
    """Another project's files in place of ours."""

    layout: str = flag(
        "files to write: samples; minionerec = CSVs of all three parts, index.json, item.json and info.txt; "
        "onerec_think = NAME.pretrain.json, sequences, items, and the samples as conversations",
        SAMPLES,
        one_of(*LAYOUTS),
    )
    name: str | None = flag(
        "of the data set, with which their files' names begin; None = as that of --interaction_data",
        None,
        FILE_NAME,
    )


def check_layout(config):
    """Raises InputError where a flag that was given contradicts --layout."""
    layout = config.layout
    for name, layouts in SERVES.items():
        if name in given(config) and layout not in layouts:
            theirs = " or ".join(layouts)
            raise InputError(f"--{name} is for --layout {theirs}, but it is {layout}. Leave it out.")
    spelling = SPELLINGS.get(layout, config.codec)
    if config.codec not in (None, spelling):
        raise InputError(
            f"--layout {layout} spells ids as {spelling}, but --codec is {config.codec}. Leave it out."
        )
    if layout == ONEREC_THINK and config.split != "train":
        raise InputError(
            f"--layout {layout} writes conversations of train alone, but --split is {config.split}. Leave it "
            f"out: its sequences have the other parts."
        )
    if layout == ONEREC_THINK and config.split_protocol == TIME_811:
        raise InputError(
            f"--layout {layout} holds out everybody's last items in its own files, but --split_protocol is "
            f"{TIME_811}: what they test would be trained on. Use last_item or leave_last_two."
        )
    if layout != SAMPLES and not config.text_data:
        raise InputError(f"--layout {layout} writes what items are called: it needs --text_data.")
