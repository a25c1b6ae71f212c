"""Reinforcement learning on texts: prompts, answers drawn freely, rewards, and a gate on held-out prompts."""

import torch

from pixelrec_train import distributed
from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.loader import Loader, Slot
from pixelrec_train.data.texts.as_samples import CHATS, Form
from pixelrec_train.data.texts.prompts import TextPromptDataset, read_prompts
from pixelrec_train.data.tokens.chat import Renderer
from pixelrec_train.data.tokens.rollouts import there
from pixelrec_train.engine import ds_config
from pixelrec_train.engine.session import seed_everything, start
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.blocks import dealt
from pixelrec_train.model.reward_model import RewardModel
from pixelrec_train.recommend.trained import refuse_checkpoint
from pixelrec_train.rl.source import RolloutSource
from pixelrec_train.rl.texts import TextAnswers, TextRewards
from pixelrec_train.run import watchdog
from pixelrec_train.tasks.policy import text_objective
from pixelrec_train.tasks.ppo import TASKS
from pixelrec_train.trainings.beside_sft import judge_first
from pixelrec_train.trainings.in_run import stops_of, train_without_catalogue
from pixelrec_train.trainings.rewarded import last_lines, loaded, summed
from pixelrec_train.trainings.sample_inputs import train_adapters
from pixelrec_train.trainings.text_inputs import Reading, files_to_read
from pixelrec_train.trainings.train_samples import trusted

AT_ONCE = 32  # prompts answered side by side in evaluation


def main(config):
    """config: TextPolicyConfig."""
    start(config, run, lambda config: Prepared(config, config.dry_run).lines, weights="--model_dir {}/llm")


class Prepared:
    """Everything a run needs; what can be wrong with the input is found here, before a single step."""

    def __init__(self, config, ranks):
        seed_everything(config.seed)
        files, held_out = files_to_read(config)
        refuse_checkpoint(config.model_dir)
        self.config, trust = config, trusted(config)
        task = TASKS[config.algorithm]
        objective = text_objective(config.reward_funcs, task.more)
        objective.chosen_by(config.best_by)
        reading = Reading(config, Form(CHATS))
        self.tokenizer, self.mark = reading.tokenizer, fingerprint(*files, *held_out)
        self.notes = []
        self.prompts, self.held_out = (self.read(part, name) for part, name in (
            (files, "--train_file"), (held_out, "--eval_file")))  # fmt: skip
        self.model = loaded(config)
        limit, needed = self.model.longest_text, config.max_prompt_length + config.max_response_length
        if limit and needed > limit:
            raise InputError(
                f"--max_prompt_length and --max_response_length are {needed:,} tokens together, but the LLM "
                f"reads {limit:,}. Lower one of them."
            )
        self.resolved = ds_config.resolve(config, ranks, self.model.backbone.config.hidden_size)
        train_adapters(self.model, config, self.resolved)
        score = None
        if config.reward_model_dir:
            score = RewardModel(config.reward_model_dir, "--reward_model_dir", trust)
        reference = loaded(config) if config.beta else None
        self.task = task(
            self.model, config.model_dir, config, reference, objective=objective,
            longest=config.max_response_length, beside=reading.beside(),
        )  # fmt: skip
        rewards = TextRewards(config.weights, score)
        stops = stops_of(self.tokenizer)
        self.answering = TextAnswers(self.model, self.tokenizer, stops, rewards, config, config.seed)
        loader = Loader(
            self.prompts, there, config.per_device_train_batch_size, config.seed,
            config.dataloader_num_workers,
        )  # fmt: skip
        pad = self.tokenizer.pad_token_id or 0
        self.source = RolloutSource(loader, self.task, self.answering, config, pad)
        self.lines = [*reading.lines(files, held_out), *self.plan(ranks)]

    def read(self, files, flag_name):
        """TextPromptDataset of files."""
        rows, left_out = read_prompts(files, self.config.skip_bad_rows)
        renderer = Renderer(self.tokenizer)

        def say(messages):
            text = renderer.prompt(messages)
            return torch.tensor(self.tokenizer(text, add_special_tokens=False).input_ids)

        found = TextPromptDataset(rows, say, self.config.max_prompt_length)
        if not len(found):
            raise InputError(f"{flag_name}: no prompt is left of {len(rows):,}. See --max_prompt_length.")
        lacks = [name for name in self.config.reward_funcs if name != "model"]
        if lacks and (silent := sum(not target for *_, target in found.rows)):
            raise InputError(
                f"{flag_name}: {silent:,} of {len(found):,} prompts do not say what the answer should be "
                f"(answer, response, reference, …), which the reward {lacks[0]} compares with. Name "
                f"--reward_model_dir, or take rows with answers."
            )
        self.notes += [f"{flag_name}: {left_out:,} rows left out, which are no prompts"] * bool(left_out)
        return found

    def plan(self, ranks):
        config, left = self.config, self.prompts.too_long + self.held_out.too_long
        return [
            *self.notes,
            f"prompts: {len(self.prompts):,} to train, {len(self.held_out):,} to validate; left out as "
            f"longer than {config.max_prompt_length:,} tokens: {left:,}",
            f"{config.algorithm}: {config.num_generations} answers each of at most "
            f"{config.max_response_length:,} tokens at temperature {config.temperature:g}; reward: "
            f"{summed(config)}",
            *last_lines(config, self.model, self.source, ranks),
        ]

    def judged(self):
        """{"valid_reward": …, "valid_answer_tokens": …} of the likeliest answers to held-out prompts."""
        sums = torch.zeros(3, dtype=torch.float64, device=distributed.device())
        for block in dealt(len(self.held_out), AT_ONCE):
            watchdog.at("answers to held-out prompts")
            prompts = [self.held_out[Slot(0, int(n), int(n))] for n in block]
            answers = self.answering.answers(prompts, 1, 0.0)
            rewards, _, figures = self.answering.judge(prompts, answers)
            sums += sums.new_tensor([rewards.sum(), figures["answer_tokens"][0], rewards.size])
        reward, tokens, count = distributed.mean_tensor(sums).tolist()
        return {"valid_reward": reward / count, "valid_answer_tokens": tokens / count}


def run(config):
    """One whole run, on every rank."""
    watchdog.at("reading data and model")
    ready = Prepared(config, distributed.world_size())
    if config.gradient_checkpointing:
        ready.model.enable_checkpointing()

    def before(training):
        ready.source.session = training
        judge_first(training, [ready.judged])

    train_without_catalogue(
        ready.task, ready.source, config, ready.resolved, {"data": {"prompts": ready.mark}}, ready.lines,
        [ready.judged], before,
    )  # fmt: skip
