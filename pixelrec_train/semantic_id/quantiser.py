"""From embeddings to codes: preprocessing, perhaps an encoder, and one codebook per level. Kept in files.

Shapes: N items, D width of their embeddings, E width of what the codebooks quantise (D without an encoder),
L levels, K codes of a level.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import nn

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import write_json
from pixelrec_train.semantic_id.networks import build_encoder

TENSORS, FACTS = "codebooks.safetensors", "codebooks.json"
NORMALISATIONS = ("none", "l2", "zscore")
BLOCK = 1 << 24  # distances held at a time


@dataclass(frozen=True)
class Preprocessing:
    """How embeddings are brought to one scale before anything reads them."""

    kind: str  # none; l2 = each vector to length 1; zscore = each dimension to mean 0 and deviation 1
    mean: np.ndarray  # [D]; 0 unless zscore
    deviation: np.ndarray  # [D]; 1 unless zscore

    @staticmethod
    def fit(embeddings, kind):
        width = embeddings.shape[1]
        mean, deviation = np.zeros(width, np.float32), np.ones(width, np.float32)
        if kind == "zscore":
            mean = embeddings.mean(0, dtype=np.float64).astype(np.float32)
            spread = embeddings.std(0, dtype=np.float64).astype(np.float32)
            deviation = np.where(spread > 1e-6 * max(float(spread.max()), 1e-30), spread, 1).astype(
                np.float32
            )
        return Preprocessing(kind, mean, deviation)

    def __call__(self, embeddings):
        """[N, D] -> [N, D] fp32."""
        x = np.ascontiguousarray(embeddings, np.float32)
        if self.kind == "l2":
            return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return (x - self.mean) / self.deviation if self.kind == "zscore" else x


@dataclass(frozen=True)
class Quantiser:
    """What gives every embedding its codes, old items and new ones alike."""

    preprocessing: Preprocessing
    codebooks: list[np.ndarray]  # [L] of [K, E] fp32
    encoder: nn.Module | None = None  # [N, D] -> [N, E]
    network: dict | None = None  # arguments of build_encoder that made it

    @property
    def codebook_sizes(self):
        return tuple(len(codebook) for codebook in self.codebooks)

    @torch.no_grad()
    def vectors(self, embeddings):
        """[N, D] -> [N, E] fp32: what the codebooks quantise."""
        x = self.preprocessing(embeddings)
        if self.encoder is None:
            return x
        parts = torch.from_numpy(x).split(8192)
        return torch.cat([self.encoder(part) for part in parts]).float().numpy()

    def encode(self, vectors):
        """[N, E] -> [N, L] int32: at each level the code nearest to what is left, equals by number."""
        left, codes = vectors, []
        for codebook in self.codebooks:
            codes.append(nearest_codes(left, codebook))
            left = left - codebook[codes[-1]]
        return np.stack(codes, 1).astype(np.int32)

    def errors(self, vectors, codes):
        """[L] squared length of what is left after each level, as a share of the variance of the vectors."""
        variance = max(float(((vectors - vectors.mean(0)) ** 2).sum()), 1e-30)
        left, errors = vectors, []
        for level, codebook in enumerate(self.codebooks):
            left = left - codebook[codes[:, level]]
            errors.append(float((left**2).sum(dtype=np.float64)) / variance)
        return errors

    def save(self, directory, facts):
        """codebooks.safetensors and codebooks.json, each whole or not at all.

        facts: a dict JSON can hold, for whoever reads the file.
        """
        tensors = {"mean": self.preprocessing.mean, "deviation": self.preprocessing.deviation}
        tensors |= {f"codebook_{level}": c for level, c in enumerate(self.codebooks)}
        if self.encoder is not None:
            weights = self.encoder.state_dict().items()
            tensors |= {f"encoder.{k}": v.detach().cpu().float().numpy() for k, v in weights}
        path = Path(directory) / TENSORS
        partial = path.with_name(f"{TENSORS}.partial")
        partial.write_bytes(save({k: np.ascontiguousarray(v) for k, v in tensors.items()}))
        os.replace(partial, path)
        own = {"levels": len(self.codebooks), "normalise": self.preprocessing.kind, "network": self.network}
        write_json(path.with_name(FACTS), own | {"facts": facts})

    @staticmethod
    def load(directory):
        """Raises InputError when the directory holds none."""
        directory = Path(directory)
        try:
            found = json.loads((directory / FACTS).read_text(encoding="utf-8"))
            tensors = load((directory / TENSORS).read_bytes())
            codebooks = [tensors.pop(f"codebook_{level}") for level in range(found["levels"])]
            pre = Preprocessing(found["normalise"], tensors.pop("mean"), tensors.pop("deviation"))
            if pre.kind not in NORMALISATIONS or not codebooks:
                raise ValueError("no codebooks, or another preprocessing")
            encoder = None
            if found["network"] is not None:
                encoder = build_encoder(**found["network"])
                weights = {k.removeprefix("encoder."): torch.from_numpy(v) for k, v in tensors.items()}
                encoder.load_state_dict(weights)
            return Quantiser(pre, codebooks, encoder, found["network"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"--codebooks {directory} cannot be read: {first_line(error)} It must be "
                f"the --output_dir of an earlier scripts/build_semantic_ids.py."
            ) from None


@torch.no_grad()
def nearest_codes(vectors, codebook):
    """[N, E], [K, E] -> [N] number of the nearest row, equals by number."""
    table = torch.from_numpy(codebook)
    half_norm = (table.double() ** 2).sum(1).float() / 2
    rows = max(BLOCK // len(codebook), 1)
    parts = torch.from_numpy(vectors).split(rows)
    # |x - c|^2 / 2 without |x|^2 / 2, which is the same for every code.
    return torch.cat([(half_norm - part @ table.T).argmin(1) for part in parts]).numpy()
