"""The classifier and how it is trained.

    x = mean of the word vectors of a sentence,   shares of the intents = softmax(LayerNorm(x) W + b)

The parameters are one tuple: those of the embedding table, then W (256, intents), then b (intents,), all of
them float32.  The loss is the mean cross-entropy of a batch, the optimiser Adam (Kingma & Ba, ICLR 2015) with
a rate that falls linearly to 0.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from ketcore.demo.data import Corpus, Split
from ketcore.demo.tables import COLUMNS, Table, Teacher, copied

Array = np.ndarray

# Chosen on the validation split.
BATCH = 256
LINEAR_RATE = 0.004
# Of a linear layer that is trained already.
TAUGHT_RATE = 0.001
LAYERNORM_EPS = 1e-5


@dataclass(frozen=True)
class Result:
    """A trained classifier, as it was after the epoch with the best validation accuracy.

    Its table is what a file holds of it, in the types that it has there; accuracies are those of that.
    """

    table: Table
    parameters: tuple[Any, ...]
    losses: tuple[float, ...]
    validation_accuracy: float
    test_accuracy: float
    seconds: float


# These matrices are too small to share: a second thread of the BLAS costs more than it brings.
@threadpool_limits.wrap(limits=1, user_api="blas")
def fit(
    table: Table,
    corpus: Corpus,
    epochs: int,
    seed: int,
    progress: Callable[[str], None] = print,
    teacher: Result | None = None,
) -> Result:
    """Train a classifier whose word vectors come from `table`.

    Parameters
    ----------
    table : Table
        The table, its learning rates and its word dropout.
    corpus : Corpus
        The sentences of all splits.
    epochs : int
        Passes over the training split, at least 1.
    seed : int
        At least 0; the same seed gives the same result.
    progress : callable, default print
        Called with one line of text after each of `epochs_of(table, epochs)`.
    teacher : Result, optional
        The dense classifier that a table with `lessons` starts from.

    Returns
    -------
    Result
        The classifier as it was after the epoch with the best validation accuracy.
    """
    begin = perf_counter()
    rng = np.random.default_rng(seed)
    parameters = _start(table, corpus, rng, teacher)
    losses, best_accuracy, best = [], -1.0, ()
    for epoch, loss in enumerate(_trained(table, parameters, corpus.train, epochs, rng), start=1):
        losses.append(loss)
        stored = (*table.stored(parameters[:-2]), *copied(parameters[-2:]))
        accuracy = measure(table, stored, corpus.validation)
        if accuracy > best_accuracy:
            best_accuracy, best = accuracy, stored
        progress(f"{table.name}: epoch {epoch}, loss {loss:.2f}, validation accuracy {accuracy:.3f}")
    test_accuracy = measure(table, best, corpus.test)
    return Result(table, best, tuple(losses), best_accuracy, test_accuracy, perf_counter() - begin)


def epochs_of(table: Table, epochs: int) -> int:
    """How many times `fit` calls its progress: once for a table that is not trained."""
    return epochs if table.lessons is None else max(1, min(table.lessons, epochs))


def _start(table, corpus, rng, teacher):
    """The parameters before training: those of the table, then of the linear layer."""
    intents = len(corpus.intents)
    if table.lessons is None:
        linear = np.zeros((COLUMNS, intents), np.float32), np.zeros(intents, np.float32)
        return *table.start(rng, None), *linear
    trained, *linear = teacher.parameters
    counts = np.bincount(corpus.train.averages.indices, minlength=corpus.words)
    return *table.start(rng, Teacher(trained, counts)), *copied(linear)


def _trained(table, parameters, split, epochs, rng):
    """The mean loss of each epoch; of a table that is not trained once the loss that it has."""
    if table.lessons == 0:
        yield loss_and_gradients(table, parameters, split.averages, split.intents)[0]
    else:
        yield from train_epochs(table, parameters, split, epochs_of(table, epochs), rng)


def train_epochs(
    table: Table, parameters: Sequence[Array], split: Split, epochs: int, rng: np.random.Generator
) -> Iterator[float]:
    """Update `parameters` in place, one epoch at a time, and yield the mean loss of each."""
    sentences = len(split.intents)
    batches = -(-sentences // BATCH)
    linear_rate = LINEAR_RATE if table.lessons is None else TAUGHT_RATE
    rates = [*table.rates, linear_rate, linear_rate]
    moments = [np.zeros((2, *parameter.shape), np.float32) for parameter in parameters]
    for epoch in range(epochs):
        losses = []
        for number, batch in enumerate(np.array_split(rng.permutation(sentences), batches), start=1):
            averages, intents = split.averages[batch], split.intents[batch]
            if table.dropout:
                averages = drop_words(averages, table.dropout, rng)
            loss, gradients = loss_and_gradients(table, parameters, averages, intents)
            losses.append(loss)
            step = epoch * batches + number
            decay = 1 - (step - 1) / (epochs * batches)
            adam_step(parameters, gradients, moments, step, [decay * rate for rate in rates])
        yield float(np.mean(losses))


def loss_and_gradients(
    table: Table, parameters: Sequence[Array], averages: csr_array, intents: Array
) -> tuple[float, tuple[Array | None, ...]]:
    """Mean cross-entropy of a batch of sentences, and its gradient in every parameter.

    The second half goes back through the first in reverse order; ketcore's part is the call `table.vjp`.

    Parameters
    ----------
    table : Table
        Where the word vectors come from.
    parameters : sequence of arrays
        Those of the table, then the weight and the bias of the linear layer.
    averages : csr_array, (sentences, words)
        The averaging matrix.
    intents : array of ints, (sentences,)
        The right answers.

    Returns
    -------
    loss : float
        Mean over the sentences.
    gradients : tuple of arrays
        One for each parameter, None of codes.
    """
    *embedding, weight, bias = parameters
    ids, averages = pick_words(averages)
    means = averages @ table.rows(embedding, ids)
    features = layernorm(means)
    shares = softmax(features @ weight + bias)
    picked = np.arange(len(intents)), intents
    loss = -np.log(np.maximum(shares[picked], np.finfo(shares.dtype).tiny)).mean()

    d_logits = shares / len(intents)
    d_logits[picked] -= 1 / len(intents)
    d_means = layernorm_vjp(means, d_logits @ weight.T)
    d_embedding = table.vjp(embedding, ids, averages.T @ d_means)
    return loss, (*d_embedding, features.T @ d_logits, d_logits.sum(axis=0))


def drop_words(averages: csr_array, share: float, rng: np.random.Generator) -> csr_array:
    """An averaging matrix that has lost this share of words; a sentence that would lose all keeps all."""
    kept = rng.random(averages.nnz) >= share
    starts, lengths = averages.indptr[:-1], np.diff(averages.indptr)
    sentence = np.repeat(np.arange(averages.shape[0]), lengths)
    left = np.bincount(sentence, kept, len(starts))
    kept |= left[sentence] == 0
    weights = np.bincount(sentence, averages.data * kept, len(starts))
    data = (averages.data[kept] / weights[sentence[kept]]).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(sentence[kept], minlength=len(starts)))])
    return csr_array((data, averages.indices[kept], indptr), shape=averages.shape)


def predict(table: Table, parameters: Sequence[Array], averages: csr_array) -> Array:
    """Shares of the intents, (sentences, intents), for an averaging matrix (sentences, words)."""
    *embedding, weight, bias = parameters
    ids, averages = pick_words(averages)
    return softmax(layernorm(averages @ table.rows(embedding, ids)) @ weight + bias)


def measure(table: Table, parameters: Sequence[Array], split: Split) -> float:
    """The accuracy on `split`: the share of sentences whose likeliest intent is the right one."""
    return float((predict(table, parameters, split.averages).argmax(axis=1) == split.intents).mean())


def pick_words(averages: csr_array) -> tuple[Array, csr_array]:
    """The ids that occur in `averages`, ascending, and `averages` with only their columns."""
    ids, columns = np.unique(averages.indices, return_inverse=True)
    return ids, csr_array((averages.data, columns, averages.indptr), shape=(averages.shape[0], len(ids)))


def layernorm(x: Array) -> Array:
    """Each row of `x` shifted to mean 0 and scaled to variance 1."""
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + LAYERNORM_EPS)


def layernorm_vjp(x: Array, cotangent: Array) -> Array:
    """Pull `cotangent` back through `layernorm`: its parts along 1 and along the output are taken out."""
    y = layernorm(x)
    along = (cotangent * y).mean(axis=1, keepdims=True)
    rest = cotangent - cotangent.mean(axis=1, keepdims=True) - y * along
    return rest / np.sqrt(x.var(axis=1, keepdims=True) + LAYERNORM_EPS)


def softmax(logits: Array) -> Array:
    """Positive shares that sum to 1 in each row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def adam_step(
    parameters: Sequence[Array],
    gradients: Sequence[Array | None],
    moments: Sequence[Array],
    step: int,
    rates: Sequence[float],
) -> None:
    """One update of Adam, in place: a dense table is too large to copy at each step.

    Parameters
    ----------
    parameters, gradients : sequence of arrays
        One gradient for each parameter; None for one that stays as it is.
    moments : sequence of arrays, (2, ...)
        The mean and the mean square of each gradient, zeros before the first step.
    step : int
        1, 2, ...
    rates : sequence of float
        The learning rate of each parameter.
    """
    # Pieces that stay in the cache; a dense table in one piece takes several times as long.
    piece = 1 << 15
    for parameter, gradient, (mean, square), rate in zip(parameters, gradients, moments, rates, strict=True):
        if gradient is None:
            continue
        scale = rate * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        flat = [array.reshape(-1) for array in (parameter, gradient, mean, square)]
        for begin in range(0, parameter.size, piece):
            x, g, m, s = (array[begin : begin + piece] for array in flat)
            m += 0.1 * (g - m)
            s += 0.001 * (g * g - s)
            x -= scale * m / (np.sqrt(s) + 1e-8)
