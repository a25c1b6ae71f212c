"""What a run is going to do, in numbers, before it does it."""

import torch

from pixelrec_train import distributed
from pixelrec_train.config import HllmFlags
from pixelrec_train.data.protocols import when
from pixelrec_train.engine.ds_file import remarks
from pixelrec_train.engine.state import steps_per_epoch, total_steps
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.faiss_index import way_of_search
from pixelrec_train.evaluation.rough import bytes_pay
from pixelrec_train.files import model_files
from pixelrec_train.flags import as_text
from pixelrec_train.model.adapters import in_4bit
from pixelrec_train.recommend.trained import settings_of
from pixelrec_train.run import resources
from pixelrec_train.sentence_encoder import MODULES

ENDS_WITH_TEST = (
    "This training ends with a table of them: use another --split_protocol, or scripts/train_qwen3.py, which "
    "ends with its losses"
)
NUMBERS = 40  # bytes per item of an index: which items share a vector
RANDOM = "weights: drawn anew, as config.json of --model_dir describes them"


def describe_plan(config, inputs, model, resolved, world_size):
    """Lines for --dry_run and for the top of every log."""
    per_window = config.negatives_per_window(world_size)
    batch = config.per_device_train_batch_size * world_size
    pool, candidates = batch * per_window, (inputs.split.train_counts > 0).sum()
    repeats = f", drawn from {candidates:,} items, so they repeat" if pool > candidates else ""
    negatives = f"pool {pool:,} negatives ({per_window} per window{repeats})"
    if config.full_softmax:
        negatives = f"softmax over {candidates:,} items of training"
    stage = resolved["zero_optimization"]["stage"]
    per_rank = bytes_per_rank(config, inputs, model, stage, world_size)
    return [
        *inputs.describe(),
        *describe_model(config, model, inputs),
        f"batch: {batch} windows x {config.gradient_accumulation_steps} per step over {world_size} ranks; "
        f"{negatives}",
        steps_line(-(-len(inputs.split.windows) // batch), config),
        f"engine: ZeRO-{stage}, {'bf16' if config.bf16 else 'fp32'}, about {size(per_rank)} of weights, "
        f"gradients and optimizer state per rank, activations besides",
        *memory_of_judging(config, inputs, model, world_size),
        describe_ranking(config, inputs.split.valid),
        *remarks(config, distributed.uses_gpu()),
    ]


def bytes_per_rank(config, inputs, model, stage, world_size):
    """Of weights, gradients and optimizer state of two towers, and of texts that are embedded once."""
    bytes_per_weight = 2 if config.bf16 else 4
    frozen = sum(p.numel() for p in model.parameters()) - trained(model)
    if config.freeze_item_llm:
        frozen += inputs.interactions.num_items * model.item_llm.width
    per_rank = state_bytes(trained(model), bytes_per_weight, stage, world_size)
    return per_rank + frozen * bytes_per_weight / (world_size if stage >= 3 else 1)


def check_room(config, inputs, model, resolved, there):
    """Before an engine is made.

    Args:
        there: bytes that the device of a rank has; None = not known.

    Raises:
        InputError: what bytes_per_rank counts is more.
    """
    zero, ranks = resolved["zero_optimization"], distributed.world_size()
    needed = bytes_per_rank(config, inputs, model, zero["stage"], ranks)
    if there is None or needed <= there or {"offload_optimizer", "offload_param"} & zero.keys():
        return
    rows, tables, without = inputs.interactions.num_items, [], ""
    if model.item_id is not None:
        tables.append(f"{rows:,} vectors of item ids, {model.item_id.weight.shape[1]} wide")
        without = ", or leave out --item_id_embedding"
    if config.freeze_item_llm:
        tables.append(f"{rows:,} embeddings of texts, {model.item_llm.width} wide")
    raise InputError(
        f"weights, gradients and optimizer state are about {size(needed)} on each of {ranks} rank(s), "
        f"which has {size(there)}{'; among them ' * bool(tables)}{' and '.join(tables)}. Use more ranks, "
        f"ZeRO-3, by which they share it (configs/ds_config_zero3.json), or narrower towers{without}."
    )


def room():
    """Bytes of memory for one rank: of its GPU, or its part of this machine; None where it is not known."""
    device = distributed.device()
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    known = resources.memory()
    return known and known[1] / distributed.ranks_here()


def describe_model(config, model, inputs):
    def words_of(tower):
        return f" ({adapters(config)})" if tower in config.adapted_towers else ""

    if model.item_llm is not None:
        state = "frozen, embeds the catalogue once" if config.freeze_item_llm else (
            f"{trained(model.item_llm):,} trained parameters{words_of('item')}")  # fmt: skip
        yield f"item_llm: {state}, {model.item_llm.way}; text from {as_text(config.text_keys)}"
        yield from describe_reading(config, model.item_llm)
    if model.projection is not None:
        to, of = model.projection.weight.shape
        yield f"projection: a learned linear map from item embeddings of {of} to the user LLM's {to}"
    if model.item_id is not None:
        rows, width = model.item_id.weight.shape
        cold = (inputs.split.train_counts == 0).sum()
        yield f"item ids: {rows:,} vectors of {width}, none for {cold:,} cold items"
    if model.item_features is not None:
        width = model.item_features.features.shape[1]
        yield f"item features: {as_text(config.item_features)}, {width} wide, joined by a network"
    if model.offsets is not None:
        widths = [f"{name} of {sums.left.shape[1]} columns" for name, sums in model.offsets.sums.items()]
        yield f"offsets: {', '.join(widths)}"
    history = f"{config.max_seq_length - 1} items of history"
    if config.seq_length_in_evaluation != config.max_seq_length:
        history += f", {config.seq_length_in_evaluation - 1} in evaluation"
    yield f"user_llm: {trained(model.user_llm):,} trained parameters{words_of('user')}, {history}"
    if model.times is not None:
        times = inputs.interactions.times
        span = f"{when(times.min())} to {when(times.max())}"
        yield f"times: calendar of, and gap before, each item of the history; {span}"
    if config.init_from:
        trained_as = settings_of(config.init_from, "--init_from", HllmFlags)
        names = ("text_keys", "item_prompt", "max_text_length")
        pairs = [(name, getattr(trained_as, name), getattr(config, name)) for name in names]
        other = [f"--{name} {then!r}, now {now!r}" for name, then, now in pairs if then != now]
        yield f"weights: of {config.init_from}" + (f"; trained with {'; '.join(other)}" if other else "")


def describe_reading(config, item_llm):
    """How a text's tokens become its embedding, where that is not just their mean."""
    is_theirs = (model_files(config.item_dir) / MODULES).is_file()
    if item_llm.item_token is None and item_llm.pooling.encoder is not None:
        whose = "as its sentence-transformers directory says, " if is_theirs else ""
        by_hand = " (--pooling)" if config.pooling else ""
        yield f"item embedding: {whose}{item_llm.pooling.encoder}{by_hand}"
    elif is_theirs:
        yield "item embedding: of [ITEM]; --item_emb_token_n 0 follows its sentence-transformers directory"


def memory_of_judging(config, inputs, model, world_size):
    """What is held to judge, by a machine and by a rank, and what is mapped."""
    rows, width = inputs.interactions.num_items, model.user_llm.backbone.config.hidden_size
    table, more, ranked = 4 * rows * width, "", width
    if model.offsets is not None:  # vectors of theirs behind those of the towers
        rights = [sums.right for sums in model.offsets.sums.values()]
        ranked += sum(rows if right is None else right.shape[1] for right in rights)
        more = f", {size(4 * rows * ranked)} per rank with the vectors of the offsets"
    if config.full_softmax or config.offsets:
        more += f", {size(4 * rows * ranked)} per rank for the loss over all items"
    part = -(-rows // world_size)
    # On a GPU the vectors lie there; on a CPU they are made of the table, and bytes of them are kept.
    bytes_each = 4 * ranked if distributed.uses_gpu() else ranked * bytes_pay()
    yield (
        f"evaluation: item embeddings {rows:,} x {width}: table {size(table)} once per machine{more}; index "
        f"{size(part * (bytes_each + NUMBERS))} of {part:,} items per rank, {size(4 * part * ranked)} more "
        f"where FAISS makes lists"
    )
    texts, taken = inputs.item_text, inputs.interactions
    mapped = texts.tokens.nbytes + texts.offsets.nbytes + taken.items.nbytes + taken.offsets.nbytes
    yield f"caches: {size(mapped)} of token ids and sequences, mapped: once per machine"


def describe_ranking(config, valid):
    """How users are ranked for, and on what. config: RetrievalFlags, ValidUsersFlags."""
    judged = min(len(valid), config.valid_users or len(valid))
    where = "the GPU" if distributed.uses_gpu() else "the CPU"
    return (
        f"ranking: {judged:,} of {len(valid):,} validation users; places counted by exact scores on {where}, "
        f"lists by {way_of_search(config.retrieval)}"
    )


def steps_line(micro_batches, loop):
    """micro_batches: of an epoch, per rank."""
    steps, total = steps_per_epoch(micro_batches, loop), total_steps(lambda epoch: micro_batches, loop)
    if loop.max_steps:
        return f"steps: {steps:,} per epoch; --max_steps {total:,}, {total / steps:.3g} epochs"
    return f"steps: {steps:,} per epoch x {loop.num_train_epochs} epochs = {total:,}"


def trained(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def what_trains(model, config, otherwise):
    """In words, for the plan. config: has AdapterFlags; otherwise: where there are no adapters."""
    if not config.lora_r:
        return otherwise
    rows = ", and the new rows" if config.lora_train_new_rows and model.embedding.new_rows is not None else ""
    held = ", on weights in 4 bits" if any(map(in_4bit, model.parameters())) else ""
    return f"{adapters(config)}{rows}{held}"


def adapters(config):
    """In words. config: LoraFlags."""
    kind = "DoRA adapters" if config.lora_use_dora else "adapters"
    return f"{kind} of rank {config.lora_r} in {as_text(config.lora_target_modules)}"


def size(count):
    """Bytes as a person reads them: 3.2 GiB, 41 MiB, 0.2 MiB."""
    if count >= 2**30:
        return f"{count / 2**30:.1f} GiB"
    return f"{count / 2**20:.{1 if count < 10 * 2**20 else 0}f} MiB"


def state_bytes(parameters, bytes_per_weight, stage, world_size):
    """Memory of weights, gradients and optimizer state per rank, as ZeRO shards them (arXiv:1910.02054).

    The optimizer holds an fp32 master copy and two Adam moments: 12 bytes a parameter.
    """
    weights = gradients = parameters * bytes_per_weight
    optimizer = parameters * 12
    weights /= world_size if stage >= 3 else 1
    gradients /= world_size if stage >= 2 else 1
    optimizer /= world_size if stage >= 1 else 1
    return weights + gradients + optimizer
