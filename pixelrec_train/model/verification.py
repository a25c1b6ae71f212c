"""Is a directory a model that plain transformers runs as we trained it? Check by check.

One with itemic tokens is asked for what these promise, too; one without for its words alone.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pixelrec_train.batch import PackedTexts
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.backbone import load_backbone, read_tensors
from pixelrec_train.model.expansion import table_names
from pixelrec_train.model.generating import answers_a_chat, goes_on, stays_in_catalogue, text_goes_on
from pixelrec_train.model.itemic_checks import has_moved, ids_agree, rows_differ, text_comes_back
from pixelrec_train.model.model_directory import check_directory
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.model.vocabulary import META_FILE, ItemicVocabulary
from pixelrec_train.semantic_id.codecs import CODECS
from pixelrec_train.semantic_id.codes import SemanticIds

FLAG = "--hf_model_dir"
TOLERANCE = 2e-2  # between transformers' logits and ours, of the largest; bf16 is as coarse as that


@dataclass(frozen=True)
class Subject:
    """What is checked, and against what."""

    directory: Path
    before: Path | None = None  # the same model before training
    semantic_ids: SemanticIds | None = None  # the catalogue's
    trust: bool = False

    @cached_property
    def weights(self):
        """{name: tensor} of all weight files."""
        files = sorted(check_directory(self.directory, FLAG, self.trust).glob("*.safetensors"))
        return {name: tensor for file in files for name, tensor in read_tensors(file).items()}

    @cached_property
    def is_itemic(self):
        """Whether its itemic_meta.json says which ids are codes."""
        return (self.directory / META_FILE).is_file()

    @cached_property
    def code(self):
        """A word of its tokenizer that is spelled as a code; None where there is none."""
        try:
            words = self.tokenizer.get_vocab()
        except InputError:
            return None
        return next((w for codec in CODECS.values() if (w := codec.tokens((1,))[0][0]) in words), None)

    @cached_property
    def vocabulary(self):
        return ItemicVocabulary.load(self.directory, FLAG, self.trust)

    @cached_property
    def tokenizer(self):
        return load_tokenizer(self.directory, FLAG, self.trust)

    @cached_property
    def chats(self):
        """Whether its tokenizer has a chat template; not where it has none that can be loaded."""
        try:
            return bool(self.tokenizer.chat_template)
        except InputError:
            return False

    @cached_property
    def plain(self):
        """As transformers loads it."""
        return load_backbone(self.directory, FLAG, "auto", trust=self.trust, kind=AutoModelForCausalLM).eval()

    @cached_property
    def skeleton(self):
        """The architecture without weights."""
        check_directory(self.directory, FLAG, self.trust)
        settings = AutoConfig.from_pretrained(
            str(self.directory), local_files_only=True, trust_remote_code=self.trust
        )
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(settings, trust_remote_code=self.trust)

    @cached_property
    def codes(self):
        """[N, L] of whole items: the catalogue's, or every code once."""
        if self.semantic_ids is None:
            sizes = np.array(self.vocabulary.codebook_sizes)
            return np.arange(max(sizes))[:, None] % sizes
        if self.semantic_ids.codebook_sizes != self.vocabulary.codebook_sizes:
            raise InputError(
                f"codebooks of {self.semantic_ids.codebook_sizes} in --semantic_ids, of "
                f"{self.vocabulary.codebook_sizes} in the model."
            )
        return self.semantic_ids.codes

    @cached_property
    def tables(self):
        """[(name, its rows of new tokens)]"""
        first, stop = self.vocabulary.first_new_id, self.vocabulary.tokenizer_length
        names = dict.fromkeys(table_names(self.skeleton, FLAG))
        return [(name, self.weights[name][first:stop].float()) for name in names if name in self.weights]


def as_plain(subject):
    """Sentences about a directory without itemic tokens: what is not asked, and why."""
    if subject.is_itemic:
        return
    yield f"{subject.directory} has no {META_FILE}: checked as a plain language model, without itemic tokens"
    if subject.code:
        yield f"{subject.code} is a word of it, but nothing says which ids are codes: they are not asked for"


def verify(subject):
    """Yields (what was checked, what is wrong or None) for every check that can be asked."""
    said = set()
    for check in CHECKS if subject.is_itemic else PLAIN_CHECKS:
        compares = check in (has_moved, weights_moved)
        if compares and subject.before is None or check is answers_a_chat and not subject.chats:
            continue
        try:
            problem = check(subject)
        except InputError as error:
            problem = str(error)
        except Exception as error:  # whatever a library makes of broken files
            problem = first_line(error)
        yield check.__doc__, "cannot be asked, for the reason above" if problem in said else problem
        said |= {problem} - {None}


def has_all_weights(subject):
    """weight files hold what the architecture needs, and nothing else"""
    needed, known = dict(subject.skeleton.named_parameters()), subject.skeleton.state_dict()
    missing = [name for name in needed if name not in subject.weights]
    unexpected = [name for name in subject.weights if name not in known]
    shapes = [n for n, x in subject.weights.items() if n in known and x.shape != known[n].shape]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return "; ".join(f"{len(names)} {kind}, {names[0]} for one" for kind, names in found if names) or None


def is_finite(subject):
    """no weight is NaN or infinite"""
    wrong = [name for name, x in subject.weights.items() if not torch.isfinite(x).all()]
    return f"{len(wrong)} tensors, {wrong[0]} for one" if wrong else None


def words_have_rows(subject):
    """every word of the tokenizer has a row in the tables"""
    last = max(subject.tokenizer.get_vocab().values())
    for name in table_names(subject.skeleton, FLAG):
        if len(subject.weights[name]) <= last:
            return f"{name} has {len(subject.weights[name])} rows, the tokenizer makes ids up to {last}"
    return None


def weights_moved(subject):
    """training has moved weights"""
    old = dataclasses.replace(subject, directory=subject.before).weights
    still = [name for name, x in subject.weights.items() if name in old and x.equal(old[name].to(x.dtype))]
    return f"all are as they were in {subject.before}" if len(still) == len(subject.weights) else None


def logits_agree(subject):
    """transformers' logits are finite, and those of the training code"""
    words = subject.vocabulary.tokenizer_length if subject.is_itemic else len(subject.tokenizer)
    first = subject.vocabulary.first_new_id if subject.is_itemic else words - 4
    ids = torch.cat([torch.arange(4), torch.arange(first, first + 4)])
    with torch.no_grad():
        theirs = subject.plain(ids[None]).logits[0].float()
        if not torch.isfinite(theirs).all():
            return f"{int((~torch.isfinite(theirs)).sum())} of {theirs.numel()} are NaN or infinite"
        ours = TokenModel.load(subject.directory, FLAG, dtype="auto", trust=subject.trust)
        ours = ours.logits(ours.read(PackedTexts(ids, torch.tensor([len(ids)]))))
    difference = float((ours - theirs)[:, :words].abs().max() / theirs[:, :words].abs().max())
    return f"they differ by {difference:.2g} of the largest" if difference > TOLERANCE else None


CHECKS = (
    has_all_weights, is_finite, ids_agree, rows_differ, has_moved, text_comes_back, logits_agree, goes_on,
    answers_a_chat, stays_in_catalogue,
)  # fmt: skip
PLAIN_CHECKS = (
    has_all_weights, is_finite, words_have_rows, weights_moved, logits_agree, text_goes_on, answers_a_chat,
)  # fmt: skip
