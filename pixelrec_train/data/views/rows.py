"""Rows that several families of views have."""

from pixelrec_train.data.views.view import LeftOut, Row

PARTS = ("train", "valid", "test")


def facts(known, stretch):
    """The target travels with the sample: items' ids as the tables spell them."""
    targets = [known.item_ids[item] for item in stretch.targets]
    return {"user_id": stretch.key[0], "history_items": len(stretch.history), "target_item_ids": targets}


def of_items(*texts, may_lack=()):
    """Rows of every item of the catalogue, whoever took it; those without one of the texts are left out.

    Also where it shares an id or a text with another: each has its own row.

    Args:
        texts: TITLE and so on, which its words name.
        may_lack: further ones, empty where an item has none.
    """

    def rows(known, part, asked):
        for item, item_id in enumerate(known.item_ids):
            said = {name: known.text(item, name) for name in (*texts, *may_lack)}
            if lacking := next((name for name in texts if not said[name]), None):
                yield LeftOut(f"items without {lacking}")
            else:
                yield Row((item_id,), {"item": known.ids[item]} | said, {"item_id": item_id})

    return rows
