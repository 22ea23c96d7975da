"""A progress bar for a terminal: input bytes done, with rate and remaining time, and the pictures counted beside it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from types import TracebackType

from tqdm import tqdm

from transforms.units import Unit


class ProgressBar:
    """Counts input bytes against the listing's total: the one measure that is known before anything is read."""

    def __init__(self, units: Sequence[Unit], *, enabled: bool) -> None:
        self._lock = threading.Lock()
        self._records = 0
        self._units_done = 0
        self._units = len(units)
        self._bytes_total = sum(unit.bytes_in for unit in units)
        self._bytes_committed = 0
        # In a log file a bar that redraws itself is noise: there it writes a line now and then.
        self._bar = tqdm(
            total=self._bytes_total,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=not enabled,
            file=sys.stderr,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
            dynamic_ncols=True,
        )

    def advance(self, records: int, input_bytes: int) -> None:
        with self._lock:
            self._records += records
            # Headers of tars, retried units and a reading ahead must not carry the bar past its end.
            self._bar.update(max(0, min(input_bytes, self._bytes_total - self._bar.n)))
            self._show()

    def unit_done(self, unit: Unit) -> None:
        with self._lock:
            self._units_done += 1
            self._bytes_committed += unit.bytes_in
            self._bar.update(max(0, self._bytes_committed - self._bar.n))
            self._show()

    def _show(self) -> None:
        self._bar.set_postfix_str(f"{self._records} records, {self._units_done}/{self._units} units", refresh=False)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if error is None:
                self._bar.update(max(0, self._bytes_total - self._bar.n))
            self._bar.close()
