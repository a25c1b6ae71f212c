"""Master weights and AdamW moments on disk, for any number of ranks and either ZeRO stage to go on from.

Each rank writes its flat fp32 buffers as they are, and which stretch of which parameter lies where in them:

    rank-0.safetensors    "master.0", "exp_avg.0", "exp_avg_sq.0" for buffer 0, and so on;
                          metadata: "pieces", a JSON list of Piece, and "step"

DeepSpeed's own files are pickles, and can be read by as many ranks as wrote them only.
"""

import json
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pixelrec_train import distributed
from pixelrec_train.engine.weights import overwrite
from pixelrec_train.errors import InputError, first_line

KINDS = ("master", "exp_avg", "exp_avg_sq")


class Piece(NamedTuple):
    """Entries first … first + count - 1 of a flattened parameter, at `offset` of a rank's buffer `buffer`."""

    name: str
    first: int
    count: int
    buffer: int
    offset: int


def layout(engine):
    """([fp32 buffers of this rank], [Piece]): where ZeRO keeps what the optimizer updates."""
    optimizer, names = engine.optimizer, {id(p): n for n, p in engine.module.named_parameters()}
    if engine.zero_optimization_stage() == 3:
        buffers, pieces = optimizer.fp32_partitioned_groups_flat, []
        for parameter in (p for group in optimizer.fp16_groups for p in group):
            buffer, offset, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
            size = parameter.partition_numel()
            first = size * distributed.rank()
            count = max(0, min(size, parameter.ds_numel - first))  # the last rank's stretch is filled up
            pieces.append(Piece(names[id(parameter)], first, count, buffer, offset))
        return buffers, pieces
    buffers = optimizer.single_partition_of_fp32_groups
    mapped = ((n, p._hp_mapping) for n, p in engine.module.named_parameters() if hasattr(p, "_hp_mapping"))
    return buffers, [
        Piece(n, m.lp_fragment_address.start, m.lp_fragment_address.numel, m.param_group_index,
              m.hp_fragment_address.start)
        for n, m in mapped if m is not None
    ]  # fmt: skip


def file_name(rank):
    return f"optimizer/rank-{rank}.safetensors"


def save(engine, checkpoint, tensors, facts):
    """Write this rank's file; every rank calls it, and none waits for another.

    Args:
        checkpoint: the directory in which optimizer/ is made.
        tensors, facts: of this rank, {name: tensor} and {name: str}, to be kept beside.
    """
    buffers, pieces = layout(engine)
    tensors, steps = dict(tensors), {0}
    for number, buffer in enumerate(buffers):
        moments = engine.optimizer.optimizer.state[buffer]
        steps.add(int(moments["step"]))
        for kind, tensor in zip(KINDS, (buffer, moments["exp_avg"], moments["exp_avg_sq"]), strict=True):
            tensors[f"{kind}.{number}"] = tensor.detach().cpu().contiguous()
    metadata = facts | {"pieces": json.dumps(pieces), "step": str(max(steps))}
    file = checkpoint / file_name(distributed.rank())
    file.parent.mkdir(exist_ok=True)
    save_file(tensors, file, metadata)


def size(engine):
    """Bytes of this rank's file, but for its header."""
    return sum(3 * buffer.numel() * buffer.element_size() for buffer in layout(engine)[0])


def load(engine, checkpoint):
    """Put weights, moments and step back; the number of ranks and the stage may be others than at save.

    Returns:
        The tensors kept beside for this rank, none if the number of ranks has changed; the facts of every
        rank that wrote.

    Raises:
        InputError: a file is missing or holds other parameters than this model has.
    """
    stored = Stored(checkpoint)
    buffers, pieces = layout(engine)
    stored.check(engine.module)
    for buffer in buffers:
        engine.optimizer.optimizer.state[buffer] = {
            "step": torch.tensor(float(stored.step)),
            "exp_avg": torch.zeros_like(buffer), "exp_avg_sq": torch.zeros_like(buffer),
        }  # fmt: skip
    for piece in pieces:
        buffer = buffers[piece.buffer]
        moments = engine.optimizer.optimizer.state[buffer]
        for kind, target in zip(KINDS, (buffer, moments["exp_avg"], moments["exp_avg_sq"]), strict=True):
            values = stored.read(kind, piece.name, piece.first, piece.count)
            target.data.narrow(0, piece.offset, piece.count).copy_(values)
    sizes = trained_sizes(engine.module)
    trained = ((n, p) for n, p in engine.module.named_parameters() if n in sizes)
    overwrite(trained, lambda name: stored.read("master", name, 0, sizes[name]))
    return stored.beside()


def trained_sizes(module):
    """{name: entries} of what the optimizer updates; ZeRO-3 hides the size of what it has partitioned."""
    return {n: getattr(p, "ds_numel", p.numel()) for n, p in module.named_parameters() if p.requires_grad}


class Stored:
    """The files of all ranks that wrote, read a stretch at a time."""

    def __init__(self, checkpoint):
        self.checkpoint = checkpoint
        ranks = range(len(list(checkpoint.glob(file_name("*")))))
        self.pieces, self.step = {}, 0
        try:
            self.files = [safe_open(checkpoint / file_name(rank), "pt") for rank in ranks]
            for file in self.files:
                self.step = int(file.metadata()["step"])
                for piece in map(Piece._make, json.loads(file.metadata()["pieces"])):
                    self.pieces.setdefault(piece.name, []).append((file, piece))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{checkpoint}/optimizer is not of this version: {first_line(error)}") from None

    def check(self, module):
        """Raises InputError where parameters or their sizes differ from the module's."""
        wanted = trained_sizes(module)
        found = {name: sum(piece.count for _, piece in parts) for name, parts in self.pieces.items()}
        if wanted != found:
            other = sorted(n for n in wanted | found if wanted.get(n) != found.get(n))
            raise InputError(
                f"{self.checkpoint} holds another optimizer state than this model needs ({len(other)} "
                f"parameters differ, the first is {other[0]}): files are missing, or the model is another."
            )

    def beside(self):
        tensors = {}
        if len(self.files) == distributed.world_size():
            own, buffers = self.files[distributed.rank()], tuple(f"{kind}." for kind in KINDS)
            tensors = {n: own.get_tensor(n) for n in own.keys() if not n.startswith(buffers)}  # noqa: SIM118
        return tensors, [file.metadata() for file in self.files]

    def read(self, kind, name, first, count):
        """[count] entries of a parameter's master weights or moments, from entry `first` on."""
        values = torch.empty(count)
        for file, piece in self.pieces[name]:
            start, stop = max(first, piece.first), min(first + count, piece.first + piece.count)
            if start < stop:
                place = piece.offset + start - piece.first
                stretch = file.get_slice(f"{kind}.{piece.buffer}")[place : place + stop - start]
                values[start - first : stop - first] = stretch
        return values
