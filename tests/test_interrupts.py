"""Ctrl-C that comes while modules are being imported."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest

from pipelines.verbs import interrupts_after


def swallow(sent: signal.Signals, reached: list[str]) -> None:
    """What a module of others may do."""
    with suppress(BaseException):
        os.kill(os.getpid(), sent)
        reached.append("the next line")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_others_would_swallow_is_raised_at_the_end(sent: signal.Signals) -> None:
    before, reached = signal.getsignal(sent), []
    with pytest.raises(KeyboardInterrupt), interrupts_after():
        swallow(sent, reached)
    assert reached == ["the next line"]
    assert signal.getsignal(sent) is before


def test_without_an_interrupt_nothing_happens() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with interrupts_after():
        pass
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_error_meanwhile_is_not_hidden() -> None:
    with pytest.raises(ImportError, match="broken"), interrupts_after():
        raise ImportError("broken")
