"""A loader of rollouts: prompts in, batches to learn from out, made with the weights as they stand."""

from itertools import islice

import numpy as np
import torch

from pixelrec_train import distributed
from pixelrec_train.data.tokens.rollouts import RolloutBatch, laid_out
from pixelrec_train.engine.loop import judging
from pixelrec_train.engine.zero import at_once
from pixelrec_train.errors import InputError
from pixelrec_train.run import watchdog

ANSWERS = "answers"


class RolloutSource:
    """What loop.train asks of a loader. A round of micro-batches is answered at once, by one policy, and
    given to be learned from as often as asked, in the same order each time.

    Between two steps of one round it carries the round in checkpoints; all else follows from the place.
    """

    def __init__(self, prompts, task, answering, flags, pad_id):
        """
        Args:
            prompts: Loader of lists of Prompt, this rank's.
            task: of tasks.policy: what it knows of a batch, and how it credits groups.
            answering: rollouts.ItemAnswers, or what has the same three functions.
            flags: RolloutFlags.
            pad_id: what a rank without a rollout reads.
        """
        self.prompts, self.task, self.answering, self.pad_id = prompts, task, answering, pad_id
        self.of_round, self.times = flags.steps_per_generation, flags.num_iterations
        self.session = None  # engine.session.Session, before the first batch
        self.round, self.given, self.carried_in = [], 0, {}

    def batches_in(self, epoch):
        return self.prompts.batches_in(epoch) * self.times

    def epoch(self, epoch, skip=0):
        """Batches of one epoch, from number `skip` on."""
        first, self.given = divmod(skip, self.of_round * self.times)
        prompts = self.prompts.epoch(epoch, first * self.of_round)
        known, self.carried_in = self.of_checkpoint(), {}
        while asked := list(islice(prompts, self.of_round)):
            if not self.given:
                self.task.begin_round(self.session.state.step)
            self.round = [self.answered(some, known[n] if self.given else {}) for n, some in enumerate(asked)]
            while self.given < len(self.round) * self.times:
                self.given += 1
                yield self.round[(self.given - 1) % len(self.round)][0]
            self.given = 0

    def answered(self, prompts, known):
        """(RolloutBatch on the device, what a checkpoint has to carry of it).

        known: that, of one that was made before.
        """
        watchdog.at("rollouts")
        engine = self.session.engine
        with judging(engine), at_once(engine), torch.no_grad():
            # A rank that has no prompt takes part in what all do.
            answers = known[ANSWERS].numpy() if known else self.answering.draw(prompts)
            batch = self.batch(prompts, answers).to(distributed.device())
            looked = {n: x for n, x in known.items() if n != ANSWERS} if known else self.task.look(batch)
            looked = {name: x.to(distributed.device()) for name, x in looked.items()}
            batch = self.task.settle(batch, looked)
        engine.train()
        return batch, {ANSWERS: torch.from_numpy(answers)} | looked

    def batch(self, prompts, answers):
        """RolloutBatch of the groups that there is something to learn from."""
        total, parts, figures = self.answering.judge(prompts, answers)
        credit, kept = self.task.credit(torch.from_numpy(total))
        chosen = np.flatnonzero(kept.numpy())
        tokens, of = laid_out(
            [prompts[b].token_ids for b in chosen], self.answering.tokens(answers[chosen]), self.pad_id
        )
        count, every = float(len(prompts)), float(total.size)
        figures |= {f"reward/{name}": (float(part.sum()), every) for name, part in parts.items()}
        figures |= {"reward": (float(total.sum()), every), "no_signal": (float((~kept).sum()), count)}
        return RolloutBatch(
            tokens, of, credit[kept].flatten(), len(chosen) * total.shape[1],
            {"rollouts": int(total.size), "tokens": len(tokens.texts.token_ids)}, {}, figures,
        )  # fmt: skip

    def carried(self):
        """{name: tensor} that a checkpoint needs to go on in the middle of a round; of this rank."""
        if not 0 < self.given < len(self.round) * self.times:
            return {}
        return {
            f"rollouts.{n}.{name}": x.cpu()
            for n, (_, kept) in enumerate(self.round)
            for name, x in kept.items()
        }

    def carry(self, tensors):
        self.carried_in = {name: x for name, x in tensors.items() if name.startswith("rollouts.")}

    def of_checkpoint(self):
        """[{name: tensor} of each micro-batch of the round]; where nothing is carried, none.

        Raises:
            InputError: the run goes on in the middle of a round, but with another number of ranks.
        """
        if not self.given:
            return []
        if not self.carried_in:
            raise InputError(
                "the checkpoint stands between two steps on the same rollouts, which its ranks keep: go on "
                "with as many ranks as before, or from a checkpoint of another step."
            )
        found = {}
        for name, tensor in self.carried_in.items():
            _, n, part = name.split(".", 2)
            found.setdefault(int(n), {})[part] = tensor
        return [found[n] for n in sorted(found)]
