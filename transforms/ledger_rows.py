"""The rows of a ledger in columns: a unit may make tens of thousands of pairs, and a run millions.

As dictionaries, a million rows take 0.6 GB of memory and 150 MB of JSON; in columns 0.1 GB and 50 MB.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from transforms.plain_json import plain_json

_OWN = ("key", "index", "metrics")
_PIECE = 512  # rows


class RecordRows(Sequence[dict[str, Any]]):
    """Rows `{"key", "index", "metrics": {name: figure}, ...}`; what else a row says is kept once for all that say the
    same. Reads like a list of dictionaries."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._keys: list[str] = []
        self._indices = array("q")
        self._kinds = array("q")  # position in `_descriptions`
        self._starts = array("q")  # of a row's figures
        self._figures = array("d")
        self._descriptions: list[tuple[dict[str, Any], tuple[str, ...]]] = []  # all else in a row, and metric names
        self._known: dict[str, int] = {}
        self.extend(rows)

    def extend(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows at the end."""
        for row in rows:
            metrics = row.get("metrics", {})
            rest = {name: value for name, value in row.items() if name not in _OWN}
            self._keys.append(row["key"])
            self._indices.append(row["index"])
            self._kinds.append(self._kind(rest, tuple(metrics)))
            self._starts.append(len(self._figures))
            self._figures.extend(_number(figure) for figure in metrics.values())

    def _kind(self, rest: dict[str, Any], metrics: tuple[str, ...]) -> int:
        if self._kinds and self._descriptions[self._kinds[-1]] == (rest, metrics):
            return self._kinds[-1]  # most pairs are like the one before
        mark = repr((rest, metrics))
        found = self._known.setdefault(mark, len(self._descriptions))
        if found == len(self._descriptions):
            self._descriptions.append((rest, metrics))
        return found

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, position: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, position: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, position: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(position, slice):
            return [self._row(number) for number in range(*position.indices(len(self)))]
        return self._row(range(len(self))[position])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._row, range(len(self)))

    def _row(self, number: int) -> dict[str, Any]:
        rest, names = self._descriptions[self._kinds[number]]
        start = self._starts[number]
        metrics = dict(zip(names, self._figures[start : start + len(names)], strict=True))
        return rest | {"key": self._keys[number], "index": self._indices[number], "metrics": metrics}

    def to_json(self) -> bytes:
        """JSON; `from_json` takes what a parser makes of it. Columns are encoded piece by piece: as objects and as text at once
        those of a large unit would take more than all its pairs."""
        kinds = [{"metrics": list(metrics), "row": rest} for rest, metrics in self._descriptions]
        columns: dict[str, Sequence[Any]] = {
            "figures": self._figures,
            "index": self._indices,
            "key": self._keys,
            "kind": self._kinds,
        }
        pieces = [b'"%s": [%s]' % (name.encode(), _joined(column)) for name, column in columns.items()]
        return b"{%s}" % b", ".join([*pieces, b'"kinds": ' + plain_json(kinds)])

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> RecordRows:
        """The rows of parsed JSON, infinities as numbers or as words."""
        rows = cls()
        rows._keys = list(plain["key"])
        rows._indices, rows._kinds = array("q", plain["index"]), array("q", plain["kind"])
        rows._figures = array("d", map(_number, plain["figures"]))
        rows._descriptions = [(kind["row"], tuple(kind["metrics"])) for kind in plain["kinds"]]
        rows._known = {repr(kind): number for number, kind in enumerate(rows._descriptions)}
        start = 0
        for kind in rows._kinds:
            rows._starts.append(start)
            start += len(rows._descriptions[kind][1])
        return rows


def _joined(column: Sequence[Any]) -> bytes:
    """The elements of a JSON list, without its brackets."""
    pieces = (column[start : start + _PIECE] for start in range(0, len(column), _PIECE))
    return b", ".join(plain_json(list(piece))[1:-1] for piece in pieces)


def _number(figure: Any) -> float:
    """A figure as ledgers spell it: a number, "inf", "-inf" or "nan"; null counts as undefined."""
    return float("nan") if figure is None else float(figure)


def packed(rows: RecordRows, at_least: int = 100) -> bytes:
    """How a ledger's JSON holds its rows: a list of objects that a person can read, or columns where there are many."""
    return plain_json(list(rows)) if len(rows) < at_least else rows.to_json()


def unpacked(plain: Any) -> Sequence[dict[str, Any]]:
    """The rows that `packed` gave, once its JSON is parsed."""
    return RecordRows.from_json(plain) if isinstance(plain, dict) else list(plain)
