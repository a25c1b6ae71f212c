"""Words that a model is to read as one token: itemic tokens, marks of turns and thoughts."""

import re

from pixelrec_train.data.checks.ids_in_texts import token_expression
from pixelrec_train.semantic_id.codecs import CODECS

TOKENS = "|".join(token_expression(codec, None) for codec in CODECS.values())
WORD = re.compile(rf"<\|[^<>|\s]{{1,40}}\|>|{TOKENS}|</?think>")
PLACEHOLDER = re.compile(r"<\|sid_[A-Z]\|>")  # in OneRec-Think's system prompt, where the form is told
SPLIT = "words that the tokenizer splits"


def count_words(texts, about_items, found, place):
    """Count a sample's special words. about_items: whether it holds ids."""
    for text in texts:
        if "<" in text:
            for word in WORD.findall(text):
                found.words.add(word, about_items, place)


def check_words(found, tokenizer):
    """Add to Found the words that a tokenizer reads as several tokens, or as an unknown one.

    Wrong where a model would learn an id or a thought in pieces; elsewhere <|…|> may be what a text is about.
    """
    for (word, about_items), (count, place) in found.words.items():
        if PLACEHOLDER.fullmatch(word) or is_one(word, tokenizer):
            continue
        if about_items or not word.startswith("<|"):
            found.wrong.add(SPLIT, f"{word}, {count:,} times, the first in {place}")
        else:
            found.remarks.add("samples without ids", f"{SPLIT} ({word})", place, count)


def is_one(word, tokenizer):
    number = tokenizer.convert_tokens_to_ids(word)
    if number is None or number == tokenizer.unk_token_id:
        return False
    return tokenizer(word, add_special_tokens=False)["input_ids"].count(number) == 1
