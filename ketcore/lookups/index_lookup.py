"""The lookup of an index that is given, one entry for each table, or for each table and term."""

from collections.abc import Sequence
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.checks import as_integers, check_columns, check_index, is_within, to_namespace_of
from ketcore.arrays.elementary import reshaped
from ketcore.arrays.quantized import is_quantized, like_of
from ketcore.lookups.lookup import Lookup, make_lookup, narrowed
from ketcore.shapes import halves_split


def index_lookup(
    name: str,
    index: Any,
    xp: ModuleType,
    tables: Sequence[AnyArray],
    dtype: Any,
    *,
    columns: int | None = None,
    per_term: bool = True,
    check: bool | None = None,
) -> tuple[Lookup, tuple[int, ...]]:
    """What engines take, and the batch of the index; errors of the index call it `name`.

    Parameters
    ----------
    name : str
        What the index is called.
    index : array of ints, (N, ...) or (N, R, ...)
        Not checked so far.
    xp : module
        The namespace of the tables.
    tables : sequence of N arrays, (R, t_n, q_n)
        Checked; some may be quantized.
    dtype : dtype
        Of the rows.
    columns : int, optional
        As of `gather_kron`.
    per_term : bool, default True
        Whether each term has an index of its own.
    check : bool, optional
        As of `gather_kron`.

    Returns
    -------
    lookup : Lookup
        Of kind "terms" or "modes".
    batch : tuple of ints
        The shape `...` of the index.
    """
    lead = (len(tables), tables[0].shape[0]) if per_term else (len(tables),)
    lengths = [table.shape[1] for table in tables]
    index, checked = _check_indices(name, index, lead, lengths, check, xp is np)
    index = to_namespace_of(index, xp, like_of(tables[0]))
    batch = tuple(index.shape[len(lead) :])
    columns = check_columns("columns", columns, prod([table.shape[2] for table in tables]))
    cut = narrowed(tables, columns)
    lookup = make_lookup(
        tables=cut,
        index=index if len(batch) == 1 else reshaped(xp, index, (*lead, prod(batch))),
        kind="terms" if per_term else "modes",
        bound=0,
        checked=checked,
        columns=columns,
        layernorm=False,
        eps=0.0,
        split=halves_split(tuple([table.shape[2] for table in cut])),
        dtype=dtype,
    )
    lookup.stored = is_quantized(tables)
    return lookup, batch


def _check_indices(name, index, lead, lengths, check, narrow):
    """The index (*lead, ...) as integers, and whether each mode is known to stay within its table."""
    index = as_integers(name, index)
    if tuple(index.shape[: len(lead)]) != lead:
        rule = (
            "(N, R, ...), one entry per table and term" if len(lead) == 2 else "(N, ...), one entry per table"
        )
        raise ValueError(f"{name} must have shape {rule}, for {lead}, got {tuple(index.shape)}")
    # The least of the lengths is enough for most indices, and one look takes less than one for each mode.
    if is_within(index, min(lengths), check):
        return index, True
    known = [
        check_index(f"{name}[{n}]", index[n, ...], length, check, narrow)[1]
        for n, length in enumerate(lengths)
    ]
    return check_index(name, index, 0, False, narrow)[0], all(known)
