"""The options of a run's fit."""

import logging
from typing import Any

from graspl.errors import GrasplError, foreign
from graspl.runs import RunFolder, parse_yaml

log = logging.getLogger(__name__)


def settings_of(run: RunFolder) -> dict[str, Any]:
    """Return the options of a run's fit, from its `config.yaml`; {} where it has none, or none that can be read."""
    if not run.config.is_file():
        return {}
    try:
        with foreign(run.config, "is not YAML that can be read", "fit again"):
            found = parse_yaml(run.config.read_text(encoding="utf-8"))
    except GrasplError as error:
        log.warning("%s; its options are left out", error)
        return {}
    return found if isinstance(found, dict) else {}
