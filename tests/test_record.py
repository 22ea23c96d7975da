"""Which field of a record plays which part."""

from __future__ import annotations

import pytest

from transforms.errors import Reason, RecordError
from transforms.record import clean_field, degraded_field, source_field


def fields(*names: str) -> dict[str, bytes]:
    return dict.fromkeys(names, b"")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("png",), "png"),
        (("png", "json", "kernel.npy"), "png"),
        (("clean.png", "degraded.png"), "degraded.png"),
        (("clean.png", "degraded.npy", "json"), "degraded.npy"),
        (("clean.png", "jpg"), "jpg"),
        (("degraded.tif", "mask.png"), "degraded.tif"),
    ],
)
def test_what_restore_works_on(names: tuple[str, ...], expected: str) -> None:
    assert degraded_field(fields(*names)) == expected


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("json",), Reason.NO_IMAGE),
        (("npy",), Reason.NO_IMAGE),
        (("png", "jpg"), Reason.AMBIGUOUS),
        (("degraded.png", "degraded.npy"), Reason.AMBIGUOUS),
        (("clean.png", "restored.png"), Reason.NO_IMAGE),
    ],
)
def test_what_is_not_guessed_at(names: tuple[str, ...], reason: Reason) -> None:
    with pytest.raises(RecordError) as caught:
        degraded_field(fields(*names))
    assert caught.value.reason is reason


def test_the_clean_picture_is_never_restored_in_place_of_the_degraded_one() -> None:
    """A pair whose degraded part was an array once gave fine figures: its reference had been restored."""
    with pytest.raises(RecordError) as caught:
        degraded_field(fields("clean.png", "json"))
    assert caught.value.reason is Reason.NO_IMAGE


def test_clean_and_source() -> None:
    assert clean_field(fields("png")) is None
    assert clean_field(fields("clean.webp", "png")) == "clean.webp"
    assert source_field(fields("clean.webp", "png")) == "clean.webp"
    assert source_field(fields("png", "json")) == "png"
