"""Training's own targets, asked for in the very words in which held-out users are asked."""

from typing import NamedTuple

import numpy as np

from pixelrec_train.data.tokens.rollouts import PromptDataset
from pixelrec_train.data.views.parts import part_of
from pixelrec_train.errors import InputError
from pixelrec_train.recommend.questions import HISTORY
from pixelrec_train.trainings.asking import newest


class Prompting(NamedTuple):
    prompts: PromptDataset
    words: object  # Stretch -> what is asked: a text of ids, or the messages of a chat
    ids: list[str]  # of every item as the model spells it


def prompts_of_training(config, asked):
    """Prompting. Raises InputError where there is nothing to ask for.

    Args:
        config: has RankedFlags and --prompts_per_user.
        asked: AskedInRun of the same users.
    """
    users, catalogue, speaker = asked.users, asked.prepared, asked.speaker
    part = part_of("train", users.inputs.interactions, config)
    texts = {"text_keys": tuple(config.text_keys), "fields": users.fields, "category": config.category}
    known = speaker.known(users.inputs.interactions.item_ids, catalogue.codes, **texts)

    def ask(stretch):
        return users.view.ask(known, stretch, part.name, config.seed)

    if config.prompt == HISTORY:
        words = lambda stretch: known.said(stretch.history)  # noqa: E731
        say = lambda stretch: catalogue.collator.prompt(np.array(stretch.history))  # noqa: E731
    else:
        words, say = ask, lambda stretch: speaker.prompt(ask(stretch), config.prompt)
    most = newest(config, config.prompt, users.view)
    prompts = PromptDataset(part, say, most, config.prompts_per_user)
    if not len(prompts):
        raise InputError("nobody took two items in training, so there is no prompt to answer.")
    return Prompting(prompts, words, known.ids)
