"""Cluster labels from weighted links with InfoMap; shared by ``ccfast.infomap`` and its reference."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

#: Two-level directed map equation (Rosvall and Bergstrom, PNAS 2008), always the same random moves, no console output.
_OPTIONS = "--two-level --directed --seed 123 --num-trials 1 --silent"
_PROCESS = Path(__file__).with_name("_infomap_process.py")


def infomap_labels(
    sources: np.ndarray, targets: np.ndarray, weights: np.ndarray, num_nodes: int, min_cluster_size: int
) -> np.ndarray:
    """Cluster the nodes of a weighted directed graph.

    Args:
        sources, targets: ``[E]`` integers in ``[0, num_nodes)``, the ends of each link.
        weights: ``[E]`` floats. Links without positive weight and links from a node to itself are dropped.
        num_nodes: number of nodes, with or without links.
        min_cluster_size: smaller clusters are noise.

    Returns:
        ``[num_nodes]`` int64: clusters ``0, 1, ...`` in the order of their lowest member; -1 for noise: nodes without
        links and members of clusters that are too small.

    Raises:
        ImportError: the optional package ``infomap`` is not installed.
        RuntimeError: the process that runs InfoMap has failed; the message contains its output.
    """
    if importlib.util.find_spec("infomap") is None:
        raise ImportError(
            "InfoMap clustering needs the package infomap, which is not installed: pip install 'ccfast[infomap]'"
        )

    sources, targets = np.asarray(sources, np.int64), np.asarray(targets, np.int64)
    weights = np.asarray(weights, np.float64)
    kept = (weights > 0) & (sources != targets)
    labels = np.full(num_nodes, -1, np.int64)
    if not kept.any():
        return labels

    nodes, module = _modules(sources[kept], targets[kept], weights[kept])
    by_node = np.argsort(nodes)
    nodes, module = nodes[by_node], module[by_node]
    # First appearance in node order numbers the clusters by their lowest member.
    _, first, inverse, size = np.unique(module, return_index=True, return_inverse=True, return_counts=True)
    large = np.flatnonzero(size >= min_cluster_size)
    number = np.full(len(size), -1, np.int64)
    number[large[np.argsort(first[large])]] = np.arange(len(large))
    labels[nodes] = number[inverse]
    return labels


def _modules(sources: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nodes of the links and the module of each, by InfoMap in a separate process.

    It is separate because infomap and other packages made with SWIG (faiss) share a table of types in the interpreter;
    depending on the order of the imports, calls into infomap crash.
    """
    question = io.BytesIO()
    np.savez(question, sources=sources, targets=targets, weights=weights, options=_OPTIONS, path=np.array(sys.path))
    command = [sys.executable or "python3", "-c", _PROCESS.read_text(encoding="utf-8")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, input=question.getvalue(), capture_output=True, env=environment, check=False)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"infomap: the process that runs InfoMap ended with status {done.returncode}: {message}")
    with np.load(io.BytesIO(done.stdout)) as answer:
        return answer["nodes"], answer["modules"]
