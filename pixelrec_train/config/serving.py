"""Flags of serving checkpoints over HTTP."""

from dataclasses import dataclass

from pixelrec_train.config.recommending import LoadFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import DISTINCT, POSITIVE, REQUIRED, Flags, Rule, at_least, flag

HERE = ("localhost", "127.0.0.1", "::1")
PORT = Rule("must be in [0, 65535]", lambda port: 0 <= port <= 65535)
ANYWHERE = ("0.0.0.0", "::", "")


@dataclass(frozen=True, kw_only=True)
class LimitFlags(Flags):
    """What one request may ask, and how many may ask at a time."""

    timeout: float = flag("seconds in which a request must have come, and its answer", 10.0, POSITIVE)
    max_body: int = flag("bytes of a request", 65536, at_least(1))
    max_k: int = flag("items of an answer", 100, at_least(1))
    max_history: int = flag("items of a history", 200, at_least(1))
    max_new_items: int = flag("items that may be added while it runs", 1000, at_least(0))
    max_waiting: int = flag("requests that may wait for a checkpoint; further ones get 503", 256, at_least(1))
    batch: int = flag("requests answered together", 64, at_least(1))
    company_ms: float = flag(
        "milliseconds that a request waits for others to be answered with it",
        2.0,
        Rule("must be in [0, 1000]", lambda ms: 0 <= ms <= 1000),
    )


@dataclass(frozen=True, kw_only=True)
class ServeConfig(LoadFlags, LimitFlags):
    """Checkpoints behind HTTP: an API, and a page that shows what each of them recommends for a history."""

    checkpoint: tuple[str, ...] = flag(
        "one or several, each as of scripts/recommend.py; the page has a column for each",
        REQUIRED,
        Rule("needs at least one", lambda names: names and all(names)),
        DISTINCT,
    )
    host: str = flag("address to listen at; 0.0.0.0 = every one of this machine", "127.0.0.1")
    port: int = flag("0 = any that is free", 8000, PORT)
    allowed_hosts: tuple[str, ...] = flag(
        "names by which it may be called besides --host and localhost; * = any", ()
    )

    def __post_init__(self):
        super().__post_init__()
        if self.host in ANYWHERE and not self.allowed_hosts:
            raise InputError(
                f"--host {self.host!r} answers other machines: say with --allowed_hosts by which names they "
                f"call this one, such as its address. (* = any; then web pages people visit may ask it, too.)"
            )

    @property
    def hosts(self):
        """Names that a Host header may have."""
        return {name.lower().strip("[]") for name in (*HERE, self.host, *self.allowed_hosts)}
