"""How often the words of a table occur, and what weights that makes."""

import numpy as np

from ketcore.compress.table_files import naming_input
from ketcore.compress.text_vectors import numbered_lines, open_text


def read_weights(path: str | None, words: int) -> np.ndarray:
    """The square roots of the counts of a file, npy or text with one a line, over the largest; ones for None.

    ValueError on what is wrong with the file, with its path.
    """
    if path is None:
        return np.ones(words)
    with naming_input("--weights", path):
        with open(path, "rb") as file:
            start = file.read(6)
        counts = np.load(path, allow_pickle=False) if start == b"\x93NUMPY" else _of_text(path)
        if counts.dtype.kind not in "iuf" or counts.ndim != 1:
            raise ValueError(f"there must be one number a word, got {counts.dtype} {counts.shape}")
        if len(counts) != words:
            raise ValueError(f"there must be one number for each of {words} words, got {len(counts)}")
        counts = counts.astype(np.float64)
        wrong = np.flatnonzero(~(np.isfinite(counts) & (counts > 0)))
        if wrong.size:
            raise ValueError(f"numbers must be finite and above 0, got {counts[wrong[0]]} in row {wrong[0]}")
        # Each root by itself: the largest count may be near the end of float64.
        roots = np.sqrt(counts)
        return roots / roots.max()


def _of_text(path):
    counts = []
    with open_text(path) as file:
        for number, line in numbered_lines(file):
            try:
                counts.append(float(line))
            except ValueError:
                text = line.strip().decode(errors="replace")
                raise ValueError(f"line {number} must be a number, got {text[:40]!r}") from None
    return np.array(counts)
