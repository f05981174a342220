"""The tables of the report, and those that somebody names."""

from collections.abc import Sequence

from ketcore.demo.equal_bytes import code_table, hash_table, narrow_table
from ketcore.demo.tables import Table, dense_table, ket_table, scaled_xs_table, xs_table

# Epochs of a table that starts from the dense one.
LESSONS = 4
# The shared rows of the hash embedding: as many as the bytes of "XS 2/10 scaled" hold beside its weights.
BUCKETS = 69


def all_tables(words: int) -> tuple[Table, ...]:
    """The tables of the report for a vocabulary of `words` words.

    >>> [table.name for table in all_tables(5056)][:6]
    ['dense', 'XS 2/30', 'XS 2/10', 'XS 3/10', 'XS 4/8', 'XS 4/1']
    >>> [table.name for table in all_tables(5056)][6:]
    ['word2ket 4/1', 'XS 2/10 scaled', 'hash embedding', 'narrow int4', 'codes', 'codes tuned']
    """
    return (
        dense_table(words),
        xs_table(words, 2, 30, 0.1),
        xs_table(words, 2, 10, 0.1),
        xs_table(words, 3, 10, 0.1),
        xs_table(words, 4, 8, 0.1),
        xs_table(words, 4, 1, 0.1),
        ket_table(words, 4, 1, 0.1),
        scaled_xs_table(words, 2, 10, 0.1),
        hash_table(words, BUCKETS, 0.2),
        narrow_table(words, 0.2),
        code_table(0),
        code_table(LESSONS, 0.1),
    )


def choose(tables: Sequence[Table], names: Sequence[str] | None) -> list[Table]:
    """The tables with these names, in upper or lower case; all of them for None."""
    if names is None:
        return list(tables)
    known = {table.name.lower(): table for table in tables}
    for name in names:
        if name.lower() not in known:
            listed = ", ".join(repr(table.name) for table in tables)
            raise ValueError(f"--only must name tables among {listed}, got {name!r}")
    return [known[name] for name in dict.fromkeys(name.lower() for name in names)]
