"""Train the codebooks that have an encoder, on the engine loop that trains everything else."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.engine import checkpoint, loop
from pixelrec_train.engine.ds_config import resolve_unsharded
from pixelrec_train.engine.ds_file import remarks
from pixelrec_train.engine.session import seed_everything, session
from pixelrec_train.model.backbone import read_tensors
from pixelrec_train.semantic_id.networks import typical_size
from pixelrec_train.semantic_id.quantiser import Quantiser
from pixelrec_train.semantic_id.rq_kmeans import rq_kmeans, rq_kmeans_balanced
from pixelrec_train.semantic_id.rq_vae_model import RQVAE
from pixelrec_train.tasks.rq_vae import FILE, RQVAETask, VectorLoader


def train_rq_vae(config, preprocessing, embeddings, note):
    """Train in <output_dir>/rq_vae; the Quantiser with the weights that explain most.

    Args:
        config: BuildConfig; its quantiser is rq_vae or rq_kmeans_plus.
        embeddings: [N, D], before preprocessing.
    """
    config = dataclasses.replace(config, output_dir=str(Path(config.output_dir) / "rq_vae"))
    seed_everything(config.seed)
    resolved = deepspeed_settings(config)
    vectors = preprocessing(embeddings)
    model, network = starting_model(config, vectors, note)
    variance = max(float(((vectors - vectors.mean(0)) ** 2).sum(1).mean()), 1e-30)
    task = RQVAETask(model, config.beta, variance)
    loader = VectorLoader(vectors, config.per_device_train_batch_size, config.steps_per_epoch, config.seed)
    facts = {"data": {"items": len(vectors), "width": vectors.shape[1]}}
    with session(task, loader, config, resolved, facts, remarks(config, distributed.uses_gpu())) as training:
        loop.train(training, [lambda: task.judge(vectors)])
    model.load_state_dict(read_tensors(Path(config.output_dir) / checkpoint.BEST / FILE))
    model = model.cpu().eval()
    codebooks = [book.detach().float().numpy() for book in model.codebooks]
    return Quantiser(preprocessing, codebooks, model.encoder.requires_grad_(False), network)


def starting_model(config, vectors, note):
    """(RQVAE before its first step, arguments of its encoder)

    Its codebooks are k-means of what the encoder gives, or, where that starts as the identity
    (rq_kmeans_plus), balanced k-means of the vectors themselves.
    """
    width = vectors.shape[1]
    network = {"width": width, "hidden": list(config.hidden), "code_width": config.code_width}
    quantise = rq_kmeans
    if config.quantiser == "rq_kmeans_plus":
        network |= {"code_width": width, "unit": typical_size(torch.from_numpy(vectors))}
        quantise = rq_kmeans_balanced
    untrained = RQVAE(network, [], [], 0.0)
    first = vectors
    if config.quantiser == "rq_vae":
        enough = max(config.per_device_train_batch_size, 16 * config.codebook_size)
        drawn = np.random.default_rng(config.seed).permutation(len(vectors))[:enough]
        with torch.no_grad():
            first = untrained.encoder(torch.from_numpy(vectors[drawn])).numpy()
    books, codes = quantise(
        first, config.levels, config.codebook_size, config.kmeans_iterations, config.seed, note
    )
    batch = config.per_device_train_batch_size * distributed.world_size()
    counts = [np.bincount(codes[:, level], minlength=len(book)) for level, book in enumerate(books)]
    model = RQVAE(
        network,
        [torch.from_numpy(book) for book in books],
        [torch.from_numpy(count).float() * batch / len(first) for count in counts],
        config.sinkhorn_epsilon,
    )
    for name in ("encoder", "decoder"):
        getattr(model, name).load_state_dict(getattr(untrained, name).state_dict())
    return model, network


def deepspeed_settings(config):
    """The dict for deepspeed.initialize, or an InputError."""
    return resolve_unsharded(config, distributed.world_size(), config.code_width, "codebooks are")
