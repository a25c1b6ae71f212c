"""docs/openonerec.md is true: OpenOneRec's keys, flags and commands are there and do what it says."""

import json
import re
from typing import NamedTuple

import numpy as np
import pytest
from conftest import ROOT
from small_samples import write_small_samples

from pixelrec_train.commands import train_qwen3
from pixelrec_train.config.samples import SamplesConfig
from pixelrec_train.data.loader import Slot
from pixelrec_train.data.samples.dataset_file import KEYS, WITHOUT_EFFECT, DatasetFile
from pixelrec_train.data.tokens.packed_samples import PackCollator, PackDataset
from pixelrec_train.errors import InputError
from pixelrec_train.flags import fields_of, parse_args
from pixelrec_train.model.vocabulary import ItemicVocabulary
from pixelrec_train.trainings import train_samples

PAGE = (ROOT / "docs/openonerec.md").read_text(encoding="utf-8")
FLAGS = {  # of OpenOneRec's parser, and a value; the last two are refused where they say anything
    "model_dir": "llm", "resume_from": "out/step4", "resume_from_tag": "global_step4",
    "resume_training_state": None, "use_fp32_weight": None, "use_fp32_reduce": None,
    "reshard_after_forward": None, "save_checkpoint_per_step": "50", "output_dir": "out",
    "model_class": "Qwen3ForCausalLM", "dataset_config": "data.json", "max_length": "32768",
    "minibatch_size": "16384", "start_optimize_embedding_index": "151669", "lr_scheduler_type": "cosine",
    "num_warmup_steps": "200", "num_training_steps": "2000", "min_lr": "1e-4", "learning_rate": "2e-4",
    "weight_decay": "0.1", "beta1": "0.9", "beta2": "0.95", "use_tie_weights": None, "freeze_llm": None,
    "enable_gradient_checkpointing": None, "logging_per_step": "5", "seed": "19260817",
    "monitor_datasource_loss": None, "monitor_datasource_cnt": None, "use_chunked_loss_computer": None,
    "enable_profiler": None, "max_grad_norm": "1.0", "clip_range": "None", "allow_random_init_params": "",
}  # fmt: skip
COMMANDS = (
    "set_env.sh", "set_env_torchrun.sh", "expand_qwen3_vocab.sh", "pretrain_stg1.sh",
    "pretrain_stg1_torchrun.sh", "pretrain_stg2.sh", "pretrain_stg2_torchrun.sh", "posttrain_sft.sh",
    "posttrain_sft_torchrun.sh", "train_qwen3.py", "convert_checkpoint_to_hf.sh", "test_hf_model.sh",
    "tensorboard", "stdout.log", "stderr.log", "dataset_config", "file_list.json",
)  # fmt: skip


