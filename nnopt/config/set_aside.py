"""Sets aside values that a file sets for a choice that is not selected.

For example, an experiment chooses ``optimizer=sgd`` and sets ``optimizer.lr`` for SGD. If the
command line, a sweep or a later file selects ``optimizer=adam``, Hydra alone would apply the
learning rate of SGD to Adam. ``Loader`` therefore omits such values when it merges the files.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose as hydra_compose
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from nnopt.config.conf_source import location_of
from nnopt.config.hydra_internals import ConfigLoaderImpl, IConfigRepository
from nnopt.errors import ConfigError
from nnopt.io.safe_text import simplify_message
from nnopt.schema.values import flatten, format_value

OWN_VALUES = ("optimizer", "schedule", "architecture")
"""Groups whose values apply to one choice only, even if other choices have the same key."""

SHARED_VALUES = ("dataset", "backend")
"""Groups whose keys have the same meaning for every choice, such as ``backend.dtype``."""

PRESETS = ("regularizer", "initializer")
"""Groups whose files all set the same keys. Experiments and other files override these keys."""

AUTO = "auto"
"""A value that is never set aside, because nnopt determines the number for each choice."""


@dataclass(frozen=True)
class SetAside:
    """Values that ``file`` sets for one choice of a group, although another choice is selected.

    ``Loader`` omits these values, except for a group in ``PRESETS``: there, they override the
    values of the selected file.
    """

    group: str
    choice: str  # the selected choice
    file: str
    made_for: str  # the choice for which the file sets the values
    values: Mapping[str, Any]  # dotted key below the group -> value

    def message(self, section: Mapping[str, Any], given: Collection[str]) -> str | None:
        """Return a note about the values, or None if none of them needs a note.

        ``section`` contains the values in use, ``given`` the dotted keys on the command line.
        """
        values = {k: v for k, v in self.values.items() if f"{self.group}.{k}" not in given}
        if self.group in OWN_VALUES:
            used = dict(flatten(section))
            values = {k: v for k, v in values.items() if k in used and used[k] != v}
        if not values:
            return None
        choice, sets = f"note: {self.group}={self.choice}", f"{self.file} sets {_text(values)}"
        if self.group in PRESETS:
            return f"{choice}: {sets} on top of it"
        if self.group in SHARED_VALUES:
            return f"{choice} has no {', '.join(values)}; {sets} for {self.group}={self.made_for}"
        own = _text({key: used[key] for key in values})
        return f"{choice} has its own {own}; {sets} for {self.group}={self.made_for}"


def _text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={format_value(value)}" for key, value in values.items())


@dataclass(frozen=True)
class Composed:
    """The merged files, and the values that were set aside."""

    config: DictConfig
    set_aside: tuple[SetAside, ...]


def compose(config_name: str, overrides: Sequence[str], with_hydra: bool) -> Composed:
    """Merge the files that overrides choose, as ``hydra.compose`` does, but with ``Loader``.

    ``Composed.set_aside`` omits a group in ``PRESETS`` if no override selects a file of the group.
    """
    loader = GlobalHydra.instance().config_loader()
    config = hydra_compose(config_name, list(overrides), with_hydra)
    set_aside = loader.set_aside if isinstance(loader, Loader) else []
    given = {text.partition("=")[0] for text in overrides}
    noted = tuple(x for x in set_aside if x.group not in PRESETS or x.group in given)
    return Composed(config, noted)


class Loader(ConfigLoaderImpl):
    """Hydra's loader of files, changed to omit values for choices that are not selected.

    The values that a file sets for a group are meant for the choice in the file's list of defaults.
    If the list chooses no file of the group, they are meant for the choice in earlier files.
    """

    def _compose_config_from_defaults_list(
        self, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        self.set_aside: list[SetAside] = []
        self._choices = {
            group: choice
            for group in (*OWN_VALUES, *SHARED_VALUES, *PRESETS)
            if (choice := _choice(group, defaults)) is not None
        }
        self._own: dict[str, dict[str, Any]] = {group: {} for group in self._choices}
        self._made_for: dict[str, str] = {}
        for default in defaults:
            if default.primary:
                self._made_for |= _named_choices(default.config_path, repo)
        self._loaded: list[tuple[str, Any]] = []
        try:
            return super()._compose_config_from_defaults_list(defaults, repo)
        except ConfigCompositionException as error:
            if isinstance(error.__context__, OmegaConfBaseException):
                raise self._refused(error.__context__) from error
            raise

    def _refused(self, error: OmegaConfBaseException) -> ConfigError:
        """Return the error for the last loaded file, which cannot be merged with earlier files."""
        *before, (file, last) = self._loaded
        for _, container in before:
            if conflict := _conflict(container, last):
                location = location_of(conflict[0], lambda value: value is ..., file)
                return ConfigError(f"{' '.join(conflict)}{location}")
        key, reason = str(error.full_key or ""), simplify_message(str(error).splitlines()[0])
        return ConfigError(f"{key}: {reason}{location_of(key, lambda value: True, file)}")

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        loaded = super()._load_single_config(default, repo)
        container = OmegaConf.to_container(loaded.config, resolve=False)
        path = default.config_path or ""
        self._loaded.append((path, container))
        if not isinstance(container, dict) or path.startswith("hydra/"):
            return loaded
        if not default.primary:
            self._made_for |= _named_choices(path, repo)
        left_out = {}
        for group in self._choices:
            section = container.get(group)
            if not isinstance(section, dict):
                continue
            if path.startswith(f"{group}/"):
                self._own[group] |= section
            elif values := self._set_aside(group, section):
                made_for = self._made_for.get(group, "")
                self.set_aside.append(SetAside(group, self._choices[group], path, made_for, values))
                if group not in PRESETS:
                    left_out[group] = values
        return _without(loaded, left_out) if left_out else loaded

    def _set_aside(self, group: str, section: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a section that are meant for a choice that is not selected."""
        own = self._own[group]
        if group in PRESETS:
            chosen = dict(flatten(own))
            return {k: v for k, v in flatten(section) if k in chosen and v != chosen[k]}
        if self._made_for.get(group) == self._choices[group]:
            return {}
        if group in SHARED_VALUES:
            return {k: v for k, v in section.items() if k not in own}
        return {k: v for k, v in section.items() if v != AUTO or k not in own}


