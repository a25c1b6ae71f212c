"""What training and evaluating a generative model share: the catalogue in its tokens, and the ranking."""

from typing import NamedTuple

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.data.inputs import Inputs
from pixelrec_train.data.tokens.histories import NEXT, HistoryCollator
from pixelrec_train.evaluation.blocks import dealt
from pixelrec_train.evaluation.generation import Generated
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.decoding import search_from
from pixelrec_train.model.reading import read, side_by_side
from pixelrec_train.model.split_rows import look_up
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.model.vocabulary import check_codes
from pixelrec_train.semantic_id.codes import ABSENT, SemanticIds
from pixelrec_train.semantic_id.trie import Trie


class Prepared(NamedTuple):
    """A model and the catalogue in its tokens."""

    inputs: Inputs
    model: TokenModel
    collator: HistoryCollator
    trie: Trie  # of the whole catalogue
    codes: np.ndarray  # [num_items, L] of every item

    @staticmethod
    def of(model, model_dir, semantic_ids, inputs, trust=False, found=None):
        """
        Args:
            found: SemanticIds of the catalogue; None = those of the file semantic_ids.

        Raises:
            InputError: an item has no semantic id, or the vocabulary no tokens for them.
        """
        vocabulary, found = model.vocabulary, found or SemanticIds.load(semantic_ids)
        check_codes(vocabulary, model_dir, found, semantic_ids)
        codes = found.of(inputs.interactions.item_ids)
        collator = HistoryCollator(
            inputs.item_text, vocabulary.token_ids(codes), vocabulary.begin_id, vocabulary.end_id,
            load_tokenizer(model_dir, trust=trust).eos_token_id,
        )  # fmt: skip
        return Prepared(inputs, model, collator, Trie.of(codes, inputs.split.popularity), codes)

    def next_items(self, held_out, max_seq_length, tokens):
        """TokenBatches of this rank that ask for the item that each user took next; see token_loss.

        Args:
            max_seq_length: items of history + target.
            tokens: of a batch, at most, if one user's fit.
        """
        longest = max_seq_length * self.collator.tokens_per_item
        for users in dealt(len(held_out), max(1, tokens // longest)):
            texts = [
                np.append(held_out.history(e)[-(max_seq_length - 1) :], held_out.target[e]) for e in users
            ]
            yield self.collator([(NEXT, items) for items in texts])

    def recommender(self, max_seq_length, num_beams, normalised_over):
        """Generated: the lists that beams under the trie of the catalogue give behind histories of ids.

        Args:
            max_seq_length: items of history + target.
            num_beams, normalised_over: as of GenerativeConfig.
        """
        search = self.search(normalised_over)

        def behind_histories(histories, beams):
            return search(
                [self.collator.prompt(history[-(max_seq_length - 1) :]) for history in histories], beams
            )

        return Generated(behind_histories, self.trie, num_beams)

    @torch.no_grad()
    def item_vectors(self, items):
        """[n, D] fp32 on the CPU: of each item the mean of what the model reads for its codes. All ranks call
        it."""
        codes = self.codes[items]
        there = torch.from_numpy(codes != ABSENT)[..., None]
        ids = torch.from_numpy(self.model.vocabulary.token_ids(codes)).clamp(min=0).to(distributed.device())
        rows = self.model.embedding(look_up, ids).float().cpu()
        return ((rows * there).sum(1) / there.sum(1)).numpy()

    def search(self, normalised_over, go_on=None):
        """search_of this model under the trie."""
        return search_of(self.model, self.trie, normalised_over, go_on)


def search_of(model, trie, normalised_over, go_on=None):
    """(b prompts, [T] token ids each; a number of beams) -> leaves and scores of Beams, on the CPU.

    Args:
        model: TokenModel, on this rank's device.
        go_on: the Decoder, the Prefix of the prompts, the prompts -> the Prefix with what comes between a
            prompt and the first code, such as a thought; None = nothing.
    """
    device = distributed.device()
    tokens, trie = model.vocabulary.level_rows(device), trie.to(device)

    @torch.no_grad()
    def search(prompts, beams):
        with model.decoding() as decoder:
            prefix = read(decoder, *side_by_side(prompts, device))
            if go_on:
                prefix = go_on(decoder, prefix, prompts)
            found = search_from(decoder, trie, tokens, prefix, beams, normalised_over)
        return found.leaves.cpu(), found.scores.cpu()

    return search
