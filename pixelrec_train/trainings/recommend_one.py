"""What a person, or a program, is shown of the items for one history."""

import contextlib
import json
import sys
from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.trainings.recommend import Recommender


def main(config):
    """config: RecommendConfig."""
    with contextlib.redirect_stdout(sys.stderr if config.as_json else sys.stdout):
        door = Recommender.of(config)
    history, times = list(config.history), None
    if config.history_file:
        lines = Path(config.history_file).read_text(encoding="utf-8").splitlines()
        history = [line.strip() for line in lines if line.strip()]
    elif config.user:
        history, times = door.history_of(config.user), door.times_of(config.user)
    times = None if times is None else [times]
    (found,) = door.recommend([history], config.k, exclude_seen=not config.include_seen, times=times)
    if distributed.rank():
        return
    if config.as_json:
        for one in found:
            print(json.dumps(one._asdict(), ensure_ascii=False))
        return
    print("\n".join(lines_of(door, history, found)))


SHOWN = 5  # items of a history


def lines_of(door, history, found):
    """What a person reads."""
    named = [f"{item_id} {text_of(door, item_id)}".strip() for item_id in history[-SHOWN:]]
    yield f"history, the newest {len(named)} of {len(history)}: {'; '.join(named)}"
    width = max((len(one.item_id) for one in found), default=0)
    for place, one in enumerate(found, 1):
        path = f"  <{'-'.join(map(str, one.semantic_id))}>" if one.semantic_id else ""
        why = ""
        if one.because and one.semantic_id and one.likeness:
            why = f"  (begins as {one.because})"
        elif one.because and not one.semantic_id:
            why = f"  (like {one.because}, cosine {one.likeness:.2f})"
        yield f"{place:>3}. {one.score:9.4f}  {one.item_id:<{width}}{path}  {one.text or ''}{why}"


def text_of(door, item_id):
    text = door.texts and door.texts[door.number[item_id]]
    return f"“{text}”" if text else ""
