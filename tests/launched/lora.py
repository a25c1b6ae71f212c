"""Runs on every rank of test_lora.py: adapters under ZeRO-2 and ZeRO-3, in bf16, and on weights in 4 bits.

python lora.py FOLDER OUT.json FLAGS…     FOLDER/tiedTrue, tiedFalse; flags of a two-tower run; findings are
written by rank 0
"""

import importlib.util
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

import torch  # noqa: E402
from launched import equivalence, generative  # noqa: E402

from pixelrec_train import distributed  # noqa: E402
from pixelrec_train.config import TrainConfig  # noqa: E402
from pixelrec_train.config.adapters import AdapterFlags  # noqa: E402
from pixelrec_train.engine import optimizer_state  # noqa: E402
from pixelrec_train.engine.weights import cpu_state_dict  # noqa: E402
from pixelrec_train.flags import parse_args  # noqa: E402
from pixelrec_train.run import rendezvous  # noqa: E402

STEPS = 3
LORA = AdapterFlags(lora_r=4, lora_alpha=16, lora_dropout=0.0)


def trained(directory, stage, out, device=None, **more):
    """Reports of the steps, which parameters moved, and what the checkpoint holds of the model."""

    def adapters(model):
        model.train_adapters(LORA, 0, device)

    reports, engine, before = generative.train(directory, stage, STEPS, adapters=adapters, **more)
    after = cpu_state_dict(engine.module)
    engine.eval()
    batch = generative.batch_of(engine.module.model, 0)
    with torch.no_grad():
        logits = engine.module.model.logits(engine.module.model.read(batch.texts)).float()
    if distributed.rank() == 0:
        engine.module.export(out, after)
        torch.save({"ids": batch.texts.token_ids, "logits": logits}, out / "logits.pt")
    after = {name.removeprefix("model."): tensor for name, tensor in after.items()}
    moved = [name for name, tensor in after.items() if not torch.equal(before[name].to(tensor), tensor)]
    return {"steps": reports, "moved": moved}


def towers(config, stage, **changes):
    """The same of the two-tower head, by steps; what moved, and what the optimizer holds."""
    config = equivalence.stage(config, stage, **changes)
    before = dict(equivalence.prepare(config, distributed.world_size())[2].named_parameters())
    reports, engine, *_ = equivalence.train(config, STEPS)
    after = cpu_state_dict(engine.module.model)
    moved = [name for name, tensor in after.items() if not torch.equal(before[name], tensor)]
    trains = sum(p.numel() for p in before.values() if p.requires_grad)
    size = sum(distributed.gather_objects(optimizer_state.size(engine)))
    return {"steps": reports[:STEPS], "moved": moved, "trains": trains, "optimizer_bytes": size}


def main(folder, out, *flags):
    rendezvous.initialise(2)
    config = parse_args(TrainConfig, flags)
    findings, folder = {"ranks": distributed.world_size()}, Path(folder)

    def run(name, tied, stage, **more):
        findings[name] = trained(folder / f"tied{tied}", stage, folder / f"made-{name}", **more)

    run("zero3", True, 3, recompute=True)
    run("untied", False, 2)
    run("bf16", True, 3, bf16=True)
    if importlib.util.find_spec("bitsandbytes"):
        run("4bit", True, 2, device=distributed.device())
    findings["towers2"] = towers(config, 2)
    findings["towers3"] = towers(config, 3, gradient_checkpointing=True)
    if distributed.rank() == 0:
        Path(out).write_text(json.dumps(findings))
    rendezvous.finish()


if __name__ == "__main__":
    main(*[argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")])
