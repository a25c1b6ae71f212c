"""scripts/convert.py: public data sets, ten rows each in their makers' layout, become our two tables."""

import csv
import gzip
import importlib
import json
import re
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT, as_flags
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pixelrec_train.commands import check_data, convert
from pixelrec_train.config import DataFlags, TextFlags
from pixelrec_train.data.convert import filters
from pixelrec_train.data.convert.interactions import shown
from pixelrec_train.data.inputs import read_interactions
from pixelrec_train.data.item_fields import read_fields
from pixelrec_train.data.table_files import open_unpacked
from pixelrec_train.run import progress


def gz(text):
    return gzip.compress(text.encode())


def json_lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def table(**columns):
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def zipped(files):
    sink = pa.BufferOutputStream()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue().to_pybytes()


USERS, ITEMS = "a a a b b b c c c d".split(), "1 2 3 1 2 3 1 2 4 9".split()
TIMES, RATINGS = [30, 10, 20, 30, 20, 10, 5, 6, 7, 8], [5, 4, 3, 5, 4, 3, 5, 1, 2, 5]
TEN = list(zip(USERS, ITEMS, TIMES, RATINGS, strict=True))
REVIEWS = json_lines(*(
    {"reviewerID": u, "asin": i, "reviewerName": "x", "reviewText": "fine, \"really\"", "overall": r,
     "unixReviewTime": t} for u, i, t, r in TEN
))  # fmt: skip
META_2014 = """{'asin': '1', 'title': "It's a pen &amp; ink", 'categories': [['Beauty', 'Pens'], ['Gifts']]}
{'asin': '2', 'description': 'Long\\nlasting', 'title': 'Cream', 'price': 5.2, 'categories': [['Beauty']]}
{'asin': '3', 'title': 'Ink', 'salesRank': {'Beauty': 7}}
{'asin': '77', 'title': 'nobody took it'}
"""
OF_2014 = {
    "1": ("It's a pen & ink", "Beauty > Pens; Gifts", ""), "2": ("Cream", "Beauty", "Long lasting"),
    "3": ("Ink", "", ""), "4": ("", "", ""), "9": ("", "", ""),
}  # fmt: skip
META_2018 = json_lines(
    {"asin": "1", "title": "Drill <b>X</b>", "brand": "Acme", "category": ["Tools", "Drills"],
     "description": ["One.", "Two."]},
    {"asin": "2", "title": "var aPageStart = (new Date()).getTime();", "category": [], "description": []},
)  # fmt: skip
REVIEWS_2023 = json_lines(*(
    {"rating": float(r), "title": "t", "text": "x", "asin": "v" + i, "parent_asin": i, "user_id": u,
     "timestamp": 1588687728000 + t, "verified_purchase": True} for u, i, t, r in [*TEN, ("a", "2", 5, 1)]
))  # fmt: skip
META_2023 = json_lines(
    {"main_category": "All Beauty", "title": "Howard", "features": ["soft", "8 oz"], "description": ["Good."],
     "store": "H", "categories": ["Care"], "parent_asin": "1", "details": {"a": 1}},
)  # fmt: skip
FLAGS_OF_100K = "|".join(["0"] * 5 + ["1"] + ["0"] * 12 + ["1"])
PIXEL_ITEMS = '''item_id,view_number,comment_number,title,tag,description
1,799668.0,5.0,"A quiet day, part 2",travel,"with ""quotes"""
2,1.0,0.0,,,
'''
BEHAVIOURS = """1\tU1\t11/15/2019 8:55:22 AM\tN9 N8\tN1-1 N2-0 N3-1
2\tU2\t11/14/2019 12:00:01 PM\t\tN1-0 N2-1
3\tU1\t11/13/2019 12:00:00 AM\tN9 N8\tN2-1
"""
NEWS = """N1\tsports\tgolf\tA "title", with marks\tAn abstract\thttps://x\t[]\t[]
N2\tnews\tworld\tAnother\t\thttps://y\t[]\t[]
"""
WINDOWS = "user_id,item_asins,item_asin,history_item_id,item_id,history_item_title,item_title,"
WINDOWS += "history_rating,rating,history_timestamp,timestamp\n"
KUAI_VIDEOS = "video_id,author_id,video_type,upload_dt,upload_type,tag\n"
KUAI_LOG = "user_id,video_id,date,hourmin,time_ms,is_click,is_like\n"


