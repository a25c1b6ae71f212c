"""Runs on every rank of test_launch.py: the same training under ZeRO-2 and ZeRO-3.

python equivalence.py FLAGS… OUT.json      one JSON of findings, written by rank 0
"""

import dataclasses
import hashlib
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from transformers import AutoModel  # noqa: E402

from pixelrec_train import distributed  # noqa: E402
from pixelrec_train.config import TrainConfig  # noqa: E402
from pixelrec_train.data.item_text import ItemText  # noqa: E402
from pixelrec_train.engine import loop  # noqa: E402
from pixelrec_train.engine.build import build_engine  # noqa: E402
from pixelrec_train.engine.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from pixelrec_train.engine.ds_file import adopt  # noqa: E402
from pixelrec_train.engine.session import Session  # noqa: E402
from pixelrec_train.engine.state import TrainState, steps_per_epoch  # noqa: E402
from pixelrec_train.engine.weights import cpu_state_dict, load_weights  # noqa: E402
from pixelrec_train.evaluation import retrieval  # noqa: E402
from pixelrec_train.evaluation.places import judge  # noqa: E402
from pixelrec_train.evaluation.retrieval import TwoTower, encode_catalogue  # noqa: E402
from pixelrec_train.flags import parse_args  # noqa: E402
from pixelrec_train.model.hllm_model import HLLMModel  # noqa: E402
from pixelrec_train.recommend import embedding_job, frozen_texts  # noqa: E402
from pixelrec_train.recommend.embedding_job import Job  # noqa: E402
from pixelrec_train.recommend.item_cache import TABLE  # noqa: E402
from pixelrec_train.run import rendezvous  # noqa: E402
from pixelrec_train.run.signals import StopSignals  # noqa: E402
from pixelrec_train.tasks.two_tower import TwoTowerTask  # noqa: E402
from pixelrec_train.trainings.train_two_tower import (  # noqa: E402
    build_loader,
    prepare,
    save_memory_or_time,
    store_texts,
    validate,
)

ROOT = Path(__file__).resolve().parents[2]


class Recorder:
    """Stands where RunLog stands."""

    judged = None

    def __init__(self):
        self.reports = []

    def step(self, state, report, epochs):
        self.reports.append(report)

    def saved(self, *arguments):
        pass

    def note(self, text):
        pass


class FirstBatches:
    """The first micro-batches of each epoch of a loader, which is as long as before."""

    def __init__(self, loader, count):
        self.loader, self.count = loader, count

    def batches_in(self, epoch):
        return self.loader.batches_in(epoch)

    def epoch(self, epoch, skip=0):
        return itertools.islice(self.loader.epoch(epoch, skip), max(self.count - skip, 0))


