"""--config FILE.yaml: the file's flags, the command line over them, and every way the file can be wrong."""

from dataclasses import dataclass

import pytest

from pixelrec_train.errors import InputError
from pixelrec_train.flags import POSITIVE, Flags, at_least, flag, idle, parse_args, replace


@dataclass(frozen=True, kw_only=True)
class Config(Flags):
    model_dir: str = flag("which", alias=("model_name_or_path",))
    learning_rate: float = flag("peak", 1e-4, POSITIVE)
    steps: int | None = flag("how many", None, at_least(1), alias=("max_steps",))
    bf16: bool = flag("half", True)
    text_fields: tuple[str, ...] = flag("columns", ("text",))
    checkpoint: tuple[str, ...] = flag("several", (), repeated=True)
    peft_enabled: bool = flag("adapters", False)
    pin: bool = flag("memory", False, without_effect="it always is")


FILE = """
model_name_or_path: some/dir   # theirs
data:
  text_fields: [title, "a b"]
training_args:
  learning_rate: 5e-5
  max_steps: null
  bf16: no
  pin: true
peft: {enabled: true}
checkpoint:
  - one
  - two
"""


def parse(tmp_path, text, *words):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return parse_args(Config, ["--config", str(path), *words])


def test_a_file_says_what_the_same_words_on_the_command_line_say(tmp_path):
    words = (
        "--model_dir some/dir --text_fields|title,a b|--learning_rate 5e-5 --steps None --bf16 False "
        "--pin True --peft_enabled True --checkpoint one --checkpoint two"
    )
    before, columns, after = words.split("|")
    words = [*before.split(), columns, *after.split()]
    assert vars(parse(tmp_path, FILE)) | {"_told": ()} == vars(parse_args(Config, words))


def test_the_command_line_wins_and_the_plan_says_so(tmp_path):
    config = parse(tmp_path, FILE, "--learning_rate", "1e-3", "--steps", "7", "--bf16", "False")
    assert (config.learning_rate, config.steps, config.bf16, config.model_dir) == (1e-3, 7, False, "some/dir")
    told = [
        f"config: {tmp_path}/run.yaml, 8 flags",
        "config: training_args.learning_rate of line 6 is 5e-05, but the command line says 0.001, which wins",
        "config: training_args.max_steps of line 7 is None, but the command line says 7, which wins",
        "--pin has no effect here: it always is",
    ]
    assert sorted(idle(config)) == sorted(told) == sorted(idle(replace(config, steps=8)))


def test_an_empty_file_says_nothing(tmp_path):
    assert parse(tmp_path, "# nothing\n", "--model_dir", "x").model_dir == "x"


@pytest.mark.parametrize(
    "text, says",
    [
        ("learning_rte: 1", "line 1: learning_rte is no flag of this command. Did you mean learning_rate?"),
        ("\n\npeft: {lora_rr: 8}", "line 3: peft.lora_rr is no flag of this command"),
        ("model_dir: x\nother: {a: 1}", "line 2: other is no section that is known. There are: data, "),
        ("data: {deep: {steps: 1}}", "line 1: data.deep is no section"),
        ("steps: 1\nsteps: 2", "line 2: the key 'steps' stands there twice"),
        ("steps: 1\ntraining_args: {max_steps: 2}", r"line 2: --steps 1 and --max_steps 2 are two names"),
        ("model_dir: x\nsteps: many", "line 2: argument --steps/--max_steps: invalid int value: 'many'"),
        ("model_dir: x\nbf16: 3", "line 2: argument --bf16: invalid bool value: '3'"),
        ("model_dir: x\ntext_fields: [{a: 1}]", "line 2: text_fields must be a value or a list of values"),
        ("- a\n- b", "line 1: there must be keys and values"),
        ("just words", "line 1: there must be keys and values"),
        ("a: [1", "is no YAML: "),
        ("a: !!python/object:os.system x", "a is no flag"),
        ("model_dir: x\ntrace: {api_key: abc}", "line 2: trace.api_key is a secret"),
        ("learning_rate: 1e-3", "the following arguments are required: --model_dir"),
        ("model_dir: x\nlearning_rate: -1", "--learning_rate must be a positive number, got -1.0"),
    ],
)
def test_what_is_wrong_names_the_line(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        parse(tmp_path, text)


def test_a_file_that_is_not_there_and_bytes_that_are_no_text(tmp_path):
    with pytest.raises(InputError, match="--config .*none.yaml does not exist"):
        parse_args(Config, ["--config", str(tmp_path / "none.yaml")])
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(InputError, match="is no YAML"):
        parse_args(Config, ["--config", str(tmp_path / "bytes.yaml")])
