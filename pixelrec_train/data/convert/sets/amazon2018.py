"""Amazon's reviews up to October 2018.

CATEGORY[_5].json.gz    JSON lines: reviewerID, asin, overall, unixReviewTime (seconds of a day), …
CATEGORY.csv            item,user,rating,timestamp, without a header
meta_CATEGORY.json.gz   JSON lines: asin, title, description (a list), category (a list), brand, …

Titles and descriptions hold remains of HTML, which go; where a script stands for a title there is none.

Source: nijianmo.github.io/amazon. Counts by category are not known to us in numbers that can be compared.
"""

from pixelrec_train.data.convert.sets import amazon

LICENCE = (
    "Amazon's reviews of 2018 were published for research (Ni, Li and McAuley, EMNLP 2019: cite it); no "
    "licence is stated with them."
)


def source(files):
    return amazon.by_reviewers(files, "amazon2018", ("item", "user", "rating", "timestamp"), "category")
