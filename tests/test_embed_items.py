"""scripts/embed_items.py: a catalogue embedded as a job of its own, to the bit, and found by all others."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from conftest import inputs_of
from good_folder import write_checkpoint

from pixelrec_train.commands import build_semantic_ids, export, predict
from pixelrec_train.commands.embed_items import main
from pixelrec_train.config import DataFlags, TokenFlags
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation import retrieval
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.recommend import checkpoints, embedding_job, frozen_texts, item_cache
from pixelrec_train.recommend.item_embeddings import (
    of_checkpoint,
    of_encoder,
    read_encoder,
    read_ids,
    read_matrix,
)
from pixelrec_train.run import rendezvous
from pixelrec_train.run.directory import lock
from pixelrec_train.trainings import plan

PART, EVAL_TOKENS = 100, 900  # eight parts, of several blocks each


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(rendezvous, "initialise", lambda timeout_minutes: None)
    for module in (retrieval, embedding_job):
        monkeypatch.setattr(module, "ITEMS_PER_PART", PART)


@pytest.fixture
def job(config_with, tmp_path):
    """(command line, what load_towers takes) of a checkpoint."""
    return made_job(config_with(cache_dir=str(tmp_path / "cache")), tmp_path / "run/best_model")


def made_job(config, checkpoint):
    write_checkpoint(checkpoint, config, inputs_of(config))
    flags = ["--checkpoint", checkpoint, "--cache_dir", config.cache_dir, "--eval_tokens", EVAL_TOKENS]
    files = checkpoints.data_files(config, text_data=config.text_data)
    return list(map(str, flags)), (checkpoint, files, (), EVAL_TOKENS)


def left_by(cache):
    """(directory, [num_items, D] table, item ids) of the only job."""
    (directory,) = cache.glob("item_embeddings-*")
    table = np.load(directory / "item_embeddings.npy", mmap_mode="r", allow_pickle=False)
    return directory, table, read_ids(directory / "item_ids.txt")


def embedded_again(*arguments):
    raise AssertionError("the catalogue is embedded again")


def forbid_embedding(monkeypatch):
    for module in (checkpoints, frozen_texts):
        monkeypatch.setattr(module, "encode_catalogue", embedded_again)


def test_a_job_ended_anywhere_goes_on_to_the_bits_that_every_command_computes(job, tmp_path, monkeypatch):
    flags, arguments = job
    inputs, _, expected, _ = checkpoints.load_towers(*arguments)
    encode, calls = checkpoints.HLLMModel.encode_items, []

    def ended_at(block):
        def encode_or_end(model, items):
            calls.append(len(items.numbers))
            if len(calls) == block:
                raise KeyboardInterrupt
            return encode(model, items)

        return encode_or_end

    monkeypatch.setattr(checkpoints.HLLMModel, "encode_items", ended_at(9))
    with pytest.raises(SystemExit):
        main(flags)
    (parts,) = (tmp_path / "cache").glob("item_embeddings-*")
    whole = sorted(parts.glob("part-*.npy"))
    assert 1 < len(whole) < len(expected) // PART
    assert not item_cache.find(tmp_path / "cache", parts.name.split("-")[1].split(".")[0], EVAL_TOKENS)
    # What a killed process leaves: one that had no name yet. And one that the disk has lost the end of.
    (parts / "part-00007-of-00008.npy.partial").write_bytes(b"half")
    whole[-1].write_bytes(whole[-1].read_bytes()[:-5])

    calls.clear()
    monkeypatch.setattr(checkpoints.HLLMModel, "encode_items", ended_at(None))
    main(flags)
    directory, table, item_ids = left_by(tmp_path / "cache")
    assert sum(calls) == len(expected) - PART * (len(whole) - 1)
    assert table.dtype == np.float32 and np.array_equal(table, expected)
    assert item_ids == inputs.interactions.item_ids

    calls.clear()
    main(flags)  # it is there
    assert not calls
    main([*flags, "--overwrite", "--output_dir", str(tmp_path / "out")])
    assert sum(calls) == len(expected) and np.array_equal(left_by(tmp_path / "cache")[1], expected)
    assert np.array_equal(read_matrix(tmp_path / "out/item_embeddings.npy"), expected)
    assert read_ids(tmp_path / "out/item_ids.txt") == item_ids


@pytest.mark.parametrize("frozen", [False, True])
def test_who_embeds_the_same_finds_it_and_says_so(config_with, tmp_path, monkeypatch, capsys, frozen):
    config = config_with(item_emb_token_n=0, item_id_embedding=True, cache_dir=str(tmp_path / "cache"))
    config = replace(config, freeze_item_llm=frozen)
    flags, arguments = made_job(config, tmp_path / "run/best_model")
    expected = checkpoints.load_towers(*arguments)[2]
    main(flags)
    capsys.readouterr()
    forbid_embedding(monkeypatch)
    with warnings.catch_warnings(action="error"):
        _, model, catalogue, length = checkpoints.load_towers(*arguments)
        recommender = retrieval.TwoTower.of(model, catalogue, length, "exact")
        assert recommender.recommend([np.array([1, 2])], [np.array([1, 2])], 5).shape == (1, 5)
    assert np.array_equal(catalogue, expected)
    said = capsys.readouterr().out
    assert f"{len(expected):,} of width 32 are reused from {tmp_path}/cache/item_embeddings-" in said
    assert "differ" not in said
    catalogue += 1  # a copy of its own
    assert np.array_equal(of_checkpoint(*arguments).embeddings, expected)
    assert np.array_equal(checkpoints.load_towers(*arguments[:3], EVAL_TOKENS + 1)[2], expected)
    assert f"differ in rounding from what is computed here: --eval_tokens {EVAL_TOKENS} there, 901 here" in (
        capsys.readouterr().out
    )


def test_commands_reuse_it_by_whatever_door_they_come(job, tmp_path, monkeypatch, capsys):
    flags, _ = job
    main(flags)
    forbid_embedding(monkeypatch)
    ids = ["--quantiser", "rq_kmeans", "--codebook_size", "8", "--levels", "1"]
    for command, more in (
        (predict, []), (build_semantic_ids, [*ids, "--logging_dir", str(tmp_path / "logs")]),
        (export, ["--towers", "none", "--index", "flat", "--sentence_transformers", "False"]),
    ):  # fmt: skip
        command.main([*flags, "--output_dir", str(tmp_path / command.__name__), *more])
        assert " are reused from " in capsys.readouterr().out, command


def test_other_weights_texts_or_items_are_embedded_anew(job, config_with, demo, tmp_path, monkeypatch):
    flags, (checkpoint, files, *rest) = job
    main(flags)
    forbid_embedding(monkeypatch)
    rows = (demo / "items.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "texts.csv").write_text("\n".join([*rows[:-1], rows[-1] + "!"]), encoding="utf-8")
    interactions = (demo / "interactions.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "taken.csv").write_text("\n".join(interactions[:-40]), encoding="utf-8")
    (tmp_path / "new.csv").write_text("\n".join([rows[0], "new,a,b,c"]), encoding="utf-8")
    _, (other, *_) = made_job(config_with(seed=1, num_negatives=7), tmp_path / "other/best_model")
    checkpoints.load_towers(checkpoint, files, *rest)
    for changed in (
        (other, files, *rest),
        (checkpoint, files | {"text_data": str(tmp_path / "texts.csv")}, *rest),
        (checkpoint, files | {"text_keys": ("title",)}, *rest),
        (checkpoint, files | {"interaction_data": str(tmp_path / "taken.csv")}, *rest),
        (checkpoint, files, *rest, str(tmp_path / "new.csv")),
    ):
        with pytest.raises(AssertionError, match="embedded again"):
            checkpoints.load_towers(*changed)


def test_an_encoders_job_is_found_by_who_asks_the_same_encoder(demo, tmp_path, monkeypatch):
    cache = str(tmp_path / "cache")
    texts = TokenFlags(text_data=str(demo / "items.csv"), text_keys=("title",), cache_dir=cache)
    asked = str(demo / "towers/item_llm"), DataFlags(interaction_data=None), texts, False, EVAL_TOKENS
    expected = of_encoder(*asked)
    flags = {"encoder_model_dir": asked[0], "text_data": texts.text_data, "text_keys": "title"}
    flags |= {"cache_dir": cache, "eval_tokens": EVAL_TOKENS}
    main([word for name, value in flags.items() for word in (f"--{name}", str(value))])
    _, table, item_ids = left_by(tmp_path / "cache")
    assert np.array_equal(table, expected.embeddings) and item_ids == expected.item_ids
    for path in (tmp_path / "cache").glob("text_embeddings-*/*"):
        path.unlink()  # what a frozen encoder's texts were before, for the same reason
    forbid_embedding(monkeypatch)
    assert np.array_equal(of_encoder(*asked).embeddings, expected.embeddings)
    with pytest.raises(AssertionError, match="embedded again"):
        of_encoder(*asked, "cls")
    read = read_encoder(*asked[:4])
    arguments = read.encoder, read.item_text, asked[0]
    assert not frozen_texts.embed_texts(*arguments, EVAL_TOKENS, cache, to_the_bit=True)[1]
    assert not frozen_texts.embed_texts(*arguments, 400, cache)[1]
    for how in ((400, cache, False, True), (EVAL_TOKENS, cache, True, True)):  # a training wants its own bits
        with pytest.raises(AssertionError, match="embedded again"):
            frozen_texts.embed_texts(*arguments, *how)


def test_parts_of_another_way_another_job_and_a_number_that_is_none_are_refused(
    job, demo_config, tmp_path, monkeypatch
):
    flags, _ = job

    def refused(says, *more):
        with pytest.raises(InputError, match=says):
            main.__wrapped__([*flags, *more])

    encode = checkpoints.HLLMModel.encode_items
    broken = lambda model, items: encode(model, items) * (np.nan if 250 in items.numbers else 1)  # noqa: E731
    monkeypatch.setattr(checkpoints.HLLMModel, "encode_items", broken)
    refused("the embedding of item '.*' by the checkpoint .* is not finite")
    (parts,) = (tmp_path / "cache").glob("item_embeddings-*")
    assert len(list(parts.glob("part-*"))) == 2  # those before it
    refused(
        "parts that were computed in another way: --eval_tokens 900 there, 400 here", "--eval_tokens", "400"
    )
    blind = embedding_job.Parts(
        embedding_job.Job(None, inputs_of(demo_config).item_text, [], "", ""), tmp_path, 9
    )
    with pytest.raises(InputError, match="rank 0 does not find in .* what rank 0 has written there"):
        blind.check_seen()
    with lock(parts):
        refused(rf"another job \(process \d+ on .*\) embeds these items in {parts}")
    monkeypatch.setattr(checkpoints.HLLMModel, "encode_items", encode)
    main([*flags, "--eval_tokens", "400", "--overwrite"])
    directory, *_ = left_by(tmp_path / "cache")
    assert json.loads((directory / "facts.json").read_text())["way"]["--eval_tokens"] == 400


def test_the_plan_says_what_a_rank_holds_to_judge(demo_config, monkeypatch):
    inputs = inputs_of(demo_config)
    model = HLLMModel.starting(demo_config).eval()
    monkeypatch.setattr(plan, "size", "{:,} bytes".format)
    held, mapped = plan.memory_of_judging(demo_config, inputs, model, 1)
    table = retrieval.encode_catalogue(model.encode_items, inputs.item_text, 4096)
    index = retrieval.TwoTower.of(model, table, 6, "faiss").shards.index
    assert np.shares_memory(index.vectors.table.numpy(), table)  # no other fp32 of them
    assert index.faiss.index.codes.size() == table.nbytes
    numbers = sum(x.nbytes for x in (index.of, index.first, index.items, index.keys, index.ptr[1:]))
    kept = numbers + sum(block.nbytes for block in index.exact.rough.blocks if hasattr(block, "nbytes"))
    rest = f"{kept:,} bytes of 726 items per rank, {table.nbytes:,} bytes more where FAISS makes lists"
    assert f"embeddings 726 x 32: table {table.nbytes:,} bytes once per machine; index {rest}" in held
    on_three, _ = plan.memory_of_judging(demo_config, inputs, model, 3)
    assert f"index {kept // 3:,} bytes of 242 items per rank, {table.nbytes // 3:,} bytes more" in on_three
    in_softmax, _ = plan.memory_of_judging(replace(demo_config, full_softmax=True), inputs, model, 1)
    assert f"machine, {table.nbytes:,} bytes per rank for the loss over all items; index" in in_softmax
    texts, taken = inputs.item_text, inputs.interactions
    arrays = texts.tokens, texts.offsets, taken.items, taken.offsets
    assert f"caches: {sum(a.nbytes for a in arrays):,} bytes of token ids and sequences, mapped" in mapped
