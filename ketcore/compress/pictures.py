"""A picture of what methods keep at equal bytes, beside the spectrum of the table."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ketcore.compress.verdicts import Result


def draw_measures(results: Sequence[Result], energy: np.ndarray, title: str) -> Any:
    """A matplotlib Figure: bars of both shares for each method and control, and the sums of the spectrum."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    places = np.arange(len(results))
    names = [f"{result.name}\n(control)" if result.control else result.name for result in results]
    kept = {"cosines": "rank correlation of cosines", "neighbours": "share of 10 nearest kept"}
    for number, (field, label) in enumerate(kept.items()):
        values = [max(getattr(result.measures, field), 0) for result in results]
        left.bar(
            places + 0.4 * (number - 0.5), values, 0.4, label=label, color=("tab:blue", "tab:orange")[number]
        )
    left.plot(
        places, [result.measures.error for result in results], "k_", markersize=12, label="relative error"
    )
    left.set_xticks(places, names, fontsize=8)
    left.set(ylim=(0, 1.05), title=title)
    left.legend(fontsize=8, loc="upper right")
    right.plot(np.arange(1, len(energy) + 1), np.cumsum(energy), color="black")
    right.set(xscale="log", ylim=(0, 1.05), xlabel="components", title="share of the energy they hold")
    right.grid(alpha=0.3)
    return figure
