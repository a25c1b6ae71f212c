"""TF-IDF: items whose words are those of the history's items."""

from sklearn.feature_extraction.text import TfidfVectorizer

from pixelrec_train.errors import InputError
from pixelrec_train.untrained.history_sums import HistorySums

CJK = r"\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af"  # kana, Chinese characters, Hangul syllables
WORD = rf"[{CJK}]|[^\W{CJK}]{{2,}}"


def tfidf(texts, recent=10, decay=0.6):
    """HistorySums of the cosines of TF-IDF vectors (scikit-learn's).

    Chinese, Japanese and Korean, written without spaces between words, count by character.

    Args:
        texts: [num_items] str.
        recent, decay: as in item_knn, and chosen as there.

    Raises:
        InputError: the texts hold no word.
    """
    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english", token_pattern=WORD)
    try:
        vectors = vectorizer.fit_transform(texts)
    except ValueError as error:
        raise InputError(f"TF-IDF finds no word in the item texts ({error}). Check --text_keys.") from None
    return HistorySums(vectors, vectors, recent, decay)
