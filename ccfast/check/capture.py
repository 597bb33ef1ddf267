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
        replay: runs it again, on the current inputs.
        answer: its result, which every replay overwrites.
        call: the call itself; the graph reads its inputs, so it must be kept alive.
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
        # A capture with an error also fails at its end, with a less useful message.
        raise error.__context__ or error from None
    finally:
        torch.cuda.set_stream(before)  # if the end fails, the capture's stream stays the current one
    graph.replay()
    torch.cuda.synchronize()
    return Captured(graph.replay, answer, call)


def _warm_up(call: Callable[[], Any]) -> None:
    """Use another stream, because a capture must not depend on work of the default stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
