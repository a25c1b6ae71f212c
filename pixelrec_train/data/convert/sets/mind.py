"""MIND: clicks on news of MSN; large and small, each in parts (train, dev).

behaviors.tsv   impression, user, time, history (ids with spaces), impressions (N1-1 N2-0, 1 = clicked)
news.tsv        id, category, subcategory, title, abstract, URL, entities of title and of abstract

Neither has a header. An interaction is a click at the time of its impression. A user's history has no times:
with --history it comes first, a second apart from the day on which the data begin (12 October 2019).

Source: Wu et al., ACL 2020, whose counts those of MIND-large are.
"""

import calendar
import re
import time

from pixelrec_train.data.convert.sets.given import needed
from pixelrec_train.data.convert.sets.lines import split_lines
from pixelrec_train.data.convert.sets.source import Item, Published, Source, blocks_of
from pixelrec_train.errors import InputError

LICENCE = "MIND is for research under the Microsoft Research License Terms, which come with it."
PUBLISHED = {
    "large": Published(
        "1,000,000", "161,013", "24,155,470", "Wu et al., ACL 2020: clicks of all parts, test included"
    ),
    "small": Published(
        "50,000", "65,238", "347,727", "clicks of train and dev, as papers that use it count them"
    ),
}
LOGGED = ("impression", "user", "time", "history", "impressions")
NEWS = (
    "id", "category", "subcategory", "title", "abstract", "url", "title entities", "abstract entities",
)  # fmt: skip
BEGIN = calendar.timegm((2019, 10, 12, 0, 0, 0))


def source(files, history=False):
    logs = needed(files, "mind", "its clicks: behaviors.tsv", "behaviors*.tsv*")
    news = needed(files, "mind", "its news: news.tsv", "news*.tsv*")
    edition = re.search("mind_?(large|small)", str(logs[0].resolve()).lower())
    edition = edition and edition[1]
    return Source(
        f"mind_{edition}" if edition else "mind", [*logs, *news], blocks_of(clicks(logs, history)),
        (item for path in news for item in articles(path)), [PUBLISHED[edition]] if edition else [],
    )  # fmt: skip


def clicks(paths, history):
    seen = set()
    for path in paths:
        for where, (_, user, at, before, shown) in split_lines(path, "\t", LOGGED):
            if not user.strip():
                raise InputError(f"{where} has no user. Every impression has one.")
            if history and user not in seen:
                seen.add(user)
                for second, item in enumerate(before.split()):
                    yield user, item, BEGIN + second, None
            when = seconds(at, where)
            for one in shown.split():
                item, dash, clicked = one.rpartition("-")
                if not dash or not item or clicked not in ("0", "1"):
                    raise InputError(
                        f"{where}: {one[:60]!r} is no impression with its click, as N1-1 or N1-0. The test "
                        f"part has none: bring train and dev."
                    )
                if clicked == "1":
                    yield user, item, when, None


def seconds(text, where):
    """Of a time as 11/15/2019 8:55:22 AM."""
    try:
        return calendar.timegm(time.strptime(text.strip(), "%m/%d/%Y %I:%M:%S %p"))
    except ValueError:
        raise InputError(
            f"{where}: the time is {text[:60]!r}. It must be as 11/15/2019 8:55:22 AM."
        ) from None


def articles(path):
    for where, (item, category, sub, title, abstract, *_) in split_lines(path, "\t", NEWS):
        if not item.strip():
            raise InputError(f"{where} has no id. Every article has one.")
        yield Item(item.strip(), title, ", ".join(filter(None, (category, sub))), abstract)
