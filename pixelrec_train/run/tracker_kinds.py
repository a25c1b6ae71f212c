"""wandb, swanlab and trackio behind one face: log, show, close, and `where` the figures are.

They work offline where nobody has logged in, with files below --logging_dir. Keys are the tools' own
business: nothing here reads one, it is only looked whether one is there. Tested with wandb 0.31, swanlab 0.10
and trackio 0.43.
"""

import netrc
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

from pixelrec_train.libraries import import_tracker

FINISH_S = 60  # at most, for what is left to be sent at the end


class Tracked(NamedTuple):
    """A run, as trackers know it."""

    project: str
    name: str
    id: str
    resumed: bool
    directory: Path  # for the files of all trackers
    config: dict  # run.json's


class Wandb:
    def __init__(self, run):
        self.wandb = load("wandb", run.directory)
        settings = {"console": "off", "silent": True}
        if "finish_timeout" in self.wandb.Settings.model_fields:
            settings["finish_timeout"] = FINISH_S
        self.run = self.wandb.init(
            project=run.project, name=run.name, id=run.id, resume="allow", dir=str(run.directory),
            mode=mode_of("WANDB", wandb_login()), config=run.config,
            settings=self.wandb.Settings(**settings),
        )  # fmt: skip
        # An x-axis of its own: wandb's step must never fall, and that of a resumed run does.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        again = "; a resumed run adds to what lies there under its id: --append" if run.resumed else ""
        offline = f"offline, upload with: wandb sync {Path(self.run.dir).parent}{again}"
        self.where = offline if self.run.offline else self.run.url

    def log(self, step, values):
        self.run.log(values | {"step": step})

    def show(self, step, rows, text, picture):
        numbers = [[name, *map(row.get, figures_in(rows))] for name, row in rows.items()]
        table = self.wandb.Table(columns=["name", *figures_in(rows)], data=numbers, allow_mixed_types=True)
        self.log(step, {"table": table, "curves": self.wandb.Image(str(picture))})

    def close(self, failed):
        self.run.finish(exit_code=int(failed))


class Swanlab:
    def __init__(self, run):
        self.swanlab = load("swanlab", run.directory)
        self.run = self.swanlab.init(
            project=run.project, name=run.name, id=run.id, resume="allow", log_dir=run.directory / "swanlab",
            mode=mode_of("SWANLAB", swanlab_login()), config=run.config,
            settings=self.swanlab.Settings(terminal={"proxy_type": "none"}, interactive=False),
        )  # fmt: skip
        again = "; a resumed run has files of its own" if run.resumed else ""
        offline = f"offline, upload with: swanlab sync {run.directory / 'swanlab'}/run-*-{run.id}{again}"
        self.where = self.run.url if self.run.mode == "online" else offline

    def log(self, step, values):
        self.run.log(values, step=step)

    def show(self, step, rows, text, picture):
        self.log(step, {"table": self.swanlab.Text(text), "curves": self.swanlab.Image(str(picture))})

    def close(self, failed):
        self.run.finish(state="aborted" if failed else "success")


class Trackio:
    def __init__(self, run):
        self.trackio = load("trackio", run.directory)
        self.run = self.trackio.init(
            project=run.project, name=run.name, config=run.config, embed=False,
            resume="allow" if run.resumed else "never",
        )  # fmt: skip
        folder = self.trackio.TRACKIO_DIR
        local = f"in {folder}, to see it: TRACKIO_DIR={folder} trackio show --project {run.project}"
        self.where = self.run.url or local

    def log(self, step, values):
        self.run.log(values, step=step)

    def show(self, step, rows, text, picture):
        self.log(step, {"table": self.trackio.Markdown(text), "curves": self.trackio.Image(str(picture))})

    def close(self, failed):
        self.trackio.finish()


KINDS = {"wandb": Wandb, "swanlab": Swanlab, "trackio": Trackio}


def load(name, directory):
    """The package. directory: where trackio, which asks for it only once, keeps its files by default."""
    if not os.environ.get("TRACKIO_DIR"):
        os.environ["TRACKIO_DIR"] = str(Path(directory).resolve() / "trackio")
    return import_tracker(name)


def mode_of(tool, logged_in):
    """What a tool is told: None = as its environment says. tool: what its variables begin with."""
    return None if logged_in or os.environ.get(f"{tool}_MODE") else "offline"


def wandb_login():
    """Whether wandb finds a key by itself."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    files = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    with suppress(OSError, netrc.NetrcParseError):
        first = next((path for file in files if (path := Path(file).expanduser()).is_file()), None)
        return first is not None and host in netrc.netrc(first).hosts
    return False


def swanlab_login():
    """Whether swanlab finds a key by itself."""
    own = os.environ.get("SWANLAB_ROOT") or os.environ.get("SWANLAB_SAVE_DIR") or "~/.swanlab"
    logins = [Path(".swanlab/.netrc"), Path(own).expanduser() / ".netrc"]
    return bool(os.environ.get("SWANLAB_API_KEY")) or any(path.is_file() for path in logins)


def figures_in(rows):
    """Names of the numbers of a table, as they come."""
    pairs = (pair for row in rows.values() for pair in row.items())
    return list(dict.fromkeys(name for name, value in pairs if isinstance(value, (int, float))))
