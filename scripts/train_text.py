"""Train a language model on texts or chats: continued pretraining, SFT (configs/text/; docs/text.md)."""

from command import run

run(__file__, __name__)
