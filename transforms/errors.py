"""Everything that can go wrong, in one tree.

    ConservatorError
    +-- ConfigurationError   refused before any work starts: bad recipe, unreadable model, unwritable output (exit 5)
    |   +-- UsageError       the command line itself is wrong (exit code 2)
    +-- RecordError          one record can't be processed: it becomes a dead letter with a reason, the unit goes on
    +-- UnitError            one unit can't be processed at all (its shard is gone, say): the engine may retry it

Anything else (a full disk, a lost network) is infrastructure: it is raised as it is, so that the engine retries the
unit.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a record became a dead letter. The values stand in ledgers and reports: never rename one."""

    EMPTY = "empty"  # zero bytes
    TRUNCATED = "truncated"  # the file ends before its picture does
    CORRUPT = "corrupt"  # a picture by its first bytes, but it can't be decoded
    NOT_AN_IMAGE = "not_an_image"  # the bytes are no picture that we know
    WRONG_EXTENSION = "wrong_extension"  # a picture, but not of the kind that its name says
    UNSUPPORTED = (
        "unsupported"  # a picture of a kind that can't be restored without loss (float samples, several frames, ...)
    )
    TOO_LARGE = "too_large"  # more pixels than the budget: a decompression bomb or a wrong option
    NO_IMAGE = "no_image"  # a record without a picture to work on
    AMBIGUOUS = "ambiguous"  # several pictures and no name that says which one
    DUPLICATE = "duplicate"  # a key or a field that came before in the same shard
    BAD_KEY = "bad_key"  # a member name that is no key (absolute, parent folders, empty, not UTF-8)
    BAD_SHARD = "bad_shard"  # the shard itself is damaged from here on; what stood before it was processed
    BAD_METADATA = "bad_metadata"  # the record's own JSON can't be read
    SIZE_MISMATCH = "size_mismatch"  # picture and reference do not have the same shape
    UNPAIRED = "unpaired"  # a restored picture without its reference, or the other way round
    NON_FINITE = "non_finite"  # the network answered NaN or infinity, in float32 too
    OUT_OF_MEMORY = "out_of_memory"  # even the smallest tile does not fit
    OPERATOR_FAILED = "operator_failed"  # the network, solver or degradation raised
    ENCODE_FAILED = "encode_failed"  # the result can't be written in the asked format


class ConservatorError(Exception):
    """Root of all errors that this project raises on purpose."""


class ConfigurationError(ConservatorError):
    """A setting is wrong. The message names the value, what was expected, and the remedy."""


class UsageError(ConfigurationError):
    """The command line can't be understood."""


class RecordError(ConservatorError):
    """One record can't be processed; `reason` is counted, `detail` is for a person."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)  # both, so that the exception survives pickling between processes
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class UnitError(ConservatorError):
    """A whole unit can't be processed."""
