"""Parts of a run's page that are about single users and items: ten lists, and the map of the catalogue."""

from pixelrec_train.report.charts import scatter
from pixelrec_train.report.evidence import LISTED
from pixelrec_train.report.markup import card, cards, h, joined, legend, missing, section


def not_left(run, what):
    """Why a part is not there, and how it comes."""
    if run.told:
        return missing(
            f"The model of this run was asked in prompts, of which a run keeps no {what}. scripts/predict.py "
            f"--model_dir {run.directory}/best_model/llm writes lists for every user."
        )
    return missing(
        f"This run left no {what}: it is of an older version. python scripts/evaluate_pixelrec.py "
        f"--checkpoint {run.directory}/best_model --split test leaves them, then "
        f"python scripts/report.py {run.directory} shows them."
    )


def users_section(run):
    """Ten users as a person reads them."""
    title, found = "Ten users", run.told.get("examples")
    if not found:
        return section("users", title, None, not_left(run, "lists of single users"))
    hits = sum(one["place"] is not None and one["place"] < LISTED for one in found)
    row, metric = run.ranked.get(run.told.get("model"), {}), f"recall@{LISTED}"
    of_all = f"; of all users {100 * row[metric]:.2f} %" if metric in row else ""
    lead = (
        f"Not chosen: drawn once by a fixed seed ({run.told.get('seed')}) from all users of the test split, "
        f"the same for every run on these data. {hits} of {len(found)} have their target among the first "
        f"{LISTED}{of_all}."
    )
    return section("users", title, lead, cards([user_card(one) for one in found], least="26rem"))


def user_card(one):
    place = one["place"]
    if one["target"] is None:
        badge = h("span", "target not known", class_="badge")
    elif place is None:
        badge = h("span", f"target not among the first {one['listed']:,}", class_="badge")
    else:
        cls = "badge hit" if place < LISTED else "badge"
        badge = h("span", f"target at place {place + 1}", class_=cls)
    listed = [
        h("li", words(item), class_="hit" if n == place else None, title=score(item[2]))
        for n, item in enumerate(one["list"])
    ]
    older = one["taken"] - len(one["history"])
    return h(
        "article",
        h("header", h("b", one["user"]), badge),
        h("h4", "took, newest last", f"; {older:,} before are not shown" if older else None),
        h("ol", [h("li", words(item)) for item in one["history"]], class_="items", start=older + 1),
        h("h4", "took next"),
        h("ul", h("li", words(one["target"]) if one["target"] else "not known"), class_="items plain"),
        h("h4", f"the first {len(listed)} of the list"),
        h("ol", listed, class_="items"),
        class_="card user",
    )


def words(item):
    """An item's text, or its id where it has none."""
    return h("span", item[1] or item[0], title=item[0])


def score(value):
    return None if value is None else f"score {value:.4f}"


def map_section(run):
    """Item embeddings in a plane, and gauges of collapse."""
    title, found = "The catalogue as the model sees it", run.told.get("map")
    if not found:
        return section("map", title, None, not_left(run, "embeddings"))
    ends, names = upper_ends([taken for taken in found["taken"] if taken]), found.get("kinds")
    kind = found.get("kind") or [-1] * len(found["id"])
    points = [
        (*xy, f"{kind_class(k)} t{level(taken, ends)}", f"{item_id} {text} · taken {taken:,} times")
        for xy, k, taken, item_id, text in zip(
            found["xy"], kind, found["taken"], found["id"], found["text"], strict=True
        )
    ]
    ways = [("of-kind", found["column"])] if names else []
    ways.append(("of-taken", "how often taken in training"))
    choose = [
        joined([h("input", type="radio", name="colour", id=each, checked=not n), h("label", text, for_=each)])
        for n, (each, text) in enumerate(ways)
    ]
    keys = [h("div", legend(taken_legend(ends)), class_="by-taken")]
    if names:
        entries = [(kind_class(n), name) for n, name in enumerate(names)]
        entries += [(kind_class(-1), "others")] * (-1 in kind)
        keys.append(h("div", legend(entries), class_="by-kind"))
    shares = " and ".join(f"{100 * share:.0f} %" for share in found["explained"])
    lead = (
        f"{len(points):,} items; the two directions along which their embeddings differ most (principal "
        f"components of unit vectors), which hold {shares} of the variance."
    )
    plane = h("div", choose, keys, scatter(points), class_="card map")
    return section("map", title, lead, cards([plane, gauges_card(run)], least="24rem"))


def kind_class(number):
    return "others" if number < 0 else f"k{number}"


def upper_ends(taken):
    """Of up to five groups of about equally many items."""
    taken = sorted(taken)
    return sorted({taken[-(-len(taken) * n // 5) - 1] for n in range(1, 6)}) if taken else []


def level(taken, ends):
    """0 = never, else the group, from 1."""
    return 0 if not taken else 1 + sum(taken > end for end in ends)


def taken_legend(ends):
    yield "t0", "never"
    for n, end in enumerate(ends):
        low = ends[n - 1] + 1 if n else 1
        yield f"t{n + 1}", f"{low:,}" if low == end else f"{low:,}–{end:,}"


def gauges_card(run):
    found, width = run.told["gauges"], run.told["dimensions"]
    most = min(width, found["items"])
    return card(
        "Collapse?",
        gauge(
            "mean cosine of two items", f"{found['mean_cosine']:.3f}", found["mean_cosine"],
            "1 = all items in one direction: collapsed; near 0 = spread out",
        ),
        gauge(
            "effective rank", f"{found['effective_rank']:.1f} of {most:,}", found["effective_rank"] / most,
            "in how many directions items differ: e to the entropy of the singular values; 1 = collapsed",
        ),
        gauge(
            "items with a twin", f"{100 * found['alike']:.1f} %", found["alike"],
            "share whose nearest other item has a cosine of 0.99 or more: to the model they are one",
        ),
        note=f"{found['items']:,} items, width {width:,}",
    )  # fmt: skip


def gauge(name, value, share, text):
    meter = h("div", h("i", style=f"width:{100 * min(max(share, 0), 1):.1f}%"), class_="meter")
    return h("div", h("b", value), h("span", name), meter, h("small", text), class_="gauge")
