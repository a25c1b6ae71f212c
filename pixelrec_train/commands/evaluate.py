"""Judge a checkpoint on the validation or test split, and leave its embeddings and index for serving."""

import json
from pathlib import Path
from types import SimpleNamespace

import torch

from pixelrec_train import distributed, run_directory
from pixelrec_train.commands.inputs import read_inputs
from pixelrec_train.config import EvaluateConfig, parse_args
from pixelrec_train.errors import InputError, speak_plainly
from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.index import FaissIndex, import_faiss, unit
from pixelrec_train.evaluation.report import table_rows, table_text
from pixelrec_train.evaluation.retrieval import encode_catalogue, rank_held_out
from pixelrec_train.model.backbone import check_vocabulary, save_tensors
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.runlog import say


@speak_plainly
def main(argv=None):
    config = parse_args(EvaluateConfig, argv)
    distributed.initialise(config.collective_timeout_minutes)
    evaluate(config)
    distributed.finish()


def evaluate(config):
    checkpoint = Path(config.checkpoint)
    if config.retrieval == "faiss":
        import_faiss()
    trained = read_run(checkpoint)
    data_flags = ("text_keys", "item_prompt", "max_text_length", "item_emb_token_n", "max_seq_length",
                  "one_window_per_user")  # fmt: skip
    inputs = read_inputs(
        SimpleNamespace(
            interaction_data=config.interaction_data or trained["interaction_data"],
            text_data=config.text_data or trained["text_data"],
            item_model_dir=checkpoint / "item_llm",
            cache_dir=config.cache_dir,
            **{name: trained[name] for name in data_flags},
        )
    )
    for line in inputs.describe():
        say(line)
    model = HLLMModel.load(checkpoint, trained["max_text_length"]).to(distributed.device())
    check_vocabulary(model.item_llm.backbone, inputs.item_text, checkpoint / "item_llm")

    held_out = getattr(inputs.split, config.split)
    catalogue = encode_catalogue(model.item_llm, inputs.item_text, config.eval_tokens)
    ranks, _ = rank_held_out(model, catalogue, held_out, config, trained["max_seq_length"])
    if distributed.rank() == 0:
        report(config, inputs, held_out, ranks, catalogue)
    distributed.barrier()


def read_run(checkpoint):
    """The training flags a checkpoint was made with."""
    if (checkpoint / "best_model").is_dir():
        raise InputError(f"--checkpoint {checkpoint} is a run. Did you mean {checkpoint / 'best_model'}?")
    try:
        return json.loads((checkpoint / "run.json").read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError):
        raise InputError(
            f"--checkpoint {checkpoint} holds no readable run.json. Expected a checkpoint-epoch-N or "
            f"best_model directory of a training run."
        ) from None


def report(config, inputs, held_out, ranks, catalogue):
    """Table on screen; metrics.json, item_embeddings.safetensors, item_ids.txt and index.faiss on disk."""
    rows = table_rows({"two_tower": ranks}, held_out, inputs.split.train_counts, config)
    target_counts = inputs.split.train_counts[held_out.target]
    directory = Path(config.output_dir or Path(config.checkpoint) / f"eval-{config.split}")
    directory.mkdir(parents=True, exist_ok=True)
    run_directory.write_json(
        directory / "metrics.json",
        {
            "split": config.split,
            "unit": "fraction",
            "candidates": f"{inputs.interactions.num_items} items, "
            + ("seen items left in" if config.keep_seen else "seen items removed"),
            "retrieval": config.retrieval,
            "checkpoint": config.checkpoint,
            "metrics": rows,
            "slices": metrics.slices(ranks, target_counts, held_out.end - held_out.start, config.topk),
            "commit": run_directory.commit(),
            "versions": run_directory.versions(),
        }
        | inputs.facts(),
    )
    save_tensors({"item_embeddings": torch.from_numpy(catalogue)}, directory / "item_embeddings.safetensors")
    lines = [item_id.replace("\\", "\\\\").replace("\n", "\\n") for item_id in inputs.interactions.item_ids]
    (directory / "item_ids.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if config.retrieval == "faiss":
        FaissIndex(unit(catalogue)).save(directory / "index.faiss")
    say(f"\n{table_text(rows, config.topk)}")
    say(
        f"{config.split} split; figures, slices and versions in {directory}/metrics.json; embeddings and "
        "index beside."
    )
