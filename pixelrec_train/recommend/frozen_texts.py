"""What an encoder that no longer learns makes of every text: computed once, cached for later commands."""

from pathlib import Path

import numpy as np
import torch
import transformers

from pixelrec_train import distributed
from pixelrec_train.data.cache import cached, fingerprint, is_cached
from pixelrec_train.engine.weights import whole
from pixelrec_train.evaluation.retrieval import encode_catalogue
from pixelrec_train.files import model_files

KIND = "text_embeddings"


def embed_texts(encoder, item_text, directory, eval_tokens, cache_dir, compiled=False):
    """([num_items, D] fp32 embeddings on the CPU, whether they had to be computed). Every rank calls it.

    Args:
        encoder: TextEncoder with the weights of `directory`, in evaluation.
        compiled: whether torch.compile has changed how it computes.
    """
    mark = mark_of(encoder, item_text, directory, eval_tokens, compiled)
    # Encoding is a collective: where one machine lacks them, all compute.
    new, built = not all(distributed.gather_objects(is_cached(cache_dir, KIND, mark))), {}
    if new:
        built["table"] = encode_catalogue(lambda items: encoder(items.texts), item_text, eval_tokens)
    arrays, _ = cached(cache_dir, KIND, mark, lambda: (built, {}))
    return torch.from_numpy(np.array(arrays["table"])), new  # a copy: what is mapped cannot be written


def mark_of(encoder, item_text, directory, eval_tokens, compiled):
    """Names whatever the embeddings depend on, to the bit."""
    directory, token = Path(directory), encoder.item_token
    if token is not None:
        with whole([token]):
            token = token.float().tolist()
    weight, device = next(encoder.parameters()), distributed.device().type
    return fingerprint(
        "text embeddings 1", item_text.fingerprint, token, eval_tokens, encoder.way, compiled,
        device, torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability(),
        weight.dtype, torch.get_num_threads(), torch.__version__, transformers.__version__,
        *encoder.pooling.mark(directory),
        *(file for place in sorted({directory, model_files(directory)})
          for kind in ("config.json", "adapter_config.json", "*.safetensors", "*.py")
          for file in sorted(place.glob(kind))),
    )  # fmt: skip
