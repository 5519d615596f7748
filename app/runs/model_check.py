"""Checks at the start that the model can be loaded, in a detector process of its own.

A server process must not load a model itself.
"""

from contextlib import closing
from pathlib import Path

import structlog

from app.detection.inference.model_file import BUILT_IN_MODEL
from app.detection.limits import ProcessLimits
from app.detection.sandbox.policy import available
from app.errors import DetectorFailed, MediaTooLarge, SettingsError
from app.runs.detector_process import DetectorProcess
from app.settings import DetectorOptions, DetectorSettings

log = structlog.get_logger()


def check_model(settings: DetectorSettings, limits: ProcessLimits | None = None, *, always: bool = False) -> None:
    """Raise SettingsError if the model cannot be loaded and run with its settings, or if a required sandbox is missing.

    Logs what an optional sandbox lacks. The built-in model with default settings is loaded only if `always`.
    """
    model, options = settings.detector_model, settings.detector_options
    missing = available(options).missing
    if missing and options.sandbox == "auto":
        log.warning("detector_sandbox_incomplete", setting="DETECTOR_SANDBOX=auto", missing=missing)
    is_as_shipped = model is None and DetectorOptions(tile=options.tile, sandbox=options.sandbox) == options
    if is_as_shipped and options.sandbox != "required" and not always:
        return
    path = model or BUILT_IN_MODEL
    with closing(DetectorProcess(path, None, limits, options)) as process:
        load_model(process, path)


def load_model(process: DetectorProcess, model: Path) -> None:
    """Load the process's model. Raises SettingsError, with the name of the `model` file, if that fails."""
    try:
        process.load()
    except MediaTooLarge as error:
        raise SettingsError(
            f"the model {model.name!r} takes more memory or time to load than a detector has"
        ) from error
    except DetectorFailed as error:
        raise SettingsError(f"the model {model.name!r} cannot be loaded: {error}") from error
