"""The functions of an adapter, which write down how they are called for the message of a law that fails."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ketcore.testing.adapters import OPERATIONS, Adapter
from ketcore.testing.values import written

__tracebackhide__ = True

# Enough for every law; those of rows and elements call for each one, and compare between the calls.
_LETTERS = "KLMNPQRSTUVW"


@dataclass
class _Call:
    """One call: its arguments as copies or, where they are results, as places of the calls that made them."""

    name: str
    arguments: tuple[Any, ...]
    result: Any = None


class _Result(int):
    """The place of a call whose result is an argument."""


class Recorder:
    """An adapter whose functions write down their calls, for `lines`; all else is as of `adapter`."""

    def __init__(self, adapter: Adapter):
        self.adapter = adapter
        self._calls: list[_Call] = []
        self._places: dict[int, int] = {}
        self._start, self._compared = 0, False

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.adapter, name)
        if function is None or name not in ("make", "asarray", *OPERATIONS):
            return function
        return self._recorded(name, function)

    def _recorded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose calls are written down."""

        def call(*arguments: Any) -> Any:
            if self._compared:
                self._start, self._compared = len(self._calls), False
            made = _Call(name, tuple(map(self._kept, arguments)))
            self._calls.append(made)
            # It is kept, so that its id stays its own.
            made.result = function(*arguments)
            self._places[id(made.result)] = len(self._calls) - 1
            return made.result

        return call

    def _kept(self, argument: Any) -> Any:
        """An argument as it is now: its place where it is a result, else a copy."""
        if id(argument) in self._places:
            return _Result(self._places[id(argument)])
        if isinstance(argument, list):
            return [self._kept(each) for each in argument]
        return argument.copy() if isinstance(argument, np.ndarray) else argument

    def compared(self) -> None:
        """What was called until now gave the right values: a message begins with the next call."""
        self._compared = True

    def lines(self) -> list[str]:
        """The calls since values were last found to be right, and those that made their arguments."""
        shown = set(range(self._start, len(self._calls)))
        used: set[int] = set()
        for place in reversed(range(len(self._calls))):
            if place in shown:
                found = {int(a) for a in _flat(self._calls[place].arguments) if isinstance(a, _Result)}
                shown, used = shown | found, used | found
        named = [place for place in sorted(used) if self._calls[place].name != "asarray"]
        names = {place: _LETTERS[n] if n < len(_LETTERS) else f"K{n}" for n, place in enumerate(named)}
        # Arrays stand where they are used.
        wanted = [place for place in sorted(shown) if self._calls[place].name != "asarray"]
        return [
            f"{names[n]} = {self._text(n, names)}" if n in names else self._text(n, names) for n in wanted
        ]

    def _text(self, place: int, names: dict[int, str]) -> str:
        call = self._calls[place]
        return f"{call.name}({', '.join(self._argument(each, names) for each in call.arguments)})"

    def _argument(self, argument: Any, names: dict[int, str]) -> str:
        """How an argument is written in a message."""
        if isinstance(argument, _Result):
            made = self._calls[argument]
            return names.get(argument) or self._argument(made.arguments[0], names)
        if isinstance(argument, list):
            return f"[{', '.join(self._argument(each, names) for each in argument)}]"
        return written(argument) if isinstance(argument, np.ndarray) else repr(argument)


def _flat(arguments: Any) -> Iterator[Any]:
    for argument in arguments:
        if isinstance(argument, list):
            yield from _flat(argument)
        else:
            yield argument
