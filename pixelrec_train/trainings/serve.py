"""Checkpoints, loaded and handed to the server."""

import dataclasses
from collections import Counter
from pathlib import Path

from pixelrec_train.config.recommending import RecommendConfig
from pixelrec_train.config.serving import LimitFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import part
from pixelrec_train.libraries import import_uvicorn
from pixelrec_train.recommend.parts import is_blend
from pixelrec_train.recommend.trained import is_generative
from pixelrec_train.run.log import say
from pixelrec_train.serving.shelf import Shelf
from pixelrec_train.trainings.recommend import Recommender


def main(config):
    """config: ServeConfig."""
    import_uvicorn()
    from pixelrec_train.serving.running import bound, serve, server_of, url_of

    listener = bound(config.host, config.port)  # before the minutes that large checkpoints take
    try:
        server = server_of(app_of(config), config.timeout)
        url = url_of(listener)
        serve(
            server, listener, lambda: say(f"serving {url} (the page) and {url}docs (the API); Ctrl-C ends it")
        )
    finally:
        listener.close()
    say("every request that was taken is answered; the server has ended")


def app_of(config):
    """The application of ServeConfig."""
    from pixelrec_train.serving.app import make_app
    from pixelrec_train.serving.column import Column

    limits = part(config, LimitFlags)
    columns = [
        Column(name, checkpoint, loaded(config, checkpoint), limits)
        for name, checkpoint in zip(names_of(config.checkpoint), config.checkpoint, strict=True)
    ]
    return make_app(columns, limits, config.hosts)


def loaded(config, checkpoint):
    """Shelf of a Recommender that has answered once.

    Raises:
        InputError: it cannot be loaded, or needs more of a history than ids.
    """
    flags = {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(RecommendConfig)
        if hasattr(config, f.name)
    }
    door = Recommender.of(RecommendConfig(**flags | {"checkpoint": checkpoint}))
    try:
        door.recommend([door.item_ids[:1]], k=1)
    except InputError as error:  # histories of a request have no times, which some models read
        raise InputError(f"--checkpoint {checkpoint} cannot be served: {error}") from None
    return Shelf(door)


def names_of(checkpoints):
    """What requests call them: the kind where only one is of it, else the path too."""
    kinds = [kind_of(checkpoint) for checkpoint in checkpoints]
    alone = Counter(kinds)
    return [
        kind if alone[kind] == 1 else f"{kind} {checkpoint}"
        for kind, checkpoint in zip(kinds, checkpoints, strict=True)
    ]


def kind_of(checkpoint):
    if is_blend(checkpoint):
        return "blend"
    return "generative" if is_generative(Path(checkpoint)) else "two_tower"
