"""The page about a run, which the commands that train write at their end."""

from __future__ import annotations

import logging

from ccfast._errors import Interrupted
from ccfast.report.page import PAGE, write_report
from ccfast.training.config import TrainConfig
from ccfast.training.group import is_main_process
from ccfast.training.loop import TrainResult

log = logging.getLogger(__name__)


def write_page(result: TrainResult, config: TrainConfig) -> None:
    """Write the page about a run that is complete; the main process alone does. Without it the run is complete too."""
    if not is_main_process():
        return
    later = f"the run is complete; to write its page: ccfast report {result.run}"
    log.info("writing %s", PAGE)
    try:
        write_report(result.run, data=result.data, device=config.device, workers=config.workers)
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; {later}") from error
    except Exception as error:  # whatever it is, hours of training do not end as a failure for it
        log.warning("no %s: %s; %s", PAGE, str(error) or type(error).__name__, later)
