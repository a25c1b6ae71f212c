"""Compare this code with numbers computed by the original HLLM (bytedance/HLLM, commit 2deed17).

python benchmarks/parity_hllm.py DIR        DIR laid out like tests/fixtures/parity_hllm; its README says how

Everything runs through the public path: CSV reading, splits, token cache, collator, model, task, evaluation.
Prints every compared quantity with its largest error, and exits with 1 when one is beyond its tolerance.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import get_cosine_schedule_with_warmup  # noqa: E402

from pixelrec_train import distributed  # noqa: E402
from pixelrec_train.config import TrainConfig  # noqa: E402
from pixelrec_train.data.inputs import read_inputs  # noqa: E402
from pixelrec_train.data.item_text import Reader  # noqa: E402
from pixelrec_train.data.protocols import leave_last_two_out  # noqa: E402
from pixelrec_train.data.windows import TwoTowerCollator  # noqa: E402
from pixelrec_train.evaluation import metrics  # noqa: E402
from pixelrec_train.evaluation.index import build_index, recommend  # noqa: E402
from pixelrec_train.evaluation.places import judge  # noqa: E402
from pixelrec_train.evaluation.retrieval import TwoTower, encode_catalogue  # noqa: E402
from pixelrec_train.losses.nce import nce_logits  # noqa: E402
from pixelrec_train.model.hllm_model import HLLMModel  # noqa: E402
from pixelrec_train.run import (
    rendezvous,  # noqa: E402
    resources,  # noqa: E402
)
from pixelrec_train.tasks.two_tower import TwoTowerTask  # noqa: E402

EMBEDDING, LOSS, GRADIENT, METRIC = 2e-5, 1e-5, 1e-4, 1e-6  # absolute, fp32; gradients also relative
GRADIENTS = {  # their key -> our parameter
    "grad_item_emb_tokens": "item_llm.item_token",
    "grad_logit_scale": "logit_scale",
    "grad_item_llm_layer0_q_proj": "item_llm.backbone.layers.0.self_attn.q_proj.weight",
    "grad_user_llm_layer1_down_proj": "user_llm.backbone.layers.1.mlp.down_proj.weight",
}


class Check(NamedTuple):
    name: str
    error: float  # largest, over all entries
    tolerance: float

    @property
    def holds(self):
        return self.error <= self.tolerance


class Case:
    """A directory of the original's numbers, and our inputs and model made from it."""

    def __init__(self, directory, cache_dir):
        self.directory = Path(directory)
        self.expected = self.json("data_expected.json")
        settings = self.expected["settings"]
        (name,) = (p.name for p in (self.directory / "dataset").glob("*.csv"))
        self.config = TrainConfig(
            interaction_data=str(self.directory / "dataset" / name),
            text_data=str(self.directory / "information" / name),
            text_keys=tuple(settings["text_keys"]),
            item_prompt=settings["item_prompt"],
            max_seq_length=settings["MAX_ITEM_LIST_LENGTH"] + 1,
            max_text_length=settings["MAX_TEXT_LENGTH"],
            item_model_dir=str(self.directory / "item_llm"),
            user_model_dir=str(self.directory / "user_llm"),
            loss_weighting="rank",
            topk=(5, 10, 20, 50),
            cache_dir=str(cache_dir),
        )
        self.inputs = read_inputs(self.config, self.config, Reader.of(self.config, self.config.item_dir, ()))

    def json(self, name):
        return json.loads((self.directory / name).read_text())

    def numbers(self, name):
        return np.load(self.directory / f"{name}.npz", allow_pickle=False)

    def task(self):
        model = HLLMModel.starting(self.config)
        extra = load_file(self.directory / "hllm_extra.safetensors")
        with torch.no_grad():
            model.item_llm.item_token.copy_(extra["item_emb_tokens"].reshape(-1))
            model.logit_scale.copy_(extra["logit_scale"])
        return TwoTowerTask(model, self.config, self.config.item_dir)

    def batch(self, name):
        """The original's batch through our collator; its padding, random items on the left, is dropped."""
        raw = self.numbers(name)
        lengths = raw["attention_mask"].sum(1) + 1
        windows = [row[-n:] - 1 for row, n in zip(raw["pos_item_ids"], lengths, strict=True)]
        collator = TwoTowerCollator(self.inputs.item_text, None, self.config.max_seq_length)
        return collator.collate(windows, raw["neg_item_ids"].ravel() - 1)


