"""docs/onerec_think.md and docs/minionerec.md are true: their commands, files and flags have their places."""

import re

import pytest
from conftest import ROOT

from pixelrec_train.commands.build_samples import BuildSamplesConfig
from pixelrec_train.commands.check_samples import CheckSamplesConfig
from pixelrec_train.commands.evaluate_qwen3 import EvaluateQwen3Config
from pixelrec_train.commands.expand_vocabulary import ExpandConfig
from pixelrec_train.commands.keep_thoughts import KeepThoughtsConfig
from pixelrec_train.commands.predict import PredictConfig
from pixelrec_train.commands.prep import PrepConfig
from pixelrec_train.commands.train_qwen3 import Qwen3Config
from pixelrec_train.config.generative import GenerativeConfig
from pixelrec_train.config.tasks import FAMILIES
from pixelrec_train.data.views.families import VIEWS
from pixelrec_train.flags import fields_of

PAGES = {
    name: (ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("onerec_think", "minionerec")
}
STEPS = {
    "prep": (PrepConfig,), "generate": (BuildSamplesConfig,), "validate": (CheckSamplesConfig,),
    "finetune": (Qwen3Config,), "evaluate": (EvaluateQwen3Config, PredictConfig), "sft": (Qwen3Config,),
}  # fmt: skip
DOCUMENTED = {  # in OneRec-Think's README_LLM_TRAINING.md, by step
    "prep": "data-dir output-dir limit",
    "generate": "data-dir output-dir seed limit-type-c limit-type-e",
    "validate": "data-path",
    "finetune": "data_path model_path output_dir learning_rate max_steps num_train_epochs batch_size "
    "gradient_accumulation_steps warmup_steps warmup_ratio logging_steps save_steps eval_steps deepspeed "
    "load_in_4bit gradient_checkpointing dtype num_workers tf32 wandb_project disable_wandb",
    "evaluate": "model_path data_path split_type batch_size num_beams metrics save_results verbose",
}
SFT = (  # of MiniOneRec's sft.sh and sft.py
    "base_model batch_size micro_batch_size num_epochs learning_rate output_dir seed cutoff_len "
    "group_by_length "
    "freeze_LLM train_from_scratch category train_file eval_file sid_index_path item_meta_path sample "
    "resume_from_checkpoint wandb_project wandb_run_name"
)
FILES = (
    "Beauty_items_onerec.parquet", "Beauty_sequences_train.parquet", "Beauty_sequences_val.parquet",
    "Beauty_sequences_test.parquet", "Beauty_conversations_train_onerec.parquet", "Beauty.pretrain.json",
    "sequential_data_processed.txt",
)  # fmt: skip
VARIABLES = ("NUM_GPUS", "DEEPSPEED_CONFIG", "DATA_DIR", "RESULTS_DIR", "LOG_DIR")


def flags_in(cell):
    return re.findall(r"`--([\w-]+)", cell)


def rows():
    """(step, [their flag], what the page says of them) of both pages."""
    for line in PAGES["onerec_think"].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0] in STEPS:
            yield cells[0], flags_in(cells[1]), cells[2]
    table = PAGES["minionerec"].split("| their flag of sft.py |")[1].split("\n## ")[0]
    for line in table.splitlines()[2:]:
        if line.startswith("| "):
            theirs, here = line.strip("|").split("|")
            yield "sft", flags_in(theirs), here.strip()


def names_of(configs):
    fields = [f for config in configs for f in fields_of(config)]
    return {name for f in fields for name in (f.name, *f.metadata["alias"])}


@pytest.mark.parametrize("step", STEPS)
def test_every_documented_flag_has_its_row(step):
    wanted = SFT if step == "sft" else DOCUMENTED[step]
    there = [flag for name, flags, _ in rows() for flag in flags if name == step]
    assert set(wanted.split()) <= set(there)


def test_what_is_the_same_is_a_flag_of_our_command_and_what_is_named_there_is_one_of_some_command():
    everywhere = names_of([config for configs in STEPS.values() for config in configs])
    checked = 0
    for step, theirs, here in rows():
        for flag in flags_in(here):
            assert flag in everywhere, (step, flag)
        if here.startswith("the same"):
            for flag in theirs:
                assert flag in names_of(STEPS[step]), (step, flag)
                checked += 1
        elif not here.startswith("none"):
            assert flags_in(here) or "without a flag" in here or "in the dataset JSON" in here, (step, here)
    assert checked > 25


@pytest.mark.parametrize("page", PAGES)
def test_every_task_and_command_that_is_named_is_there(page):
    text = PAGES[page]
    for script in re.findall(r"`?(scripts/[\w/]+\.(?:py|sh))", text):
        assert (ROOT / script).is_file(), script
    for task in re.findall(r"--(?:task|question) (\w+)", text):
        assert task in VIEWS or task in FAMILIES, task
    assert all(name in text for name in ("DATA_DIR", "RESULTS_DIR", "LOG_DIR"))


def test_their_files_and_variables_are_named_and_read():
    assert all(name in PAGES["onerec_think"] for name in FILES)
    for script in ("run_onerec_think.sh", "run_minionerec.sh"):
        text = (ROOT / "scripts" / script).read_text()
        assert all(name in text for name in VARIABLES), script
    assert all(task in PAGES["minionerec"] for task in FAMILIES["minionerec"])
    assert all(task in PAGES["onerec_think"] for task in FAMILIES["reasoning"])


def test_flags_that_the_text_names_are_flags():
    """Outside of the tables of theirs, too."""
    ours = names_of(
        [
            KeepThoughtsConfig,
            ExpandConfig,
            GenerativeConfig,
            *(c for configs in STEPS.values() for c in configs),
        ]
    )
    for name, text in PAGES.items():
        prose = "\n".join(line for line in text.splitlines() if not line.startswith("| "))
        for flag in re.findall(r"(?<![\w-])--([a-z][\w]+)", prose):
            assert flag in ours, (name, flag)
