"""What a number in a configuration may be: one table checks Python objects and files, and makes published schemas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """A range of finite numbers.

    Attributes:
        minimum, maximum: bounds that are allowed themselves.
        above, below: bounds that are not.
        integer: only whole numbers.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    integer: bool = False

    def complaint(self, value: float) -> str | None:
        """What is wrong with a value, and what was expected; None if nothing is wrong."""
        if not math.isfinite(value) or (self.integer and value != int(value)) or not self._inside(value):
            return f"expected {self.expectation()}, got {value:.12g}"
        return None

    def expectation(self) -> str:
        """`a whole number from 2 to 65536`, `a number above 0`."""
        noun = "a whole number" if self.integer else "a number"
        if self.minimum is not None and self.maximum is not None:
            return f"{noun} from {self.minimum:.12g} to {self.maximum:.12g}"
        words = {"of at least": self.minimum, "above": self.above, "of at most": self.maximum, "below": self.below}
        limits = [f"{word} {limit:.12g}" for word, limit in words.items() if limit is not None]
        return f"{noun} {' and '.join(limits)}".rstrip()

    def limits_schema(self) -> dict[str, Any]:
        """As JSON schema keywords."""
        named = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "exclusiveMinimum": self.above,
            "exclusiveMaximum": self.below,
        }
        return {keyword: limit for keyword, limit in named.items() if limit is not None}

    def _inside(self, value: float) -> bool:
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )
