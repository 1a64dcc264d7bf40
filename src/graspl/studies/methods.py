"""A study's methods: configurations, read from method files and merged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graspl.errors import GrasplError, foreign
from graspl.runs import parse_yaml

# Dotted configuration keys and their values, e.g. `model.init_args.penalties.0.init_args.weight: 0.1`.
Settings = dict[str, Any]
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """One method of a study."""

    config: Config  # Added to the configuration that all fits share
    # Values to choose from, by dotted key of `config`; empty for a method that is not tuned.
    tune: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    needs: str = ""  # What it needs beyond the task's rows, in words, for the table
    # Put over `config` in its trials, e.g. rows that are not evaluated on the development data.
    development: Config = field(default_factory=dict)

    @classmethod
    def parse(
        cls, name: str, given: Config, shared: Config | None = None, over: Config | None = None
    ) -> "Method":
        """Read one entry of `methods`: a configuration, with `set`, `tune`, `needs` and `development` beside it.

        Its `model` may be the path of a method file, or a mapping with that `path` and keys to put over the file. The study's
        `shared` is put under the configuration and `over` on top; the dotted keys of `set` win over all.
        """
        if not isinstance(given, Mapping):
            raise GrasplError(f"methods.{name}: give a configuration, e.g. data and model")
        config = dict(given)
        needs = config.pop("needs", None) or ""
        parts = [config.pop(key, None) or {} for key in ("tune", "development", "set")]
        for key, value in zip(("tune", "development", "set"), parts, strict=True):
            if not isinstance(value, Mapping):
                raise GrasplError(f"methods.{name}.{key}: give a mapping, not {value!r}")
        if not isinstance(needs, str):
            raise GrasplError(f"methods.{name}.needs: give a text")
        if "model" in config:
            config["model"] = _read_model(config["model"], f"methods.{name}.model")
        tune, development, dotted = parts
        config = merged(merged(shared or {}, config), over or {})
        for key, value in dotted.items():
            if isinstance(value, Mapping) and isinstance(config.get(key), Mapping):
                fix = f"give {key} beside set, or its options alone, e.g. {key}.{next(iter(value), 'option')}"
                raise GrasplError(f"methods.{name}.set.{key}: would drop what all methods share there; {fix}")
        return cls(with_settings(config, dotted, f"methods.{name}.set"), tune, needs, development)


def configs_of(methods: Mapping[str, Method], chosen: Mapping[str, Settings | None]) -> dict[str, Config]:
    """Return configurations with the settings chosen, without the methods of which every trial failed (None)."""
    kept = {name: method.config for name, method in methods.items() if chosen.get(name, {}) is not None}
    return {
        name: with_settings(config, chosen.get(name) or {}, f"methods.{name}.tune")
        for name, config in kept.items()
    }


def _read_model(given: Any, origin: str) -> Any:
    more = dict(given) if isinstance(given, Mapping) else {"path": given}
    if "path" not in more:
        return given
    path = Path(str(more.pop("path")))
    with foreign(f"{origin}: {path}", "cannot be read as a method file", "correct it, or give another"):
        content = parse_yaml(path.read_text(encoding="utf-8"))
    if not isinstance(content, Mapping):
        raise GrasplError(f"{origin}: {path} holds no mapping; write class_path and init_args")
    return merged(content, more)


def merged(config: Config, more: Config) -> dict[str, Any]:
    """Return a configuration with another's keys put over its own, at every depth."""
    both = {**config, **more}
    for key in config.keys() & more.keys():
        if isinstance(config[key], Mapping) and isinstance(more[key], Mapping):
            both[key] = merged(config[key], more[key])
    return both


def settings_of_trainer(config: Any) -> Mapping[str, Any]:
    """Return the trainer's settings in a configuration, or in the file that it names for them."""
    trainer = config.get("trainer") if isinstance(config, Mapping) else None
    if isinstance(trainer, str) and Path(trainer).is_file():
        trainer = parse_yaml(Path(trainer).read_text(encoding="utf-8"))
    return trainer if isinstance(trainer, Mapping) else {}


def with_settings(config: Config, settings: Settings, origin: str) -> dict[str, Any]:
    """Return a configuration with other values at dotted keys; a number is a place in a list, a missing key is added."""
    changed: Any = dict(config)
    for key, value in settings.items():
        changed = _with_value(changed, key.split("."), value, f"{origin}.{key}")
    return changed


def _with_value(part: Any, keys: Sequence[str], value: Any, origin: str) -> Any:
    if not keys:
        return value
    first, rest = keys[0], keys[1:]
    if isinstance(part, list) and first.isdigit() and int(first) < len(part):
        place = int(first)
        return [*part[:place], _with_value(part[place], rest, value, origin), *part[place + 1 :]]
    if isinstance(part, Mapping):
        return {**part, first: _with_value(part.get(first, {}), rest, value, origin)}
    raise GrasplError(f"{origin}: the method's configuration has no place {first} there")
