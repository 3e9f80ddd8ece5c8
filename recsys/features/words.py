"""Texts as rows of weighted words."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from recsys.shop.attributes import Attributes


def tf_idf(attributes: Attributes, changes: npt.NDArray[np.int64], most: int) -> sparse.csr_matrix:
    """ln(owners / owners with the word) where a text of the owner in one of the `changes` has the word: `[owners, words]`.

    At most `most` words are used, the most frequent first; words of a single owner are left out.
    """
    n = len(attributes.born)
    texts, of_change = np.unique(attributes.value[changes], return_inverse=True)
    words = pd.Series(attributes.texts.ids[texts], dtype=object).str.lower().str.split().explode().dropna()
    word, names = pd.factorize(words, sort=True)
    ones = np.ones(len(words), dtype=np.float32)
    of_text = sparse.csr_matrix((ones, (words.index, word)), shape=(len(texts), len(names)))
    once = np.ones(len(changes), dtype=np.float32)
    of_owner = sparse.csr_matrix((once, (attributes.owner[changes], of_change)), (n, len(texts)))
    matrix = (of_owner @ of_text).tocsc()
    matrix.data[:] = 1
    frequency = np.diff(matrix.indptr)
    kept = np.sort(np.lexsort((np.arange(len(frequency)), -frequency))[:most])
    kept = kept[frequency[kept] > 1]
    idf = np.log(n / frequency[kept]).astype(np.float32)
    return (matrix[:, kept] @ sparse.diags_array(idf)).tocsr()
