"""The rows that a model has to beat, made by name."""

from dataclasses import replace

from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import ByScores, Popularity
from pixelrec_train.run.log import say
from pixelrec_train.trainings.train_sequential import MODELS, train_sequential
from pixelrec_train.untrained import ease as linear
from pixelrec_train.untrained.item_knn import item_knn
from pixelrec_train.untrained.tfidf import tfidf


def make_baselines(config, data, split, texts):
    """({name: Recommender}, lines of what was chosen for them and what was left out).

    Args:
        config: CompareConfig.
        data: Interactions.
        texts: [num_items] str.
    """
    made, notes = {}, []
    for name in config.baselines:
        if name == "knn_tfidf":
            continue  # a blend, see compare_models
        if name == "ease" and data.num_items > linear.MAX_ITEMS:
            notes.append(
                f"ease: left out, it inverts a matrix of items by items, and {data.num_items:,} items are "
                f"more than {linear.MAX_ITEMS:,}"
            )
            continue
        say(f"baseline: {name}")
        if name == "ease":
            sums, _, note = chosen_ease(config, data, split)
            made[name] = ByScores(sums)
            notes.append(note)
        elif name in MODELS:
            made[name] = train_sequential(name, config, data, split)
        elif name == "popularity":
            made[name] = Popularity(split.popularity)
        elif name == "item_knn":
            made[name] = ByScores(item_knn(split.taken, data.num_items))
        else:
            made[name] = ByScores(tfidf(texts))
    return made, notes


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
