"""Prints the output of ``run`` with --help, --info or --cfg, and of tab completion."""

from __future__ import annotations

import copy
import logging
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import StringIO
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from nnopt.config.compose import Plan
from nnopt.config.conf_file import PRIMARY
from nnopt.config.hydra import (
    compose_files,
    composing,
    concerns_files,
    hydra_errors,
    is_plugin_key,
    override_text,
    parse_overrides,
)
from nnopt.config.hydra_internals import Hydra
from nnopt.config.point import to_yaml
from nnopt.errors import ConfigError
from nnopt.terminal import console


def print_help(options: Namespace, parser: ArgumentParser) -> None:
    """Print the groups, keys and options of ``nnopt run``. Raises ConfigError."""
    with _printing(options) as (hydra, overrides):
        composed = hydra.compose_config(PRIMARY, overrides, RunMode.RUN)
        HydraConfig.instance().set_config(composed)
        shown = hydra.get_sanitized_cfg(copy.deepcopy(composed), "job")
        print(hydra.get_help(composed.hydra.help, shown, parser, resolve=False))


def print_info(options: Namespace) -> None:
    """Print the search path, plug-ins and defaults of Hydra. Raises ConfigError."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with _printing(options) as (hydra, overrides):
            hydra.show_info(options.info, PRIMARY, overrides)
    finally:  # Hydra prints with logging, and does not remove its handlers
        root.handlers[:], root.level = handlers, level


def print_config(plan: Plan, options: Namespace) -> None:
    """Print the configuration of the first point, Hydra's settings, or both. Raises ConfigError."""
    shown: dict[str, Any] = {}
    if options.cfg in ("hydra", "all"):
        shown["hydra"] = _hydra_part(options)
    if options.cfg in ("job", "all"):
        shown |= plan.points[0].container
        if len(plan.points) > 1:
            console.note(f"note: this is the first of {len(plan.points):,} points")
    package = options.package
    if package in (None, "_global_"):
        print(to_yaml(shown), end="")
        return
    value: Any = shown
    for key in package.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise ConfigError(f"--package = {package!r}: there is no such key")
        value = value[key]
    if isinstance(value, Mapping):
        value = f"# @package {package}\n{to_yaml(value)}".removesuffix("\n")
    print(value)


def complete_words(command: str) -> None:
    """Print Hydra's answer to ``install=SHELL``, ``uninstall=SHELL`` or ``query=SHELL``."""
    before, sys.argv = sys.argv, ["nnopt"]  # Hydra reads the name of the command from sys.argv
    typed = os.environ.get("COMP_LINE", "").split()
    try:
        with _composing_plugins(typed), hydra_errors():
            _hydra().shell_completion(config_name=PRIMARY, overrides=[command])
    finally:
        sys.argv = before


@contextmanager
def _composing_plugins(words: Sequence[str]) -> Iterator[None]:
    """Let Hydra find the choices of plug-ins that the words of a command line name, if possible."""
    with ExitStack() as stack:
        try:
            stack.enter_context(composing(None, words))
        except ConfigError:  # a plug-in fails to load, as the command itself will report
            stack.enter_context(composing())
        yield


@contextmanager
def _printing(options: Namespace) -> Iterator[tuple[Hydra, list[str]]]:
    """Yield Hydra and the overrides, and capture the output. Print it unless an error occurs."""
    text = StringIO()
    composed = composing(options.config_dir, options.overrides)
    with composed, hydra_errors(), redirect_stdout(text):
        yield _hydra(), [override_text(override) for override in parse_overrides(options.overrides)]
    print(text.getvalue(), end="")


def _hydra() -> Hydra:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None  # the caller is within composing()
    return hydra


def _hydra_part(options: Namespace) -> dict[str, Any]:
    with composing(options.config_dir, options.overrides), hydra_errors():
        overrides = [
            override_text(override)
            for override in parse_overrides(options.overrides)
            if concerns_files(override)
            and not (override.is_sweep_override() or is_plugin_key(override))
        ]
        composed = compose_files(overrides, with_hydra=True).config
        HydraConfig.instance().set_config(composed)
        container: Any = OmegaConf.to_container(composed.hydra, resolve=False)
        return dict(container)
