"""Check that a language model's directory is whole, and computes in transformers what it computed here."""

import sys
from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.flags import DIRECTORY, FILE, Flags, check_paths, flag, parse_args
from pixelrec_train.run.exit_status import speak_plainly


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(Flags):
    """Check an expanded or exported model; ends with status 1 where something is wrong."""

    hf_model_dir: str = flag(
        "the directory: of scripts/expand_vocabulary.py, a checkpoint's export, or a plain language model",
        path=DIRECTORY,
    )
    before: str | None = flag(
        "the directory that training started from: new rows must have moved; of a plain model, weights",
        None,
        path=DIRECTORY,
    )
    semantic_ids: str | None = flag(
        "the catalogue's; None = every code once stands for the items", None, path=FILE
    )
    trust_remote_code: bool = flag("whether Python code in hf_model_dir may run", False)


@speak_plainly
def main(argv=None):
    config = check_paths(parse_args(VerifyConfig, argv))
    from pixelrec_train.model.verification import FLAG, Subject, as_plain, verify
    from pixelrec_train.model.vocabulary import no_itemic_tokens
    from pixelrec_train.semantic_id.codes import SemanticIds

    subject = Subject(
        Path(config.hf_model_dir),
        Path(config.before) if config.before else None,
        SemanticIds.load(config.semantic_ids) if config.semantic_ids else None,
        config.trust_remote_code,
    )
    if config.semantic_ids and not subject.is_itemic:
        raise no_itemic_tokens(subject.directory, FLAG)
    for remark in as_plain(subject):
        print(f"note  {remark}", flush=True)
    wrong = 0
    for what, problem in verify(subject):
        wrong += problem is not None
        print(f"FAIL  {what}: {problem}" if problem else f"ok    {what}", flush=True)
    print(f"{Path(config.hf_model_dir)}: {f'{wrong} checks failed' if wrong else 'all checks passed'}")
    sys.exit(int(wrong > 0))
