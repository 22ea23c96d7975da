"""What one pipeline does to a record: the seam between the in-worker pipeline and the verbs.

A `Job` is plain picklable configuration; a worker process calls `load()` once and gets a `Work`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from transforms.pictures import Samples
from transforms.record import Record
from transforms.streaming import StageTimes
from transforms.units import Unit

# "subfolder": loose files in a folder of the unit's own, because keys are unique inside a shard only
SinkKind = Literal["tar", "folder", "subfolder", "none"]


@dataclass
class Item:
    """One decoded record on its way through the operator. `payload` is the work's own."""

    key: str
    index: int
    bytes_held: int
    payload: Any


@dataclass
class Sample:
    """Small 8-bit crops of one record for the report, and the figure that ranks it (None: no reference, first come)."""

    key: str
    figure: float | None
    crops: dict[str, Samples]


@dataclass
class Finished:
    """What a record became.

    Attributes:
        outputs: (member or file name, bytes), in the order to write.
        rows: one ledger row for each output record.
        pixels_in, pixels_out: for the rates in the report.
        sample: what the gallery may show.
    """

    key: str
    index: int
    outputs: list[tuple[str, bytes]]
    rows: list[dict[str, Any]]
    pixels_in: int = 0
    pixels_out: int = 0
    sample: Sample | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)


class Work(Protocol):
    """Loaded work. `decode` and `finish` run in threads, `operate` in one thread at a time."""

    def decode(self, record: Record) -> Item:
        """Raises RecordError for a record that can't be used."""
        ...

    def operate(self, items: Sequence[Item]) -> list[Any]:
        """One result for each item. May raise for the whole batch: the pipeline bisects."""
        ...

    def finish(self, item: Item, result: Any, times: StageTimes) -> Finished:
        """Measures and encodes."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Totals since loading (`tiles_run`, `oom_splits`, ...)."""
        ...


class Job(Protocol):
    """Plain configuration of one verb."""

    @property
    def verb(self) -> str: ...

    @property
    def batch_bytes(self) -> int:
        """Decoded bytes that one call of `operate` should get."""
        ...

    def sink_kind(self, unit: Unit) -> SinkKind:
        """Where the results of this unit go."""
        ...

    def load(self) -> Work: ...

    def fingerprint(self) -> str:
        """Hash of everything that decides the output bytes; not workers, runner or paths."""
        ...

    def describe(self) -> dict[str, Any]:
        """Provenance for the report."""
        ...
