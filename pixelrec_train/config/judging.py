"""Flags of evaluation: which lists, and how they are judged."""

from dataclasses import dataclass

from pixelrec_train.errors import InputError
from pixelrec_train.flags import DISTINCT, Flags, Rule, as_text, at_least, flag, given, one_of, replace

TRAINED = ("sasrec", "esasrec", "hstu")  # baselines that are trained, one after the other
BASELINES = ("popularity", "item_knn", "tfidf", "knn_tfidf", "ease", *TRAINED)
FIGURES = ("hit", "recall", "ndcg", "mrr")


@dataclass(frozen=True, kw_only=True)
class RankingFlags(Flags):
    """How recommendations are judged."""

    topk: tuple[int, ...] = flag(
        "cut-offs of recall, ndcg and mrr",
        (5, 10, 50),
        Rule("needs cut-offs of at least 1", lambda ks: ks and min(ks) >= 1),
        DISTINCT,
    )
    keep_seen: bool = flag("leave items of the user's own history in the ranking", False)
    eval_batch_size: int = flag("users per GPU and block in evaluation", 256, at_least(1), may_differ=True)


@dataclass(frozen=True, kw_only=True)
class ValidUsersFlags(Flags):
    """Whom a run judges while it trains."""

    valid_users: int | None = flag(
        "validation users judged inside the run, drawn once; None = all", None, at_least(1)
    )


@dataclass(frozen=True, kw_only=True)
class CatalogueFlags(Flags):
    eval_tokens: int = flag(
        "item tokens per GPU and block when the catalogue is encoded", 16384, at_least(1), may_differ=True
    )


@dataclass(frozen=True, kw_only=True)
class RetrievalFlags(CatalogueFlags):
    """How the nearest items are found."""

    retrieval: str = flag(
        "how lists are found (the same ones): faiss = inner-product index, on GPUs where faiss-gpu is; "
        "faiss_fp16 = there in half the memory; exact = torch on this rank's device; auto = exact on GPUs, "
        "else faiss. Places are counted on the device, without lists",
        "auto",
        one_of("auto", "faiss", "faiss_fp16", "exact"),
        may_differ=True,
    )


def is_figure(name):
    """Whether it is one at a cut-off, as hit@10."""
    figure, _, k = name.partition("@")
    return figure in FIGURES and k.isascii() and k.isdigit() and int(k) > 0


def cut_off_as_asked(ranking):
    """RankingFlags whose --topk are the cut-offs of --metrics, where it says any, and of --topk if given."""
    if not ranking.metrics:
        return ranking
    told = ranking.topk if "topk" in given(ranking) else ()
    cut_offs = {int(name.partition("@")[2]) for name in ranking.metrics}
    return replace(ranking, topk=tuple(sorted(cut_offs.union(told))))


def require_cut_off(topk, best_by):
    """Raises InputError where the figure that chooses best_model is not among those that are computed."""
    name, _, k = best_by.partition("@")
    if k and (not k.isdigit() or int(k) not in topk):
        raise InputError(
            f"--topk must contain {k}: best_model is chosen by {best_by}, got {as_text(topk)!r}."
        )
