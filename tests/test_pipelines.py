"""scripts/run_onerec_think.sh and run_minionerec.sh: every step is a command whose flags are read."""

import importlib
import os
from pathlib import Path

import pytest
from conftest import ROOT, recording_python, run_command

from pixelrec_train.commands import build_samples
from pixelrec_train.flags import parse_args

SCRIPTS = ("run_onerec_think.sh", "run_minionerec.sh")
TABLES = {"INTERACTION_DATA": "rows.csv", "TEXT_DATA": "items.csv", "SEMANTIC_IDS": "ids.json"}
STEPS = {
    "run_onerec_think.sh": (
        "prep expand_vocabulary build_samples check_samples train_qwen3 train_qwen3 evaluate_qwen3 predict"
    ),
    "run_minionerec.sh": (
        "prep expand_vocabulary build_samples check_samples train_qwen3 evaluate_qwen3"
    ),
}  # fmt: skip


def run(script, folder, *arguments, **environment):
    """(CompletedProcess, [(command, its configuration)]) of a script whose interpreter only writes down."""
    python, commands = recording_python(folder)
    result = run_command(
        ["bash", ROOT / "scripts" / script, *arguments], cwd=folder, PYTHON=python, PIXELREC_PYTHON="keep",
        **environment,
    )  # fmt: skip
    record = folder / "record"
    return result, [parsed(command) for command in commands()] if record.exists() else []


def parsed(command):
    """What the command named in a line of words makes of the flags behind it."""
    place = next(
        n for n, word in enumerate(command) if word.endswith(".py") and os.sep + "scripts" + os.sep in word
    )
    name = Path(command[place]).stem
    module = importlib.import_module(f"pixelrec_train.commands.{name}")
    configs = [value for key, value in vars(module).items() if key.endswith("Config")]
    return name, parse_args(max(configs, key=lambda config: len(config.__mro__)), command[place + 1 :])


@pytest.mark.parametrize("script", SCRIPTS)
def test_their_files_are_taken_from_prep_to_the_table(script, tmp_path):
    environment = {
        "DATA_DIR": "theirs", "MODEL_DIR": "Qwen3-0.6B", "RESULTS_DIR": "out", "LOG_DIR": "told",
        "NUM_GPUS": "2", "DEEPSPEED_CONFIG": "zero3.json", "NUM_TRAIN_EPOCHS": "4",
        "LEARNING_RATE": "3e-4", "NUM_BEAMS": "30",
    }  # fmt: skip
    (tmp_path / "theirs").mkdir()
    result, steps = run(script, tmp_path, "--sample_generations", "2", **environment)
    assert result.returncode == 0, result.stderr
    assert "is set and not read" not in result.stderr
    assert [name for name, _ in steps] == STEPS[script].split()
    of = dict(steps)
    assert (of["prep"].data_dir, of["prep"].output_dir) == ("theirs", "out/tables")
    train = of["train_qwen3"]
    assert (train.num_train_epochs, train.learning_rate, train.deepspeed) == (4, 3e-4, "zero3.json")
    assert train.sample_generations == 2 and train.logging_dir.startswith("told/")
    assert train.best_by == "ndcg@10" and train.prompt == "chat"
    assert train.question == of["evaluate_qwen3"].question and of["evaluate_qwen3"].num_beams == 30
    assert of["build_samples"].codec == of["expand_vocabulary"].codec
    assert all(str(getattr(config, "output_dir", "out")).startswith("out") for _, config in steps)
    if script == "run_onerec_think.sh":
        first, second = (config for name, config in steps if name == "train_qwen3")
        assert first.new_rows_only and not second.new_rows_only and first.max_steps == 1000
        assert of["build_samples"].split_protocol == "last_item"
        assert (of["evaluate_qwen3"].split, of["predict"].split) == ("valid", "test")
    else:
        assert of["evaluate_qwen3"].keep_seen and of["evaluate_qwen3"].history == 10
        assert of["build_samples"].split_data == "out/tables/split.csv"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_small_model_reads_histories_before_it_is_asked(script, tmp_path):
    result, steps = run(script, tmp_path, **TABLES)
    assert result.returncode == 0, result.stderr
    names = [name for name, _ in steps]
    assert names.index("make_demo") < names.index("expand_vocabulary") < names.index("train_qwen3")
    warm_up, *stages = (config for name, config in steps if name == "train_qwen3")
    assert warm_up.dataset_config.endswith("histories/dataset.json")
    assert stages[0].model_dir.endswith("histories_read/best_model/llm")


