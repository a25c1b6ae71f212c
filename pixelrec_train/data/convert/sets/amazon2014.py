"""Amazon's reviews up to July 2014.

reviews_CATEGORY[_5].json.gz   JSON lines: reviewerID, asin, overall, unixReviewTime (seconds), …
ratings_CATEGORY.csv           user,item,rating,timestamp, without a header
meta_CATEGORY.json.gz          a dict a line as Python writes it: asin, title, description, categories, brand

Source: jmcauley.ucsd.edu/data/amazon; the counts are others' of these files, see SOURCES.
"""

from pixelrec_train.data.convert.sets import amazon
from pixelrec_train.data.convert.sets.source import Published

LICENCE = (
    "Amazon's reviews of 2014 were published for research (McAuley et al., SIGIR 2015; He and McAuley, WWW "
    "2016: cite them); no licence is stated with them."
)
FIVE_CORE_SOURCE = "almightyGOSU/TheDatasetsDilemma"
SOURCES = {
    "5-core": f"the 5-core, as {FIVE_CORE_SOURCE} counts it",
    "all": "all ratings, as RUCAIBox/RecSysDatasets counts them",
}
COUNTS = """
Amazon_Instant_Video         5,130    1,685     37,126    426,922    23,965    583,933
Apps_for_Android            87,271   13,209    752,937  1,323,884    61,275  2,638,172
Automotive                   2,928    1,835     20,473    851,418   320,112  1,373,768
Baby                        19,445    7,050    160,792    531,890    64,426    915,446
Beauty                      22,363   12,101    198,502  1,210,271   249,274  2,023,070
Books                      603,668  367,982  8,898,041  8,026,324 2,330,066 22,507,155
CDs_and_Vinyl               75,258   64,443  1,097,592          –         –          –
Cell_Phones_and_Accessories 27,879   10,429    194,439  2,261,045   319,678  3,447,249
Clothing_Shoes_and_Jewelry  39,387   23,033    278,677  3,117,268 1,136,004  5,748,920
Digital_Music                5,541    3,568     64,706    478,235   266,414    836,006
Electronics                192,403   63,001  1,689,188  4,201,696   476,002  7,824,482
Grocery_and_Gourmet_Food    14,681    8,713    151,254    768,438   166,049  1,297,156
Health_and_Personal_Care    38,609   18,534    346,355  1,851,132   252,331  2,982,326
Home_and_Kitchen            66,519   28,237    551,682  2,511,610   410,243  4,253,926
Kindle_Store                68,223   61,934    982,619  1,406,890   430,530  3,205,467
Movies_and_TV              123,960   50,052  1,697,533  2,088,620   200,941  4,607,047
Musical_Instruments          1,429      900     10,261    339,231    83,046    500,176
Office_Products              4,905    2,420     53,258    909,314   130,006  1,243,186
Patio_Lawn_and_Garden        1,686      962     13,272    714,791   105,984    993,490
Pet_Supplies                19,856    8,510    157,836    740,985   103,288  1,235,316
Sports_and_Outdoors         35,598   18,357    296,337  1,990,521   478,898  3,268,695
Tools_and_Home_Improvement  16,638   10,217    134,476  1,212,468   260,659  1,926,047
Toys_and_Games              19,412   11,924    167,597  1,342,911   327,698  2,252,771
Video_Games                 24,303   10,672    231,780    826,767    50,210  1,324,753
"""


def source(files):
    order = ("user", "item", "rating", "timestamp")
    return amazon.by_reviewers(files, "amazon2014", order, "categories", published)


def published(category):
    """[Published] of the 5-core and of all ratings, as far as they are known."""
    for line in COUNTS.split("\n"):
        name, *counts = line.split() or [None]
        if name == category:
            known = {"5-core": counts[:3], "all": counts[3:]}
            return [
                Published(*numbers, SOURCES[what]) for what, numbers in known.items() if "–" not in numbers
            ]
    return []
