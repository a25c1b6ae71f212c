"""The states of a text's tokens become its embedding: what stands behind a text encoder's transformer."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelrec_train.errors import InputError
from pixelrec_train.files import model_files
from pixelrec_train.model.backbone import read_tensors, save_tensors
from pixelrec_train.sentence_encoder import NORMALISE, SentenceEncoder

WEIGHTS = "model.safetensors"
ACTIVATIONS = {
    "identity": nn.Identity(), "tanh": torch.tanh, "relu": F.relu, "gelu": F.gelu, "silu": F.silu,
    "sigmoid": torch.sigmoid,
}  # fmt: skip


class Pooling(nn.Module):
    """One vector of many, and the layers behind it."""

    def __init__(self, width: int, encoder: SentenceEncoder | None = None, dtype=torch.float32):
        """encoder: None = the mean, and nothing behind it; width: of the tokens' states."""
        super().__init__()
        self.encoder = encoder
        layers = encoder.layers if encoder else ()
        self.layers = nn.ModuleList(Normalise() if layer == NORMALISE else Linear(layer) for layer in layers)
        self.to(dtype)
        self.width_in = self.width = width
        for layer in layers:
            if layer != NORMALISE:
                if layer.width_in != self.width:
                    raise InputError(
                        f"{layer} of {layer.folder} follows on vectors of width {self.width}. Are all files "
                        f"of the item LLM's directory of the same model?"
                    )
                self.width = layer.width_out

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """[T, D] rows of texts laid end to end, [I] their lengths -> [I, width]."""
        pooled = pool(self.encoder.pooling if self.encoder else "mean", hidden, lengths)
        for layer in self.layers:
            pooled = layer(pooled)
        return pooled

    def load(self, directory) -> "Pooling":
        """Itself, with the weights of a model directory's Dense layers."""
        for _, layer, folder in self.linear(self.folders()):
            found = read_tensors(path := model_files(directory) / folder / WEIGHTS)
            wanted = {name: tensor.shape for name, tensor in layer.state_dict().items()}
            if {name: tensor.shape for name, tensor in found.items()} != wanted:
                raise InputError(f"{path} holds other weights than the config.json beside it describes.")
            layer.load_state_dict(found)
        return self

    def export(self, directory, tensors):
        """Write it into a model directory; tensors: its state dict, by the names it has here."""
        if self.encoder is None:
            return
        self.encoder.write(directory, self.width_in)
        for number, _, folder in self.linear(self.encoder.folders):
            prefix = f"layers.{number}."
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            save_tensors(own, Path(directory) / folder / WEIGHTS)

    def mark(self, directory):
        """What names it, to the bit, for caches: parts of a fingerprint. directory: where its weights lie."""
        if self.encoder is None:
            return []
        dense = [model_files(directory) / folder / WEIGHTS for _, _, folder in self.linear(self.folders())]
        return [self.encoder.pooling, self.encoder.layers, *dense]

    def folders(self):
        """Where its layers lie in the directory that it is of; None for one without weights."""
        return [getattr(layer, "folder", None) for layer in self.encoder.layers] if self.encoder else []

    def linear(self, folders):
        """[(number, layer, its folder)] of those that have weights; folders: of all layers."""
        layers = enumerate(zip(self.layers, folders, strict=True))
        return [(n, layer, folder) for n, (layer, folder) in layers if isinstance(layer, Linear)]


class Linear(nn.Module):
    """A Dense layer of sentence-transformers."""

    def __init__(self, dense):
        super().__init__()
        self.linear = nn.Linear(dense.width_in, dense.width_out, dense.bias)
        self.activation = ACTIVATIONS[dense.activation]

    def forward(self, x):
        return self.activation(self.linear(x))


class Normalise(nn.Module):
    def forward(self, x):
        return F.normalize(x, dim=-1)


def pool(mode: str, hidden: Tensor, lengths: Tensor) -> Tensor:
    """[T, D] rows of texts with these lengths, on the same device -> [I, D]; sums in fp32. mode: a key of
    POOLINGS."""
    ends = lengths.cumsum(0)
    if mode in ("cls", "last_token"):
        return hidden[ends - 1 if mode == "last_token" else ends - lengths]
    text = torch.arange(len(lengths), device=hidden.device)
    text = torch.repeat_interleave(text, lengths, output_size=len(hidden))  # [T]
    out = torch.zeros(len(lengths), hidden.shape[1], device=hidden.device)
    if mode == "max":
        lowest = out.fill_(-torch.inf)
        where = text.unsqueeze(1).expand_as(hidden)
        return lowest.scatter_reduce(0, where, hidden.float(), "amax").to(hidden.dtype)
    rows, divisor = hidden.float(), lengths
    if mode == "weighted_mean":  # a token's weight is its place in the text, from 1
        place = 1 + torch.arange(len(text), device=hidden.device) - (ends - lengths)[text]
        rows, divisor = rows * place.unsqueeze(1), lengths * (lengths + 1) / 2
    elif mode == "sqrt_mean":
        divisor = lengths.sqrt()
    return (out.index_add(0, text, rows) / divisor.unsqueeze(1)).to(hidden.dtype)
