"""Two-tower evaluation: encode the catalogue once, every history once, rank the whole catalogue for each.

Work is cut into blocks that do not depend on the number of ranks, and dealt to the ranks in turn; every rank
calls the model equally often, because under ZeRO-3 each call is a collective.
"""

import numpy as np
import torch
import torch.nn.functional as F

from pixelrec_train import distributed
from pixelrec_train.batch import pad_histories
from pixelrec_train.evaluation.blocks import in_blocks
from pixelrec_train.evaluation.index import build_index, recommend, unit
from pixelrec_train.evaluation.metrics import target_ranks
from pixelrec_train.run import watchdog


@torch.no_grad()
def encode_catalogue(encode, item_text, eval_tokens):
    """[num_items, D] fp32 embeddings on the CPU of every rank, as `encode` gives them (not normalised).

    Items are sorted by length and cut into blocks of about eval_tokens tokens.

    Args:
        encode: Items -> [I, D], such as HLLMModel.encode_items.
    """
    by_length = np.argsort(item_text.lengths, kind="stable")
    ends = np.cumsum(np.maximum(item_text.lengths[by_length], 1))  # items without text count one
    blocks = np.split(by_length, np.flatnonzero(np.diff(ends // eval_tokens)) + 1)
    ranks, table = distributed.world_size(), None
    for first in range(0, len(blocks), ranks):
        watchdog.at(f"encoding the catalogue: block {first} of {len(blocks)}")
        round_ = blocks[first : first + ranks]
        mine = round_[
            min(distributed.rank(), len(round_) - 1)
        ]  # without a block of its own: repeat one, for the count
        rows = encode(item_text.items(mine).to(distributed.device())).float()
        counts = [len(b) for b in round_] + [0] * (ranks - len(round_))
        rows = distributed.gather_rows(rows[: counts[distributed.rank()]], counts).cpu().numpy()
        if table is None:
            table = np.empty((len(by_length), rows.shape[1]), np.float32)
        table[np.concatenate(round_)] = rows
    return table


@torch.no_grad()
def encode_histories(user_llm, catalogue, histories, max_seq_length):
    """[b, D] fp32 user embeddings: the user LLM's last position after the newest max_seq_length - 1 items.

    Args:
        catalogue: [num_items, D] tensor on the device, in the model's precision.
        histories: b non-empty arrays of item numbers, oldest first.
    """
    index, lengths = pad_histories(histories, max_seq_length - 1)
    hidden = user_llm(catalogue[index.to(catalogue.device)])  # [b, S, D]
    rows = torch.arange(len(lengths), device=hidden.device)
    return hidden[rows, lengths.to(hidden.device) - 1].float()


def rank_held_out(model, catalogue, held_out, config, max_seq_length, loss=None):
    """Where every held-out user's target stands in the user's list.

    Args:
        catalogue: [num_items, D] from encode_catalogue.
        held_out: HeldOut; items of the whole history are left out of the list unless config.keep_seen.
        config: RankingFlags.
        loss: optional ([b, D] user embeddings, [b] targets) -> summed loss of these users.

    Returns:
        ([E] places for metrics.figures, mean loss or None), the same on every rank, for any number of ranks.
    """
    return rank_by_vectors(reader(model, catalogue, max_seq_length), catalogue, held_out, config, loss)


def rank_joined(parts, held_out, config):
    """As rank_held_out, for several two-tower models joined into one: [E] places.

    A joined vector is the concatenation of the parts' vectors, each of length 1, so that a user's score of an
    item is the mean of the parts' cosines.

    Args:
        parts: (model, catalogue, max_seq_length) of each.
    """
    if len(parts) == 1:
        model, catalogue, max_seq_length = parts[0]
        return rank_held_out(model, catalogue, held_out, config, max_seq_length)[0]
    readers = [reader(*part) for part in parts]

    def encode(histories):
        return torch.cat([F.normalize(read(histories), dim=-1) for read in readers], dim=-1)

    catalogue = np.concatenate([unit(catalogue) for _, catalogue, _ in parts], axis=1)
    return rank_by_vectors(encode, catalogue, held_out, config)[0]


def reader(model, catalogue, max_seq_length):
    """histories -> [b, D] user embeddings of this model, whose items lie on the device."""
    dtype = next(model.user_llm.parameters()).dtype
    on_device = torch.from_numpy(catalogue).to(distributed.device(), dtype)
    return lambda histories: encode_histories(model.user_llm, on_device, histories, max_seq_length)


def rank_by_vectors(encode, catalogue, held_out, config, loss=None):
    """See rank_held_out; encode: b histories -> [b, D] user embeddings."""
    index = build_index(catalogue, config.retrieval)
    k = min(max(config.topk), len(catalogue))

    def work(users):
        histories, target = [held_out.history(e) for e in users], held_out.target[users]
        embeddings = encode(histories)
        seen = [h[:0] if config.keep_seen else h for h in histories]
        lists = recommend(index, embeddings.cpu().numpy(), seen, k, len(catalogue))
        places = target_ranks(lists, target)
        # Absent is max(topk), also where the catalogue is smaller than that.
        places = np.where(places == k, max(config.topk), places)
        return places, float(loss(embeddings, target)) if loss else 0.0

    places, losses = zip(*in_blocks(len(held_out), config.eval_batch_size, work), strict=True)
    return np.concatenate(places), sum(losses) / len(held_out) if loss else None
