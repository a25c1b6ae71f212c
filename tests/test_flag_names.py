"""One flag, several names: those of other projects are understood, and what does nothing here says so."""

from dataclasses import dataclass, fields

import pytest

from pixelrec_train.config import OptimisationFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import Flags, at_least, flag, given, idle, parse_args, part, replace


@dataclass(frozen=True, kw_only=True)
class Theirs(OptimisationFlags):
    """A command that another project's people call by other names."""

    warmup_steps: int | None = flag("steps of warm-up", None, at_least(0), alias=("num_warmup_steps",))
    decay_steps: int | None = flag("of decay", None, at_least(1), alias=("num_training_steps", "horizon"))
    learning_rate: float = flag("peak", 2e-4)
    freeze_llm: bool = flag("stage 1", False, alias=("frozen",))
    shuffle_buffer: int | None = flag("samples", None, without_effect="the order of an epoch is exact")
    data: str = flag("what is read", "")


def parse(*words):
    return parse_args(Theirs, words)


@pytest.mark.parametrize(
    "words",
    [
        ["--warmup_steps", "5", "--decay_steps", "50"],
        ["--num_warmup_steps", "5", "--num_training_steps", "50"],
        ["--num_warmup_steps=5", "--horizon=50"],
        ["--num_warmup_steps", "5", "--warmup_steps=5", "--horizon", "50", "--num_training_steps", "50"],
        ["--num_warmup_steps", "7", "--num_warmup_steps", "5", "--decay_steps", "50"],
    ],
    ids=["own", "theirs", "equals", "several", "last"],
)
def test_every_name_of_a_flag_sets_it(words):
    config = parse(*words)
    assert (config.warmup_steps, config.decay_steps) == (5, 50)
    assert given(config) == {"warmup_steps", "decay_steps"}


def test_a_switch_works_by_either_name_and_alone():
    assert (
        parse("--frozen").freeze_llm
        and parse("--freeze_llm").freeze_llm
        and parse("--frozen=True").freeze_llm
    )
    assert not parse("--frozen", "False").freeze_llm


@pytest.mark.parametrize(
    "words, says",
    [
        (
            "--num_warmup_steps 5 --warmup_steps 6",
            "--num_warmup_steps 5 and --warmup_steps 6 are two names of one flag with two values",
        ),
        ("--horizon 5 --decay_steps 5 --horizon 6", "--decay_steps 5 and --horizon 6 are two names"),
        ("--num_warmup_step 5", "unknown argument '--num_warmup_step'. Did you mean --num_warmup_steps"),
        ("--num_training_steps 0", "--num_training_steps must be None or at least 1, got 0"),
        ("--num_training_steps few", "invalid int value: 'few'"),
        (
            "--num_warmup_steps 9 --horizon 5",
            "--num_warmup_steps 9 is above --horizon 5.*Raise --horizon, or lower --num_warmup_steps",
        ),
        ("--frozen True --freeze_llm False", "--frozen True and --freeze_llm False are two names"),
    ],
    ids=["contradiction", "third", "typo", "rule", "kind", "both", "switch"],
)
def test_what_is_wrong_is_said_by_the_names_that_were_given(words, says):
    with pytest.raises(InputError, match=says):
        parse(*words.split())


def test_help_shows_every_name_and_what_has_no_effect(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "--warmup_steps" in text and "--num_warmup_steps" in text and "--horizon" in text
    assert "samples; no effect here: the order of an epoch is exact (default: None)" in text


def test_a_flag_without_effect_says_so_once_it_is_given_and_may_differ_when_resumed():
    config = parse("--shuffle_buffer", "10000", "--data", "x")
    assert idle(config) == ["--shuffle_buffer has no effect here: the order of an epoch is exact"]
    assert idle(replace(config, seed=3)) == idle(config) and idle(parse("--data", "x")) == []
    may_differ = {f.name: f.metadata["may_differ"] for f in fields(Theirs)}
    assert may_differ["shuffle_buffer"] and not may_differ["warmup_steps"]


def test_a_command_may_give_a_groups_flag_names_and_a_default_of_its_own():
    config = parse("--num_warmup_steps", "5")
    assert config.learning_rate == 2e-4 and OptimisationFlags().learning_rate == 1e-4
    group = part(config, OptimisationFlags)
    assert (group.learning_rate, group.warmup_steps) == (2e-4, 5)
    with pytest.raises(InputError, match="unknown argument '--num_warmup_steps'"):
        parse_args(OptimisationFlags, ["--num_warmup_steps", "5"])


@dataclass(frozen=True, kw_only=True)
class WithPlace(Flags):
    place: str = flag("where", positional=True)
    steps: int = flag("how many", 3, alias=("n",))


def test_what_stands_without_a_name_may_stand_between_other_names():
    for words in (["here", "--n", "4"], ["--n", "4", "here"], ["--steps=4", "here", "--n", "4"]):
        config = parse_args(WithPlace, words)
        assert (config.place, config.steps) == ("here", 4)
