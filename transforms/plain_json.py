"""The JSON of ledgers, reports and records: what any parser takes, with the same bytes for the same content."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def plain_json(value: Any) -> bytes:
    """ASCII, keys sorted. JSON has no infinity: it is written as the word "inf" (and "nan")."""
    return json.dumps(spell_infinities(value), sort_keys=True, allow_nan=False).encode()


def spell_infinities(value: Any) -> Any:
    """Plain JSON with words for what is infinite or undefined."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): spell_infinities(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [spell_infinities(inner) for inner in value]
    return value
