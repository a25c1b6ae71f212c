"""From a sample to tokens and which of them are labels: one way for training and for evaluation.

A chat is rendered by the tokenizer's own chat template, a document is its segments end to end; both end in
the pad token, or what Ends says. What is supervised follows the rendered text (turns.py), not a pattern of
ids.
"""

import re
from typing import NamedTuple

import numpy as np

from pixelrec_train.data.item_text import is_plain
from pixelrec_train.data.tokens.turns import Turns
from pixelrec_train.errors import InputError

THINK_EMPTY = (
    "<think>\n</think>\n"  # the one spelling; what a template makes of it is the template's business
)
THOUGHT = re.compile("<think>(.*?)</think>", re.DOTALL)
THINK, NO_THINK = "/think", "/no_think"


class Ends(NamedTuple):
    """What ends a text and an answer, where that is not the tokenizer's business alone."""

    of_text: str | None = None  # None = the pad token
    of_answers: tuple[str, ...] = ()  # besides the tokenizer's special tokens
    last_answer_only: bool = False  # whether earlier answers of a chat are no labels
    behind_first: bool = (
        False  # whether of a document labels are what follows its first segment, without an end
    )


PLAIN = Ends()


class Renderer:
    """Of one tokenizer."""

    def __init__(self, tokenizer, only_assistant_loss=True, add_think_pattern=False, ends=PLAIN):
        """
        Args:
            only_assistant_loss: of a chat, labels are what the assistant says and the mark that ends it; else
                all tokens but the first. (Of a document they always are.)
            add_think_pattern: questions end in /think or /no_think, and an answer without a thought gets an
                empty one.
            ends: Ends.

        Raises:
            InputError: the tokenizer has no pad token, or is not one of the tokenizers library.
        """
        self.ends, self.end = ends, ends.of_text or tokenizer.pad_token
        if self.end is None:
            raise InputError(
                "the tokenizer has no pad token, which ends every sample. Name one as pad_token in its "
                "tokenizer_config.json; Qwen3 has <|endoftext|>."
            )
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise InputError(
                "the tokenizer cannot tell a token's place in the text. Take one with a tokenizer.json."
            )
        self.tokenizer, self.turns = tokenizer, Turns(tokenizer)
        self.only_assistant_loss, self.add_think_pattern = only_assistant_loss, add_think_pattern
        special = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
        words = sorted({*special, *tokenizer.all_special_tokens, *ends.of_answers}, key=len, reverse=True)
        # Ends a turn. Some templates put a space in front, which then has to be learned as well.
        self.end_mark = re.compile(r"\s*(?:" + "|".join(map(re.escape, words)) + ")")
        self.is_plain = is_plain(tokenizer)
        if self.is_plain:
            tokenizer(
                ""
            )  # switches off truncation and padding that tokenizer.json may hold, as every call does

    def text(self, sample):
        """(text, [(start, stop)]): the characters that are labels, end marks among them.

        Raises:
            InputError: the tokenizer has no template or the template refuses the chat; names the sample.
        """
        if sample.messages is None:
            text = "".join(sample.segments)
            if self.ends.behind_first:
                return text, [(len(sample.segments[0]), len(text))]
            return text + self.end, [(0, len(text + self.end))]
        messages = with_thoughts(sample.messages) if self.add_think_pattern else list(sample.messages)
        try:
            if not self.only_assistant_loss:
                text = self.turns.render([messages])[0] + self.end
                return text, [(0, len(text))]
            text, spans = self.turns.of(messages)
        except InputError as error:
            raise InputError(f"sample {sample.uuid}: {error}") from None
        text += self.end
        if self.ends.last_answer_only:
            spans = spans[-1:]
        return text, [(start, self.behind_end_mark(text, stop)) for start, stop in spans]

    def behind_end_mark(self, text, stop):
        match = self.end_mark.match(text, stop)
        return match.end() if match else stop

    def encode(self, samples):
        """[Sample] -> [(ids [T] int32, is_label [T] bool)]; the first token of a text is never a label."""
        return self.tokens([self.text(sample) for sample in samples])

    def tokens(self, texts):
        """The same of what text() gives."""
        strings = [text for text, _ in texts]
        if self.is_plain:
            encodings = self.tokenizer.backend_tokenizer.encode_batch(strings, add_special_tokens=False)
        elif strings:
            encodings = self.tokenizer(strings, add_special_tokens=False, verbose=False).encodings
        else:
            encodings = []
        return [
            (np.array(e.ids, np.int32), labels(e, len(text), spans))
            for e, (text, spans) in zip(encodings, texts, strict=True)
        ]

    def prompt(self, messages, thinking=None):
        """The text that asks for the assistant's next words, equal to the beginning of a training text.

        Args:
            messages: the chat so far; it ends with the question.
            thinking: None: the chat as it is. "empty": /no_think, and the thought that is already over, as
                the template writes it. "open": /think; the thought is the model's to write. With either, the
                turns before are written as add_think_pattern writes them.
        """
        if thinking not in (None, "empty", "open"):
            raise ValueError(f"thinking is None, 'empty' or 'open', got {thinking!r}")
        word = "x"  # stands for the answer
        answer = {
            "role": "assistant",
            "content": f"<think>\n{word}\n</think>\n{word}" if thinking == "open" else word,
        }
        chat = [*messages, answer]
        text, spans = self.turns.of(chat if thinking is None else with_thoughts(chat))
        start, stop = spans[-1]
        return text[: stop - len(word)] if thinking == "empty" else text[:start]


def with_thoughts(messages):
    """The chat with add_think_pattern: of every answer that follows a question directly

    - one with a thought: the question ends in /think;
    - one with an empty thought: it ends in /no_think;
    - one without: it ends in /no_think, and the answer begins with THINK_EMPTY.

    Source: OpenOneRec, pretrain/onerec_llm/data/qwen3_dataset.py.
    """
    messages = list(messages)
    for i in range(1, len(messages)):
        question, answer = messages[i - 1], messages[i]
        if (question["role"], answer["role"]) != ("user", "assistant"):
            continue
        thought = THOUGHT.search(answer["content"])
        suffix = THINK if thought and thought[1].strip() else NO_THINK
        messages[i - 1] = question | {"content": question["content"] + suffix}
        if not thought:
            messages[i] = answer | {"content": THINK_EMPTY + answer["content"]}
    return messages


def labels(encoding, length, spans):
    """[T] bool: the tokens that start inside a span; never the first, which nothing predicts."""
    is_label = np.zeros(len(encoding), bool)
    for start, stop in spans:
        is_label[first_token(encoding, start, length) : first_token(encoding, stop, length)] = True
    is_label[:1] = False
    return is_label


def first_token(encoding, place, length):
    """The first token that starts at this character or behind it."""
    while place < length:
        token = encoding.char_to_token(place)
        if token is not None:
            # It may start further in front; and a character may be several tokens.
            while token < len(encoding) and encoding.token_to_chars(token)[0] < place:
                token += 1
            return token
        place += 1  # white space that the tokenizer leaves out
    return len(encoding)
