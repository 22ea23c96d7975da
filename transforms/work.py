"""What one pipeline does to a record: the seam between the in-worker pipeline and the verbs.

A `Job` is plain picklable configuration; a worker process calls `load()` once and gets a `Work`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from transforms.pictures import Samples
from transforms.record import Record
from transforms.streaming import StageTimes
from transforms.units import Unit

# "subfolder": loose files in a folder of the unit's own, because keys are unique inside a shard only
PARTS = ("train", "validation")  # sub-folders of an output that is divided
SinkKind = Literal["tar", "parquet", "arrow", "folder", "subfolder", "none"]


@dataclass(frozen=True)
class ShardLayout:
    """How the records of a unit are laid out in shards.

    Attributes:
        shard_bytes: a shard is closed, and the next one begun, before it grows beyond; 0: one shard for each unit.
        divided: records go to the sub-folder that their `Finished.part` names.
    """

    shard_bytes: int = 0
    divided: bool = False


@dataclass
class Item:
    """One decoded record on its way through the operator. `payload` is the work's own."""

    key: str
    index: int
    bytes_held: int
    payload: Any


@dataclass
class Sample:
    """Small 8-bit crops of one record for the report.

    Attributes:
        figure: what ranks it; None where the first ones are as good as any.
        turn: number among the samples of one input record; without figures, no second one is shown before all first ones.
        caption: (name, text) lines under the pictures.
    """

    key: str
    figure: float | None
    crops: dict[str, Samples]
    turn: int = 0
    caption: tuple[tuple[str, str], ...] = ()


@dataclass
class Finished:
    """What a record became, or one slice of it.

    Attributes:
        outputs: (member or file name, bytes), in the order to write; may be gone through more than once.
        rows: one ledger row for each output record.
        pixels_in, pixels_out: for the rates in the report.
        samples: what the gallery may show.
        rejected: places of the picture that gave no output record, by reason.
        tallies: counts under names of the work's own, few of them; they add up over records and units.
        part: sub-folder of the output that the results go to ("train", "validation"), the same for all of them.
    """

    key: str
    index: int
    outputs: Iterable[tuple[str, bytes]]
    rows: Sequence[dict[str, Any]]
    pixels_in: int = 0
    pixels_out: int = 0
    samples: list[Sample] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    tallies: Counter[str] = field(default_factory=Counter)
    part: str = ""


class Work(Protocol):
    """Loaded work. `decode` and `finish` run in threads, `operate` in one thread at a time."""

    def decode(self, record: Record) -> Item:
        """Raises RecordError for a record that can't be used."""
        ...

    def operate(self, items: Sequence[Item]) -> list[Any]:
        """One result for each item. May raise for the whole batch: the pipeline bisects."""
        ...

    def finish(self, item: Item, result: Any, times: StageTimes) -> Finished | Iterator[Finished]:
        """Measures and encodes.

        A record that becomes much may come in slices, in order, all of one `part`: their outputs wait in a file, not in
        memory, until the last one is there. Counts and tallies of the slices add up. If one fails, so does the record.
        """
        ...

    def counters(self) -> Mapping[str, int]:
        """Totals since loading (`tiles_run`, `oom_splits`, ...)."""
        ...


@runtime_checkable
class DrawingJob(Protocol):
    """A job whose records have drawn parameters that its work tallies."""

    def expected_draws(self) -> list[dict[str, Any]]:
        """What the tallies count, and what to expect of them (`transforms.drawn_parameters`)."""
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

    @property
    def layout(self) -> ShardLayout:
        """How results that go to shards are laid out in them."""
        ...

    def load(self) -> Work: ...

    def fingerprint(self) -> str:
        """Hash of everything that decides the output bytes; not workers, runner or paths."""
        ...

    def describe(self) -> dict[str, Any]:
        """Provenance for the report."""
        ...
