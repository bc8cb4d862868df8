"""Paths of folders in settings and environment variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnopt.errors import ConfigError
from nnopt.io.paths import absolute_folder, environment, given_path


@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_blank_environment_variable_gives_the_default(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("NNOPT_DATA_DIR", value)
    assert environment("NNOPT_DATA_DIR", "data") == "data"


def test_value_of_a_set_environment_variable_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNOPT_DATA_DIR", " a b")
    assert environment("NNOPT_DATA_DIR", "data") == " a b"


def test_tilde_is_expanded_to_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert absolute_folder("~/x", "data.root") == str(tmp_path / "x")
    assert absolute_folder("~", "data.root") == str(tmp_path)


def test_relative_path_starts_at_the_current_folder() -> None:
    assert absolute_folder("a/../b", "data.root") == os.path.join(os.getcwd(), "b")
    assert absolute_folder("./~x", "data.root") == os.path.join(os.getcwd(), "~x")


@pytest.mark.parametrize("text", ["", "  ", "a\0b", "~no-such-user/x"])
def test_impossible_path_in_a_setting_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^data\.root = "):
        absolute_folder(text, "data.root")


@pytest.mark.parametrize("text", ["", "  ", "a\0b", "~no-such-user/x"])
def test_impossible_path_given_as_option_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--out '"):
        given_path(text, "--out")


def test_tilde_with_empty_home_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    with pytest.raises(ConfigError, match="HOME is empty"):
        absolute_folder("~/x", "data.root")
