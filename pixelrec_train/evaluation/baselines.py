"""Recommenders without training steps: what every trained model has to beat.

Each is a function for recommender.ByScores: b histories, oldest item first -> [b, num_items] scores.
The settings were chosen by validation ndcg@10 on amazon_scientific.
"""

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from pixelrec_train.errors import InputError

CJK = r"\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af"  # kana, Chinese characters, Hangul syllables
WORD = rf"[{CJK}]|[^\W{CJK}]{{2,}}"


def item_knn(taken, num_items, recent=10, decay=0.8):
    """Items that the takers of the history's items took: cosines of the columns of the user x item matrix.

    Users count with what they took in training. The newest of the history's last `recent` items weighs 1,
    each one before it `decay` times as much.

    Args:
        taken: interactions.Taken of the split.

    Source: Deshpande and Karypis, TOIS 2004.
    """
    users, items = taken.pairs()
    shape = (int(users.max()) + 1, num_items)
    taken = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)
    taken.data[:] = 1  # taking an item twice counts once
    norms = np.sqrt(np.maximum(np.asarray(taken.sum(0)).ravel(), 1))
    columns = taken @ sparse.diags(1 / norms)
    cosines = (columns.T @ columns).tocoo()
    cosines.data[cosines.row == cosines.col] = 0
    cosines = cosines.tocsr()
    return lambda histories: (recency(histories, shape[1], recent, decay) @ cosines).toarray()


def tfidf(texts, recent=10, decay=0.6):
    """Items whose words are those of the history's last items: cosine of TF-IDF vectors (scikit-learn's).

    Chinese, Japanese and Korean, written without spaces between words, count by character.

    Args:
        texts: [num_items] str.
        recent, decay: as in item_knn.

    Raises:
        InputError: the texts hold no word.
    """
    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english", token_pattern=WORD)
    try:
        vectors = vectorizer.fit_transform(texts)
    except ValueError as error:
        raise InputError(f"TF-IDF finds no word in the item texts ({error}). Check --text_keys.") from None
    return lambda histories: (recency(histories, len(texts), recent, decay) @ vectors @ vectors.T).toarray()


def recency(histories, num_items, recent, decay):
    """[b, num_items] sparse: 1 for a history's newest item, decay for the one before, decay ** 2, …"""
    histories = [history[-recent:] for history in histories]
    lengths = np.array([len(history) for history in histories])
    age = np.concatenate([np.arange(n)[::-1] for n in lengths])
    rows = np.repeat(np.arange(len(histories)), lengths)
    shape = (len(histories), num_items)
    return sparse.csr_matrix((np.power(decay, age), (rows, np.concatenate(histories))), shape)
