"""What `ketify` did to a model: which layers it replaced, which it left and why, and the parameters saved."""

from dataclasses import dataclass

from ketcore.objects import display

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
    bytes_before, bytes_after : int
        Those of parameters and buffers.
    """

    names: tuple[str, ...]
    before: str
    after: str
    shape: tuple[int, int]
    parameters_before: int
    parameters_after: int
    tied_to: str | None
    error: float | None
    bytes_before: int
    bytes_after: int

    @property
    def ratio(self) -> float:
        """How many times fewer bytes the layer takes."""
        return self.bytes_before / self.bytes_after


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
    bytes_before, bytes_after : int
        Bytes of its parameters and buffers, likewise.
    error : float or None
        The relative error of all weights that were factorised, as of one; None where there are none.

    Examples
    --------
    >>> words = ("words",), "Embedding", "EmbeddingKetXS", (1000, 64), 64000, 5000, None, 0.25, 256000, 20000
    >>> tags = Skipped("tags", "Embedding", "its 40 parameters would become 60")
    >>> print(KetifyReport((Replaced(*words),), (tags,), 64040, 5040, 256160, 20160, 0.25))
    replaced  layer                        shape      parameters       bytes              ratio  error
    words     Embedding -> EmbeddingKetXS  1000 x 64  64,000 -> 5,000  256,000 -> 20,000  12.8x  0.25
    <BLANKLINE>
    left      layer      reason
    tags      Embedding  its 40 parameters would become 60
    <BLANKLINE>
    parameters of the model: 64,040 -> 5,040
    bytes of the model: 256,160 -> 20,160, 12.7x
    relative error of what was factorised: 0.25
    """

    replaced: tuple[Replaced, ...]
    skipped: tuple[Skipped, ...]
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    error: float | None

    @property
    def ratio(self) -> float:
        """How many times fewer bytes the model takes."""
        return self.bytes_before / self.bytes_after

    def __str__(self) -> str:
        parts: list[str] = []
        if self.replaced:
            titles = ("replaced", "layer", "shape", "parameters", "bytes", "ratio", "error")
            parts.append(_table([titles, *map(_replaced_line, self.replaced)]))
        if self.skipped:
            lines = [(_shown(each.name), each.kind, each.reason) for each in self.skipped]
            parts.append(_table([("left", "layer", "reason"), *lines]))
        size, ratio = _sizes(self)
        totals = [
            f"parameters of the model: {self.parameters_before:,} -> {self.parameters_after:,}",
            f"bytes of the model: {size}, {ratio}",
        ]
        if self.error is not None:
            totals.append(f"relative error of what was factorised: {self.error:.3g}")
        parts.append("\n".join(totals))
        return "\n\n".join(parts)


def _replaced_line(each: Replaced) -> tuple[str, ...]:
    parameters = f"{each.parameters_before:,} -> {each.parameters_after:,}"
    error = "" if each.error is None else f"{each.error:.3g}"
    error = error if each.tied_to is None else f"tied to {_shown(each.tied_to)}"
    names = ", ".join(map(_shown, each.names))
    shape = "{} x {}".format(*each.shape)
    return names, f"{each.before} -> {each.after}", shape, parameters, *_sizes(each), error


def _sizes(each: "Replaced | KetifyReport") -> tuple[str, str]:
    """Bytes before and after, and how many times fewer."""
    ratio = display.sizes(each.bytes_after, each.bytes_after, each.bytes_before)["ratio"]
    return f"{each.bytes_before:,} -> {each.bytes_after:,}", ratio


def _shown(name: str) -> str:
    """A module's name, which is empty for the model itself."""
    return name or "(the model)"


def _table(lines: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )
    return "\n".join(map(str.rstrip, padded))
