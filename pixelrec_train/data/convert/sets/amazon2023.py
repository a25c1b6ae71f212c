"""Amazon's reviews up to September 2023.

CATEGORY.jsonl[.gz]        JSON lines: user_id, parent_asin (the item), rating, timestamp (milliseconds), …
CATEGORY.csv[.gz]          user_id,parent_asin,rating,timestamp: its 5-core and 0-core files of pure ids
meta_CATEGORY.jsonl[.gz]   JSON lines: parent_asin, title, features, description, categories (lists), store

Of a user's reviews of one item the first counts, as in its makers' kcore_filtering.py; some items have no
metadata.

Source: amazon-reviews-2023.github.io and hyp1231/AmazonReviews2023; the counts are its page's, of raw files.
"""

from pixelrec_train.data.convert.sets import amazon
from pixelrec_train.data.convert.sets.columns import table_blocks
from pixelrec_train.data.convert.sets.source import Published, Source, blocks_of

LICENCE = (
    "Amazon's reviews of 2023 were published for research (Hou et al., arXiv:2403.03952: cite it); no "
    "licence is stated with them."
)
PAGE = "the raw reviews, by its own page"
COUNTS = """
All_Beauty                   632.0K 112.6K 701.5K
Amazon_Fashion                 2.0M 825.9K   2.5M
Appliances                     1.8M  94.3K   2.1M
Arts_Crafts_and_Sewing         4.6M 801.3K   9.0M
Automotive                     8.0M   2.0M  20.0M
Baby_Products                  3.4M 217.7K   6.0M
Beauty_and_Personal_Care      11.3M   1.0M  23.9M
Books                         10.3M   4.4M  29.5M
CDs_and_Vinyl                  1.8M 701.7K   4.8M
Cell_Phones_and_Accessories   11.6M   1.3M  20.8M
Clothing_Shoes_and_Jewelry    22.6M   7.2M  66.0M
Digital_Music                101.0K  70.5K 130.4K
Electronics                   18.3M   1.6M  43.9M
Gift_Cards                   132.7K   1.1K 152.4K
Grocery_and_Gourmet_Food       7.0M 603.2K  14.3M
Handmade_Products            586.6K 164.7K 664.2K
Health_and_Household          12.5M 797.4K  25.6M
Health_and_Personal_Care     461.7K  60.3K 494.1K
Home_and_Kitchen              23.2M   3.7M  67.4M
Industrial_and_Scientific      3.4M 427.5K   5.2M
Kindle_Store                   5.6M   1.6M  25.6M
Magazine_Subscriptions        60.1K   3.4K  71.5K
Movies_and_TV                  6.5M 747.8K  17.3M
Musical_Instruments            1.8M 213.6K   3.0M
Office_Products                7.6M 710.4K  12.8M
Patio_Lawn_and_Garden          8.6M 851.7K  16.5M
Pet_Supplies                   7.8M 492.7K  16.8M
Software                       2.6M  89.2K   4.9M
Sports_and_Outdoors           10.3M   1.6M  19.6M
Subscription_Boxes            15.2K    641  16.2K
Tools_and_Home_Improvement    12.2M   1.5M  27.0M
Toys_and_Games                 8.1M 890.7K  16.3M
Video_Games                    2.8M 137.2K   4.6M
Unknown                       23.1M  13.2M  63.8M
"""
PUBLISHED = {name: Published(*counts, PAGE) for name, *counts in map(str.split, COUNTS.strip().split("\n"))}


def source(files):
    rows, meta, category, _ = amazon.pair(files, "amazon2023")
    if amazon.is_json(rows):
        blocks = blocks_of(amazon.reviews(rows, "user_id", "parent_asin", "timestamp", "rating"))
    else:
        blocks = table_blocks([rows], "user_id", "parent_asin", "timestamp", "rating")
    items = amazon.products(meta, "parent_asin", "store", "categories", ("features", "description"))
    known = [PUBLISHED[category]] if category in PUBLISHED else []
    return Source(f"amazon2023_{category.lower()}", [rows, meta], blocks, items, known, duplicates="first")
