"""A call as a CUDA graph: captured once, replayed without its launches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

WARM_UP = 3  # calls before the capture, in which lazy initialisation is not allowed


@dataclass(frozen=True)
class Captured:
    """A captured call.

    Attributes:
        replay: runs it again, on the inputs as they are now.
        answer: what it returned; every replay writes it anew.
        call: the call itself, whose inputs the graph reads and which therefore must live as long.
    """

    replay: Callable[[], None]
    answer: Any
    call: Callable[[], Any]


def captured(call: Callable[[], Any], restore: Callable[[], None]) -> Captured:
    """Capture ``call``, and replay it once after ``restore``, which undoes what the warm-up did to the inputs."""
    before = torch.cuda.current_stream()
    try:
        _warm_up(call)
        restore()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            answer = call()
    except RuntimeError as error:
        # A capture in which something fails also fails at its end, which says less.
        raise error.__context__ or error from None
    finally:
        torch.cuda.set_stream(before)  # where the end fails, the capture's stream stays the current one
    graph.replay()
    torch.cuda.synchronize()
    return Captured(graph.replay, answer, call)


def _warm_up(call: Callable[[], Any]) -> None:
    """On another stream, as a capture must not depend on what the default stream does."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
