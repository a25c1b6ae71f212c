"""A thought between a prompt and the item's first code, and what is to be told of all thoughts."""

import hashlib

import torch

from pixelrec_train import distributed
from pixelrec_train.model.reading import read, side_by_side
from pixelrec_train.model.thoughts import Sampling, think, uniforms


class Thinking:
    """Draws the thoughts of a search, see Prepared.search: go_on(decoder, prefix, prompts) -> Prefix.

    A thought is decided by the seed and the prompt: whoever asks the same is told the same.
    """

    def __init__(self, speaker, how: Sampling, tokens, seed, shown=()):
        """
        Args:
            speaker: questions.Speaker that may think.
            tokens: of a thought, at most; one that has not ended then is ended.
            shown: prompts whose thoughts are kept as text, see `texts`.
        """
        self.kept = dict.fromkeys(map(key_of, shown))  # {key of a prompt: its thought}
        self.speaker, self.how, self.tokens, self.seed = speaker, how, tokens, seed
        self.told, self.example = {}, None  # {key of a prompt: (tokens, whether the model ended it)}; a text

    def __call__(self, decoder, prefix, prompts):
        device, keys = distributed.device(), [key_of(prompt) for prompt in prompts]
        numbers = uniforms(self.seed, keys, self.tokens).to(device)
        stops = self.speaker.stop_ids.to(device)
        prefix, found = think(decoder, prefix, numbers, self.speaker.end_id, stops, self.how)
        ended = found.ended.tolist()
        self.told |= zip(keys, zip(found.real.sum(1).tolist(), ended, strict=True), strict=True)
        if self.example is None:
            self.example = self.speaker.tokenizer.decode(found.token_ids[0][found.real[0]])
        whole, cut = self.speaker.behind
        for row, key in enumerate(keys):
            if key in self.kept:
                self.kept[key] = self.speaker.tokenizer.decode(found.token_ids[row][found.real[row]])
        words = [whole if has_ended else cut for has_ended in ended]
        return read(decoder, *side_by_side(words, device), prefix)

    def texts(self, prompts):
        """The thoughts behind these prompts, all among `shown`; all ranks call it."""
        kept = {}
        for part in distributed.gather_objects(self.kept):
            kept |= {key: text for key, text in part.items() if text is not None}
        return [kept[key_of(prompt)] for prompt in prompts]

    def facts(self):
        """{"thoughts": what is to be told of those of all ranks}, for table.json; all ranks call it."""
        told = {}
        for part in distributed.gather_objects(self.told):
            told |= part
        tokens, ended = (torch.tensor(part, dtype=torch.float64) for part in zip(*told.values(), strict=True))
        return {"thoughts": {
            "different": len(told), "ended": int(ended.sum()), "mean_tokens": float(tokens.mean()),
            "most_tokens": self.tokens, "example": self.example,
        }}  # fmt: skip


def key_of(prompt):
    """A number of 64 bits that a prompt's token ids give."""
    return int.from_bytes(hashlib.blake2b(prompt.numpy().tobytes(), digest_size=8).digest(), "big")
