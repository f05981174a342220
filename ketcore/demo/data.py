"""CLINC150 as numbers: sentences become rows of a sparse averaging matrix.

A sentence is lower-cased and cut into words.  Known words have ids 1, 2, ... in alphabetical order; id 0
stands for every word that the training split does not have.

Data: Larson et al., "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction",
EMNLP 2019.
"""

import lzma
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from scipy.sparse import csr_array

Array = np.ndarray

UNKNOWN = 0


@dataclass(frozen=True)
class Split:
    """Sentences and their intents.

    Attributes
    ----------
    averages : csr_array, (sentences, words) float32
        `averages @ table` has the mean word vectors.
    intents : array, (sentences,) int64
        The right answers.
    """

    averages: csr_array
    intents: Array


@dataclass(frozen=True)
class Corpus:
    """The three splits, the names of the intents, and the id of each word."""

    train: Split
    validation: Split
    test: Split
    intents: tuple[str, ...]
    vocabulary: Mapping[str, int]

    @property
    def words(self) -> int:
        """Rows of an embedding table: the vocabulary and one row for unknown words."""
        return len(self.vocabulary) + 1


def load() -> Corpus:
    """Read the data shipped with ketcore: 15000, 3000 and 4500 sentences of 150 intents."""
    lines = [line for line in read_lines() if not line[0].startswith("oos")]
    names = tuple(sorted({intent for _, intent, _ in lines}))
    vocabulary = build_vocabulary(text for split, _, text in lines if split == "train")

    def split(name: str) -> Split:
        chosen = [(intent, text) for line_split, intent, text in lines if line_split == name]
        intents = np.searchsorted(names, [intent for intent, _ in chosen])
        return Split(average_words([text for _, text in chosen], vocabulary), intents)

    return Corpus(split("train"), split("val"), split("test"), names, vocabulary)


def read_lines() -> list[tuple[str, str, str]]:
    """The lines (split, intent, text) of the file; the splits of out-of-scope sentences start with "oos"."""
    packed = (files("ketcore.data") / "clinc150" / "clinc150.tsv.xz").read_bytes()
    lines = (line.split("\t") for line in lzma.decompress(packed).decode().splitlines())
    return [(split, intent, text) for split, intent, text in lines]


def tokenize(text: str) -> list[str]:
    """Cut a sentence into lower-cased words; digits are kept, punctuation is dropped.

    >>> tokenize("What's my APR, please?")
    ['what', 's', 'my', 'apr', 'please']
    """
    return re.findall(r"\w+", text.lower())


def build_vocabulary(texts: Iterable[str]) -> dict[str, int]:
    """Ids of the words in `texts`, from 1 on, in alphabetical order.

    >>> build_vocabulary(["to be", "or not to be"])
    {'be': 1, 'not': 2, 'or': 3, 'to': 4}
    """
    words = sorted({word for text in texts for word in tokenize(text)})
    return {word: number for number, word in enumerate(words, start=1)}


def average_words(texts: Sequence[str], vocabulary: Mapping[str, int]) -> csr_array:
    """The averaging matrix of `texts`: entry (i, word) is the share of `word` among the words of sentence i.

    Returns
    -------
    csr_array, (texts, words) float32
        A sentence without any word is a row of zeros.

    Examples
    --------
    >>> average_words(["or be be be", "perhaps"], {"be": 1, "or": 2}).toarray().tolist()
    [[0.0, 0.75, 0.25], [1.0, 0.0, 0.0]]
    """
    ids = [[vocabulary.get(word, UNKNOWN) for word in tokenize(text)] for text in texts]
    lengths = np.array([len(sentence) for sentence in ids], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    weights = np.repeat(1 / np.maximum(lengths, 1), lengths).astype(np.float32)
    columns = np.array([number for sentence in ids for number in sentence], dtype=np.int64)
    averages = csr_array((weights, columns, starts), shape=(len(texts), len(vocabulary) + 1))
    averages.sum_duplicates()
    return averages
