"""The page about a run, written by the training commands at their end."""

from __future__ import annotations

import logging

from ccfast.report.page import write_report
from ccfast.training.after_run import of_a_complete_run
from ccfast.training.config import TrainConfig
from ccfast.training.group import is_main_process
from ccfast.training.loop import TrainResult
from ccfast.training.run_folder.folder import PAGE

log = logging.getLogger(__name__)


def write_page(result: TrainResult, config: TrainConfig) -> None:
    """Write the page about a complete run, in the main process only. If this fails, the run is still complete."""
    if not is_main_process():
        return
    log.info("writing %s", PAGE)
    with of_a_complete_run(PAGE, f"the run is complete; to write its page: ccfast report {result.run}"):
        options = {"device": config.device, "workers": config.workers}
        write_report(result.run, data=result.data, image_clusters=result.clusters, **options)
