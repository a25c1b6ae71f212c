"""A new item in a two-tower model that is loaded: the item LLM reads its text, and that is its place."""

from functools import cached_property

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.data.item_text import ItemText, tokenise
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.retrieval import TwoTower
from pixelrec_train.libraries import load_tokenizer


class Placer:
    @staticmethod
    def of(model, reader, max_seq_length):
        """None where a model knows more of an item than its text, which a new one lacks."""
        more = (model.item_id, model.item_features, model.offsets)
        text_alone = reader is not None and all(part is None for part in more)
        return Placer(model, reader, max_seq_length) if text_alone else None

    def __init__(self, model, reader, max_seq_length):
        """
        Args:
            model: HLLMModel, which was loaded.
            reader: data.item_text.Reader of its item LLM.
            max_seq_length: items of history + target.
        """
        self.model, self.reader, self.max_seq_length = model, reader, max_seq_length
        self.text_keys = reader.texts.text_keys

    @cached_property
    def tokenizer(self):
        return load_tokenizer(self.reader.item_dir, trust=self.reader.trust)

    def with_item(self, two_tower, values):
        """TwoTower of the same model with one item more, behind the others; its index is built anew.

        Args:
            values: {column of text_keys: text}; those that are left out are empty.

        Raises:
            InputError: another column is named, or there is no text.
        """
        from pixelrec_train.data.item_fields import joined, plain_text  # brings pandas and pyarrow with it

        if other := values.keys() - set(self.text_keys):
            raise InputError(
                f"no text column {min(other)!r} is read. Those that are: {', '.join(self.text_keys)}."
            )
        if not any(values.values()):
            raise InputError("a new item without any text cannot be placed.")
        text = joined(
            self.text_keys,
            [plain_text(values.get(key, "")) for key in self.text_keys],
            self.reader.item_prompt,
        )
        catalogue = np.concatenate([two_tower.catalogue, self.embedding(text)])
        return TwoTower.of(self.model, catalogue, self.max_seq_length, two_tower.retrieval)

    @torch.no_grad()
    def embedding(self, text):
        """[1, D] fp32, as encode_catalogue gives it."""
        texts, _, _, _, item_emb_token_n, sentences = self.reader
        tokens, offsets = tokenise(self.tokenizer, [text], texts.max_text_length, item_emb_token_n, sentences)
        packed = ItemText(tokens, offsets, 0, 0, "a new item").pack(np.zeros(1, np.int64))
        rows = self.model.item_llm(
            packed.to(distributed.device())
        )  # a frozen one's rows are stored, but not this
        rows = rows if self.model.projection is None else self.model.projection(rows)
        return rows.float().cpu().numpy()
