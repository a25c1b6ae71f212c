"""Reinforcement learning with recommendation rewards: what SFT made is judged first, and only beaten is it
replaced."""

from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.config.rollouts import BEAM
from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.loader import Loader
from pixelrec_train.data.tokens.rollouts import there
from pixelrec_train.engine import ds_config, loop
from pixelrec_train.engine.session import seed_everything, session, start
from pixelrec_train.files import possible_directory
from pixelrec_train.flags import as_text
from pixelrec_train.model.vocabulary import no_itemic_tokens
from pixelrec_train.recommend.trained import refuse_checkpoint
from pixelrec_train.rl.rewards import Rewards
from pixelrec_train.rl.rollouts import ItemAnswers, Policy
from pixelrec_train.rl.source import RolloutSource
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run import watchdog
from pixelrec_train.tasks.ppo import TASKS
from pixelrec_train.trainings.asking import asked_in, asking
from pixelrec_train.trainings.beside_sft import conclude_beside, judge_first
from pixelrec_train.trainings.in_run import AskedInRun
from pixelrec_train.trainings.prompting import prompts_of_training
from pixelrec_train.trainings.rewarded import embeddings_of, last_lines, loaded, score_of, summed
from pixelrec_train.trainings.sample_inputs import train_adapters
from pixelrec_train.trainings.train_samples import trusted


def main(config, name):
    """config: GrpoConfig or PpoConfig; name: of TASKS, the row of the table."""
    start(
        config,
        lambda config: run(config, name),
        lambda config: Prepared(config, name, config.dry_run).lines,
        weights="--model_dir {}/llm",
    )


class Prepared:
    """Everything a run needs; what can be wrong with the input is found here, before a single step."""

    def __init__(self, config, name, ranks):
        seed_everything(config.seed)
        possible_directory(config.cache_dir, "--cache_dir")
        run_directory.check_kept(config.output_dir, model_dir=config.model_dir)
        refuse_checkpoint(config.model_dir)
        how = asking(config, "valid")
        asked_in(how)
        self.config, self.name, trust = config, name, trusted(config)
        self.model = loaded(config)
        if self.model.vocabulary is None:
            raise no_itemic_tokens(config.model_dir, "--model_dir")
        self.resolved = ds_config.resolve(config, ranks, self.model.backbone.config.hidden_size)
        train_adapters(self.model, config, self.resolved)
        self.asked = AskedInRun(self.model, config.model_dir, how, trust)
        self.catalogue, self.inputs = self.asked.prepared, self.asked.users.inputs
        self.inputs.split.judged("test")
        self.prompts = prompts_of_training(config, self.asked).prompts
        reference = loaded(config) if config.beta else None
        self.task = TASKS[name](self.model, config.model_dir, config, reference, config.semantic_ids)
        self.task.objective.chosen_by(config.best_by)
        policy = Policy(self.model, self.catalogue.trie, config, config.normalised_over, config.seed)
        self.source = RolloutSource(
            Loader(
                self.prompts, there, config.per_device_train_batch_size, config.seed,
                config.dataloader_num_workers,
            ),
            self.task, ItemAnswers(policy, self.rewarding(), config.add_gt), config,
            self.asked.speaker.tokenizer.pad_token_id or 0,
        )  # fmt: skip
        self.lines = self.plan(ranks)

    def rewarding(self):
        """Rewards of the flags."""
        config, item_ids = self.config, self.inputs.interactions.item_ids
        return Rewards(
            config.weights, embeddings_of(config, item_ids), score_of(config, self.inputs.interactions),
            self.inputs.split.popularity,
        )  # fmt: skip

    def plan(self, ranks):
        config = self.config
        drawn = "" if config.rollout == BEAM else f" at temperature {config.temperature:g}"
        again = f", each learned from {config.num_iterations} times" * (config.num_iterations > 1)
        return [
            *self.inputs.describe()[:-1],
            f"prompts: {len(self.prompts):,}, asked by {config.prompt} as in evaluation; {config.rollout} of "
            f"{config.num_generations} ids{drawn}{again}",
            f"reward: {summed(config)}",
            *last_lines(config, self.model, self.source, ranks),
        ]


def run(config, name):
    """One whole run, on every rank."""
    watchdog.at("reading data and model")
    ready = Prepared(config, name, distributed.world_size())
    if config.gradient_checkpointing:
        ready.model.enable_checkpointing()
    facts = ready.inputs.facts()
    facts["data"]["semantic_ids"] = fingerprint(Path(config.semantic_ids))
    asked = config.resume, config.best_by, config.patience
    with session(ready.task, ready.source, config, ready.resolved, facts, ready.lines, *asked) as training:
        ready.source.session = ready.asked.session = training
        judge_first(training, [ready.asked])
        loop.train(training, [ready.asked])
        conclude_beside(training, ready.model, config, name, f"rewards {as_text(config.reward_funcs)}; ")
