"""Which rows of text files to keep: neither too short nor too long, nor there already."""

import hashlib
import re

from pixelrec_train.libraries import import_datasketch

SHINGLE = 5  # characters
PERMUTATIONS = 128
SPACE = re.compile(r"\s+")


class Cleaner:
    """Asked row after row; of several alike the first is kept."""

    def __init__(self, least, most, exact, similarity, seed=42):
        """
        Args:
            least, most: characters of a text; None = no limit.
            exact: whether a text that was there before goes (but for case and white space).
            similarity: share of common SHINGLEs (Jaccard's) from which a text is a near duplicate; None =
            none is.
        """
        self.least, self.most, self.exact, self.similarity = least, most, exact, similarity
        self.seen, self.seed = set(), seed
        if similarity:
            self.datasketch = import_datasketch()
            self.sketches = []
            self.index = self.datasketch.MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS)

    def why_not(self, text):
        """Why a text is left out, in words for counting; None = it is kept."""
        if self.least and len(text.strip()) < self.least:
            return f"shorter than {self.least:,} characters"
        if self.most and len(text.strip()) > self.most:
            return f"longer than {self.most:,} characters"
        plain = SPACE.sub(" ", text).strip().casefold()
        if self.exact:
            digest = hashlib.blake2b(plain.encode(), digest_size=16).digest()
            if digest in self.seen:
                return "there before"
            self.seen.add(digest)
        if self.similarity:
            sketch = self.datasketch.MinHash(PERMUTATIONS, seed=self.seed)
            sketch.update_batch([shingle.encode() for shingle in shingles(plain)])
            near = self.index.query(sketch)
            if any(sketch.jaccard(self.sketches[key]) >= self.similarity for key in near):
                return f"nearly there before (similarity {self.similarity:g} or more)"
            self.index.insert(len(self.sketches), sketch)
            self.sketches.append(sketch)
        return None


def shingles(text):
    """{every SHINGLE characters in a row}, or the text itself where it is shorter."""
    return {text[at : at + SHINGLE] for at in range(max(len(text) - SHINGLE, 0) + 1)}
