"""A pair as `degrade` stored it, whatever the format of its shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from transforms.errors import Reason, RecordError
from transforms.pictures import decode
from transforms.raw_arrays import npy_array
from transforms.record import clean_field, degraded_field
from transforms.value_range import Samples


@dataclass(frozen=True)
class StoredPair:
    """Two pictures of a record, H x W x C of 1 or 3, as they are stored: uint8, uint16 or float32; they may be read-only views.

    Attributes:
        details: the record's JSON, not parsed.
    """

    key: str
    clean: Samples
    degraded: Samples
    details: bytes | None


def pair_of(key: str, fields: Mapping[str, bytes]) -> StoredPair:
    """Decodes the two pictures among a record's fields.

    Raises:
        RecordError: one is missing, or can't be decoded.
    """
    fields = dict(fields)
    name = clean_field(fields)
    if name is None:
        raise RecordError(Reason.UNPAIRED, f"there is no clean picture among the fields {sorted(fields)}")
    clean, name = samples_of(fields[name], name), degraded_field(fields)
    return StoredPair(key, clean, samples_of(fields[name], name), fields.get("json"))


def samples_of(data: bytes, name: str) -> Samples:
    """A picture's samples, H x W x C; those of an npy file are a view of it.

    Raises:
        RecordError: it can't be decoded.
    """
    if not name.endswith("npy"):
        return decode(data, name).samples
    try:
        stored = npy_array(data)
    except ValueError:
        return decode(data, name).samples  # another version of npy, or damaged: that reader knows, and has the words
    samples = stored[..., np.newaxis] if stored.ndim == 2 else stored
    if samples.ndim != 3 or samples.shape[2] not in (1, 3) or samples.dtype not in (np.uint8, np.uint16, np.float32):
        found = f"{'x'.join(map(str, stored.shape))} {stored.dtype}"
        raise RecordError(Reason.UNSUPPORTED, f"npy of {found}: H x W x C of uint8, uint16 or float32 is read")
    return samples
