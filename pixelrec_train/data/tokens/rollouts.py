"""Prompts to be answered, and their answers laid out to learn from: a prompt once, its answers as branches.

Shapes: B prompts, G rollouts of each, R rollouts that are learned from, N tokens of these, L levels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pixelrec_train.batch import PackedTexts, Tensors, TokenBatch


class Prompt(NamedTuple):
    """The target travels with it: what an answer is worth is looked up by nothing that is said."""

    token_ids: Tensor  # [T]
    history: np.ndarray  # item numbers, oldest first
    target: int  # item number
    key: int  # of the random numbers that decide its answers


@dataclass(frozen=True)
class RolloutBatch(Tensors):
    """One rank's part of a micro-batch of rollouts; a rank may have none, but it has a text."""

    tokens: TokenBatch  # texts: a prompt and behind it its rollouts as branches; labels: their tokens
    of: Tensor  # [N] which rollout a label is of
    credit: Tensor  # [R] what the rollouts are worth: advantages of GRPO, rewards of PPO
    rollouts: int  # R
    counts: dict[str, int]  # what of this rank the log gives rates of
    known: dict[str, Tensor]  # [N] each: what models said of the labels when the rollouts were made
    figures: dict[str, tuple]  # of this rank: (sum, count) each

    def map(self, function):
        moved = super().map(function)
        return type(self)(**vars(moved) | {"known": {name: function(x) for name, x in self.known.items()}})


class PromptDataset(Dataset):
    """dataset[slot] -> Prompt, or None in an empty slot: of every target of training its history."""

    def __init__(self, part, say, history, per_user=None):
        """
        Args:
            part: data.views.parts.Part of training.
            say: Stretch -> [T] token ids that ask for what comes after it.
            history: items of it, at most.
            per_user: newest targets of a sequence; None = all.
        """
        self.part, self.say, self.history = part, say, history
        behind = 1 if part.behind is None else np.maximum(1, part.behind)
        first = np.minimum(part.start + behind, part.end)
        if per_user:
            first = np.maximum(first, part.end - per_user)
        self.ends = np.cumsum(part.end - first)  # how many targets the sequences have, up to each

    def __len__(self):
        return int(self.ends[-1]) if len(self.ends) else 0

    def sequence(self, number):
        """The part's sequence that a target is of."""
        return int(np.searchsorted(self.ends, number, side="right"))

    def stretch(self, number):
        """The Stretch of a target, by its number."""
        s = self.sequence(number)
        nth = int(self.ends[s]) - 1 - number  # from the newest
        end = int(self.part.end[s])
        target = end - 1 - nth
        first = max(int(self.part.start[s]), target - self.history)
        return self.part.stretch(s, first, target, target + 1, nth)

    def __getitem__(self, slot):
        if slot.sample < 0:
            return None
        stretch = self.stretch(slot.sample)
        key = (slot.epoch << 40) + slot.position
        return Prompt(self.say(stretch), np.array(stretch.history), stretch.targets[0], key)


def there(prompts):
    """Samples of PromptDataset -> those that are any; a loader's collate."""
    return [prompt for prompt in prompts if prompt is not None]


def laid_out(prompts, codes, pad_id):
    """(TokenBatch, [N] which rollout each label is of).

    The last token of an answer is a label and not read; the first is asked for by the prompt's last token.

    Args:
        prompts: B [T] token ids.
        codes: [B, G, L] token ids of the answers, negative at the end of shorter ones.
        pad_id: what a rank without a prompt reads.
    """
    token_ids, branch, lengths, positions, labels, of = [], [], [], [], [], []
    place = 0
    for prompt, answers in zip(prompts, codes, strict=True):
        trunk = place + len(prompt) - 1
        token_ids.append(prompt.numpy())
        branch.append(np.zeros(len(prompt), np.int64))
        end = place + len(prompt)
        for number, answer in enumerate(answers, 1):
            answer = answer[answer >= 0]
            if not len(answer):  # a text that was over at once
                of.append(answer)
                continue
            token_ids.append(answer[:-1])
            branch.append(np.full(len(answer) - 1, number))
            positions.append(np.array([trunk, *range(end, end + len(answer) - 1)]))
            labels.append(answer)
            of.append(np.full(len(answer), len(of)))
            end += len(answer) - 1
        lengths.append(end - place)
        place = end
    if not lengths:
        token_ids, branch, lengths = [np.array([pad_id])], [np.zeros(1, np.int64)], [1]

    def joined(parts):
        return torch.from_numpy(np.concatenate(parts or [np.zeros(0)]).astype(np.int64))

    texts = PackedTexts(joined(token_ids), torch.tensor(lengths), joined(branch))
    return TokenBatch(texts, joined(positions), joined(labels), {}), joined(of)