def plain(rows, taken=(0, 1, 2, 3)):
    """Rows of TEN and so on as they must stand in the table: item, user, time, rating; ordered by time."""
    rows = sorted(rows, key=lambda row: float(row[2]))
    return [tuple(str(row[i]) for i in (1, 0, 2, 3) if i in taken) for row in rows]


# what is named, its files, flags, (interactions, {item: texts}) that must come out, words that are said
SETS = {
    "pixelrec": (
        "Pixel50K",
        {
            "Interaction/Pixel50K.csv": "item_id,user_id,timestamp\n1,a,30\n2,a,10\n1,b,20\n",
            "Item Information/Pixel50K.csv": PIXEL_ITEMS,
        },
        {},
        [("2", "a", "10"), ("1", "b", "20"), ("1", "a", "30")],
        {"1": ("A quiet day, part 2", "travel", 'with "quotes"'), "2": ("", "", "")},
        ["50,000", "82,865", "989,494", "not commercial", "made dataset/pixel50k.csv"],
    ),
    "amazon2014": (
        "beauty",
        {"reviews_Beauty_5.json.gz": gz(REVIEWS), "meta_Beauty.json.gz": gz(META_2014)},
        {},
        plain(TEN),
        OF_2014,
        [
            "22,363        12,101       198,502  published: the 5-core",
            "2,023,070",
            "4             5            10  read",
            "texts: 3 of 5 items have one; 2 have no row, and 0 an empty one",
            "amazon2014_beauty_5.csv",
        ],
    ),
    "amazon2014 ratings": (
        "r",
        {
            "ratings_Beauty.csv": "".join(f"{u},{i},{r}.0,{t}\n" for u, i, t, r in TEN),
            "meta_Beauty.json": META_2014,
        },
        {"min_rating": 4, "save_as": "mine"},
        plain(row for row in TEN if row[3] >= 4),
        {item: OF_2014[item] for item in "129"},
        ["rating at least 4", "made dataset/mine.csv and information/mine.csv"],
    ),
    "amazon2018": (
        "i",
        {"Industrial_5.json.gz": gz(REVIEWS), "meta_Industrial.json.gz": gz(META_2018)},
        {"k_core": 2},
        plain(row for row in TEN if row[1] in "123"),
        {"1": ("Drill X", "Acme; Tools > Drills", "One. Two."), "2": ("", "", ""), "3": ("", "", "")},
        ["3             3             8  2-core", "no licence is stated"],
    ),
    "amazon2018 ratings": (
        "i",
        {
            "Industrial.csv": "".join(f"{i},{u},{r},{t}\n" for u, i, t, r in TEN),
            "meta_Industrial.json": META_2018,
        },
        {},
        plain(TEN),
        None,
        ["texts: 1 of 5 items have one; 3 have no row, and 1 an empty one"],
    ),
    "amazon2023": (
        "b",
        {"All_Beauty.jsonl": REVIEWS_2023, "meta_All_Beauty.jsonl": META_2023},
        {},
        plain(
            (u, i, 1588687728000 + t, r)
            for u, i, t, r in [*TEN, ("a", "2", 5, 1)]
            if (u, i, t) != ("a", "2", 10)
        ),
        None,
        ["632.0K        112.6K        701.5K", "10  a user's first of each item"],
    ),
    "amazon2023 5core": (
        "b",
        {
            "All_Beauty.csv.gz": gz(
                "user_id,parent_asin,rating,timestamp\n"
                + "".join(f"{u},{i},{r}.0,{t}\n" for u, i, t, r in TEN)
            ),
            "meta_All_Beauty.jsonl.gz": gz(META_2023),
        },
        {"duplicates": "all"},
        plain(TEN),
        {"1": ("Howard", "H; Care", "soft 8 oz Good.")} | dict.fromkeys("2349", ("", "", "")),
        [],
    ),
    "movielens": (
        "ml-100k",
        {
            "u.data": "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, t, r in TEN),
            "u.item": ("1|Café (1995)|01-Jan-1995||http://x|" + FLAGS_OF_100K + "\n").encode("latin-1"),
            "u.user": "1|24|M|technician|85711\n",
        },
        {},
        plain(TEN),
        {"1": ("Café (1995)", "Comedy, Western", "")} | dict.fromkeys("2349", ("", "", "")),
        ["943         1,682       100,000"],
    ),
    "movielens 1m": (
        "ml-1m.zip",
        zipped(
            {
                "ml-1m/ratings.dat": "".join(f"{u}::{i}::{r}::{t}\n" for u, i, t, r in TEN),
                "ml-1m/movies.dat": "1::Café: a Life (1995)::Drama|War\n2::B (1990)::Comedy\n".encode(
                    "latin-1"
                ),
                "ml-1m/README": "x",
                "__MACOSX/ml-1m/ratings.dat": "x",
            }
        ),
        {"max_users": 4},
        plain(TEN),
        {"1": ("Café: a Life (1995)", "Drama, War", ""), "2": ("B (1990)", "Comedy", "")}
        | dict.fromkeys("349", ("", "", "")),
        ["6,040   about 3,900     1,000,209", "4 users, drawn by seed 42", "made dataset/ml-1m.csv"],
    ),
    "movielens 20m": (
        "ml-20m",
        {
            "ratings.csv": "userId,movieId,rating,timestamp\n"
            + "".join(f"{u},{i},{r - 0.5},{t}\n" for u, i, t, r in TEN),
            "movies.csv": 'movieId,title,genres\n1,"Matrix, The",Action|Sci-Fi\n2,Heat,(no genres listed)\n',
        },
        {},
        plain((u, i, t, r - 0.5) for u, i, t, r in TEN),
        {"1": ("Matrix, The", "Action, Sci-Fi", ""), "2": ("Heat", "", "")}
        | dict.fromkeys("349", ("", "", "")),
        ["138,493        27,278    20,000,263"],
    ),
    "kuairand": (
        "data",
        {
            "log_standard_4_08_to_4_21_pure.csv": KUAI_LOG
            + "a,1,20220408,400,1650485801301,1,0\na,2,20220408,401,1650485801302,0,0\n",
            "log_standard_4_22_to_5_08_pure.csv": KUAI_LOG + "b,1,20220422,400,1650485801300,1,0\n",
            "log_random_4_22_to_5_08_pure.csv": KUAI_LOG + "b,7,20220422,400,1,1,0\n",
            "video_features_basic_pure.csv": KUAI_VIDEOS + '1,5,NORMAL,2022,ShortImport,"12,39"\n',
            "user_features_pure.csv": "user_id\na\n",
        },
        {},
        [
            ("1", "b", "1650485801300", "1"),
            ("1", "a", "1650485801301", "1"),
            ("2", "a", "1650485801302", "0"),
        ],
        {"1": ("author 5", "tag12 tag39", "NORMAL ShortImport"), "2": ("", "", "")},
        ["27,285", "1,436,609", "CC BY-SA 4.0"],
    ),
    "mind": (
        "MINDsmall_train",
        {"behaviors.tsv": BEHAVIOURS, "news.tsv": NEWS, "entity_embedding.vec": "x"},
        {},
        [
            ("N2", "U1", "1573603200"),
            ("N2", "U2", "1573732801"),
            ("N1", "U1", "1573808122"),
            ("N3", "U1", "1573808122"),
        ],
        {
            "N1": ('A "title", with marks', "sports, golf", "An abstract"),
            "N2": ("Another", "news, world", ""),
            "N3": ("", "", ""),
        },
        ["347,727", "Microsoft Research License"],
    ),
    "mind with history": (
        "MINDlarge_dev.zip",
        zipped({"behaviors.tsv": BEHAVIOURS, "news.tsv": NEWS}),
        {"history": True},
        [
            ("N9", "U1", "1570838400"),
            ("N8", "U1", "1570838401"),
            ("N2", "U1", "1573603200"),
            ("N2", "U2", "1573732801"),
            ("N1", "U1", "1573808122"),
            ("N3", "U1", "1573808122"),
        ],
        None,
        ["24,155,470"],
    ),
    "yambda": (
        "flat/50m",
        {
            "listens.parquet": table(
                uid=[1, 1, 2], item_id=[7, 8, 7], timestamp=[10, 5, 0], played_ratio_pct=[100, 20, 55]
            ),
            "artist_item_mapping.parquet": table(artist_id=[3, 4], item_id=[7, 9]),
        },
        {"min_rating": 50},
        [("7", "2", "0", "55"), ("7", "1", "10", "100")],
        {"7": ("artist 3", "", "")},
        ["46,467,212", "Apache"],
    ),
    "yambda likes": (
        "5b",
        {"likes.parquet": table(uid=[1, 2], item_id=[7, 8], timestamp=[10, 5])},
        {},
        [("8", "2", "5"), ("7", "1", "10")],
        {"7": ("", "", ""), "8": ("", "", "")},
        ["89,334,605", "yambda_5b_likes"],
    ),
    "recbole": (
        "ml-100k",
        {
            "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            + "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, t, r in TEN),
            "ml-100k.item": "item_id:token\tmovie_title:token_seq\tclass:token_seq\n1\tToy Story\tA B\n",
        },
        {},
        plain(TEN),
        {"1": ("Toy Story", "A B", "")} | dict.fromkeys("2349", ("", "", "")),
        ["100,000", "recbole_ml-100k"],
    ),
    "rere": (
        "Yelp",
        {
            "train/Y.csv": WINDOWS + "a,['x'],y,[5],6,['T5'],T6,[4.0],5.0,[100],200\n",
            "valid/Y.csv": WINDOWS
            + 'a,"[\'x\', \'y\']",z,"[5, 6]",7,"[\'T5\', \'T6\']",T7,"[4.0, 5.0]",1.0,"[100, 200]",300\n',
            "test/Y.csv": WINDOWS + "b,['y'],x,[6],5,['T6'],T5,[2.0],3.0,[150],150\n",
            "info/Y.txt": 'T5, the "first"\t5\nT6\t6\nT7\t7\n',
        },
        {},
        [
            ("5", "a", "100", "4"),
            ("6", "b", "150", "2"),
            ("5", "b", "150", "3"),
            ("6", "a", "200", "5"),
            ("7", "a", "300", "1"),
        ],
        {"5": ('T5, the "first"', "", ""), "6": ("T6", "", ""), "7": ("T7", "", "")},
        ["rere_y"],
    ),
}


