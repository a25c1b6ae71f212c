"""Flags of reinforcement learning with recommendation rewards: GRPO and PPO."""

from dataclasses import dataclass

from pixelrec_train.config.adapters import AdapterFlags
from pixelrec_train.config.rollouts import (
    BEAM,
    DISTINCT_IDS,
    NAMED,
    RULE,
    SAMPLE,
    RewardFlags,
    RolloutFlags,
)
from pixelrec_train.config.samples import RankedFlags
from pixelrec_train.config.towers import TrustFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    DISTINCT,
    FILE,
    MODEL,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Flags,
    Rule,
    at_least,
    flag,
    one_of,
)

GRPO, DAPO, GSPO, DR_GRPO = "grpo", "dapo", "gspo", "dr_grpo"
WEIGHT = Rule("must be in (0, 1]", lambda share: 0 < share <= 1)


@dataclass(frozen=True, kw_only=True)
class PolicyLossFlags(Flags):
    """How a policy learns from its answers."""

    beta: float = flag(
        "weight of the divergence from the reference, the model before training; 0 = no reference",
        0.001,
        NOT_NEGATIVE,
        alias=("kl_loss_coef",),
    )
    epsilon: float = flag(
        "how far below 1 the ratio to the policy that answered may count, where a rollout is learned from "
        "more than once",
        0.2,
        Rule("must be in (0, 1)", lambda share: 0 < share < 1),
        alias=("clip_ratio",),
    )
    epsilon_high: float | None = flag(
        "how far above 1; None = --epsilon (DAPO and OpenOneRec: 0.28)", None, POSITIVE
    )
    ref_model_sync_steps: int | None = flag(
        "optimizer steps after which the reference moves towards the policy; None = it stands",
        None,
        at_least(1),
    )
    ref_model_mixup_alpha: float = flag("share of the policy in it then", 0.6, WEIGHT)

    @property
    def bounds(self):
        return self.epsilon, self.epsilon if self.epsilon_high is None else self.epsilon_high

    def check_reference(self):
        """For a group that has LoraFlags too. Raises InputError where a reference cannot be moved."""
        if self.ref_model_sync_steps and not self.beta:
            raise InputError(
                f"--ref_model_sync_steps {self.ref_model_sync_steps} moves a reference, but with --beta 0 "
                f"there is none. Leave one of the two out."
            )
        if self.ref_model_sync_steps and self.lora_r:
            raise InputError(
                "--ref_model_sync_steps with --lora_r: adapters have no counterpart in the reference to be "
                "mixed with. Leave one of the two out."
            )


@dataclass(frozen=True, kw_only=True)
class CriticFlags(Flags):
    """How PPO's values are learned and used."""

    vf_coef: float = flag("weight of the values' loss", 0.1, NOT_NEGATIVE)
    cliprange_value: float = flag("how far a value may move from the one before", 0.2, POSITIVE)
    gamma: float = flag("what a reward counts one token earlier, in (0, 1]", 1.0, WEIGHT)
    lam: float = flag("how far surprises reach back (GAE), in (0, 1]", 0.95, WEIGHT)
    whiten: bool = flag("advantages of a micro-batch get mean 0 and deviation 1", True)


@dataclass(frozen=True, kw_only=True)
class GroupLossFlags(Flags):
    """How GRPO compares a group's answers."""

    loss_type: str = flag(
        "grpo = mean over a group's answers; dapo = over tokens; gspo = one ratio for an answer; dr_grpo = "
        "no length favoured",
        GRPO,
        one_of(GRPO, DAPO, GSPO, DR_GRPO),
    )
    scale_rewards: bool = flag("divide a group's advantages by the deviation of its rewards", True)


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(RolloutFlags, RewardFlags, PolicyLossFlags, AdapterFlags, TrustFlags, RankedFlags):
    """What every training by rewards has."""

    model_dir: str = flag(
        "the model after SFT: llm/ of a checkpoint, whose answers are judged first", path=MODEL
    )
    semantic_ids: str = flag("file that scripts/build_semantic_ids.py wrote", path=FILE)
    interaction_data: str = flag(
        "table with columns item_id, user_id and perhaps timestamp: whose histories are prompts", path=FILE
    )
    add_think_pattern: bool | None = flag(
        "chat ends in /no_think and an empty thought; None = as scripts/build_samples.py has --question",
        None,
    )
    topk: tuple[int, ...] = flag(
        "cut-offs of recall, ndcg and mrr",
        (1, 5, 10, 50),
        Rule("needs cut-offs of at least 1", lambda ks: ks and min(ks) >= 1),
        DISTINCT,
    )
    gradient_checkpointing: bool = flag(
        "recompute activations in the backward pass to save memory", False, may_differ=True
    )
    loss_chunk: int = flag(
        "labels whose logits over the vocabulary exist at a time", 4096, at_least(1), may_differ=True
    )
    learning_rate: float = flag("peak of its schedule, reached after the warm-up", 1e-5, POSITIVE)
    num_train_epochs: int = flag("passes over the prompts", 1, at_least(1))
    per_device_train_batch_size: int = flag(
        "prompts per GPU and micro-batch", 16, at_least(1), may_differ=True
    )
    warmup_ratio: float = flag("share of all optimizer steps spent warming up, in [0, 1)", 0.03, SHARE)
    max_grad_norm: float = flag("gradients are scaled down to this global norm; 0 = never", 0.3, NOT_NEGATIVE)
    logging_steps: int = flag("optimizer steps between two log lines", 5, at_least(1))
    patience: int | None = flag(
        "stop after so many evaluations that are not better than the best, SFT's among them; None = never",
        5,
        at_least(1),
    )

    def __post_init__(self):
        super().__post_init__()
        self.settle_rounds()
        self.check_reference()
        if self.rollout == BEAM and self.temperature != 1:
            raise InputError(
                f"--temperature {self.temperature} is for what is drawn; --rollout beam draws nothing. Leave "
                f"one of the two out."
            )


@dataclass(frozen=True, kw_only=True)
class GrpoConfig(GroupLossFlags, PolicyConfig):
    """Reinforcement learning of a generative recommender: groups of answers, compared with each other."""

    output_dir: str = flag(
        "run directory: checkpoints, metrics.jsonl, table", "results/grpo", may_differ=True
    )
    logging_dir: str = flag(
        "TensorBoard events; the log file is <logging_dir>_train.log", "logs/grpo", may_differ=True
    )

    def __post_init__(self):
        super().__post_init__()
        self.check_group()


@dataclass(frozen=True, kw_only=True)
class PpoConfig(CriticFlags, PolicyConfig):
    """Reinforcement learning of a generative recommender: answers compared with what was expected of them."""

    num_generations: int = flag("semantic ids that answer each prompt", 4, at_least(1), alias=("rollout_n",))
    num_iterations: int = flag("times that a rollout is learned from", 2, at_least(1), alias=("ppo_epochs",))
    rollout: str = flag(
        "sample = drawn one by one, as the policy has them; distinct = no id twice; beam = the likeliest",
        SAMPLE,
        one_of(DISTINCT_IDS, SAMPLE, BEAM),
    )
    reward_funcs: tuple[str, ...] = flag(
        "as of train_grpo: rule, ndcg, ranking, semantic, collaborative, popularity",
        (RULE,),
        NAMED,
        DISTINCT,
        alias=("reward_type",),
    )
    output_dir: str = flag("run directory: checkpoints, metrics.jsonl, table", "results/ppo", may_differ=True)
    logging_dir: str = flag(
        "TensorBoard events; the log file is <logging_dir>_train.log", "logs/ppo", may_differ=True
    )