def test_each_list_of_views_is_a_model_and_a_row(tmp_path):
    lists = "sid_history_to_sid sid_history_to_sid,title_to_sid minionerec"
    result, steps = run("run_minionerec.sh", tmp_path, VIEWS=lists, MODEL_DIR="llm", FREEZE_LLM="1", **TABLES)
    assert result.returncode == 0, result.stderr
    trained = [config for name, config in steps if name == "train_qwen3"]
    assert len(trained) == 3 and all(config.new_rows_only for config in trained)
    judged = dict(steps)["evaluate_qwen3"].model_dir
    assert [row.partition("=")[0] for row in judged] == [f"sft on {views}" for views in lists.split()]


@pytest.mark.parametrize("model", [{"MODEL_DIR": "llm"}, {}])
def test_the_category_is_told_to_views_whose_words_have_one(model, tmp_path):
    lists = "sid_history_to_sid sid_to_title,title_history_to_sid minionerec"
    result, steps = run(
        "run_minionerec.sh", tmp_path, VIEWS=lists, CATEGORY="Office_Products", **model, **TABLES
    )
    assert result.returncode == 0, result.stderr
    built = [config for name, config in steps if name == "build_samples"]
    for config in built:
        build_samples.check_used(config)  # what the command itself would refuse
    told = ["", "office products", "office products"]
    assert [config.category for config in built][-3:] == told and len(built) == (3 if model else 5)


@pytest.mark.parametrize("views", ["type_a_sid_to_title,type_c_seq_full", "type_e_copurchase_forward"])
def test_the_demos_limits_are_told_to_views_that_have_them(views, tmp_path):
    for made in ("results/demo/table.json", "results/openonerec/data/semantic_ids/semantic_ids.json"):
        (tmp_path / made).parent.mkdir(parents=True)
        (tmp_path / made).write_text("{}")
    result, steps = run("run_onerec_think.sh", tmp_path, VIEWS=views, MODEL_DIR="llm")
    assert result.returncode == 0, result.stderr
    (built,) = (config for name, config in steps if name == "build_samples")
    build_samples.check_used(built)
    assert built.limits == ({"type_c": 2000} if "type_c" in views else {"type_e": 500})


def test_a_split_of_ones_own_is_everybodys(tmp_path):
    result, steps = run("run_onerec_think.sh", tmp_path, MODEL_DIR="llm", SPLIT_DATA="split.csv", **TABLES)
    assert result.returncode == 0, result.stderr
    reading = [config for _, config in steps if hasattr(config, "split_data")]
    assert len(reading) == 6 and {(c.split_data, c.split_protocol) for c in reading} == {("split.csv", None)}


