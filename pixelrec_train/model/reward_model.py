"""A sequence classifier with one label: how good a chat's last answer is."""

import torch
from transformers import AutoModelForSequenceClassification

from pixelrec_train import distributed
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.backbone import load_backbone

AT_ONCE = 16  # chats


class RewardModel:
    """reward_model([messages of chats]) -> [n] scores, in the words of its own chat template; without one
    the contents stand one a line."""

    def __init__(self, directory, flag_name, trust=False):
        """Raises InputError where the directory holds no such model."""
        self.tokenizer = load_tokenizer(directory, flag_name, trust)
        self.model = load_backbone(
            directory, flag_name, trust=trust, kind=AutoModelForSequenceClassification
        ).eval()
        if (labels := self.model.config.num_labels) != 1:
            raise InputError(
                f"{flag_name} {directory} has {labels} labels; a reward model has one, the score."
            )
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        self.model.config.pad_token_id, self.pad = pad, pad
        self.model.to(distributed.device())

    @torch.no_grad()
    def __call__(self, chats):
        texts, found = [self.text(messages) for messages in chats], []
        for first in range(0, len(texts), AT_ONCE):
            part = texts[first : first + AT_ONCE]
            ids = self.tokenizer(part, add_special_tokens=False).input_ids
            longest = max(max(map(len, ids)), 1)
            padded = torch.tensor([row + [self.pad] * (longest - len(row)) for row in ids])
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
            out = self.model(*(x.to(distributed.device()) for x in (padded, mask)))
            found += out.logits[:, 0].float().tolist()
        return found

    def text(self, messages):
        if self.tokenizer.chat_template:
            return self.tokenizer.apply_chat_template(messages, tokenize=False)
        return "\n".join(message["content"] for message in messages)
