"""What `ketify` did to a model: which layers it replaced, which it left and why, and the parameters saved."""

from dataclasses import dataclass

__all__ = ["KetifyReport", "Replaced", "Skipped"]


@dataclass(frozen=True)
class Replaced:
    """One module that `ketify` replaced.

    Attributes
    ----------
    names : tuple of str
        Every name under which the model reaches the module; "" is the model itself.
    before, after : str
        The classes of the module and of the layer that stands in its place.
    shape : tuple of two ints
        The shape of the weight.
    parameters_before, parameters_after : int
        Numbers of parameters of the module, the bias of a linear layer among them.
    tied_to : str or None
        The name of the module whose weight this one shared, and whose factors it shares now.
    error : float or None
        `|weight - factors| / |weight|` in the Frobenius norm; None where nothing was factorised.
    """

    names: tuple[str, ...]
    before: str
    after: str
    shape: tuple[int, int]
    parameters_before: int
    parameters_after: int
    tied_to: str | None
    error: float | None


@dataclass(frozen=True)
class Skipped:
    """One module that `ketify` left as it is.

    Attributes
    ----------
    name : str
        The name of the module in the model.
    kind : str
        Its class.
    reason : str
        Why it was left.
    """

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class KetifyReport:
    """What `ketify` did; `print` shows it as a table.

    Attributes
    ----------
    replaced : tuple of Replaced
        One for each module that was replaced.
    skipped : tuple of Skipped
        One for each module that could have been.
    parameters_before, parameters_after : int
        Parameters of the whole model, those that modules share counted once.

    Examples
    --------
    >>> table = Replaced(("words",), "Embedding", "EmbeddingKetXS", (1000, 64), 64000, 5000, None, 0.25)
    >>> bag = Skipped("tags", "Embedding", "its 40 parameters would become 60")
    >>> print(KetifyReport((table,), (bag,), 64040, 5040))
    replaced  layer                        shape      parameters      error
    words     Embedding -> EmbeddingKetXS  1000 x 64  64,000 -> 5,000 0.25
    <BLANKLINE>
    left      layer      reason
    tags      Embedding  its 40 parameters would become 60
    <BLANKLINE>
    parameters of the model: 64,040 -> 5,040
    """

    replaced: tuple[Replaced, ...]
    skipped: tuple[Skipped, ...]
    parameters_before: int
    parameters_after: int

    def __str__(self) -> str:
        parts: list[str] = []
        if self.replaced:
            titles = ("replaced", "layer", "shape", "parameters", "error")
            parts.append(_table([titles, *map(_replaced_line, self.replaced)]))
        if self.skipped:
            lines = [(_shown(each.name), each.kind, each.reason) for each in self.skipped]
            parts.append(_table([("left", "layer", "reason"), *lines]))
        parts.append(f"parameters of the model: {self.parameters_before:,} -> {self.parameters_after:,}")
        return "\n\n".join(parts)


def _replaced_line(each: Replaced) -> tuple[str, ...]:
    parameters = f"{each.parameters_before:,} -> {each.parameters_after:,}"
    error = "" if each.error is None else f"{each.error:.3g}"
    error = error if each.tied_to is None else f"tied to {_shown(each.tied_to)}"
    names = ", ".join(map(_shown, each.names))
    return names, f"{each.before} -> {each.after}", "{} x {}".format(*each.shape), parameters, error


def _shown(name: str) -> str:
    """A module's name, which is empty for the model itself."""
    return name or "(the model)"


def _table(lines: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )
    return "\n".join(map(str.rstrip, padded))