def _conflict(before: Any, after: Any, key: str = "") -> tuple[str, str] | None:
    """Return a key that is a list in one container and a map in the other, with a hint, or None."""
    if isinstance(before, dict) and isinstance(after, list):
        return key, "is a list, but needs a map; write 'key: value' lines below it"
    if isinstance(before, list) and isinstance(after, dict):
        return key, "is a map, but needs a list, such as [1, 2]"
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before.keys() & after.keys():
            inside = f"{key}.{name}" if key else str(name)
            if conflict := _conflict(before[name], after[name], inside):
                return conflict
    return None


def _choice(group: str, defaults: Sequence[ResultDefault]) -> str | None:
    """Return the chosen file of a group, ignoring files that a file of the same group includes."""
    inside = f"{group}/"
    for default in reversed(defaults):
        path = default.config_path or ""
        if path.startswith(inside) and not (default.parent or "").startswith(inside):
            return path.removeprefix(inside)
    return None


def _named_choices(path: str | None, repo: IConfigRepository) -> dict[str, str]:
    """Return group -> choice, from the list of defaults of a file."""
    loaded = None if path is None else repo.load_config(path)
    return {
        default.group.lstrip("/"): default.value
        for default in (loaded.defaults_list if loaded else None) or []
        if isinstance(default, GroupDefault) and default.group and isinstance(default.value, str)
    }


def _without(loaded: ConfigResult, left_out: Mapping[str, Collection[str]]) -> ConfigResult:
    """Return a copy of a loaded file without some keys. ``left_out`` has the keys of each group."""
    result = copy.copy(loaded)
    result.config = copy.deepcopy(loaded.config)
    with flag_override(result.config, ["struct", "readonly"], False):
        for group, keys in left_out.items():
            for key in keys:
                del result.config[group][key]
    return result
