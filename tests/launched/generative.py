"""Runs on every rank of test_generative_launch.py: the generative model under ZeRO-2 and ZeRO-3.

python generative.py FOLDER OUT.json      FOLDER/tiedTrue, tiedFalse, baseTrue; findings are written by rank 0
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from transformers import AutoModelForCausalLM  # noqa: E402

from pixelrec_train import distributed  # noqa: E402
from pixelrec_train.batch import PackedTexts, TokenBatch  # noqa: E402
from pixelrec_train.engine import ds_config, optimizer_state  # noqa: E402
from pixelrec_train.engine.build import build_engine  # noqa: E402
from pixelrec_train.engine.log_sums import LogSums  # noqa: E402
from pixelrec_train.engine.weights import cpu_state_dict  # noqa: E402
from pixelrec_train.model.token_model import TokenModel  # noqa: E402
from pixelrec_train.run import rendezvous  # noqa: E402
from pixelrec_train.tasks.tokens import TokenTask  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TEXTS, LENGTH = 4, 9  # of the global batch
LABELS = {0: [1, 4, 8], 1: [], 2: [0, 2, 3, 4, 5, 6], 3: []}  # of 2 ranks, the second has none


class ByToken(TokenTask):
    """The same loss, put together from the loss of each label."""

    def forward(self, batch):
        losses, best = self.model.token_losses(batch)
        count = distributed.mean_tensor(torch.tensor(float(len(losses))))
        return losses.sum() / count, self.by_label(batch.labels, losses.detach(), best)


def batch_of(model, step):
    """This rank's texts of a step: r, r + ranks, …; which labels there are does not depend on the ranks."""
    generator = torch.Generator().manual_seed(step)
    high = model.num_tokens
    low = (model.vocabulary.first_new_id if model.vocabulary else high) - 20
    ids = torch.randint(low, high, (TEXTS, LENGTH), generator=generator)
    labels = torch.randint(low, high, (TEXTS, LENGTH), generator=generator)
    mine = range(distributed.rank(), TEXTS, distributed.world_size())
    places = [(text, place) for text in mine for place in LABELS[text if step % 2 else 3 - text]]
    positions = [list(mine).index(text) * LENGTH + place for text, place in places]
    wanted = [labels[text, place] for text, place in places]
    return TokenBatch(
        PackedTexts(ids[list(mine)].flatten(), torch.full((len(mine),), LENGTH)),
        torch.tensor(positions, dtype=torch.long), torch.tensor(wanted, dtype=torch.long), {},
    )  # fmt: skip


def train(
    directory, stage, steps, new_rows_only=False, recompute=False, bf16=False, kind=TokenTask, adapters=None
):  # fmt: skip
    """(report of each step, engine, weights before). adapters: puts them into the model."""
    config = SimpleNamespace(
        deepspeed=ROOT / f"configs/ds_config_zero{stage}.json", per_device_train_batch_size=1,
        gradient_accumulation_steps=1, max_grad_norm=1.0, bf16=bf16, learning_rate=1e-2, weight_decay=0.1,
        warmup_ratio=0.0, warmup_steps=None, lr_scheduler_type="cosine", min_lr=0.0, decay_steps=None, seed=0,
        adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, grad_accum_dtype=None,
    )  # fmt: skip
    model = TokenModel.load(directory, chunk=4)
    if new_rows_only:
        model.train_new_rows_only()
    if adapters:
        adapters(model)
    if recompute:
        model.enable_checkpointing()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    resolved = ds_config.resolve(config, distributed.world_size(), 32)
    engine = build_engine(kind(model, directory), config, resolved, total_steps=100)
    engine.train()
    reports = []
    for step in range(steps):
        window, batch = LogSums(), batch_of(model, step)
        loss, metrics = engine(batch)
        engine.backward(loss)
        engine.step()
        window.add(loss, metrics, batch, True)
        kept = {name: x for name, x in window.close().items() if "loss" in name or "top1" in name}
        reports.append(kept | {"grad_norm": float(engine.get_global_grad_norm())})
    return reports, engine, before


def stage_one(directory, stage):
    """What 50 steps of the new rows alone move, and what their optimizer holds."""
    reports, engine, before = train(directory, stage, 50, new_rows_only=True)
    size = sum(distributed.gather_objects(optimizer_state.size(engine)))
    after = cpu_state_dict(engine.module.model)
    return {
        "moved": [name for name, value in after.items() if not torch.equal(value, before[name])],
        "losses": [report["loss"] for report in reports],
        "optimizer_bytes": size,
        "new_values": sum(x.numel() for name, x in before.items() if name.endswith("new_rows")),
        "values": sum(x.numel() for x in before.values()),
    }


def exported_is_what_the_engine_holds(engine, directory, out):
    """Plain transformers loads the export, and its logits are the engine's."""
    model = engine.module.model
    state = cpu_state_dict(model)
    engine.eval()
    batch = batch_of(model, 0)
    with torch.no_grad():
        ours = model.logits(model.read(batch.texts))
    if distributed.rank() > 0:
        return True
    model.export(out, state, directory)
    plain = AutoModelForCausalLM.from_pretrained(out)
    rows = batch.texts.token_ids.reshape(-1, LENGTH)
    with torch.no_grad():
        theirs = plain(rows).logits.flatten(0, 1)
    known = slice(None, model.num_tokens)
    return torch.allclose(ours[:, known], theirs[:, known], atol=1e-5)


def main(folder, out):
    rendezvous.initialise(2)
    findings = {"ranks": distributed.world_size()}
    for tied in (True, False):
        directory = Path(folder) / f"tied{tied}"
        for stage in (2, 3):
            name = f"tied{tied}-zero{stage}"
            findings[name], engine, _ = train(directory, stage, 4)
            findings[f"export-{name}"] = exported_is_what_the_engine_holds(
                engine, directory, Path(f"{out}-{name}")
            )
            if tied or stage == 3:
                findings[f"one-{name}"] = stage_one(directory, stage)
        findings[f"recomputed-tied{tied}"] = train(directory, 3, 2, recompute=True)[0]
        findings[f"by-token-tied{tied}"] = train(directory, 3, 4, kind=ByToken)[0]
    findings["plain"], engine, _ = train(Path(folder) / "baseTrue", 3, 4)
    findings["export-plain"] = exported_is_what_the_engine_holds(
        engine, Path(folder) / "baseTrue", Path(f"{out}-plain")
    )
    findings["bf16"] = train(Path(folder) / "tiedTrue", 3, 2, bf16=True)[0]
    if distributed.rank() == 0:
        Path(out).write_text(json.dumps(findings))
    rendezvous.finish()


if __name__ == "__main__":
    main(*[argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")])
