"""The rows that a model has to beat, made by name."""

from dataclasses import replace

from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import ByScores, Popularity
from pixelrec_train.recommend.parts import COLD, Summed, never_taken
from pixelrec_train.run.log import say
from pixelrec_train.run.progress import progress
from pixelrec_train.trainings.blending import chosen_by_validation
from pixelrec_train.trainings.train_sequential import MODELS, train_sequential
from pixelrec_train.untrained import ease as linear
from pixelrec_train.untrained.item_knn import ItemKnn
from pixelrec_train.untrained.tfidf import tfidf

KNN_TFIDF = "knn_tfidf"


def make_baselines(config, data, split, parts, notes):
    """{name: Recommender}; of knn_tfidf the Blended.

    Args:
        config: CompareConfig.
        data: Interactions.
        parts: Parts, of `untrained`; those that are trained are added.
        notes: a list that gets lines of what was chosen, and what was left out.
    """
    made = {}
    for name in config.baselines:
        if name == "ease" and data.num_items > linear.MAX_ITEMS:
            notes.append(
                f"ease: left out, it inverts a matrix of items by items, and {data.num_items:,} items are "
                f"more than {linear.MAX_ITEMS:,}"
            )
            continue
        say(f"baseline: {name}")
        if name in MODELS:
            parts.add(name, train_sequential(name, config, data, split, notes))
        if name == KNN_TFIDF:
            names = ["item_knn", "tfidf"]
            made[name] = chosen_by_validation(names, parts, data, split, config, vars(config))
        else:
            made[name] = parts[name]
    return made


def untrained(ranking, data, split, texts, notes):
    """{name: () -> Recommender}

    Args:
        ranking: RankingFlags, for what is chosen on validation.
        texts: () -> [num_items] str.
        notes: as of make_baselines.
    """

    def ease():
        sums, penalty, note = chosen_ease(ranking, data, split)
        notes.append(note)
        told = (penalty, sums.recent, sums.decay)
        return Summed(sums, lambda: linear.Ease(split.taken, data.num_items, *told).of_its_own())

    def knn():
        found = ItemKnn(split.taken, data.num_items)
        with progress("item_knn", data.num_items, "items") as done:
            return Summed(found.sums(done), found.of_its_own)

    return {
        "popularity": lambda: Popularity(split.popularity),
        "item_knn": knn,
        "tfidf": lambda: Summed(tfidf(texts())),
        "ease": ease,
        COLD: lambda: never_taken(split.popularity),
    }


def chosen_ease(ranking, data, split):
    """(HistorySums of EASE^R, its penalty, a line): penalty and decay are what validation ndcg@10 chooses."""
    best, chosen = -1.0, None
    for penalty in linear.PENALTIES:
        sums = linear.ease(split.taken, data.num_items, penalty)
        before = best
        for decay in linear.DECAYS:
            tried = replace(sums, decay=decay)
            ndcg = metrics.figures(judge(ByScores(tried), split.valid, ranking).places, (10,))["ndcg@10"]
            if ndcg > best:
                best, chosen, what = ndcg, (tried, penalty), f"penalty {penalty:g}, decay {decay:g}"
        if best == before:
            break  # a larger penalty is no better any more
    return *chosen, f"ease: {what}, by validation ndcg@10 ({100 * best:.2f})"
