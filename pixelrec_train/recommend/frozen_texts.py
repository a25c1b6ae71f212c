"""What an encoder that no longer learns makes of every text: computed once, cached for later commands."""

from pathlib import Path

import torch

from pixelrec_train import distributed
from pixelrec_train.data.cache import cached, fingerprint, is_cached
from pixelrec_train.engine.weights import whole
from pixelrec_train.evaluation.retrieval import encode_catalogue
from pixelrec_train.files import model_files
from pixelrec_train.recommend import item_cache

KIND = "text_embeddings"


def embed_texts(encoder, item_text, directory, eval_tokens, cache_dir, compiled=False, to_the_bit=False):
    """([num_items, D] fp32 embeddings on the CPU, whether they had to be computed). Every rank calls it.

    Those that scripts/embed_items.py has left come first.

    Args:
        encoder: TextEncoder with the weights of `directory`, in evaluation.
        compiled: whether torch.compile has changed how it computes.
        to_the_bit: none that are rounded otherwise than here, as of a training that may be resumed.
    """
    source = source_of(encoder, item_text, directory)
    found_by = job_mark(source), eval_tokens, to_the_bit
    table = None if compiled else item_cache.find(cache_dir, *found_by)  # the job compiles nothing
    if table is not None:
        return torch.from_numpy(table), False
    mark = fingerprint(
        "text embeddings 2", *source, encoder.way, compiled, *item_cache.way_of(eval_tokens).items()
    )
    # Encoding is a collective: where one machine lacks them, all compute.
    new, built = not all(distributed.gather_objects(is_cached(cache_dir, KIND, mark))), {}
    if new:
        built["table"] = encode_catalogue(lambda items: encoder(items.texts), item_text, eval_tokens)
    arrays, _ = cached(cache_dir, KIND, mark, lambda: (built, {}), mode="c")
    return torch.from_numpy(arrays["table"]), new


def source_of(encoder, item_text, directory):
    """What the embeddings are of: parts of a fingerprint."""
    directory, token = Path(directory), encoder.item_token
    if token is not None:
        with whole([token]):
            token = token.float().tolist()
    return [
        item_text.fingerprint, token, next(encoder.parameters()).dtype, *encoder.pooling.mark(directory),
        *(file for place in sorted({directory, model_files(directory)})
          for kind in ("config.json", "adapter_config.json", "*.safetensors", "*.py")
          for file in sorted(place.glob(kind))),
    ]  # fmt: skip


def job_mark(source):
    """The name of what scripts/embed_items.py leaves of an encoder. source: of source_of."""
    return fingerprint("item embeddings of an encoder 1", *source)
