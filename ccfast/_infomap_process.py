"""The process that runs InfoMap, with only NumPy and infomap; see ``ccfast._infomap``. It is run, not imported."""

import io
import os
import sys

import numpy as np


def main() -> None:
    """Read the links from stdin and write the modules of the nodes to stdout, both as .npz."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # prints of other code must not become part of the result
    with np.load(io.BytesIO(sys.stdin.buffer.read())) as links:
        sources, targets, weights = (links[name].tolist() for name in ("sources", "targets", "weights"))
        options, sys.path = str(links["options"]), links["path"].tolist()

    import infomap

    network = infomap.Infomap(options)
    network.add_links(list(zip(sources, targets, weights, strict=True)))
    result = network.run()
    # infomap < 2.15 (the last for Python 3.10) keeps the modules on the network; later versions return them.
    modules = network.get_modules() if result is None else result.modules()
    np.savez(
        answer,
        nodes=np.fromiter(modules.keys(), np.int64, len(modules)),
        modules=np.fromiter(modules.values(), np.int64, len(modules)),
    )
    answer.close()


main()
