"""A training on samples, from first step to last words, and what its model is asked at every evaluation."""

from collections import Counter
from typing import NamedTuple

import torch

from pixelrec_train import distributed
from pixelrec_train.data.samples import Sample, rows
from pixelrec_train.data.tokens.chat import THOUGHT, Renderer
from pixelrec_train.engine import loop
from pixelrec_train.engine.session import session
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.metrics import figures
from pixelrec_train.evaluation.report import conclude_without_catalogue
from pixelrec_train.model.reading import read, side_by_side
from pixelrec_train.model.thoughts import Sampling, think
from pixelrec_train.recommend.generator import Prepared
from pixelrec_train.recommend.questions import Speaker
from pixelrec_train.report.end import report_at_end
from pixelrec_train.trainings.asking import ask, check_labelled, prompts, read_users

FIRST_CHATS = 1000  # of held-out samples, among which those that are shown are chosen
ANSWER_TOKENS = 128  # of a shown answer, at most
AT_ONCE = 8  # questions that are answered side by side
LIKELIEST = Sampling(temperature=0)


class AskedInRun:
    """An evaluator of the model as it stands: () -> {figure: value} of held-out users."""

    def __init__(self, model, model_dir, asking, trust=False):
        """asking: AskFlags of one prompt."""
        (self.form,), self.asking, self.session = asking.prompts, asking, None
        self.speaker = Speaker(model_dir, asking.prompts, asking.add_think_pattern, trust, "--prompt")
        self.users = read_users(asking)
        check_labelled(self.users, asking.split)
        self.prepared = Prepared.of(model, model_dir, asking.semantic_ids, self.users.inputs, trust)

    def __call__(self):
        judged = self.judged()
        return figures(judged.places, self.asking.topk) | judged.counts

    def judged(self):
        who = self.prepared, self.speaker, self.form, self.users, self.asking
        return ask(*who, self.tell if self.session else None)[0]

    def tell(self, so_far):
        self.session.log.so_far(self.session.state, so_far.text(), so_far.figures)

    def questions(self, count):
        """[Question] of the first users."""
        prompt = prompts(self.prepared, self.speaker, self.form, self.users, self.asking)
        items, users = self.speaker.spelled(self.prepared.codes), self.users
        return [
            Question(f"a user, by {self.form}", prompt(e), items[users.held_out.target[e]])
            for e in range(min(count, len(users.held_out)))
        ]


class Question(NamedTuple):
    title: str
    prompt: torch.Tensor  # [T] token ids
    expected: str  # as it stands in the data


class SampleGenerations:
    """An evaluator that gives no figure: its questions and the likeliest answers go to a Session's log."""

    def __init__(self, model, tokenizer, questions):
        self.model, self.tokenizer, self.session = model, tokenizer, None
        self.questions, self.stops = questions, stops_of(tokenizer)

    def __call__(self):
        answers = self.answers()
        for n, (question, answer) in enumerate(zip(self.questions, answers, strict=True), 1):
            asked = self.tokenizer.decode(question.prompt)
            parts = {"asked": asked, "answered": answer, "expected": question.expected}
            title = f"{n} of {len(answers)}: {question.title}"
            self.session.log.sample(self.session.state, n, title, parts)
        return {}

    @torch.no_grad()
    def answers(self):
        """[text that the model goes on with]; every rank answers all, so that all ranks do the same."""
        texts, device = [], distributed.device()
        for first in range(0, len(self.questions), AT_ONCE):
            asked = [question.prompt for question in self.questions[first : first + AT_ONCE]]
            with self.model.decoding() as decoder:
                prefix = read(decoder, *side_by_side(asked, device))
                unused = torch.zeros(len(asked), ANSWER_TOKENS, device=device)  # nothing is drawn
                _, said = think(decoder, prefix, unused, -1, self.stops.to(device), LIKELIEST)
            pairs = zip(said.token_ids, said.real, strict=True)
            texts += [self.tokenizer.decode(ids[real]) for ids, real in pairs]
        return texts


def stops_of(tokenizer):
    """[n] tokens behind which an answer is over: what its template ends a turn with, and ends of texts."""
    ends = []
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
        text, spans = Renderer(tokenizer).turns.of(turn)
        ends = tokenizer(text[spans[-1][1] :].lstrip(), add_special_tokens=False).input_ids[:1]
    ends += [end for end in (tokenizer.eos_token_id, tokenizer.pad_token_id) if end is not None]
    return torch.tensor(list(dict.fromkeys(ends)))


def chats(sources, count, tokenizer, add_think_pattern, limit):
    """[Question] of held-out samples, of as many sources of samples as there are.

    Args:
        sources: of samples.files.sources_of.
        limit: tokens that the model can read, or None.

    Raises:
        InputError: none is a chat that the model can be asked.
    """
    renderer, seen, found = Renderer(tokenizer), Counter(), []
    for sample in first_chats(sources):
        *before, answer = sample.messages
        thinking = None
        if add_think_pattern:
            thought = THOUGHT.search(answer["content"])
            thinking = "open" if thought and thought[1].strip() else "empty"
        text = renderer.prompt(before, thinking)
        ids = torch.tensor(tokenizer(text, add_special_tokens=False).input_ids)
        if limit is None or len(ids) + ANSWER_TOKENS <= limit:
            found.append((seen[sample.source], Question(sample.source, ids, answer["content"])))
            seen[sample.source] += 1
    if not found:
        raise InputError(
            f"--sample_generations: none of the first {FIRST_CHATS:,} samples of --valid_samples is a chat "
            f"with an answer that the model has room for. Leave it out, or give others."
        )
    found.sort(key=lambda pair: pair[0])  # stable: the first of every source, then the second
    return [question for _, question in found[:count]]


def first_chats(sources):
    """Yields those of the first samples that are chats which end with an answer."""
    left = FIRST_CHATS
    for path in (path for source in sources for path in source.files):
        for group in range(len(rows.row_counts(path))):
            for _, sample in rows.samples(path, group, stop=left):
                left -= 1
                is_chat = isinstance(sample, Sample) and sample.messages and len(sample.messages) > 1
                if is_chat and sample.messages[-1]["role"] == "assistant":
                    yield sample
                if not left:
                    return


def train_without_catalogue(
    task, loader, config, resolved, facts, lines, evaluators, before=lambda training: None,
    end=None,
):  # fmt: skip
    """The whole of a training that ends with its losses, or otherwise; all ranks call it.

    Args:
        config: RunFlags.
        task, loader, resolved, facts, lines: of session.
        evaluators: see loop.train; those that look at the session are told it.
        before, end: are given the session before its first step and behind its last; None ends with losses,
            curves and report.
    """
    going_on = config.resume, config.best_by, config.patience
    with session(task, loader, config, resolved, facts, lines, *going_on) as training:
        for evaluator in evaluators:
            if hasattr(evaluator, "session"):
                evaluator.session = training
        before(training)
        loop.train(training, evaluators)
        (end or last_words)(training)


def last_words(training):
    """Losses, curves and report of a run that ranks nothing. All ranks call it."""
    conclude_without_catalogue(training)
    report_at_end(training.log, training.loop.output_dir)
