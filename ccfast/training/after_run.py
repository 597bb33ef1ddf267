"""The clusters that a complete run writes. If this fails, the run still counts as complete."""

from __future__ import annotations

import dataclasses
import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ccfast._errors import Interrupted
from ccfast._files import write_whole
from ccfast.training.config import TrainConfig
from ccfast.training.group import is_main_process
from ccfast.training.run_folder.folder import CLUSTERS
from ccfast.training.stopwatch import Stopwatch

if TYPE_CHECKING:
    from ccfast.training.loop import TrainResult

log = logging.getLogger(__name__)


@contextmanager
def of_a_complete_run(name: str, later: str) -> Iterator[None]:
    """The code inside makes the file ``name`` of a run; if it fails, a warning says how to make it ``later``."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; {later}") from error
    except Exception as error:  # of any kind
        log.warning("no %s: %s; %s", name, str(error) or type(error).__name__, later)


def leave_clusters(result: TrainResult, config: TrainConfig) -> TrainResult:
    """Write clusters.csv: the training images, clustered with the run's options by the features of its best.pt.

    Only the main process does this. Then the result has the clusters.
    """
    if not is_main_process():
        return result
    from ccfast.inference.image_clusters import cluster_images, clusters_table, image_names, told
    from ccfast.training.trained import load_trained

    file = result.run / CLUSTERS
    later = f"ccfast cluster {shlex.quote(str(result.run))} -o {shlex.quote(str(file))}"
    with of_a_complete_run(CLUSTERS, f"the run is complete; to write them: {later}"):
        trained = load_trained(result.run, data=result.data, device=config.device, workers=config.workers)
        train = result.data.train
        found = cluster_images(trained.extract(train, "clusters"), config, Stopwatch(trained.device))
        write_whole(file, clusters_table(image_names(train, "train"), found))
        log.info("%s: %s", file, told(found))
        return dataclasses.replace(result, clusters=found)
    return result
