"""MovieLens: ratings of films, with titles and genres; 100k, 1M, 10M, 20M, 25M, 32M, latest and latest-small.

ml-100k   u.data user, item, rating, time by tabs; u.item by bars, its last 19 fields are genres; ISO-8859-1
ml-1m     ratings.dat UserID::MovieID::Rating::Timestamp, movies.dat MovieID::Title::Genres; ISO-8859-1
ml-10m    the same in UTF-8
others    ratings.csv userId,movieId,rating,timestamp, movies.csv movieId,title,genres

Source: the READMEs that come with the files (GroupLens), whose counts these are.
"""

import re

from pixelrec_train.data.convert.sets.columns import item_rows, table_blocks
from pixelrec_train.data.convert.sets.given import needed, only, pick
from pixelrec_train.data.convert.sets.lines import number_of, split_lines
from pixelrec_train.data.convert.sets.source import Item, Published, Source, blocks_of

LICENCE = (
    "MovieLens (GroupLens, University of Minnesota) is for research: name it in publications, claim no "
    "endorsement, do not pass it on without permission; see the README of the edition for commercial use."
)
EDITION = re.compile(r"ml-(100k|1m|10m|20m|25m|32m|latest-small|latest)\b", re.I)
README = "README of the edition"
PUBLISHED = {
    "ml-100k": Published("943", "1,682", "100,000", README),
    "ml-1m": Published("6,040", "about 3,900", "1,000,209", README),
    "ml-10m": Published("71,567", "10,681", "10,000,054", f"{README}; its users also count those of tags"),
    "ml-20m": Published("138,493", "27,278", "20,000,263", f"{README}; its items are those of movies.csv"),
    "ml-25m": Published("162,541", "62,423", "25,000,095", f"{README}; its items are those of movies.csv"),
    "ml-32m": Published("200,948", "87,585", "32,000,204", f"{README}; its items are those of movies.csv"),
    "ml-latest-small": Published("610", "9,742", "100,836", f"{README} of September 2018; it changes"),
    "ml-latest": Published("283,228", "58,098", "27,753,444", f"{README} of September 2018; it changes"),
}
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
OF_100K = ("id", "title", "release", "video release", "IMDb", *GENRES)


def source(files):
    needed(
        files,
        "movielens",
        "its ratings: ratings.csv, ratings.dat or u.data",
        "u.data",
        "ratings.dat*",
        "ratings.csv*",
    )
    if pick(files, "u.data"):
        kind, ratings, films = "u.data", "u.data", "u.item"
    elif pick(files, "ratings.dat*"):
        kind, ratings, films = "dat", "ratings.dat*", "movies.dat*"
    else:
        kind, ratings, films = "csv", "ratings.csv*", "movies.csv*"
    ratings = only(files, "movielens", "ratings", ratings)
    films = only(files, "movielens", f"films beside {ratings.name}: {films.rstrip('*')}", films)
    named = EDITION.search(str(ratings.resolve() if ratings.exists() else ratings))
    edition = "ml-100k" if kind == "u.data" else named and named[0].lower()
    encoding = "iso-8859-1" if edition in ("ml-100k", "ml-1m") else "utf-8-sig"
    if kind == "csv":
        blocks = table_blocks([ratings], "userId", "movieId", "timestamp", "rating")
        items = from_csv(films)
    else:
        separator = "::" if kind == "dat" else "\t"
        blocks = blocks_of(rated(ratings, separator))
        items = from_dat(films, encoding) if kind == "dat" else from_u_item(films, encoding)
    known = [PUBLISHED[edition]] if edition in PUBLISHED else []
    return Source(edition or "movielens", [ratings, films], blocks, items, known)


def rated(path, separator):
    for where, (user, item, rating, time) in split_lines(
        path, separator, ("user", "item", "rating", "timestamp")
    ):
        yield user, item, number_of(time, "the timestamp", where), number_of(rating, "the rating", where)


def from_csv(path):
    for row in item_rows([path], item_id="movieId", title="title", tag="genres"):
        yield Item(row["item_id"], row["title"], genres(row["tag"]), "")


def from_dat(path, encoding):
    for _, (item, title, tag) in split_lines(path, "::", ("MovieID", "Title", "Genres"), encoding):
        yield Item(item, title, genres(tag), "")


def from_u_item(path, encoding):
    for _, (item, title, _, _, _, *flags) in split_lines(path, "|", OF_100K, encoding):
        named = [genre for genre, flag in zip(GENRES, flags, strict=True) if flag == "1"]
        yield Item(item, title, ", ".join(named), "")


def genres(text):
    return "" if text == "(no genres listed)" else text.replace("|", ", ")