def test_adapters_are_of_stage_2(tmp_path):
    result, steps = run(
        "run_onerec_think.sh", tmp_path, MODEL_DIR="llm", LORA_R="8", LORA_ALPHA="16", **TABLES
    )
    assert result.returncode == 0 and "stage 2: adapters of rank 8" in result.stdout
    first, second = (config for name, config in steps if name == "train_qwen3")
    assert (first.lora_r, second.lora_r, second.lora_alpha) == (None, 8, 16)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "environment, says",
    [
        ({"DATA_DIR": "x", "INTERACTION_DATA": "a", "TEXT_DATA": "b"}, "both name the data"),
        ({"INTERACTION_DATA": "a", "TEXT_DATA": "b"}, "SEMANTIC_IDS is not set"),
        ({"INTERACTION_DATA": "a"}, "belong together"),
        ({"NUM_GPUS": "none"}, "must be a number of ranks"),
        ({"DATA_DIR": "x", "SEMANTIC_IDS": "ids.json"}, "DATA_DIR and SEMANTIC_IDS both name the data"),
        ({"DATA_DIR": "x", "SPLIT_DATA": "rows.csv"}, "DATA_DIR and SPLIT_DATA both name the data"),
        ({"SEMANTIC_IDS": "ids.json"}, "SEMANTIC_IDS goes with INTERACTION_DATA and TEXT_DATA"),
    ],
)
def test_a_contradiction_is_one_sentence_before_anything_runs(script, environment, says, tmp_path):
    result, steps = run(script, tmp_path, **environment)
    assert result.returncode == 2 and says in result.stderr and not steps


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_starts_nothing(script, tmp_path):
    python, commands = recording_python(tmp_path)
    result = run_command(
        ["bash", ROOT / "scripts" / script, "--help"], cwd=tmp_path, PYTHON=python, PIXELREC_PYTHON="keep"
    )
    assert result.returncode == 0 and [command[-1] for command in commands()] == ["--help"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"record", Path(python).name})


OWN = {"INTERACTION_DATA": "rows.csv", "TEXT_DATA": "items.csv"}


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_rewards_come_behind_a_model_that_is_there(algorithm, tmp_path):
    environment = OWN | {
        "MODEL_DIR": "sft/llm", "SEMANTIC_IDS": "ids.json", "ALGORITHM": algorithm, "HISTORY": "50",
        "MAX_STEPS": "7", "SPLIT_DATA": "split.csv", "RL_OUTPUT_DIR": "out", "RL_LOGGING_DIR": "told/rl",
        "NUM_GPUS": "1",
    }  # fmt: skip
    _, steps = run("run_rl.sh", tmp_path, "--reward_funcs", "rule", "--keep_seen", **environment)
    ((name, config),) = steps
    assert name == f"train_{algorithm}" and config.reward_funcs == ("rule",) and config.keep_seen
    assert (config.model_dir, config.history, config.max_steps) == ("sft/llm", 50, 7)
    assert (config.output_dir, config.split_data) == (f"out/{algorithm}", "split.csv")
    assert config.learning_rate == 1e-5 and config.text_data is None  # the command's own


def test_rewards_come_behind_an_sft_of_their_own(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/table.json").write_text("{}")
    own = OWN | {"OUTPUT_DIR": "mine", "MAX_SEQ_LENGTH": "21", "LEARNING_RATE": "1e-4", "NUM_GPUS": "1"}
    _, steps = run("run_rl.sh", tmp_path, **own)
    ((_, config),) = steps
    assert config.model_dir == "mine/stage2/best_model/llm" and config.history == 20
    assert config.semantic_ids == "mine/stage2/best_model/semantic_ids.json" and config.learning_rate == 1e-4
    assert config.output_dir == "results/rl/grpo" and not config.scale_rewards


@pytest.mark.parametrize(
    "environment, says",
    [
        ({"ALGORITHM": "dpo"}, "ALGORITHM must be grpo or ppo, got 'dpo'"),
        ({"MODEL_DIR": "m"}, "MODEL_DIR and SEMANTIC_IDS belong together"),
        ({"INTERACTION_DATA": "a.csv"}, "INTERACTION_DATA and TEXT_DATA belong together"),
        ({"NUM_GPUS": "none"}, "NUM_GPUS must be a number of ranks"),
    ],
)
def test_what_contradicts_is_a_sentence_before_anything_runs(environment, says, tmp_path):
    result, steps = run("run_rl.sh", tmp_path, **environment)
    assert result.returncode == 2 and says in result.stderr and not steps
