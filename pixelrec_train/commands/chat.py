"""Talk with a language model in the terminal: plain transformers, its own chat template."""

import sys
from dataclasses import dataclass

from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    MODEL,
    NOT_NEGATIVE,
    SEED,
    Flags,
    Rule,
    at_least,
    check_paths,
    flag,
    parse_args,
)
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.run.hub import fetched


@dataclass(frozen=True, kw_only=True)
class ChatConfig(Flags):
    """Ask a model: --prompt once, or line by line until the input ends."""

    model: str = flag(
        "directory of a causal LM or of an adapter, or a name in a hub",
        path=MODEL,
        alias=("model_dir", "model_name_or_path"),
    )
    prompt: str | None = flag("the only question; None = ask in the terminal", None)
    system: str | None = flag("a system message before everything", None)
    plain: bool = flag("go on with the text itself, without the chat template", False)
    max_new_tokens: int = flag("of an answer, at most", 256, at_least(1))
    temperature: float = flag("0 = always the likeliest token", 0.7, NOT_NEGATIVE)
    top_p: float = flag(
        "share of the probability that the likeliest tokens hold who may be drawn", 0.9,
        Rule("must be in (0, 1]", lambda share: 0 < share <= 1),
    )  # fmt: skip
    seed: int = flag("of what is drawn", 42, SEED)
    bf16: bool = flag("weights in bf16; False = fp32", False)
    trust_remote_code: bool = flag("whether Python code in the directory may run", False)


@speak_plainly
def main(argv=None):
    config = fetched(check_paths(parse_args(ChatConfig, argv)))
    from pixelrec_train.model.talking import Talk

    talk = Talk(config)
    if config.prompt is not None:
        talk.answer(config.prompt)
        return
    if sys.stdin.isatty():
        print("Ask; an empty line begins anew, Ctrl-D ends.")
    while (line := read_line()) is not None:
        if line:
            talk.answer(line)
        else:
            talk.begin()


def read_line():
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    except UnicodeDecodeError:
        raise InputError("what was typed is no UTF-8 text.") from None