def bring(folder, named, files):
    """Writes the files of a data set; returns what to name."""
    path = folder / "given" / named
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(files, bytes):
        path.write_bytes(files)
        return path
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def run(folder, name, named, **flags):
    named = named if isinstance(named, list) else [named]
    convert.main([name, *map(str, named), *as_flags({"output_dir": folder} | flags)])


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [tuple(row) for row in csv.reader(file)]


def tables_of(folder):
    """(rows of interactions, {item: texts}) of what was written, without headers, which are compared."""
    (one,), (other,) = (list((folder / name).glob("*")) for name in ("dataset", "information"))
    assert one.name == other.name
    (head, *rows), (of_items, *items) = rows_of(one), rows_of(other)
    assert head in (("item_id", "user_id", "timestamp"), ("item_id", "user_id", "timestamp", "rating"))
    assert of_items == ("item_id", "title", "tag", "description")
    return rows, {item_id: tuple(texts) for item_id, *texts in items}


@pytest.mark.parametrize("case", SETS)
def test_ten_rows_of_each_become_the_tables_written_out_by_hand(case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named, files, flags, interactions, items, words = SETS[case]
    run(".", case.split()[0], bring(tmp_path, named, files), **flags)
    rows, texts = tables_of(tmp_path)
    assert rows == interactions
    assert items is None or texts == items
    assert {row[0] for row in rows} == texts.keys()
    said = capsys.readouterr().out
    assert all(word in said for word in words), said
    assert "licence: " in said


@pytest.mark.parametrize("case", SETS)
def test_what_is_written_is_what_the_loader_reads(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named, files, flags, interactions, *_ = SETS[case]
    run(".", case.split()[0], bring(tmp_path, named, files), **flags | {"save_as": "x"})
    read = read_interactions(DataFlags(interaction_data="dataset/x.csv", cache_dir=str(tmp_path / "cache")))
    taken = {
        user: [read.item_ids[item] for item in read.items[slice(*read.offsets[n : n + 2])]]
        for n, user in enumerate(read.user_ids)
    }
    told = {}
    for item, user, *_ in interactions:
        told.setdefault(user, []).append(item)
    assert taken == told
    texts = TextFlags(text_data="information/x.csv", text_keys=("title", "tag", "description"))
    fields, facts = read_fields(read.item_ids, texts)
    assert facts["without_text"] == 0 and None not in fields


def test_check_data_takes_it_by_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [(u, (u + k) % 9, k, 5) for u in range(9) for k in range(5)]
    named, files, *_ = SETS["movielens"]
    ratings = {"u.data": "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, t, r in rows)}
    run(".", "movielens", bring(tmp_path, named, files | ratings), save_as="films")
    check_data.main(
        ["films", "--cache_dir", str(tmp_path / "cache"), "--text_keys", "title,tag", "--max_seq_length", "2"]
    )
    assert "9 users, 9 items, 45 interactions" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, folder, title",
    [
        ("minionerec", "minionerec/files", "minionerec_files"),
        ("onerec_think", "onerec_think/files", "onerec_think_beauty"),
    ],
)
def test_other_projects_files_are_read_by_preps_readers(name, folder, title, tmp_path, capsys):
    from pixelrec_train.commands import prep

    files = ROOT / "tests/fixtures" / folder
    prep.main(["--source", name, "--data_dir", str(files), "--output_dir", str(tmp_path / "prep")])
    run(tmp_path / "out", name, files)
    assert (tmp_path / f"out/dataset/{title}.csv").is_file()
    rows, items = tables_of(tmp_path / "out")
    assert sorted(rows) == sorted(rows_of(tmp_path / "prep/interactions.csv")[1:])
    told = {item_id: tuple(texts) for item_id, *texts in rows_of(tmp_path / "prep/items.csv")[1:]}
    assert items == {item_id: told[item_id] for item_id, _, _ in rows}


def slow_k_core(rows, k):
    while True:
        users, items = ([row[i] for row in rows] for i in (0, 1))
        left = [row for row in rows if users.count(row[0]) >= k and items.count(row[1]) >= k]
        if left == rows:
            return rows
        rows = left


PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)), max_size=60)


