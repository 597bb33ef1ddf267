"""From weighted links to cluster labels with InfoMap: the piece that ``ccfast.infomap`` and its reference share."""

from __future__ import annotations

import numpy as np

#: Two-level directed map equation (Rosvall and Bergstrom, PNAS 2008), always the same random moves, no console output.
_OPTIONS = "--two-level --directed --seed 123 --num-trials 1 --silent"


def infomap_labels(
    sources: np.ndarray, targets: np.ndarray, weights: np.ndarray, num_nodes: int, min_cluster_size: int
) -> np.ndarray:
    """Cluster the nodes of a weighted directed graph.

    Args:
        sources, targets: ``[E]`` integers in ``[0, num_nodes)``, the ends of each link.
        weights: ``[E]`` floats. Links of no weight and links from a node to itself say nothing and are dropped.
        num_nodes: number of nodes, linked or not.
        min_cluster_size: smaller clusters are noise.

    Returns:
        ``[num_nodes]`` int64: clusters ``0, 1, ...`` in the order of their lowest member; -1 for noise, that is nodes
        without links and members of clusters that are too small.

    Raises:
        ImportError: the optional package ``infomap`` is not installed.
    """
    try:
        import infomap
    except ImportError as error:
        raise ImportError(
            "InfoMap clustering needs the package infomap, which is not installed: pip install 'ccfast[infomap]'"
        ) from error

    sources, targets = np.asarray(sources, np.int64), np.asarray(targets, np.int64)
    weights = np.asarray(weights, np.float64)
    kept = (weights > 0) & (sources != targets)
    labels = np.full(num_nodes, -1, np.int64)
    if not kept.any():
        return labels

    network = infomap.Infomap(_OPTIONS)
    network.add_links(list(zip(sources[kept].tolist(), targets[kept].tolist(), weights[kept].tolist(), strict=True)))
    result = network.run()
    # infomap < 2.15 (the last for Python 3.10) keeps the modules on the network; later versions return them.
    modules = network.get_modules() if result is None else result.modules()

    nodes = np.fromiter(modules.keys(), np.int64, len(modules))
    module = np.fromiter(modules.values(), np.int64, len(modules))
    by_node = np.argsort(nodes)
    nodes, module = nodes[by_node], module[by_node]
    # First appearance in node order numbers the clusters by their lowest member.
    _, first, inverse, size = np.unique(module, return_index=True, return_inverse=True, return_counts=True)
    large = np.flatnonzero(size >= min_cluster_size)
    number = np.full(len(size), -1, np.int64)
    number[large[np.argsort(first[large])]] = np.arange(len(large))
    labels[nodes] = number[inverse]
    return labels
