"""Two-tower evaluation: encode the catalogue once, every history once, rank the whole catalogue for each.

Work is cut into blocks that do not depend on the number of ranks, and dealt to the ranks in turn; every rank
calls the model equally often, because under ZeRO-3 each call is a collective.
"""

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from pixelrec_train import distributed
from pixelrec_train.batch import pad_histories
from pixelrec_train.clock import padded_clock
from pixelrec_train.engine.weights import whole
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.index import unit
from pixelrec_train.evaluation.recommender import Found, Recommender
from pixelrec_train.evaluation.shards import Shards
from pixelrec_train.evaluation.shared_table import shared_table
from pixelrec_train.losses.nce import MAX_LOGIT_SCALE, hold
from pixelrec_train.run import rehearsal, resources, watchdog
from pixelrec_train.run.progress import progress
from pixelrec_train.run.signals import go_on

ITEMS_PER_PART = 8192


@torch.no_grad()
def encode_catalogue(encode, item_text, eval_tokens):
    """[num_items, D] fp32 embeddings, as `encode` gives them (not normalised): one table on the CPU for all
    ranks of a machine.

    Args:
        encode: Items -> [I, D], such as HLLMModel.encode_items.
    """
    lengths = item_text.lengths
    parts = range(-(-len(lengths) // ITEMS_PER_PART))
    blocks = [block for part in parts for block in blocks_of(lengths, part, eval_tokens)]
    ranks, table = distributed.world_size(), None
    if not distributed.uses_gpu():
        resources.keep_freed_memory()
    with progress("embed the catalogue", len(lengths), "items") as tell:
        for first in range(0, len(blocks), ranks):
            watchdog.at(f"encoding the catalogue: block {first} of {len(blocks)}")
            go_on()
            round_ = blocks[first : first + ranks]
            # Without a block of its own: repeat one, for the count.
            mine = round_[min(distributed.rank(), len(round_) - 1)]
            rows = encode(item_text.items(mine).to(distributed.device())).float()
            counts = [len(b) for b in round_] + [0] * (ranks - len(round_))
            rows = distributed.gather_rows(rows[: counts[distributed.rank()]], counts)
            if table is None:
                table, is_writer = shared_table(len(lengths), rows.shape[1])
            if is_writer:
                table[np.concatenate(round_)] = rows.cpu().numpy()
            tell(sum(counts))
            if rehearsal.going_on:  # what comes next gets a table of this size, and no more texts are read
                if is_writer:
                    np.random.default_rng(0).standard_normal(dtype=np.float32, out=table)
                break
    distributed.barrier()  # all of it is written
    return table


def blocks_of(lengths, part, eval_tokens):
    """[I] item numbers of each block of a part: items of like lengths, about eval_tokens tokens in all.

    Part p is items p * ITEMS_PER_PART and on. What a block holds decides how its embeddings are rounded, so a
    part that a rank encodes alone (recommend/embedding_job.py) has the blocks that it has here.

    Args:
        lengths: [num_items] tokens.
    """
    first = part * ITEMS_PER_PART
    lengths = lengths[first : first + ITEMS_PER_PART]
    by_length = np.argsort(lengths, kind="stable")
    ends = np.cumsum(np.maximum(lengths[by_length], 1))  # items without text count one
    return np.split(first + by_length, np.flatnonzero(np.diff(ends // eval_tokens)) + 1)


@torch.no_grad()
def encode_histories(user_llm, catalogue, histories, max_seq_length, time_embedding=None, times=None):
    """[b, D] fp32 user embeddings: the user LLM's last position after the newest max_seq_length - 1 items.

    Args:
        catalogue: [num_items, D] tensor on the CPU; rows go to the device in the model's precision.
        histories: b non-empty arrays of item numbers, oldest first.
        time_embedding, times: TimeEmbedding, and when the items of the histories were taken; or None.
    """
    index, lengths = pad_histories(histories, max_seq_length - 1)
    embeddings = distributed.sent(catalogue[index].to(next(user_llm.parameters()).dtype))
    if time_embedding is not None:
        if times is None:
            raise InputError(
                "the model reads when items were taken (--time_features), but these histories come without "
                "times. Give them, or name users of data that has them."
            )
        clock = torch.from_numpy(padded_clock(times, max_seq_length - 1))
        embeddings = embeddings + time_embedding(distributed.sent(clock))
    hidden = user_llm(embeddings)  # [b, S, D]
    rows = torch.arange(len(lengths), device=hidden.device)
    return hidden[rows, distributed.sent(lengths) - 1].float()


def on_cpu(users):
    return users.float().cpu().numpy()


class TwoTower(Recommender):
    """The items whose vectors are nearest to the user's: by cosine, or by inner product."""

    def __init__(self, encode, catalogue, retrieval, loss=None, cosines=True):
        """
        Args:
            encode: b histories, b arrays of their times or None -> [b, D] user embeddings.
            catalogue: [num_items, D] from encode_catalogue.
            retrieval: of RetrievalFlags; how lists are found.
            loss: ([b, D] user embeddings, [b] targets, what is left out) -> summed loss of these users, for
                judge alone.
            cosines: False = lengths of vectors count, as in a blend's.
        """
        self.encode, self.catalogue, self.retrieval, self.loss = encode, catalogue, retrieval, loss
        self.cosines = cosines

    @staticmethod
    def of(model, catalogue, max_seq_length, retrieval):
        """Of an HLLMModel, which reads the newest max_seq_length - 1 items of a history."""
        table = torch.from_numpy(catalogue)

        def encode(histories, times=None):
            return encode_histories(model.user_llm, table, histories, max_seq_length, model.times, times)

        if model.offsets is None:
            return TwoTower(encode, catalogue, retrieval)
        with whole([model.logit_scale, model.offsets.weight]):
            scale = hold(model.logit_scale.detach().float(), 0.0, MAX_LOGIT_SCALE).exp().cpu()
            weight = model.offsets.weight.detach().float().cpu()

        def encode_all(histories, times=None):
            towers = scale * F.normalize(encode(histories, times).cpu(), dim=-1)
            return torch.cat([towers, model.offsets.users(histories, weight)], dim=1)

        vectors = np.concatenate([unit(catalogue), model.offsets.catalogue], axis=1)
        return TwoTower(encode_all, vectors, retrieval, cosines=False)

    def users(self, histories, times=None):
        """[b, D] fp32 on the CPU; of length 1 where cosines count."""
        users = on_cpu(self.encode(histories, times))
        return unit(users) if self.cosines else users

    @cached_property
    def items(self):
        """[num_items, D] fp32 on the CPU; of length 1 where cosines count: a copy, for who takes them all."""
        return unit(self.catalogue) if self.cosines else np.asarray(self.catalogue, np.float32)

    def score(self, histories, times=None):
        return self.users(histories, times) @ self.items.T

    def score_users(self, held_out, users):
        return self.score([held_out.history(e) for e in users], held_out.times_of(users))

    def rows(self, numbers):
        """[n, D] of `items`, of which no others are made. numbers: [n], or a slice."""
        return unit(self.catalogue[numbers]) if self.cosines else np.asarray(self.catalogue[numbers], "f4")

    def parts(self, size=8192):
        """`items`, a few at a time."""
        return (self.rows(slice(at, at + size)) for at in range(0, len(self.catalogue), size))

    @cached_property
    def shards(self):
        return Shards(self.catalogue, self.retrieval, self.cosines)

    def recommend(self, histories, left_out, k, times=None):
        return self.nearest(on_cpu(self.encode(histories, times)), left_out, k).items

    def nearest(self, users, left_out, k):
        """Lists of [b, D] fp32 users, with cosines or inner products as scores."""
        return self.shards.find(users, left_out, k)[1]

    def find_users(self, held_out, users, left_out, k, wanted):
        histories = [held_out.history(e) for e in users]
        return self.find(histories, left_out, held_out.target[users], k, held_out.times_of(users), wanted)

    def find(self, histories, left_out, target, k, times=None, wanted=None):
        """wanted: as of find_users; None = all of them."""
        users = self.encode(histories, times)
        loss = float(self.loss(users, target, left_out)) if self.loss else None
        places, lists = self.shards.find(on_cpu(users), left_out, k, target, wanted)
        return Found(places, loss, lists)

    def counts(self, known, order, topk):
        """{"valid_loss": mean over users} where a loss is asked for."""
        return {"valid_loss": sum(known) / len(order)} if self.loss else {}
