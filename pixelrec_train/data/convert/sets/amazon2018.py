"""Amazon's reviews up to October 2018.

CATEGORY[_5].json.gz    JSON lines: reviewerID, asin, overall, unixReviewTime (seconds of a day), …
CATEGORY.csv            item,user,rating,timestamp, without a header
meta_CATEGORY.json.gz   JSON lines: asin, title, description (a list), category (a list), brand, …

Titles and descriptions hold remains of HTML, which go; where a script stands for a title there is none.

Source: nijianmo.github.io/amazon. Counts by category are not known to us in numbers that can be compared.
"""

from pixelrec_train.data.convert.sets import amazon
from pixelrec_train.data.convert.sets.source import Source, blocks_of

LICENCE = (
    "Amazon's reviews of 2018 were published for research (Ni, Li and McAuley, EMNLP 2019: cite it); no "
    "licence is stated with them."
)


def source(files):
    rows, meta, category, five_core = amazon.pair(files, "amazon2018")
    if amazon.is_json(rows):
        found = amazon.reviews(rows, "reviewerID", "asin", "unixReviewTime", "overall")
    else:
        found = amazon.ratings(rows, ("item", "user", "rating", "timestamp"))
    items = amazon.products(meta, "asin", "brand", "category", ("description",))
    title = f"amazon2018_{category.lower()}{'_5' * five_core}"
    return Source(title, [rows, meta], blocks_of(found), items)
