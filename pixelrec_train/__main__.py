"""python -m pixelrec_train COMMAND [flags]; also as scripts/COMMAND.py. COMMAND --help: its flags."""

import importlib
import signal
import sys

from pixelrec_train.errors import InputError
from pixelrec_train.run.exit_status import speak_plainly

COMMANDS = {
    "train_pixelrec": "train a two-tower HLLM",
    "train_generative": "train a language model to say the next item's semantic id",
    "train_qwen3": "train a language model on samples in OpenOneRec's format",
    "train_text": "train a language model on texts or chats: continued pretraining and SFT",
    "train_dpo": "train a language model on pairs of answers, the better and the worse",
    "train_grpo": "a language model with itemic tokens learns from rewards: groups of answers compared",
    "train_ppo": "the same with a value head in place of groups",
    "train_text_rl": "a language model learns from rewards for its answers to prompts",
    "evaluate_pixelrec": "judge a checkpoint of either head on held-out users",
    "evaluate_qwen3": "judge language models with itemic tokens, asked by ids and in chats",
    "predict": "ranked items for every user, as Parquet and JSON lines, also where the next is not known",
    "recommend": "items for one history, with their texts and why, from a checkpoint",
    "serve": "checkpoints behind HTTP: an API, and a page that shows what each recommends for a history",
    "compare": "one table for baselines and checkpoints; or what changed between runs",
    "report": "the page of a run, made again",
    "export": "a two-tower model for other programs: FAISS indexes, torch.export, sentence-transformers",
    "embed_items": "embed a catalogue once, over all ranks, for every later command to find",
    "build_semantic_ids": "give every item a semantic id; read and write other projects' index files",
    "convert": "public data sets in their makers' layouts as our two tables",
    "prep": "OneRec-Think's and MiniOneRec's files as our tables; ids in texts from one spelling to another",
    "build_samples": "chats and documents in OpenOneRec's format, from two tables and semantic ids",
    "build_preferences": "pairs of items of which the first is better, for train_dpo, from interactions",
    "keep_thoughts": "samples anew: thoughts stay where a model finds the item behind thoughts of its own",
    "expand_vocabulary": "give a language model a word for every code",
    "verify_model": "check that an exported directory holds what it promises",
    "convert_checkpoint": "the language model of a checkpoint, in half precision and several files",
    "merge_adapter": "an adapter (LoRA) and the language model that it was trained upon become one",
    "chat": "talk with a language model in the terminal, or ask it once",
    "quantise_model": "a language model with its matrices in 8 or 4 bits, to serve",
    "check_data": "what training would see of a dataset, and what is odd about it",
    "clean_text": "rows of text files that are worth training on: lengths, duplicates, near duplicates",
    "check_samples": "what stands in Parquet files of chats and documents, and what is wrong in which row",
    "doctor": "whether this machine is ready to train",
    "make_demo": "a synthetic dataset and tiny models",
}


@speak_plainly
def main(arguments=None):
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("--help", "-h"):
        width = max(map(len, COMMANDS))
        print(__doc__, "", *(f"  {n:<{width}}  {what}" for n, what in COMMANDS.items()), sep="\n")
        return
    if name not in COMMANDS:
        raise InputError(f"no command {name!r}. There are: {', '.join(COMMANDS)}.")
    if name in ("check_data", "check_samples"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "… | head" ends it without a word
    sys.argv[0] = name  # what --help calls itself
    importlib.import_module(f"pixelrec_train.commands.{name}").main(rest)


if __name__ == "__main__":
    main()
