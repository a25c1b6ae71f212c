"""KuaiRand: videos shown to users of Kuaishou; Pure, 1K and 27K.

log_standard_*.csv      user_id, video_id, time_ms, is_click, … : every video that was shown; is_click is the
                        rating, so that --min_rating 1 keeps the clicks
video_features_basic_*  video_id, author_id, video_type, upload_type, music_type, tag, … : there are no titles

log_random_*.csv, videos that were shown at random, is read where it is named itself, and not out of a folder.

Source: chongminggao/KuaiRand, whose README has the counts.
"""

import re

from pixelrec_train.data.convert.sets.columns import item_rows, table_blocks
from pixelrec_train.data.convert.sets.given import needed, only, pick
from pixelrec_train.data.convert.sets.source import Item, Published, Source

LICENCE = "KuaiRand is published under CC BY-SA 4.0 (its README)."
README = "KuaiRand's README, log_standard: all that was shown"
PUBLISHED = {
    "pure": Published("27,285", "7,551", "1,436,609", README),
    "1k": Published("1,000", "4,369,953", "11,713,045", README),
    "27k": Published("27,285", "32,038,725", "322,278,385", README),
}
FEATURES = {
    "item_id": "video_id",
    "author": "author_id",
    "kind": "video_type",
    "upload": "upload_type",
    "tag": "tag",
}


def source(files):
    logs = pick(files, "log_standard_*.csv*") or needed(
        files, "kuairand", "its logs: log_standard_….csv", "log_random_*.csv*"
    )
    features = only(
        files, "kuairand", "features of videos: video_features_basic_….csv", "video_features_basic_*.csv*"
    )
    edition = re.search(r"_(pure|1k|27k)\b", features.name.lower().replace(".", " "))
    edition = edition and edition[1]
    of_standard = edition in PUBLISHED and logs[0].name.lower().startswith("log_standard")
    return Source(
        f"kuairand_{edition}" if edition else "kuairand", [*logs, features],
        table_blocks(logs, "user_id", "video_id", "time_ms", "is_click"), videos(features),
        [PUBLISHED[edition]] if of_standard else [],
    )  # fmt: skip


def videos(path):
    for row in item_rows([path], **FEATURES):
        tags = row["tag"].strip("[] ").replace(",", " ")
        yield Item(
            row["item_id"], f"author {row['author']}" if row["author"] else "",
            " ".join(f"tag{tag}" for tag in tags.split()), f"{row['kind']} {row['upload']}".strip(),
        )  # fmt: skip