def rows_under(title):
    """[(first cell, the others)] of the table under a heading of the page."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [(row[0], "|".join(row[1:])) for row in rows[1:]]


def named(cell):
    return re.findall(r"`(?:--)?([a-z_0-9]+)`", cell)


def test_every_key_has_its_row_and_says_whether_it_has_an_effect():
    rows = rows_under("The dataset JSON")
    said = {key: text for cell, text in rows for key in named(cell)}
    assert said.keys() == KEYS.keys() and sum(len(named(cell)) for cell, _ in rows) == len(KEYS)
    assert {key for key, text in said.items() if "no effect" in text} == set(WITHOUT_EFFECT)


def test_every_flag_has_its_row_and_says_whether_it_has_an_effect():
    said = {flag: text for cell, text in rows_under("The flags of train_qwen3.py") for flag in named(cell)}
    assert said.keys() == FLAGS.keys()
    without = {f.name for f in fields_of(train_qwen3.Qwen3Config) if f.metadata["without_effect"]}
    assert {flag for flag, text in said.items() if "no effect" in text} == without


def test_every_command_has_its_row_and_ours_is_there():
    rows = rows_under("Their commands, and ours")
    theirs = " ".join(cell for cell, _ in rows)
    assert [name for name in COMMANDS if name not in theirs] == []
    for name in re.findall(r"scripts/[a-z_0-9/]+\.(?:py|sh)", PAGE):
        assert (ROOT / name).is_file(), name


def test_all_flags_of_openonerec_are_read_in_one_command_line():
    words = [w for name, value in FLAGS.items() for w in (f"--{name}", value) if w is not None]
    config = parse_args(train_qwen3.Qwen3Config, words)
    known = {alias: f.name for f in fields_of(type(config)) for alias in (f.name, *f.metadata["alias"])}
    numbers = (str, int, float)
    for name, value in FLAGS.items():
        found = getattr(config, known[name])
        if value is None:
            assert found is True, name
        elif value != "None":
            assert isinstance(found, numbers) and type(found)(value) == found, name
    assert config.clip_range is None and train_qwen3.settled(config).deepspeed == train_qwen3.ZERO3


@pytest.mark.parametrize("flag", ["clip_range=0.5", "allow_random_init_params=lm_head"])
def test_what_the_page_calls_refused_is_refused(flag):
    with pytest.raises(InputError, match=f"--{flag.split('=')[0]} "):
        parse_args(train_qwen3.Qwen3Config, ["--dataset_config", "x", f"--{flag}"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_small_samples(folder)
    return folder


class Made(NamedTuple):
    """What a dataset JSON and flags become."""

    config: SamplesConfig
    packs: PackDataset
    collator: PackCollator
    itemic_ids: tuple | None
    lines: list[str]


def flags_for(folder, path):
    output = ["--output_dir", str(folder / "out"), "--cache_dir", str(folder / "cache"), "--bf16", "False"]
    return ["--dataset_config", str(path), *output]


@pytest.fixture
def made(folder, request):
    """made(key=value, …, flags=[…]): the keys of the JSON changed; of a key that is None there is none."""

    def make(flags=(), **keys):
        settings = json.loads((folder / "samples/dataset.json").read_text()) | keys
        path = folder / "samples/changed.json"
        path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
        config = parse_args(train_qwen3.Qwen3Config, [*flags_for(folder, path), *flags])
        dataset = DatasetFile.load(config.dataset_config)
        config = train_samples.settled(train_qwen3.settled(config), dataset)
        prepared, _ = train_samples.prepare(config, dataset, 1)
        lines = train_samples.plan(config, prepared, 1)
        return Made(config, prepared.packs, prepared.collator, prepared.itemic_ids, lines)

    return make


def first_packs(packs):
    """[[samples of a pack] of the first epoch]"""
    return [packs.packs(0).pieces(p)[0].tolist() for p in range(packs.samples_in(0))]


def test_max_length_is_the_room_of_a_pack_and_the_flag_wins(made):
    for keys, flags, room in (
        ({"max_length": 128}, (), 128), ({"max_length": 96}, (), 96),
        ({"max_length": 128}, ("--max_length", "96"), 96),
    ):  # fmt: skip
        found = made(flags, **keys)
        filled = np.add.reduceat(found.packs.packs(0).length, found.packs.packs(0).first[:-1])
        assert found.config.max_length == room and 80 < filled.max() <= room


def test_max_sample_length_leaves_longer_ones_out_and_counts_them(made):
    lengths = made().packs.store.lengths
    found = made(max_sample_length=40)
    lost = int((lengths > 40).sum())
    assert 0 < lost < len(lengths) and sum(map(len, first_packs(found.packs))) == len(lengths) - lost
    assert any(line.startswith("samples of more than 40 tokens, left out: ") for line in found.lines)


@pytest.mark.parametrize(
    "key, flag, field",
    [
        ("num_epochs", "num_train_epochs", "num_train_epochs"),
        ("num_workers", "dataloader_num_workers", "dataloader_num_workers"),
    ],
    ids=["num_epochs", "num_workers"],
)
def test_a_number_is_the_json_s_unless_its_flag_stands_there(made, key, flag, field):
    assert getattr(made(**{key: 3}).config, field) == 3
    assert getattr(made((f"--{flag}", "2"), **{key: 3}).config, field) == 2


def test_shuffle_seed_is_the_order_of_samples_and_1024_unless_given(made):
    packs = [first_packs(made(shuffle_seed=seed).packs) for seed in (None, 1024, 7)]
    assert packs[0] == packs[1] != packs[2]


def test_only_assistant_loss_false_teaches_every_token_but_the_first(made):
    for value in (None, True):
        store = made(only_assistant_loss=value).packs.store
        chats = store.source == store.sources.index("general")
        assert (store.num_labels[chats] < store.lengths[chats] - 3).all()
    store = made(only_assistant_loss=False).packs.store
    assert (store.num_labels == store.lengths - 1).all()


def test_add_think_pattern_puts_its_words_into_chats(made, folder):
    found = {value: made(add_think_pattern=value).packs.store for value in (None, False, True)}
    chats = found[True].source == found[True].sources.index("general")
    assert (found[True].lengths > found[False].lengths)[chats].all()
    assert (found[True].lengths == found[False].lengths)[~chats].all()
    assert (found[None].lengths == found[False].lengths).all()


def test_cut_to_pad_cuts_where_packs_are_made_greedily_and_says_so(made):
    cut, kept = (made(("--pack", "greedy"), cut_to_pad=value) for value in (True, False))
    whole = kept.packs.store.lengths
    assert (kept.packs.packs(0).length == whole[kept.packs.packs(0).sample]).all()
    assert (cut.packs.packs(0).length < whole[cut.packs.packs(0).sample]).any()
    assert any("samples are cut in the first epoch, tokens lost" in line for line in cut.lines)
    best = made(cut_to_pad=True)
    assert (best.packs.packs(0).length == whole[best.packs.packs(0).sample]).all()
    assert any("cut_to_pad: nothing to do, --pack best_fit cuts no sample" in line for line in best.lines)


def test_full_attention_reads_a_pack_as_one_text(made):
    for value in (False, True):
        found = made(full_attention=value)
        pack = found.packs[Slot(0, 0, 0)]
        texts = found.collator([pack]).texts.lengths.tolist()
        lengths = [len(piece.token_ids) for piece in pack]
        assert len(lengths) > 1 and texts == ([sum(lengths)] if value else lengths)


def test_base_model_dir_is_the_tokenizer_and_the_model_unless_named(made, folder):
    assert made().config.model_dir == str(folder / "llm")
    with pytest.raises(InputError, match="--model_dir is needed, or base_model_dir in"):
        made(base_model_dir=None)
    with pytest.raises(InputError, match=r"the tokenizer of base_model_dir .* is not that of --model_dir"):
        made(("--model_dir", str(folder / "base")), itemic_id_range=None)


def test_itemic_id_range_is_known_of_a_plain_model_and_must_agree_with_another(made, folder):
    vocabulary = ItemicVocabulary.load(folder / "llm")
    right = [vocabulary.first_new_id, vocabulary.tokenizer_length - 1]
    assert made(itemic_id_range=right).itemic_ids is None  # itemic_meta.json says it
    with pytest.raises(InputError, match="but .*itemic_meta.json says"):
        made(itemic_id_range=[right[0], right[1] - 1])
    assert made(base_model_dir=str(folder / "base"), itemic_id_range=[5, 9]).itemic_ids == (5, 9)


def test_model_class_must_be_the_directory_s(made):
    made(model_class="Qwen3ForCausalLM")
    with pytest.raises(InputError, match="model_class is LlamaForCausalLM, but .* holds a Qwen3ForCausalLM"):
        made(model_class="LlamaForCausalLM")


def test_a_name_of_another_reader_is_refused(made):
    with pytest.raises(
        InputError, match='sets name = "something"; it must be one of chat_completion_parquet'
    ):
        made(name="something")


def test_what_has_no_effect_is_said_once(made):
    flags = ("--use_fp32_weight", "--use_fp32_reduce", "--use_chunked_loss_computer")
    lines = made(flags, **dict.fromkeys(WITHOUT_EFFECT, 5)).lines
    for name in flags:
        assert sum(name in line and "no effect" in line for line in lines) == 1, name
    for key in WITHOUT_EFFECT:
        assert sum(key in re.split(r"[ ,:]+", line) and "no effect" in line for line in lines) == 1, key


def test_a_dry_run_prints_that_plan(folder, capsys):
    path = folder / "samples/dataset.json"
    train_qwen3.main.__wrapped__([*flags_for(folder, path), "--dry_run", "8", "--use_fp32_weight"])
    said = capsys.readouterr().out
    assert said.count("--use_fp32_weight has no effect here") == 1 and "over 8 ranks" in said
