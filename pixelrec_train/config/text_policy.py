"""Flags of reinforcement learning on texts: prompts from files, answers drawn freely, a reward for each."""

from dataclasses import dataclass, fields

from pixelrec_train.config.policy import CriticFlags, GroupLossFlags, PolicyLossFlags
from pixelrec_train.config.rollouts import GroupFlags, WeightFlags
from pixelrec_train.config.texts import TextModelFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import DISTINCT, MODEL, POSITIVE, Rule, at_least, flag, one_of

ANSWER, OVERLAP, MODEL_SCORE = TEXT_REWARDS = "answer", "overlap", "model"
LOCAL = "rollouts are made in the training process"
BY_LAUNCHER = "the launcher says it: deepspeed --num_gpus, --hostfile"


@dataclass(frozen=True, kw_only=True)
class TextPolicyConfig(GroupFlags, WeightFlags, GroupLossFlags, CriticFlags, PolicyLossFlags, TextModelFlags):
    """Reinforcement learning of a language model on prompts: it answers, answers are rewarded (GRPO, PPO)."""

    algorithms = ("grpo", "ppo")  # sections of a --config file that are for it

    algorithm: str = flag(
        "grpo = an answer is compared with its group; ppo = with what a value head expected", "grpo",
        one_of("grpo", "ppo"),
    )  # fmt: skip
    reward_funcs: tuple[str, ...] = flag(
        "answer = 1 where the row's answer stands in what is said; overlap = share of words in common with "
        "it (F1); model = score of --reward_model_dir; None = model if that is given, else overlap",
        (),
        Rule(f"names some of {', '.join(TEXT_REWARDS)}", lambda names: set(names) <= set(TEXT_REWARDS)),
        DISTINCT,
    )
    reward_model_dir: str | None = flag(
        "a sequence classifier with one label, which scores a chat",
        None,
        path=MODEL,
        alias=("reward_model_name_or_path",),
    )
    max_prompt_length: int = flag("tokens of a prompt; longer ones are left out", 512, at_least(1))
    max_response_length: int = flag("tokens of an answer, at most", 512, at_least(1))
    top_k: int | None = flag("likeliest tokens that may be drawn; None = all", None, at_least(1))
    num_generations: int = flag("answers to each prompt: its group", 4, at_least(1), alias=("rollout_n",))
    learning_rate: float = flag(
        "peak of its schedule, reached after the warm-up", 1e-6, POSITIVE, alias=("actor_lr",)
    )
    per_device_train_batch_size: int = flag(
        "prompts per GPU and micro-batch",
        4,
        at_least(1),
        may_differ=True,
        alias=("batch_size", "ppo_micro_batch_size_per_gpu", "ppo_micro_batch_size"),
    )
    use_kl_loss: bool | None = flag("False = --beta 0, whatever that says; None = as --beta says", None)
    ppo_mini_batch_size: int | None = flag(
        "prompts of a step over all ranks", None,
        without_effect="--per_device_train_batch_size x --gradient_accumulation_steps x ranks says it",
    )  # fmt: skip
    rollout_backend: str | None = flag("vllm or sglang", None, without_effect=LOCAL)
    tensor_model_parallel_size: int | None = flag("of vLLM", None, without_effect=LOCAL)
    gpu_memory_utilization: float | None = flag("of vLLM", None, without_effect=LOCAL)
    n_gpus_per_node: int | None = flag("GPUs", None, without_effect=BY_LAUNCHER)
    nnodes: int | None = flag("hosts", None, without_effect=BY_LAUNCHER)
    output_dir: str = flag(
        "run directory: checkpoints, metrics.jsonl, table", "results/text_rl", may_differ=True
    )
    logging_dir: str = flag(
        "TensorBoard events; the log file is <logging_dir>_train.log", "logs/text_rl", may_differ=True
    )

    def __post_init__(self):
        if not self.reward_funcs:
            self.set(reward_funcs=(MODEL_SCORE if self.reward_model_dir else OVERLAP,))
        if self.use_kl_loss is False:
            self.set(beta=0.0)
        super().__post_init__()
        self.settle_rounds()
        self.check_reference()
        if (MODEL_SCORE in self.reward_funcs) != bool(self.reward_model_dir):
            raise InputError("the reward model and --reward_model_dir go together.")
        self.check_weights()
        if self.algorithm == "grpo":
            self.check_group()
        if not self.eval_file:
            raise InputError(
                "--eval_file is needed: prompts held out, on which the model before training is judged first."
            )
        of_one = CriticFlags if self.algorithm == "grpo" else GroupLossFlags
        defaults = {f.name: f.default for f in fields(of_one)}
        if other := [name for name in of_one.__annotations__ if getattr(self, name) != defaults[name]]:
            raise InputError(f"--{other[0]} is not for --algorithm {self.algorithm}. Leave it out.")
        if self.load_in_4bit:
            raise InputError(
                "--load_in_4bit is not for rewards: answers would be slow. Train --lora_r on bf16."
            )
