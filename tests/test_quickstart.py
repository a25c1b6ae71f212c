"""scripts/quickstart.sh: from a data set to a table, every step a command whose flags are read."""

import pytest
from test_pipelines import run

SCRIPT = "quickstart.sh"
STEPS = "make_demo train_pixelrec build_semantic_ids expand_vocabulary train_generative compare".split()


def tables(folder, name, header="item_id,title,tag,description"):
    for place, line in (("dataset", "item_id,user_id,timestamp"), ("information", header)):
        (folder / place).mkdir(exist_ok=True)
        (folder / place / f"{name}.csv").write_text(line + "\n")


def test_two_tables_become_both_heads_beside_every_baseline(tmp_path):
    tables(tmp_path, "mine", "item_id,description,title")
    result, steps = run(
        SCRIPT,
        tmp_path,
        "mine",
        SEED="7",
        BASELINES="popularity,ease",
        NUM_GPUS="1",
        DEEPSPEED_CONFIG="z3.json",
    )
    assert result.returncode == 0, result.stderr
    assert [name for name, _ in steps] == STEPS
    of = dict(steps)
    for name in ("train_pixelrec", "train_generative", "compare"):
        assert (of[name].interaction_data, of[name].text_data) == ("dataset/mine.csv", "information/mine.csv")
        assert of[name].text_keys == ("title", "description") and of[name].seed == 7
    assert of["train_pixelrec"].deepspeed == of["train_generative"].deepspeed == "z3.json"
    home = "results/quickstart/mine"
    assert of["train_pixelrec"].id_only and of["train_pixelrec"].output_dir == f"{home}/two_tower"
    assert of["build_semantic_ids"].checkpoint == f"{home}/two_tower/best_model"
    assert of["build_semantic_ids"].output_dir == f"{home}/ids"
    assert (
        of["expand_vocabulary"].semantic_ids
        == of["train_generative"].semantic_ids
        == f"{home}/ids/semantic_ids.json"
    )
    assert of["expand_vocabulary"].hf_model_dir == of["make_demo"].lm_dir
    assert of["train_generative"].model_dir == of["expand_vocabulary"].output_model_dir == f"{home}/llm"
    assert of["compare"].checkpoint == (f"{home}/two_tower/best_model", f"{home}/generative/best_model")
    assert of["compare"].output_dir == home and of["compare"].baselines == ("popularity", "ease")
    assert all(config.overwrite for name, config in steps if name != "make_demo")
    assert [line[:9] for line in result.stdout.splitlines() if line.startswith("== ")] == [
        f"== {n} of 6" for n in (1, 2, 3, 4, 5, 6, 6)
    ]


def test_a_public_data_set_is_converted_first(tmp_path):
    tables(tmp_path, "movielens")
    _, steps = run(SCRIPT, tmp_path, "movielens", "ml-1m.zip", "--min_rating", "4", NUM_GPUS="1")
    assert [name for name, _ in steps] == ["convert", *STEPS]
    config = steps[0][1]
    assert (config.name, config.files, config.save_as) == ("movielens", ("ml-1m.zip",), "movielens")
    assert (config.k_core, config.max_users, config.min_rating) == (5, 10_000, 4.0)


def test_flags_of_convert_come_before_those_of_the_quickstart(tmp_path):
    tables(tmp_path, "news")
    told = (
        "mind",
        "train.zip",
        "dev.zip",
        "--history",
        "--k_core=9",
        "--max_users",
        "50",
        "--save_as",
        "news",
    )
    _, steps = run(SCRIPT, tmp_path, *told, NUM_GPUS="1")
    config = steps[0][1]
    assert (config.files, config.history) == (("train.zip", "dev.zip"), True)
    assert (config.k_core, config.max_users, config.save_as) == (9, 50, "news")
    assert dict(steps)["compare"].text_data == "information/news.csv"


def test_a_directory_of_somebodys_is_not_replaced_and_an_llm_reads_the_texts_if_named(tmp_path):
    tables(tmp_path, "mine")
    _, steps = run(
        SCRIPT, tmp_path, "mine", OUTPUT_DIR="out", ITEM_MODEL_DIR="MiniLM", NUM_GPUS="2", HOSTFILE=""
    )
    of = dict(steps)
    assert not of["train_pixelrec"].overwrite and not of["train_generative"].overwrite
    assert of["train_pixelrec"].item_model_dir == "MiniLM" and of["train_pixelrec"].freeze_item_llm
    assert [of[n].per_device_train_batch_size for n in STEPS if "train" in n or n == "compare"] == [
        64,
        16,
        64,
    ]
    assert of["compare"].output_dir == "out"


@pytest.mark.parametrize(
    "arguments, header, says",
    [
        (["none"], None, "dataset/none.csv is not there. Put your tables into dataset/ and information/"),
        (["../x"], None, "'../x' is no name of a data set"),
        (["--k_core"], None, "'--k_core' is no name of a data set"),
        (["mine"], "item_id,words", "information/mine.csv has no column title, tag or description"),
    ],
)  # fmt: skip
def test_what_is_missing_is_one_sentence_before_anything_takes_time(tmp_path, arguments, header, says):
    if header:
        tables(tmp_path, "mine", header)
    result, steps = run(SCRIPT, tmp_path, *arguments, NUM_GPUS="1")
    assert result.returncode == 2 and f"error: {says}" in result.stderr and not steps


def test_without_a_word_it_says_what_it_takes(tmp_path):
    result, steps = run(SCRIPT, tmp_path)
    assert (
        result.returncode == 0
        and "bash scripts/quickstart.sh movielens ml-1m.zip" in result.stdout
        and not steps
    )
    assert "set -euo" not in result.stdout and "#" not in result.stdout
