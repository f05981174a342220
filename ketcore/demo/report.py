"""What the demo shows: a table of results, JSON records, the answers to a sentence, a picture."""

from collections.abc import Sequence
from math import prod
from statistics import mean, stdev
from typing import Any

from scipy.sparse import csr_array

from ketcore.demo.tables import stored_bytes
from ketcore.demo.train import Result, predict

Record = dict[str, Any]

# The picture has a colour for each kind of table, and labels where none overlaps another.
COLOURS = {
    "dense": "black",
    "XS": "tab:blue",
    "word2ket": "tab:green",
    "hash": "tab:red",
    "narrow": "tab:brown",
    "codes": "tab:purple",
}
# By the name of the table: offset in points, and which side of the label is there.  Others are above.
LABELS = {
    "dense": ((0, -8), "center", "top"),
    "XS 4/1": ((8, 0), "left", "center"),
    "word2ket 4/1": ((8, 0), "left", "center"),
    "XS 2/10 scaled": ((-8, 0), "right", "center"),
    "codes tuned": ((8, 0), "left", "center"),
    "codes": ((8, 0), "left", "center"),
    "narrow int4": ((8, 0), "left", "center"),
    "hash embedding": ((8, 0), "left", "center"),
}
ABOVE = ((0, 8), "center", "bottom")


def make_record(results: Sequence[Result], dense_bytes: int) -> Record:
    """The JSON record of one table.

    Parameters
    ----------
    results : sequence of Result
        One for each seed; the record has means, and for several seeds standard deviations too.
    dense_bytes : int
        What a dense float32 table of this vocabulary takes.

    Returns
    -------
    dict
    """
    table = results[0].table
    # The last two parameters are the linear classifier, the same for every table.
    embedding = results[0].parameters[:-2]
    size = stored_bytes(embedding)
    validation = [result.validation_accuracy for result in results]
    test = [result.test_accuracy for result in results]
    record = {
        "name": table.name,
        "order": table.order,
        "rank": table.rank,
        "params": sum(prod(array.shape) for array in embedding),
        "bytes": size,
        "ratio": round(dense_bytes / size, 1),
        "val_acc": mean(validation),
        "test_acc": mean(test),
        "seconds": mean(result.seconds for result in results),
    }
    if len(results) > 1:
        record |= {"seeds": len(results), "val_acc_std": stdev(validation), "test_acc_std": stdev(test)}
    return record


def format_table(records: Sequence[Record]) -> str:
    """The records as aligned columns of text."""
    header = ("embedding", "parameters", "bytes", "ratio", "test accuracy", "seconds")
    lines = [header, *(_format_record(record) for record in records)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    # The name is flush left, the numbers are flush right.
    form = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    return "\n".join(form.format(*line) for line in lines)


def _format_record(record: Record) -> tuple[str, ...]:
    spread = f" +- {record['test_acc_std']:.3f}" if "test_acc_std" in record else ""
    return (
        record["name"],
        f"{record['params']:,}",
        f"{record['bytes']:,}",
        f"{record['ratio']:,.1f}x",
        f"{record['test_acc']:.3f}{spread}",
        f"{record['seconds']:.1f}",
    )


def format_answers(results: Sequence[Result], averages: csr_array, intents: Sequence[str]) -> str:
    """Up to three intents of one sentence by each classifier, the likeliest first, with their shares.

    `averages` is the averaging matrix of the sentence, (1, words).
    """
    width = max(len(result.table.name) for result in results)
    lines = []
    for result in results:
        shares = predict(result.table, result.parameters, averages)[0]
        first, *others = shares.argsort()[::-1][:3]
        likely = [first, *(other for other in others if shares[other] >= 0.01)]
        answer = ", ".join(f"{intents[number]} {shares[number]:.0%}" for number in likely)
        lines.append(f"{result.table.name.ljust(width)}  {answer}")
    return "\n".join(lines)


def draw_picture(records: Sequence[Record]):
    """A matplotlib Figure of test accuracy against the bytes of the table, on a log axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for record in records:
        colour = COLOURS[record["name"].split()[0]]
        place, side, edge = LABELS.get(record["name"], ABOVE)
        point = record["bytes"], record["test_acc"]
        axes.errorbar(*point, yerr=record.get("test_acc_std"), fmt="o", color=colour, capsize=3)
        label = f"{record['name']}\n{record['ratio']:,.0f}x"
        shown: dict[str, Any] = {"ha": side, "va": edge, "fontsize": 9, "color": colour}
        axes.annotate(label, point, place, textcoords="offset points", **shown)
    axes.set_xscale("log")
    axes.margins(x=0.1, y=0.12)
    axes.set(xlabel="bytes of the embedding table", ylabel="test accuracy")
    axes.set_title("CLINC150: 150 intents, one classifier, one table of word vectors each", fontsize=11)
    axes.grid(alpha=0.3)
    return figure