def check_data(case):
    """Ids, time order, windows, splits, item tokens: equal or not."""
    expected, data, split, text = (
        case.expected,
        case.inputs.interactions,
        case.inputs.split,
        case.inputs.item_text,
    )
    yield equal("item ids", data.item_ids, expected["id2item"][1:])  # theirs starts with a padding item
    yield equal("user ids", data.user_ids, expected["id2user"][1:])
    row = {user: r for r, user in enumerate(expected["user_order"])}
    histories = [
        (data.items[a:b] + 1).tolist() for a, b in zip(data.offsets[:-1], data.offsets[1:], strict=True)
    ]
    yield equal(
        "histories in time", histories, [expected["user_seq"][row[u + 1]] for u in range(data.num_users)]
    )
    windows = sorted((data.items[a:b] + 1).tolist() for a, b in split.windows)
    yield equal("training windows", windows, sorted(c for c in expected["train_chunks"] if len(c) > 1))
    newest = leave_last_two_out(data, case.config.max_seq_length, one_window_per_user=True)
    windows = sorted((data.items[a:b] + 1).tolist() for a, b in newest.windows)
    theirs = [
        c[-case.config.max_seq_length :] for c in expected["train_chunks_data_split_false"] if len(c) > 1
    ]
    yield equal("training windows, one per user", windows, sorted(theirs))
    for name in ("valid", "test"):
        held_out = getattr(split, name)
        theirs = [expected[name][row[u + 1]] for u in held_out.users]
        ours = [((held_out.history(e) + 1).tolist(), held_out.target[e] + 1) for e in range(len(held_out))]
        yield equal(f"{name} histories and targets", ours, [(t["history"], t["target"]) for t in theirs])
    tokens = [text.tokens[a:b].tolist() for a, b in zip(text.offsets[:-1], text.offsets[1:], strict=True)]
    yield equal("item tokens", tokens, expected["item_tokens"][1:])


def check_step(case, suffix):
    """One forward and backward pass on the original's batch."""
    expected, task, batch = (
        case.numbers(f"expected_train{suffix}"),
        case.task(),
        case.batch(f"train_batch{suffix}"),
    )
    label = f"step{suffix}: "
    left = case.numbers(f"train_batch{suffix}")["attention_mask"].astype(
        bool
    )  # same positions, padded on the left
    with torch.no_grad():
        user, target, negatives, scale = task.model(batch)
        rows = [F.normalize(x, dim=-1) for x in (user[batch.valid], target[batch.valid], negatives)]
        right = (rows[0] * rows[1]).sum(-1, keepdim=True) * scale.exp()
        logits = torch.cat([right, nce_logits(*rows, scale.exp(), case.config.nce_thres)], dim=1)
    width = negatives.shape[-1]
    yield close(label + "user hidden states", user[batch.valid], expected["user_hidden"][left], EMBEDDING)
    yield close(
        label + "target embeddings", target[batch.valid], expected["pos_item_emb"][:, 1:][left], EMBEDDING
    )
    yield close(
        label + "negative embeddings", negatives, expected["neg_item_emb"].reshape(-1, width), EMBEDDING
    )
    struck = logits[:, 1:].isinf().numpy()
    yield equal(label + "false-negative mask", struck, expected["false_negative_mask"])
    yield close(label + "logits", logits.clamp(min=-1e4), np.maximum(expected["logits"], -1e4), EMBEDDING)
    loss, figures = task(batch)
    yield close(label + "loss", loss, expected["loss"], LOSS)
    for key in (k for k in expected if k.startswith("metric_")):
        yield close(
            label + key.removeprefix("metric_"), figures[key.removeprefix("metric_")], expected[key], LOSS
        )
    loss.backward()
    yield from check_gradients(label, task.model, expected)
    ours = dict(task.model.named_parameters())
    theirs = {our_name(k): v for k, v in case.json(f"expected_train{suffix}_gradnorms.json").items()}
    norms = {k: float(ours[k].grad.norm()) for k in theirs if k in ours}
    relative = max(abs(norms[k] - theirs[k]) / max(abs(theirs[k]), 1) for k in norms)
    yield Check(f"{label}gradient norms of {len(norms)} parameters (relative)", relative, GRADIENT)
    trained = {k for k, p in ours.items() if p.grad is not None}
    yield equal(label + "parameters with a gradient", trained, set(norms))


