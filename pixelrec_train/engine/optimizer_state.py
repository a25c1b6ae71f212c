"""Master weights and AdamW moments on disk, for any number of ranks and either ZeRO stage to go on from.

Each rank writes its flat fp32 buffers as they are, and which stretch of which parameter lies where in them:

    rank-0.safetensors    "master.0", "exp_avg.0", "exp_avg_sq.0" for buffer 0, and so on;
                          metadata: "pieces", a JSON list of Piece, and "step"

DeepSpeed's own files are pickles, and can be read by as many ranks as wrote them only.
"""

import json

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pixelrec_train import distributed
from pixelrec_train.engine.weights import overwrite
from pixelrec_train.engine.zero import Piece, at_hand, forget_moments, layout, moments, size_of
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.run import watchdog

KINDS = ("master", "exp_avg", "exp_avg_sq")


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
        with at_hand(engine, number) as leaves:
            state = moments(engine, buffer)
            if "step" not in state:  # before the first
                state = forget_moments(engine, buffer, 0)
            steps.add(int(state["step"]))
            for kind, tensor in zip(KINDS, (buffer, state["exp_avg"], state["exp_avg_sq"]), strict=True):
                tensors[f"{kind}.{number}"] = tensor.detach().to("cpu", copy=leaves).contiguous()
    metadata = facts | {"pieces": json.dumps(pieces), "step": str(max(steps))}
    file = checkpoint / file_name(distributed.rank())
    file.parent.mkdir(exist_ok=True)
    save_file(tensors, file, metadata)


def size(engine):
    """Bytes of this rank's file, but for its header."""
    return sum(3 * 4 * piece.count for piece in layout(engine)[1])


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
    for number, buffer in enumerate(buffers):
        with at_hand(engine, number):
            state = forget_moments(engine, buffer, stored.step)
            for piece in (piece for piece in pieces if piece.buffer == number):
                for kind, target in zip(KINDS, (buffer, state["exp_avg"], state["exp_avg_sq"]), strict=True):
                    watchdog.at("reading the checkpoint")
                    values = stored.read(kind, piece.name, piece.first, piece.count)
                    target.data.narrow(0, piece.offset, piece.count).copy_(values)
    sizes = trained_sizes(engine.module)
    trained = ((n, p) for n, p in engine.module.named_parameters() if n in sizes)
    overwrite(trained, lambda name: stored.read("master", name, 0, sizes[name]))
    return stored.beside()


def trained_sizes(module):
    """{name: entries} of what the optimizer updates."""
    return {n: size_of(p) for n, p in module.named_parameters() if p.requires_grad}


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
