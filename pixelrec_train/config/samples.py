"""Flags of training on samples: chats and documents, packed."""

from dataclasses import dataclass

from pixelrec_train.config.adapters import QuantisedFlags
from pixelrec_train.config.generative import DecodingFlags
from pixelrec_train.config.judging import FIGURES, ValidUsersFlags, is_figure, require_cut_off
from pixelrec_train.config.reading import CacheFlags, DataFlags, TextFlags
from pixelrec_train.config.tasks import say_think
from pixelrec_train.config.towers import TrustFlags
from pixelrec_train.config.training import RunFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import DISTINCT, FILE, MODEL, NOT_NEGATIVE, SEED, Rule, at_least, flag, one_of

FORMS = ("history", "chat", "think")
QUESTION = "video_rec"
HISTORY = (
    "newest items of a history that a prompt names; None = of chats as scripts/build_samples.py has them: 10 "
    "of minionerec, all of onerec_think, 49 of reasoning; else 512"
)


@dataclass(frozen=True, kw_only=True)
class PackingFlags(CacheFlags):
    """Which samples are read, and how they are laid into batches."""

    dataset_config: str = flag("JSON of a dataset: its sources, and how they are read", path=FILE)
    valid_samples: str | None = flag(
        "samples held out to validate: a file, a directory, a pattern or a list, as `sources` of the JSON",
        None,
    )
    max_length: int | None = flag("tokens of a pack; None = the JSON's", None, at_least(2))
    pack: str = flag(
        "best_fit = the fewest packs; even = a like mix of long and short samples in each; greedy = one "
        "after the other, as OpenOneRec",
        "best_fit",
        one_of("best_fit", "even", "greedy"),
    )


@dataclass(frozen=True, kw_only=True)
class QuestionFlags(TextFlags):
    """The words of chats that ask for a held-out user's next item."""

    text_data: str | None = flag(
        "table with a column item_id and the text columns, where --question says texts", None, path=FILE
    )
    question: str = flag(
        "the task of scripts/build_samples.py whose chat asks: one whose answer is an item's id", QUESTION
    )
    category: str = flag(
        "what all items are, in the words of title_history_to_sid, as its samples were built", ""
    )

    def check_question(self, chats):
        """chats: whether any chat is asked. Raises InputError where --question asks nobody."""
        if self.question != QUESTION and not chats:
            raise InputError(f"--question {self.question} is for chats, but none is asked. Ask in one, too.")


@dataclass(frozen=True, kw_only=True)
class AskFlags(DataFlags, QuestionFlags, DecodingFlags):
    """How a language model is asked for the next item of held-out users."""

    semantic_ids: str = flag("file that scripts/build_semantic_ids.py wrote", path=FILE)
    prompts: tuple[str, ...] = flag(
        "history = ids alone, as in pretraining; chat = that of --question; think = it, behind a thought",
        ("history", "chat"),
        Rule(f"names some of {', '.join(FORMS)}", lambda names: names and set(names) <= set(FORMS)),
        DISTINCT,
    )
    split: str = flag(
        "valid (or val) or test: of every user the second-last item, or the last, unless --split_protocol "
        "says else",
        "test",
        one_of("valid", "test"),
        alias=("split_type",),
    )
    metrics: tuple[str, ...] = flag(
        "another way to say --topk: figures as hit@1,hit@10,ndcg@10, whose cut-offs it gets. hit is recall",
        (),
        Rule(f"names {', '.join(FIGURES)} at a cut-off, as hit@10", lambda names: all(map(is_figure, names))),
        DISTINCT,
    )
    users: int | None = flag("held-out users judged, drawn once; None = all", None, at_least(1))
    history: int | None = flag(HISTORY, None, at_least(1))
    add_think_pattern: bool | None = flag(
        "chat ends in /no_think and an empty thought, as OpenOneRec's SFT trains it; False = in neither; "
        "None = as scripts/build_samples.py has it for --question",
        None,
    )
    num_beams: int = flag("semantic ids kept per user and level, at least", 32, at_least(1))
    eval_batch_size: int = flag(
        "users per GPU and block in evaluation", 256, at_least(1), may_differ=True, alias=("batch_size",)
    )
    thought_tokens: int = flag("think: tokens of a thought, at most", 256, at_least(1))
    temperature: float = flag("think: 0 = always the likeliest token", 0.6, NOT_NEGATIVE)
    top_p: float = flag(
        "think: share of the probability that the likeliest tokens hold who may be drawn",
        0.95,
        Rule("must be in (0, 1]", lambda share: 0 < share <= 1),
    )
    top_k: int | None = flag("think: likeliest tokens that may be drawn; None = all", 20, at_least(1))
    seed: int = flag("of thoughts, of --users, and of the words of chats, as in build_samples", 42, SEED)
    verbose: bool = flag("show how the first users are asked, and what they are answered", False)

    def __post_init__(self):
        if self.split == "val":
            self.set(split="valid")
        if self.add_think_pattern is None:
            self.set(add_think_pattern=say_think((self.question,)))
        super().__post_init__()
        self.check_question(set(self.prompts) - {"history"})