def train(config, steps=12, resume=None):
    """Losses and gradient norms of the first steps, and the engine they leave.

    resume: a checkpoint to go on from.
    """
    inputs, known, model, resolved = prepare(config, distributed.world_size())
    save_memory_or_time(model, config, resolved)
    loader = build_loader(config, inputs, known)
    per_epoch = steps_per_epoch(loader.batches_in(0), config)
    epochs = -(-steps // per_epoch)
    state, log = TrainState(total_steps=per_epoch * epochs), Recorder()
    engine = build_engine(TwoTowerTask(model, config, config.item_dir), config, resolved, state.total_steps)
    if config.freeze_item_llm:
        store_texts(SimpleNamespace(engine=engine, log=log), inputs, config)
    first = FirstBatches(loader, steps * config.gradient_accumulation_steps)
    session = Session(engine, first, state, config, log, None, "ndcg@10")
    if resume:
        load_checkpoint(session, resume)
    while state.epoch < epochs:
        with StopSignals() as session.signals:
            loop.train_epoch(session, ())
        state.epoch, state.batch = state.epoch + 1, 0
    names = ("loss", "grad_norm", "nce_samples", "nce_top10_acc", "logit_scale", "item_cosine", "lr")
    return [{n: r[n] for n in names} for r in log.reports], engine, inputs, state


def stage(config, number, **changes):
    return dataclasses.replace(
        config, deepspeed=str(ROOT / f"configs/ds_config_zero{number}.json"), **changes
    )


def largest_gradient_error_of_the_gather():
    """all_gather_with_grad against the same sum on one big tensor; einsum makes the gradient "
    "non-contiguous."""
    ranks, rank = distributed.world_size(), distributed.rank()
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(ranks, 5, 4, generator=generator)
    users = torch.randn(ranks, 2, 3, 4, generator=generator)

    def loss(pool, user):
        return torch.einsum("bsh,kh->bsk", user, pool).logsumexp(-1).sum()

    expected = whole.clone().requires_grad_()
    sum(loss(expected.flatten(0, 1), user) for user in users).backward()
    mine = whole[rank].clone().requires_grad_()
    gathered = distributed.all_gather_with_grad(mine)
    assert torch.equal(gathered.detach(), whole.flatten(0, 1))
    loss(gathered, users[rank]).backward()
    return (mine.grad - expected.grad[rank]).abs().max().item()


def what_follows_a_resume(config, stage_number):
    """Reports after step 6 of a run, of the run that goes on from there, and of one on the other stage.

    Log windows of 4 steps are open at step 6, and dropout draws from the random numbers that were saved.
    """
    folder = f"{config.output_dir}-resumed{stage_number}"
    settings = dict(save_steps=3, logging_steps=4, save_total_limit=99, output_dir=folder)
    settings["per_device_train_batch_size"] = 3 * config.per_device_train_batch_size  # few steps
    settings |= dict(history_dropout=0.2, projection=True, time_features=True)
    same = stage(config, stage_number, **settings)
    claim(same)
    whole = train(same, steps=8)[0]
    again = train(same, steps=8, resume=checkpoint(same, 6))[0]
    other = stage(config, 5 - stage_number, **settings)
    elsewhere = train(other, steps=8, resume=checkpoint(same, 6))[0]
    late = len(again)
    return {"whole": whole[-late:], "again": again, "other_stage": elsewhere}


def brought(config, name):
    """Reports of a run with a DeepSpeed JSON of tests/fixtures, and of the run that goes on after step 2."""
    folder = Path(f"{config.output_dir}-{name}{'-bf16' if config.bf16 else ''}")
    config = dataclasses.replace(
        config, output_dir=str(folder), deepspeed=f"{folder}.json", save_steps=2, save_total_limit=99
    )
    if distributed.rank() == 0:
        text = (ROOT / f"tests/fixtures/deepspeed/{name}.json").read_text()
        Path(config.deepspeed).write_text(text.replace("logs/", f"{folder}/logs/"))
    distributed.barrier()
    config = dataclasses.replace(config, **adopt(config, given=()))
    claim(config)
    whole, engine, _, state = train(config, steps=4)
    again = train(config, steps=4, resume=checkpoint(config, 2))[0]
    written = sorted(p.name for p in folder.glob("logs/*/x/*"))
    exported = export_is_what_the_engine_holds(engine, config, state)
    return {"whole": whole, "again": again, "monitors": written, "exported": exported}


def claim(config):
    """A run directory with the run.json that a checkpoint copies."""
    Path(config.output_dir).mkdir(parents=True, exist_ok=True)
    if distributed.rank() == 0:
        Path(config.output_dir, "run.json").write_text(json.dumps({"config": dataclasses.asdict(config)}))
    distributed.barrier()


def checkpoint(config, step):
    return Path(config.output_dir) / f"checkpoint-step-{step}"


def uneven_rows_come_together():
    counts = [3 + 2 * r for r in range(distributed.world_size())]
    counts[-1] = 0
    start = sum(counts[: distributed.rank()])
    mine = torch.arange(start, start + counts[distributed.rank()]).float()[:, None].expand(-1, 2)
    return distributed.gather_rows(mine, counts)[:, 1].tolist() == list(range(sum(counts)))


def export_is_what_the_engine_holds(engine, config, state):
    """Every tensor plain transformers loads equals the engine's, and a loaded twin can be put back."""
    state.epoch = 1
    claim(config)
    standing = SimpleNamespace(engine=engine, state=state, loop=config, log=Recorder(), loader=None)
    save_checkpoint(standing, is_best=True)
    held = cpu_state_dict(engine.module.model)
    best, same = Path(config.output_dir) / "best_model", []
    if distributed.rank() == 0:
        for tower in ("item_llm", "user_llm"):
            loaded, report = AutoModel.from_pretrained(best / tower, output_loading_info=True)
            same.append(
                not any(report.get(k) for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
            )
            mine = {k: v for k, v in held.items() if k.startswith(f"{tower}.backbone.")}
            same.append(len(mine) == len(loaded.state_dict()))
            same += [torch.equal(mine[f"{tower}.backbone.{k}"], v) for k, v in loaded.state_dict().items()]
    twin = HLLMModel.load(best, config.max_text_length)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    load_weights(engine.module.model, twin)
    after = cpu_state_dict(engine.module.model)
    same += [torch.equal(after[name], value + 1) for name, value in held.items()]
    return all(same)


def embedded_and_ranked(config):
    """Digests of the table that embedding_job.py leaves of an untrained model, and of encode_catalogue's; and
    of places, lists and scores by each way of ranking, which every rank finds."""
    inputs, _, model, _ = prepare(stage(config, 2), distributed.world_size())
    ids = inputs.interactions.item_ids
    job = Job(model.eval().encode_items, inputs.item_text, ids, "of the test", "a model")
    with patch.object(retrieval, "ITEMS_PER_PART", 100), patch.object(embedding_job, "ITEMS_PER_PART", 100):
        directory = embedding_job.embed(job, f"{config.output_dir}-embedded", 600)
        tables = np.load(directory / TABLE), encode_catalogue(job.encode, job.item_text, 600)
    found = []
    for way in ("exact", "faiss"):
        ranks = TwoTower.of(model, tables[1], config.max_seq_length, way)
        small = dataclasses.replace(config, eval_batch_size=7)
        judged = judge(ranks, inputs.split.test, small, keep_lists=np.arange(0, len(inputs.split.test), 3))
        assert ranks.shards.end - ranks.shards.first == len(tables[1]) // distributed.world_size()
        found += [judged.places, judged.lists.items, judged.lists.scores]
    embedded, ranked = ([hashlib.sha256(x.tobytes()).hexdigest() for x in xs] for xs in (tables, found))
    assert distributed.gather_objects((embedded, ranked)) == [(embedded, ranked)] * distributed.world_size()
    return embedded, ranked


def main(out, config):
    rendezvous.initialise(2)
    findings = {"ranks": distributed.world_size()}
    findings["gather_error"] = largest_gradient_error_of_the_gather()
    findings["uneven_rows"] = uneven_rows_come_together()
    findings["embedded"], findings["ranked"] = embedded_and_ranked(config)
    for number in (2, 3):
        reports, engine, inputs, state = train(
            stage(config, number, output_dir=f"{config.output_dir}-{number}")
        )
        findings[f"zero{number}"] = reports
        if number == 3:
            findings["again"] = train(stage(config, number), steps=4)[0][:4]
            recomputed = stage(config, number, gradient_checkpointing=True)
            findings["checkpointing"] = train(recomputed, steps=4)[0][:4]
        chunked = stage(config, number, gradient_checkpointing=True, item_chunk_tokens=200, nce_chunk=10)
        findings[f"chunked{number}"] = train(chunked, steps=4)[0][:4]
        engine.eval()
        model = engine.module.model
        catalogue = encode_catalogue(model.encode_items, inputs.item_text, 300)
        recommender = TwoTower.of(model, catalogue, config.max_seq_length, config.retrieval)
        small = dataclasses.replace(config, eval_batch_size=7)
        findings[f"places{number}"] = judge(recommender, inputs.split.test, small).places.tolist()
        findings[f"validation{number}"] = validate(engine.module, inputs, config)
        findings[f"export{number}"] = export_is_what_the_engine_holds(
            engine, stage(config, number, output_dir=f"{config.output_dir}-{number}"), state
        )
        findings[f"resumed{number}"] = what_follows_a_resume(config, number)
        findings[f"ids{number}"] = train(stage(config, number, item_id_embedding=True), steps=4)[0][:4]
        frozen = stage(
            config, number, item_emb_token_n=0, freeze_item_llm=True, item_id_embedding=True,
            cache_dir=f"{config.output_dir}-cache{number}", pooling="last_token", projection=True,
        )  # fmt: skip
        findings[f"frozen{number}"] = train(frozen, steps=4)[0][:4]
        with patch.object(frozen_texts, "encode_catalogue", None):  # it is cached now
            findings[f"frozen_again{number}"] = train(frozen, steps=4)[0][:4]
    for name in ("zero0", "zero1_monitors"):
        findings[name] = brought(config, name)
    findings["zero0_bf16"] = brought(dataclasses.replace(config, bf16=True, history_dropout=0.2), "zero0")
    # Every rank encodes whatever it looks at, and nothing is exchanged: the slow twin of the shared plan.
    with patch.object(ItemText, "is_read", False):
        findings["unshared"] = train(stage(config, 2), steps=4)[0][:4]
    bf16, *_ = train(stage(config, 2, bf16=True), steps=3)
    findings["bf16"] = [r["loss"] for r in bf16[:3]]
    for number in (2, 3):
        twice = stage(config, number, bf16=True, gradient_accumulation_steps=2, grad_accum_dtype="fp32")
        found, engine, *_ = train(twice, steps=2)
        assert engine.optimizer.gradient_accumulation_dtype == torch.float32
        findings[f"fp32_gradients{number}"] = [r["loss"] for r in found[:2]]
    findings["empty_slots"], *_ = train(stage(config, 3, per_device_train_batch_size=400), steps=2)
    findings["by_rank"] = [r["loss"] for r in train(stage(config, 2, loss_weighting="rank"), steps=2)[0]][:2]
    findings["accumulated"] = {
        str(n): train(
            stage(config, n, gradient_accumulation_steps=3, per_device_train_batch_size=2), steps=4
        )[0][:4]
        for n in (2, 3)
    }
    findings["compiler_loaded"] = "torch._inductor.compile_fx" in sys.modules
    everyones = distributed.gather_objects(findings)
    if distributed.rank() == 0:
        same = ("zero2", "zero3", "places2", "places3", "validation2", "validation3")
        findings["ranks_agree"] = all(other[name] == findings[name] for other in everyones for name in same)
        findings["exports_hold"] = all(other["export2"] and other["export3"] for other in everyones)
        Path(out).write_text(json.dumps(findings))
    rendezvous.finish()


if __name__ == "__main__":
    *flags, out = sys.argv[1:]  # the launcher puts its --local_rank in front
    main(out, parse_args(TrainConfig, flags))