def our_name(name):
    name = name.replace("_llm.model.", "_llm.backbone.")
    return "item_llm.item_token" if name == "item_emb_tokens" else name


def check_gradients(label, model, expected):
    ours = dict(model.named_parameters())
    for key, name in GRADIENTS.items():
        theirs = torch.from_numpy(np.asarray(expected[key])).reshape(ours[name].shape)
        excess = (ours[name].grad - theirs).abs() - GRADIENT * theirs.abs()
        yield Check(f"{label}{key}", max(float(excess.max()), 0.0), GRADIENT)
    total = torch.cat([p.grad.flatten() for p in ours.values() if p.grad is not None]).norm()
    yield close(
        label + "total gradient norm",
        total,
        expected["gradnorm_total"],
        1e-4 * float(expected["gradnorm_total"]),
    )


def check_two_ranks(case):
    """The batch on two gloo ranks, two users each: losses, and gradients averaged as DeepSpeed does."""
    with tempfile.TemporaryDirectory() as folder:
        port = resources.free_port()
        torch.multiprocessing.spawn(one_of_two_ranks, (case.directory, folder, port), nprocs=2)
        yield from (Check(*c) for c in json.loads(Path(folder, "checks.json").read_text()))


def one_of_two_ranks(rank, directory, folder, port):
    names = dict(RANK=rank, WORLD_SIZE=2, LOCAL_RANK=rank, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    os.environ.update({k: str(v) for k, v in names.items()} | {"OMP_NUM_THREADS": "1"})
    rendezvous.initialise(2)
    case = Case(directory, Path(folder) / f"cache{rank}")
    expected, task = case.numbers("expected_train_world2"), case.task()
    loss, _ = task(case.batch("train_batch"))
    loss.backward()
    for parameter in task.parameters():
        if parameter.grad is not None:
            parameter.grad = distributed.mean_tensor(parameter.grad)
    checks = [close(f"two ranks: loss of rank {rank}", loss, expected[f"loss_rank{rank}"], LOSS)]
    checks = sum(distributed.gather_objects(checks), [])
    if rank == 0:
        checks += check_gradients("two ranks: ", task.model, expected)
        Path(folder, "checks.json").write_text(json.dumps(checks))
    distributed.barrier()
    rendezvous.finish()


def check_trajectory(case):
    """Twelve steps on one batch with the original's optimizer: one AdamW group, no clipping, cosine."""
    task, batch, steps = (
        case.task(),
        case.batch("train_batch"),
        case.json("expected_trajectory.json")["steps"],
    )
    trained = [p for p in task.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0.1 * len(steps), len(steps))
    for step in steps:
        rate = schedule.get_last_lr()[0]
        loss, _ = task(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        tolerance = 1e-4 if step["step"] < 3 else 1e-2  # AdamW amplifies rounding
        yield close(f"trajectory {step['step']:2d}: loss", loss, step["loss"], tolerance)
        yield close(f"trajectory {step['step']:2d}: learning rate", rate, step["lr_used"], 1e-9)
        scale = task.model.logit_scale
        yield close(f"trajectory {step['step']:2d}: logit_scale", scale, step["logit_scale"], tolerance)


def check_evaluation(case):
    """Item embeddings and the place of every held-out target.

    Items of one text have equal scores: the original leaves their order to torch.topk, ours is by item
    number. So a place may lie anywhere among its equals; figures are compared where nobody has any.
    """
    model, k = case.task().model.eval(), max(case.config.topk)
    catalogue = encode_catalogue(model.encode_items, case.inputs.item_text, 500)
    for split in ("valid", "test"):
        theirs, held_out = case.numbers(f"expected_eval_{split}"), getattr(case.inputs.split, split)
        yield close(f"{split}: item embeddings", catalogue, theirs["item_embeddings"][1:], EMBEDDING)
        recommender = TwoTower.of(model, catalogue, case.config.max_seq_length, case.config.retrieval)
        places = judge(recommender, held_out, case.config).places
        row = [case.expected["user_order"].index(user + 1) for user in held_out.users]
        scores = theirs["scores_masked"][row]
        target = np.take_along_axis(scores, held_out.target[:, None] + 1, 1)
        best, worst = (scores > target).sum(1), (scores >= target).sum(1) - 1
        absent = ~np.isfinite(target[:, 0])  # the target is in the user's history: a miss for both
        best, worst = np.where(absent, k, best.clip(max=k)), np.where(absent, k, worst.clip(max=k))
        outside = np.maximum(best - places, places - worst).clip(min=0)
        shared = (best != worst).sum()
        yield Check(f"{split}: places of {len(places)} targets ({shared} with equals)", outside.max(), 0)
        if (best == worst).all():
            figures = metrics.figures(places, case.config.topk)
            for name, value in case.json("expected_eval_metrics.json")[split].items():
                yield close(f"{split}: {name}", figures[name], value, METRIC)


def check_retrieval(case):
    """Ranking alone, from given vectors, with long and repeating histories."""
    given, expected = case.numbers("eval_retrieval"), case.json("expected_eval_retrieval.json")["fp32_scores"]
    items, target = given["item_table"][1:], given["target"] - 1
    seen = [given["history_item"][given["history_user"] == user] - 1 for user in range(len(target))]
    for way in ("faiss", "exact"):
        lists = recommend(build_index(items, way), given["user_embedding"], seen, 200, len(items))
        figures = metrics.figures(metrics.target_places(lists, target), (10, 50, 200))
        for name, value in expected.items():
            yield close(f"retrieval ({way}): {name}", figures[name], value, METRIC)


def equal(name, ours, theirs):
    same = np.array_equal(ours, theirs) if isinstance(ours, np.ndarray) else ours == theirs
    return Check(f"{name} (0 = equal)", 0.0 if same else 1.0, 0.0)


def close(name, ours, theirs, tolerance):
    ours = torch.as_tensor(ours).detach().double()
    theirs = torch.as_tensor(np.asarray(theirs)).double().reshape(ours.shape)
    return Check(name, float((ours - theirs).abs().max()), tolerance)


def all_checks(directory, cache_dir):
    case = Case(directory, cache_dir)
    yield from check_data(case)
    yield from check_step(case, "")
    yield from check_step(case, "_num_negatives7")
    yield from check_two_ranks(case)
    yield from check_trajectory(case)
    yield from check_evaluation(case)
    yield from check_retrieval(case)


def main(directory):
    with tempfile.TemporaryDirectory() as cache_dir:
        checks = []
        for check in all_checks(directory, cache_dir):
            checks.append(check)
            verdict = "ok  " if check.holds else "FAIL"
            print(f"{verdict} {check.name:<58} {check.error:.1e}  (<= {check.tolerance:.0e})")
    failed = sum(not check.holds for check in checks)
    print(f"{len(checks) - failed} of {len(checks)} quantities agree with the original HLLM")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
