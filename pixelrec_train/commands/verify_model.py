"""Check that a directory with itemic tokens is whole, and computes in transformers what it computed here."""

import sys
from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.files import existing_directory
from pixelrec_train.flags import Flags, flag, parse_args
from pixelrec_train.model.verification import Subject, verify
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.semantic_id.codes import SemanticIds


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(Flags):
    """Check an expanded or exported model; ends with status 1 where something is wrong."""

    hf_model_dir: str = flag("the directory: of scripts/expand_vocabulary.py, or a checkpoint's export")
    before: str | None = flag("the directory that training started from: its new rows must have moved", None)
    semantic_ids: str | None = flag("the catalogue's; None = every code once stands for the items", None)
    trust_remote_code: bool = flag("whether Python code in hf_model_dir may run", False)


@speak_plainly
def main(argv=None):
    config = parse_args(VerifyConfig, argv)
    subject = Subject(
        existing_directory(config.hf_model_dir, "--hf_model_dir"),
        existing_directory(config.before, "--before") if config.before else None,
        SemanticIds.load(config.semantic_ids) if config.semantic_ids else None,
        config.trust_remote_code,
    )
    wrong = 0
    for what, problem in verify(subject):
        wrong += problem is not None
        print(f"FAIL  {what}: {problem}" if problem else f"ok    {what}", flush=True)
    print(f"{Path(config.hf_model_dir)}: {f'{wrong} checks failed' if wrong else 'all checks passed'}")
    sys.exit(int(wrong > 0))
