"""How a language model is asked for a held-out user's next item: behind its ids alone, or in a chat.

A prompt ends in front of the item's first code, or where the model is to think first. The words of chats are
those of samples: views write them, the tokenizer's own template renders them.
"""

import difflib
from contextlib import contextmanager
from typing import NamedTuple

import torch

from pixelrec_train.config.samples import FORMS
from pixelrec_train.data.tokens.chat import Renderer
from pixelrec_train.data.views.families import VIEWS
from pixelrec_train.data.views.parts import Part
from pixelrec_train.data.views.view import FLAGS, TEXTS, Known, View
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.vocabulary import ItemicVocabulary
from pixelrec_train.semantic_id.codecs import CODECS

HISTORY, CHAT, THINK = FORMS
END_OF_THOUGHT = "</think>"
THOUGHT, ANSWER = "thought", "answer"  # what stands for them where only the words between are wanted


def view_of(question, split, has):
    """The View whose chats ask for an item.

    Args:
        question, split: the flags.
        has: TEXTS, if they are there.

    Raises:
        InputError: there is none, its answer is no single item, it may not read the split, or it needs what
            is not there.
    """
    asking = {task: view for task, view in VIEWS.items() if view.asks_for_id}
    if question not in VIEWS:
        near = difflib.get_close_matches(question, VIEWS, n=1)
        hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(asking)}."
        raise InputError(f"--question {question} is no task of scripts/build_samples.py.{hint}")
    if question not in asking:
        raise InputError(
            f"--question {question} is not answered with the id of one item, so its answers cannot be "
            f"ranked. Those that are: {', '.join(asking)}."
        )
    view = asking[question]
    if split not in view.splits:
        raise InputError(
            f"--question {question} is made of {' and '.join(view.splits)} alone, so nobody of {split} can "
            f"be asked. Choose another."
        )
    if view.asks_with and TEXTS not in has:
        raise InputError(
            f"--question {question} is made from {TEXTS}, so it needs {FLAGS[TEXTS]}. Give it, or choose "
            f"another."
        )
    return view


class Questions(NamedTuple):
    """Messages that ask for the next item of each user of a part, as scripts/build_samples.py writes them."""

    view: View

    known: Known  # ids in the spelling of the model's vocabulary
    part: Part
    history: int  # newest items that a prompt names
    seed: int  # that of the samples

    def of(self, user):
        """The messages; user: the number of a held-out user of the part."""
        start, end = int(self.part.start[user]), int(self.part.end[user])
        stretch = self.part.stretch(user, max(start, end - self.history), end, end)
        return self.view.ask(self.known, stretch, self.part.name, self.seed)


class Speaker:
    """A model directory's tokenizer, with what it takes to ask in a chat."""

    def __init__(self, model_dir, forms, add_think_pattern, trust=False, way_out="--prompts"):
        """
        Args:
            forms: of FORMS, those to ask in.
            add_think_pattern: whether chats without a thought end in /no_think and an empty thought.
            way_out: the flag by which a person may ask in another form instead; None = there is none.

        Raises:
            InputError: it has no itemic tokens, no chat template, or no token that ends a thought.
        """
        self.name = f"--model_dir {model_dir}"
        self.vocabulary = ItemicVocabulary.load(model_dir, "--model_dir", trust)
        self.tokenizer = load_tokenizer(model_dir, "--model_dir", trust)
        self.codec, self.add_think_pattern = CODECS[self.vocabulary.codec], add_think_pattern
        self.way_out = way_out
        self.renderer = self.behind = self.end_id = None
        with self.named():
            if {CHAT, THINK} & set(forms):
                self.renderer = self.checked_renderer()
            if THINK in forms:
                self.end_id, between = self.one_token(END_OF_THOUGHT), self.between() + self.codec.begin
                # Behind a thought that the model has ended, and one that has to be ended.
                self.behind = self.ids(between), self.ids(f"\n{END_OF_THOUGHT}{between}")

    def checked_renderer(self):
        if not self.tokenizer.chat_template:
            raise InputError(
                f"its tokenizer has no chat template, so it cannot be asked in a chat. "
                f"{f'Use {self.way_out} history, or put' if self.way_out else 'Put'} the template of its "
                f"instruct model beside it as chat_template.jinja."
            )
        return Renderer(self.tokenizer)

    def known(self, item_ids, codes, **texts):
        """Known of a catalogue in this model's spelling; codes: [N, L], texts: of Known."""
        return Known.spelled(item_ids, codes, self.codec, self.vocabulary.codebook_sizes, **texts)

    def spelled(self, codes):
        """[text of every item as the LLM reads it]; codes: [N, L]."""
        return [self.codec.text(row, self.vocabulary.codebook_sizes) for row in codes.tolist()]

    def ids(self, text):
        """[T] token ids of a text as it stands in samples."""
        return torch.tensor(self.tokenizer(text, add_special_tokens=False).input_ids, dtype=torch.long)

    def one_token(self, word):
        ids = self.ids(word).tolist()
        if len(ids) != 1:
            raise InputError(
                f"its tokenizer reads {word} as {len(ids)} tokens, so no thought of it has an end. "
                f"{f'Use {self.way_out} history,chat, or' if self.way_out else 'Take'} a tokenizer with "
                f"{word} as one token, as Qwen3 has it."
            )
        return ids[0]

    def between(self):
        """What the template writes between the end of a thought and the answer."""
        question = {"role": "user", "content": "q"}
        answer = {"role": "assistant", "content": f"<think>\n{THOUGHT}\n{END_OF_THOUGHT}\n{ANSWER}"}
        text, spans = self.renderer.turns.of([question, answer])
        said = text[slice(*spans[-1])]
        thought, end, behind = said.rpartition(END_OF_THOUGHT)
        if not end or THOUGHT not in thought.removeprefix("<think>") or behind.strip() != ANSWER:
            raise InputError(
                f"its chat template drops the thought of an answer ({said!r} is left), so none is learned. "
                f"{f'Use {self.way_out} history,chat' if self.way_out else 'Take a template that keeps it'}."
            )
        return behind[: behind.index(ANSWER)]

    @property
    def stop_ids(self):
        """[n] tokens that no thought goes on behind: ends of turns and texts, and what else is special."""
        special = {*self.tokenizer.all_special_ids, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        special -= {None, self.end_id}
        return torch.tensor(sorted(i for i in special if not self.vocabulary.is_itemic(i)), dtype=torch.long)

    def prompt(self, messages, form):
        """[T] token ids; of CHAT up to the first code, of THINK up to where the thought begins."""
        with self.named():
            if form == THINK:
                return self.ids(self.renderer.prompt(messages, "open"))
            if self.add_think_pattern:
                return self.ids(self.renderer.prompt(messages, "empty") + self.codec.begin)
            # Up to the answer itself: some templates put an empty thought before it, as they do in training.
            text, spans = self.renderer.turns.of([*messages, {"role": "assistant", "content": ANSWER}])
            return self.ids(text[: spans[-1][1] - len(ANSWER)] + self.codec.begin)

    @contextmanager
    def named(self):
        """What is wrong in here is said of this model."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
