"""Progress bars and clocks: shown only in a terminal."""

from __future__ import annotations

import io
import logging
import threading
import time
from contextlib import redirect_stderr

import pytest

from ccfast import _progress
from ccfast._progress import clock, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=["terminal", "file", "quiet"])
def shown(request, monkeypatch):
    """(stderr in the test, whether output is expected there)."""
    stderr = Terminal() if request.param != "file" else io.StringIO()
    monkeypatch.setattr(_progress, "TICK", 0.01)
    log = logging.getLogger("ccfast")
    before = log.level
    log.setLevel(logging.WARNING if request.param == "quiet" else logging.INFO)
    yield stderr, request.param == "terminal"
    log.setLevel(before)


def test_a_bar(shown):
    stderr, expected = shown
    with redirect_stderr(stderr):
        assert list(progress(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert ("letters" in stderr.getvalue()) == expected


def test_a_clock_goes_on_while_one_call_runs_and_ends_with_it(shown):
    stderr, expected = shown
    threads = threading.active_count()
    with redirect_stderr(stderr), clock("one long call"):
        time.sleep(0.2)
    assert threading.active_count() == threads
    assert (stderr.getvalue().count("one long call: 00:00") > 3) == expected
    assert stderr.getvalue().endswith("\r") == expected  # the line has been cleared


def test_a_clock_ends_with_an_error_too(shown):
    stderr, _ = shown
    threads = threading.active_count()
    with pytest.raises(ValueError, match="as it was"), redirect_stderr(stderr), clock("one long call"):
        raise ValueError("as it was")
    assert threading.active_count() == threads