@dataclass(frozen=True, kw_only=True)
class RankedFlags(DataFlags, QuestionFlags, DecodingFlags, RunFlags, ValidUsersFlags):
    """Held-out users whom a training ranks for, if it is told of any, beside what it trains on."""

    interaction_data: str | None = flag(
        "table with columns item_id, user_id and perhaps timestamp, to judge the ranking inside the run too",
        None,
        path=FILE,
    )
    semantic_ids: str | None = flag(
        "file that scripts/build_semantic_ids.py wrote, to judge", None, path=FILE
    )
    prompt: str = flag(
        "how held-out users are asked: history = ids alone; chat = that of --question", "history",
        one_of("history", "chat"),
    )  # fmt: skip
    history: int | None = flag(HISTORY, None, at_least(1))

    def __post_init__(self):
        super().__post_init__()
        if bool(self.interaction_data) != bool(self.semantic_ids):
            raise InputError("--interaction_data and --semantic_ids go together: they judge held-out users.")
        self.check_question(self.prompt == "chat")
        if self.split_protocol and not self.interaction_data:
            raise InputError("--split_protocol needs --interaction_data: it says whom to judge.")
        if self.interaction_data:
            require_cut_off(self.topk, self.best_by or "ndcg@10")
        elif self.best_by and "@" in self.best_by:
            raise InputError(
                f"--best_by {self.best_by} needs --interaction_data and --semantic_ids: whom to rank for."
            )


@dataclass(frozen=True, kw_only=True)
class SamplesConfig(QuantisedFlags, PackingFlags, TrustFlags, RankedFlags):
    """Train a language model on samples: chats and documents, with itemic tokens or without."""

    model_dir: str | None = flag(
        "Hugging Face directory of a causal LM, or ORG/NAME[@revision] in the hub", None, path=MODEL
    )
    random_init: bool = flag(
        "draw the weights anew, by --seed and config.json of model_dir, which gives tokenizer and tokens",
        False,
        alias=("train_from_scratch",),
    )
    new_rows_only: bool = flag("train the rows of new tokens and nothing else", False)
    first_new_row: int | None = flag(
        "rows of words below this token id stand still; None = none do, or with --new_rows_only those below "
        "the itemic tokens",
        None,
        at_least(1),
    )
    gradient_checkpointing: bool = flag(
        "recompute activations in the backward pass to save memory", True, may_differ=True
    )
    loss_chunk: int = flag(
        "labels whose logits over the vocabulary exist at a time", 4096, at_least(1), may_differ=True
    )
    loss_by_source: bool = flag("log the loss of every source", False, may_differ=True)
    counts_by_source: bool = flag(
        "log the share of every source in samples and tokens", False, may_differ=True
    )
    use_tie_weights: bool = flag(
        "the head is the table of word embeddings: the directory says it, and must agree", False
    )
    model_class: str | None = flag("class of the model: the directory says it, and must agree", None)
    sample_generations: int = flag(
        "at each evaluation, chats of --valid_samples (or held-out users) whose free answers go to the log "
        "and to TensorBoard",
        0,
        at_least(0),
        may_differ=True,
    )

    def __post_init__(self):
        super().__post_init__()
        self.refuse_beside(self.new_rows_only)
        self.refuse_random(self.random_init)
        if self.sample_generations and not (self.valid_samples or self.interaction_data):
            raise InputError(
                "--sample_generations asks what is held out: it needs --valid_samples, or --interaction_data "
                "and --semantic_ids."
            )
        for name in ("new_rows_only", "first_new_row"):
            if self.random_init and getattr(self, name):
                raise InputError(f"--{name} with --random_init would keep the language model random.")
