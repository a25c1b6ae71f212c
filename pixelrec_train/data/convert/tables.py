"""Our tables, as scripts/prep.py writes them."""

from pathlib import Path
from typing import NamedTuple

from pixelrec_train.files import write_csv
from pixelrec_train.semantic_id.codes import SemanticIds

ITEMS, INTERACTIONS, SPLIT, IDS = "items.csv", "interactions.csv", "split.csv", "semantic_ids.json"


class Tables(NamedTuple):
    """What another project's files say, in our words."""

    items: list[tuple[str, str, str, str]]  # item id, title, tag (categories or brand), description
    histories: dict[str, list[str]]  # user id -> item ids, oldest first
    ids: SemanticIds
    split: list[tuple[str, str, str, list[str]]] | None  # train, valid or test; user, item, history
    facts: dict  # for facts.json
    said: list[str]  # lines for a person: what is there, and all that was left out

    @property
    def interactions(self):
        """Yields item id, user id, timestamp: its place in the user's history, from 0."""
        for user_id, items in self.histories.items():
            for time, item_id in enumerate(items):
                yield item_id, user_id, time

    def write(self, directory):
        write_csv(Path(directory, ITEMS), ("item_id", "title", "tag", "description"), self.items)
        write_csv(Path(directory, INTERACTIONS), ("item_id", "user_id", "timestamp"), self.interactions)
        if self.split is not None:
            rows = ((part, user, item, " ".join(history)) for part, user, item, history in self.split)
            write_csv(Path(directory, SPLIT), ("split", "user_id", "item_id", "history"), rows)
        self.ids.save(Path(directory, IDS))
