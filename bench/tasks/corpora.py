"""Labelled texts as numbers, as the demo has them.

Sources: CLINC150, Larson et al., EMNLP 2019, which comes with ketcore; IMDB, Maas et al., ACL 2011, of which
a folder has imdb_train.tsv.xz and imdb_test.tsv.xz with lines of label, stars and text.
"""

import lzma
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ketcore.demo import data
from ketcore.demo.data import Corpus, Split, average_words, tokenize

# A word that the training split has but once has no use for a row of its own.
LEAST_COUNT = 2
# Reviews that are kept for validation, of 25,000.
VALIDATION = 5000


def clinc150(folder: str | None) -> Corpus:
    """The sentences that ketcore ships, whatever the folder."""
    return data.load()


def imdb(folder: str | None) -> Corpus:
    """The reviews of a folder; validation is cut from its training part.

    ValueError without a folder, OSError where a file is missing.
    """
    if folder is None:
        raise ValueError("--data must name the folder of imdb_train.tsv.xz and imdb_test.tsv.xz, got none")
    texts, labels = _reviews(Path(folder) / "imdb_train.tsv.xz")
    shuffled = np.random.default_rng(0).permutation(len(texts))
    kept, held = np.split(shuffled, [len(texts) - min(VALIDATION, len(texts) // 5)])
    counts = Counter(word for n in kept for word in tokenize(texts[n]))
    words = sorted(word for word, count in counts.items() if count >= LEAST_COUNT)
    vocabulary = {word: number for number, word in enumerate(words, start=1)}

    def split(texts, labels):
        return Split(average_words(texts, vocabulary), labels)

    train, validation = (split([texts[n] for n in part], labels[part]) for part in (kept, held))
    return Corpus(
        train, validation, split(*_reviews(Path(folder) / "imdb_test.tsv.xz")), ("bad", "good"), vocabulary
    )


def _reviews(path):
    """Texts and labels of one file."""
    with lzma.open(path, "rt", encoding="utf-8", newline="\n") as file:
        lines = [line.rstrip("\n").split("\t", 2) for line in file]
    return [text for _, _, text in lines], np.array([int(label) for label, _, _ in lines])


# By name: the corpus, and how many passes over the training split serve it.
TASKS: dict[str, tuple[Callable[[str | None], Corpus], int]] = {"clinc150": (clinc150, 12), "imdb": (imdb, 4)}
