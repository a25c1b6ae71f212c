"""Flags of what a policy answers, and what an answer is worth: names of TRL, and of MiniOneRec besides."""

from dataclasses import dataclass

from pixelrec_train.errors import InputError
from pixelrec_train.flags import DISTINCT, FILE, POSITIVE, Flags, Rule, as_text, at_least, flag, one_of

DISTINCT_IDS, SAMPLE, BEAM = "distinct", "sample", "beam"
RULE, NDCG, RANKING, SEMANTIC, COLLABORATIVE, POPULARITY = REWARDS = (
    "rule", "ndcg", "ranking", "semantic", "collaborative", "popularity",
)  # fmt: skip
THEIRS = {"ranking_only": NDCG, "sasrec": COLLABORATIVE}  # MiniOneRec's names
NAMED = Rule(f"names some of {', '.join(REWARDS)}", lambda names: names and {*names} <= {*REWARDS, *THEIRS})


@dataclass(frozen=True, kw_only=True)
class GroupFlags(Flags):
    """How many answers there are, and how often each is learned from."""

    num_generations: int = flag("answers to each prompt: its group", 16, at_least(1), alias=("rollout_n",))
    temperature: float = flag("what logits are divided by where an answer is drawn", 1.0, POSITIVE)
    steps_per_generation: int | None = flag(
        "micro-batches answered at once; None = --gradient_accumulation_steps, of which it is a multiple",
        None,
        at_least(1),
    )
    num_iterations: int = flag("times that a rollout is learned from", 1, at_least(1), alias=("ppo_epochs",))

    def settle_rounds(self):
        """--steps_per_generation; for a group that has LoopFlags too.

        Raises:
            InputError: it is no whole number of steps.
        """
        per_step = self.gradient_accumulation_steps
        if self.steps_per_generation is None:
            self.set(steps_per_generation=per_step)
        if self.steps_per_generation % per_step:
            raise InputError(
                f"--steps_per_generation {self.steps_per_generation} micro-batches are no whole steps of "
                f"--gradient_accumulation_steps {per_step}. Take a multiple of it."
            )

    def check_group(self):
        """Raises InputError where an answer has no other to be compared with."""
        if self.num_generations < 2:
            raise InputError(
                "--num_generations must be at least 2: an answer is compared with those of its group."
            )


@dataclass(frozen=True, kw_only=True)
class RolloutFlags(GroupFlags):
    """How a policy answers with semantic ids."""

    rollout: str = flag(
        "distinct = drawn without replacement, no id twice; sample = drawn one by one, as the policy has "
        "them; beam = the likeliest, which are no sample of the policy",
        DISTINCT_IDS,
        one_of(DISTINCT_IDS, SAMPLE, BEAM),
    )
    add_gt: bool = flag("a group without the target gets it in the place of its least likely id", False)
    prompts_per_user: int | None = flag(
        "newest items of each training history that are asked for; None = all", None, at_least(1)
    )


@dataclass(frozen=True, kw_only=True)
class WeightFlags(Flags):
    """How rewards are summed; for a group that has --reward_funcs."""

    reward_weights: tuple[float, ...] = flag("of --reward_funcs, in their order; none = 1 each", ())

    @property
    def weights(self):
        """{name of a reward: its weight}"""
        weights = self.reward_weights or (1.0,) * len(self.reward_funcs)
        return dict(zip(self.reward_funcs, weights, strict=True))

    def check_weights(self):
        """Raises InputError where there is not one for each reward."""
        if self.reward_weights and len(self.reward_weights) != len(self.reward_funcs):
            raise InputError(
                f"--reward_weights {as_text(self.reward_weights)} are {len(self.reward_weights)} numbers for "
                f"the {len(self.reward_funcs)} rewards {as_text(self.reward_funcs)}. Give one for each."
            )


@dataclass(frozen=True, kw_only=True)
class RewardFlags(WeightFlags):
    """What an answer is worth."""

    reward_funcs: tuple[str, ...] = flag(
        "rule = 1 for the target; ndcg = less for a miss the likelier it was, in groups with a hit; "
        "ranking = their sum; semantic = cosine with the target; collaborative = SASRec's score; "
        "popularity = less the more often an item was taken",
        (RANKING,),
        NAMED,
        DISTINCT,
        alias=("reward_type",),
    )
    reward_matrix: str | None = flag(
        "semantic: item embeddings, .npy or .safetensors, with --reward_matrix_ids", None, path=FILE
    )
    reward_matrix_ids: str | None = flag("semantic: item id of every row of it, one a line", None, path=FILE)
    reward_two_tower: str | None = flag(
        "semantic: a two-tower checkpoint, whose item LLM gives embeddings", None
    )
    reward_sasrec: str | None = flag(
        "collaborative: sasrec/best_model that scripts/compare.py trained on this data", None
    )

    def __post_init__(self):
        if set(self.reward_funcs) & set(THEIRS):
            self.set(reward_funcs=tuple(THEIRS.get(name, name) for name in self.reward_funcs))
        super().__post_init__()
        self.check_weights()
        if RANKING in self.reward_funcs and {RULE, NDCG} & {*self.reward_funcs}:
            raise InputError(
                f"--reward_funcs {as_text(self.reward_funcs)}: ranking is rule and ndcg together. Name it, "
                f"or these two with weights of their own."
            )
        sources = [self.reward_matrix, self.reward_two_tower]
        if bool(self.reward_matrix) != bool(self.reward_matrix_ids):
            raise InputError("--reward_matrix and --reward_matrix_ids go together: row i is item i.")
        if (SEMANTIC in self.reward_funcs) != (sum(map(bool, sources)) == 1):
            raise InputError(
                "the reward semantic and one of --reward_matrix and --reward_two_tower go together: where do "
                "the embeddings come from?"
            )
        if (COLLABORATIVE in self.reward_funcs) != bool(self.reward_sasrec):
            raise InputError("the reward collaborative and --reward_sasrec go together.")