@given(PAIRS, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_k_core_and_duplicates_are_those_of_their_slow_twins(rows, k):
    users, items, times = np.array(rows or [(0, 0, 0)], np.int32)[: len(rows)].reshape(-1, 3).T
    assert [rows[i] for i in filters.k_core(users, items, k)] == slow_k_core(rows, k)
    exact = [row for i, row in enumerate(rows) if row not in rows[:i]]
    assert [rows[i] for i in filters.distinct(users, items, times, "exact")] == exact
    earliest = {}
    for i in sorted(range(len(rows)), key=lambda i: (rows[i][2], i)):
        earliest.setdefault(rows[i][:2], i)
    assert filters.distinct(users, items, times, "first").tolist() == sorted(earliest.values())


def test_some_users_come_with_all_that_they_took_and_are_others_with_another_seed():
    users = np.repeat(np.arange(50), 3)
    drawn = [filters.some_users(users, 10, seed) for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    assert len(drawn[0]) == 30 and len(np.unique(users[drawn[0]])) == 10
    assert len(filters.some_users(users, 50, 1)) == 150


def test_numbers_are_written_as_they_are_read():
    assert list(map(shown, np.array([4.5, 4.0, 0.1], np.float32))) == ["4.5", "4", "0.1"]
    assert list(map(shown, np.array([1588687728923.0, 0.25]))) == ["1588687728923", "0.25"]


def changed(case, changes):
    """What is named of a case, and its files, some of them others or (None) left out."""
    named, files, *_ = SETS[case]
    return named, {name: content for name, content in (files | changes).items() if content is not None}


ML = "userId,movieId,rating,timestamp\n"
BAD = {  # what is wrong: a good data set, {file: other content, None = it is not there}, flags, what is said
    "k_core 0": ("movielens", {}, {'k_core': 0}, "--k_core must be at least 1"),
    "way": ("movielens", {}, {'duplicates': 'last'},
        "--duplicates must be None or one of all, exact, first"),
    "a name that leads elsewhere": ("movielens", {}, {'save_as': '../x'},
        "--save_as must be None or the beginning"),
    "no films": ("movielens", {"u.item": None}, {},
        r"movielens needs films beside u\.data: u\.item\. What was named holds u\.data, u\.user"),
    "no ratings": ("movielens", {"u.data": None}, {},
        r"needs its ratings: ratings\.csv, ratings\.dat or u\.data"),
    "no metadata": ("amazon2014", {"meta_Beauty.json.gz": None}, {},
        "amazon2014 needs items: meta_CATEGORY"),
    "two metadata": ("amazon2014", {"meta_Toys.json.gz": gz(META_2014)}, {},
        r"one file of items: .*but 2 fit: .*meta_Toys\.json\.gz"),
    "no news": ("mind", {"news.tsv": None}, {}, r"mind needs its news: news\.tsv"),
    "no videos": ("kuairand", {"video_features_basic_pure.csv": None}, {},
        "kuairand needs features of videos"),
    "no items": ("pixelrec", {"Item Information/Pixel50K.csv": None}, {},
        "one CSV with the columns item_id and title, but 0 of 1"),
    "fields": ("movielens", {"u.data": 'a\t1\t5\t30\na\t2\t4\n'}, {},
        r"u\.data line 2 has 3 fields, not the 4 of"),
    "time": ("movielens", {"u.data": 'a\t1\t5\t30\na\t2\t4\tsoon\n'}, {},
        r"u\.data line 2: the timestamp is 'soon'\. It must be a number"),
    "infinite": ("movielens", {"u.data": 'a\t1\tinf\t30\n'}, {}, r"u\.data line 1: the rating is 'inf'"),
    "film": ("movielens", {"u.item": '1|x\n'}, {}, r"u\.item line 1 has 2 fields, not the 24"),
    "json": ("amazon2014", {"reviews_Beauty_5.json.gz": gz(REVIEWS + '{"reviewerID": "a", "asi')}, {},
        r"reviews_Beauty_5\.json\.gz line 11 is no JSON object: .\{.reviewerID"),
    "no object": ("amazon2018", {"Industrial_5.json.gz": gz('[1, 2]\n')}, {}, "line 1 is no JSON object"),
    "code": ("amazon2014", {"meta_Beauty.json.gz": gz(META_2014 + "__import__('os').abort()\n")}, {},
        r"meta_Beauty\.json\.gz line 5 is no JSON object"),
    "deep": ("amazon2014", {"meta_Beauty.json.gz": gz('[' * 100000 + '\n')}, {},
        r"meta_Beauty\.json\.gz line 1 is no JSON object"),
    "key": ("amazon2014", {"reviews_Beauty_5.json.gz": gz(json_lines({'reviewerID': 'a', 'overall': 1}))}, {},
        r"line 1 has no asin\. Its entries are reviewerID, overall"),
    "id": ("amazon2014", {"reviews_Beauty_5.json.gz": gz(REVIEWS.replace('"a"', '[1]'))}, {},
        r"line 1 has the id \[1\]\. An id is a text"),
    "surrogate": ("amazon2014", {"reviews_Beauty_5.json.gz": gz(REVIEWS.replace('"a"', '"\\ud800"'))}, {},
        "with a character that is none"),
    "rating": ("amazon2014", {"reviews_Beauty_5.json.gz": gz(REVIEWS.replace(": 3,", ": [],"))},
        {},
        r"line 3: overall is '\[\]'"),
    "cut": ("amazon2014", {"reviews_Beauty_5.json.gz": gz(REVIEWS)[:-30]}, {},
        r"reviews_Beauty_5\.json\.gz is damaged"),
    "column": ("movielens 20m", {"ratings.csv": 'userId,film,rating,timestamp\na,1,5,3\n'}, {},
        r"ratings\.csv has no column movieId\. Its columns are: userId, film"),
    "rated": ("movielens 20m", {"ratings.csv": ML + 'a,1,5,30\n\na,2,x,10\n'}, {},
        r"ratings\.csv line 4: rating is 'x'"),
    "nobody": ("movielens 20m", {"ratings.csv": ML + 'a,1,5,30\n,2,4,10\n'}, {},
        r"ratings\.csv line 3 has no userId"),
    "wide": ("movielens 20m", {"ratings.csv": ML + 'a,1,5,30,7,8\n'}, {},
        "not well-formed CSV: Expected 4 fields in line 2, saw 6"),
    "nul": ("movielens 20m", {"ratings.csv": ML + 'a,1,5,3\x00\n'}, {},
        r"ratings\.csv has a NUL byte in line 2"),
    "a film without an id": ("movielens 20m", {"movies.csv": 'movieId,title,genres\n1,A,B\n ,C,D\n'}, {},
        r"movies\.csv line 3 has no movieId"),
    "empty": ("movielens", {"u.data": ''}, {}, r"u\.data is empty"),
    "encoding": ("movielens", {"u.data": 'é\t1\t5\t3\n'.encode('latin-1')}, {},
        r"u\.data is not utf-8 text, behind line 0"),
    "clicks": ("mind", {"behaviors.tsv": '1\tU\t11/15/2019 8:55:22 AM\t\tN1 N2\n'}, {},
        "line 1: 'N1' is no impression with its click.* The test part has none"),
    "day": ("mind", {"behaviors.tsv": '1\tU\t2019-11-15\t\tN1-1\n'}, {},
        "line 1: the time is '2019-11-15'"),
    "no parquet": ("yambda", {"listens.parquet": b'PAR1 and so on'}, {}, r"listens\.parquet is damaged"),
    "windows": ("rere", {"test/Y.csv": None}, {}, "rere needs one CSV in each of train, valid and test"),
    "list": ("rere", {"test/Y.csv": WINDOWS + 'b,[],x,6,5,[],T5,[],3.0,[1],2\n'}, {},
        r"test/Y\.csv, row 1: .* must be lists of one length"),
    "nothing left": ("movielens", {}, {'k_core': 5},
        "nothing is left of ml-100k behind '5-core'. Ask for less"),
    "nothing rated so": ("movielens", {}, {'min_rating': 6}, "behind 'rating at least 6'"),
    "no ratings at all": ("pixelrec", {}, {'min_rating': 3}, "--min_rating 3: .* has no ratings"),
    "history": ("movielens", {}, {'history': True}, "--history is for mind. Leave it out"),
}  # fmt: skip

ALONE = {  # what is wrong: data set, what is named, its files (or its content), what is said
    "unknown": ("movilens", "ml", SETS["movielens"][1], "'movilens' is known. Did you mean movielens"),
    "far from any": ("netflix", "ml", SETS["movielens"][1], "There are pixelrec, "),
    "another edition": ("amazon2023", "b", {"X.jsonl": REVIEWS, "meta_X.jsonl": META_2023},
        r"X\.jsonl line 1 has no user_id"),
    "sequential": ("yambda", "s", {"listens.parquet": table(uid=[1], item_ids=[[7]], timestamps=[[1]])},
        r"columns uid, item_ids, timestamps\. Bring the flat files"),
    "sessions": ("recbole", "r", {"x.inter": "a:token\titem_id_list:token_seq\titem_id:token\na\t1\t3\n"},
        r"x\.inter holds sessions"),
    "no time": ("recbole", "r", {"x.inter": "user_id:token\titem_id:token\na\t1\n"},
        r"x\.inter has no column timestamp; its columns are user_id, item_id"),
    "tar": ("kuairand", "KuaiRand-Pure.tar.gz", gz("x"), r"is a tar archive\. Unpack it"),
    "half a zip": ("movielens", "ml-1m.zip", SETS["movielens 1m"][1][:-30], "What was named holds ml-1m.zip"),
    "a folder of a project": ("minionerec", "m", {"x": ""}, "--data_dir .* holds no CSV of train"),
    "an empty folder": ("mind", "m", {"x/y/z": ""}, r"mind needs its clicks: behaviors\.tsv\. .* holds z"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(case, tmp_path, capsys):
    good, changes, flags, says = BAD[case]
    named, files = changed(good, changes)
    refused(tmp_path, capsys, says, good.split()[0], bring(tmp_path, named, files), **flags)


@pytest.mark.parametrize("case", ALONE)
def test_what_is_no_such_data_set_is_told(case, tmp_path, capsys):
    name, named, files, says = ALONE[case]
    refused(tmp_path, capsys, says, name, bring(tmp_path, named, files))


def test_nothing_and_what_is_not_there_are_told(tmp_path, capsys):
    (tmp_path / "ml-1m.zip").touch()
    says = r"ml-1n\.zip does not exist.*ml-1m\.zip does: did you"
    refused(tmp_path, capsys, says, "movielens", tmp_path / "ml-1n.zip")
    for arguments in ([], ["movielens"]):
        with pytest.raises(SystemExit):
            convert.main(arguments)
        assert "name a data set and its files: convert NAME FILES" in capsys.readouterr().err


def refused(folder, capsys, says, name, path, **flags):
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    with pytest.raises(SystemExit) as stop:
        run(folder / "new/out", name, path, **flags)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1 and len(err) < 600, err
    assert re.search(says, err), err
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


def test_a_broken_row_of_items_leaves_nothing_behind_though_the_interactions_were_good(tmp_path, capsys):
    path = bring(tmp_path, *changed("movielens", {"u.item": "1|" + "x|" * 22 + "1\n2|y\n"}))
    refused(tmp_path, capsys, r"u\.item line 2 has 2 fields, not the 24", "movielens", path)


def test_tables_that_are_there_are_replaced_only_when_told(tmp_path, capsys):
    named, files, *_ = SETS["movielens"]
    path = bring(tmp_path, named, files)
    for flags, stopped in (({}, False), ({}, True), ({"overwrite": True}, False)):
        if stopped:
            with pytest.raises(SystemExit):
                run(tmp_path, "movielens", path, **flags)
            assert "ml-100k.csv exists. Choose another" in capsys.readouterr().err
        else:
            run(tmp_path, "movielens", path, **flags)
    with pytest.raises(SystemExit):  # what is read lies where it would be written
        run(tmp_path, "pixelrec", [*bring(tmp_path, *SETS["pixelrec"][:2]).rglob("*.csv")], save_as="ml-100k")
    assert "exists" in capsys.readouterr().err


def test_files_may_be_named_one_by_one_and_in_several_parts(tmp_path, capsys):
    rest = NEWS.replace("N1", "N3").replace("N2", "N4")
    train = bring(tmp_path, "MINDsmall_train", {"behaviors.tsv": BEHAVIOURS, "news.tsv": NEWS})
    dev = bring(
        tmp_path,
        "dev.zip",
        zipped({"behaviors.tsv": "9\tU3\t11/16/2019 1:00:00 AM\t\tN3-1\n", "news.tsv": rest}),
    )
    run(tmp_path, "mind", [train / "news.tsv", train / "behaviors.tsv", dev])
    rows, items = tables_of(tmp_path)
    assert len(rows) == 5 and rows[-1] == ("N3", "U3", "1573866000")
    assert items["N3"] == items["N1"] == ('A "title", with marks', "sports, golf", "An abstract")


def test_a_path_leads_into_a_zip_file_and_nowhere_else(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped({"a/b.txt": "inside"}))
    with open_unpacked(tmp_path / "x.zip/a/b.txt") as file:
        assert file.read() == b"inside"
    for path in ("y.zip/a/b.txt", "no.txt"):
        with pytest.raises(FileNotFoundError):
            open_unpacked(tmp_path / path)


def test_every_data_set_names_its_licence_in_its_file_and_on_the_page():
    page = (ROOT / "docs/convert.md").read_text(encoding="utf-8")
    for name in convert.NAMES:
        module = importlib.import_module(f"pixelrec_train.data.convert.sets.{name}")
        assert module.LICENCE.endswith(".") and module.LICENCE in " ".join(page.split()), name
        assert f"convert.py {name} " in page
        counts = getattr(module, "PUBLISHED", {})
        for one in [counts] if isinstance(counts, tuple) else counts.values():
            assert name == "amazon2023" or all(count in page for count in one[:3]), one


def test_a_stage_without_a_terminal_tells_of_itself_in_lines_with_the_time_left(monkeypatch, capsys):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress("interactions", 1000) as tell:
        for _ in range(6):
            tell(100)
    with progress.progress("items") as tell:
        for _ in range(3):
            tell(1)
    assert capsys.readouterr().out.splitlines() == [
        "interactions: 300 of 1,000 rows, 25/s, 12s, 28s left",
        "interactions: 600 of 1,000 rows, 25/s, 24s, 16s left",
        "items: 3 rows, 0/s, 12s",
    ]  # fmt: skip
