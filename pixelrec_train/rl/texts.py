"""Answers that are texts: drawn token by token behind a prompt that is read once, and what they are worth."""

from collections import Counter

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.config.text_policy import ANSWER, MODEL_SCORE, OVERLAP
from pixelrec_train.model.reading import Prefix, read, side_by_side
from pixelrec_train.model.thoughts import Sampling, think, uniforms

MOST = 1 << 12  # answers to a prompt, so that each has random numbers of its own


class TextAnswers:
    """What rl.source asks. An answer is its token ids, the one that ends it included, then -1."""

    def __init__(self, model, tokenizer, stops, rewards, how, seed):
        """
        Args:
            model: TokenModel.
            stops: [n] token ids that end an answer; the first is what the template ends a turn with.
            rewards: TextRewards.
            how: TextPolicyConfig: num_generations, temperature, top_k, max_response_length.
            seed: with a prompt's key it decides what is drawn for it.
        """
        self.model, self.tokenizer, self.rewards, self.how, self.seed = model, tokenizer, rewards, how, seed
        self.stops = stops

    def draw(self, prompts):
        """[b, G, S] for b TextPrompts. All ranks call it, also those without one."""
        return self.answers(prompts, self.how.num_generations, self.how.temperature)

    @torch.no_grad()
    def answers(self, prompts, count, temperature):
        """[b, count, S]; temperature 0 = always the likeliest token."""
        how, device = self.how, distributed.device()
        token_ids = [prompt.token_ids for prompt in prompts] or [torch.zeros(1, dtype=torch.long)]
        keys = [prompt.key for prompt in prompts] or [0]
        numbers = uniforms(
            self.seed, [key * MOST + n for key in keys for n in range(count)], how.max_response_length
        )
        with self.model.decoding() as decoder:
            prefix = repeated(read(decoder, *side_by_side(token_ids, device)), count)
            end, others = int(self.stops[0]), self.stops[1:].to(device)
            sampling = Sampling(temperature, how.top_k)
            _, said = think(decoder, prefix, numbers.to(device), end, others, sampling)
        tokens = torch.where(said.real, said.token_ids, -1).cpu().numpy()
        wide = np.full((len(tokens), how.max_response_length), -1, np.int64)
        wide[:, : tokens.shape[1]] = tokens
        return wide.reshape(len(token_ids), count, -1)[: len(prompts)]

    def tokens(self, answers):
        return answers

    def judge(self, prompts, answers):
        """([b, G] rewards, {name: [b, G] of each}, {figure: (sum, count)})"""
        every = float(answers.shape[0] * answers.shape[1])
        figures = {"answer_tokens": (float((answers >= 0).sum()), every)}
        return *self.rewards(prompts, self.texts(answers)), figures

    def texts(self, answers):
        """[[text of each answer] of each prompt], without what ends it."""
        ends = {-1, *self.stops.tolist()}

        def text(row):
            return self.tokenizer.decode([token for token in row.tolist() if token not in ends])

        return [[text(row) for row in group] for group in answers]


def repeated(prefix, count):
    """A Prefix in which every row stands `count` times: it was read once, and is gone on with often."""
    prefix.cache.batch_repeat_interleave(count)
    parts = (x.repeat_interleave(count, 0) for x in (prefix.real, prefix.length, prefix.hidden))
    return Prefix(prefix.cache, *parts)


class TextRewards:
    """A weighted sum of rewards of texts."""

    def __init__(self, weights, model=None):
        """
        Args:
            weights: {name of a reward: its weight}
            model: [messages of whole chats] -> [n] scores, where that is named.
        """
        self.weights, self.model = weights, model

    def __call__(self, prompts, texts):
        """([b, G] fp32 sums, {name: [b, G] of each, before its weight}); texts: of TextAnswers.texts."""
        found = {name: self.part(name, prompts, texts) for name in self.weights}
        total = sum(self.weights[name] * part for name, part in found.items())
        return np.asarray(total, np.float32), found

    def part(self, name, prompts, texts):
        shape = len(prompts), len(texts[0]) if texts else 0
        if name == MODEL_SCORE:
            chats = [
                [*prompt.messages, {"role": "assistant", "content": text}]
                for prompt, own in zip(prompts, texts, strict=True) for text in own
            ]  # fmt: skip
            return np.asarray(self.model(chats), np.float32).reshape(shape)
        of_pair = {ANSWER: is_there, OVERLAP: overlap}[name]
        pairs = zip(prompts, texts, strict=True)
        values = [of_pair(text, prompt.target) for prompt, own in pairs for text in own]
        return np.array(values, np.float32).reshape(shape)


def is_there(text, target):
    """1 where the target stands in a text, whatever the case and the white space."""
    return float(bool(target) and " ".join(target.lower().split()) in " ".join(text.lower().split()))


def overlap(text, target):
    """F1 of the words of a text and of a target, each as often as it stands there.

    Source: SQuAD (arXiv:1606.05250), section 6.1.
    """
    ours, theirs = Counter(text.lower().split()), Counter(target.lower().split())
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total()) if common else 0.0
