"""A YAML file of the user: which contents are read, and which contents are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from nnopt.config.conf_file import read_conf_file, settings_of
from nnopt.errors import ConfigError

OWN = {"experiment", "ablation", "optimizer", "schedule", "hydra"}


def read(folder: Path, text: str | bytes, name: str = "experiment/mine") -> tuple[Any, str]:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    config, package = read_conf_file(path, name, OWN)
    return OmegaConf.to_container(config), package


def refused(folder: Path, text: str | bytes, name: str = "experiment/mine") -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, name)
    line = caught.value.problems[0]
    assert f"{name}.yaml" in line
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    "text",
    [
        "epochs: 7\n",
        "# @package _global_\nepochs: 7\n",
        "\ufeff# @package _global_\nepochs: 7\n",
        "\ufeffepochs: 7\n",
        "# mine\n\n# @package _global_\n\nepochs: 7\n",
        "---\n# @package _global_\nepochs: 7\n",
        "%YAML 1.1\n---\nepochs: 7\n",
        "# @package _global_\r\nepochs: 7\r\n",
        "epochs: 7 # no line break at the end",
        "epochs: 7\n# @package _global_\n",
    ],
)
def test_package_of_experiment_is_global_with_or_without_header(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == ({"epochs": 7}, "")


@pytest.mark.parametrize(
    ("name", "header", "package"),
    [
        ("optimizer/mine", "", "optimizer"),
        ("optimizer/mine", "# @package _group_\n", "optimizer"),
        ("optimizer/mine", "# @package optimizer\n", "optimizer"),
        ("optimizer/tuned/mine", "", "optimizer"),
        ("hydra/launcher/mine", "", "hydra.launcher"),
        ("ablation/paper/mine", "", ""),
        ("config", "# @package _global_\n", ""),
        ("task/mine", "# @package _global_\n", ""),
        ("task/mine", "# @package optimizer\n", "optimizer"),
    ],
)
def test_package_of_conf_file_depends_on_group_and_header(
    tmp_path: Path, name: str, header: str, package: str
) -> None:
    assert read(tmp_path, f"{header}lr: 1\n", name)[1] == package


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("experiment/mine", "# @package _group_\n"),
        ("experiment/mine", "# @package optimizer\n"),
        ("experiment/mine", "# @package\n"),
        ("optimizer/mine", "# @package optimzer\n"),
        ("optimizer/mine", "# @package _global_\n"),
        ("optimizer/mine", "# @package schedule\n"),
        ("hydra/launcher/mine", "# @package hydra.sweeper\n"),
        ("task/mine", "# @package hydra.job\n"),
    ],
)
def test_unsupported_package_header_is_refused(tmp_path: Path, name: str, header: str) -> None:
    assert "line 2: '# @package" in refused(tmp_path, f"# mine\n{header}lr: 1\n", name)


def test_package_after_first_key_of_conf_file_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, "lr: 1\n# @package _global_\n", "task/mine")
    assert "line 2: '# @package _global_' must come before the first key" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("---\n", "is null, not a map"),
        ("{}\n", "sets no key"),
        ("defaults: []\n", "sets no key"),
        ("defaults: [_self_]\n", "sets no key"),
        ("- epochs: 7\n", "is a list, not a map"),
        ("epochs\n", "is a text, not a map"),
        ("7\n", "is a number, not a map"),
        ("epochs: 7\n---\nseed: 1\n", "line 2, column 1: expected a single document"),
        ("a: " + "[" * 3000, "nested more than 50 levels"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 50 levels"),
        ("seed: " + "9" * 5000, "line 1: a number has 5,000 digits"),
        ("a:\n  null: 3\n", "line 2: the key 'null' is null, but keys are texts"),
        ("3: 4\n", "line 1: the key '3' is a number"),
        ("0.5: 4\n", "line 1: the key '0.5' is a number"),
        ("on: 4\n", "line 1: the key 'on' is true or false"),
        ("? [a, b]\n: 4\n", "line 1: the key is a list"),
        ("? {a: b}\n: 4\n", "line 1: the key is a map"),
        ("epochs: 7\nseed: 1\nepochs: 8\n", "line 3: the key 'epochs' occurs twice"),
        ("a:\n  b: 1\n  b: 2\n", "line 3: the key 'b' occurs twice"),
        ("a: !!python/object/apply:os.system [x]\n", "line 1: the tag '!!python/object"),
        ("a: !mine 3\n", "line 1: the tag '!mine' is not supported"),
        ("a: !!binary aGFsbG8=\n", "line 1: the tag '!!binary' is not supported"),
        ("a: !!set {x, y}\n", "line 1: the tag '!!set' is not supported"),
        ("a: &x [*x]\n", "line 1: an alias refers to a value that contains it"),
        ("a: *nowhere\n", "line 1, column 4: found undefined alias 'nowhere'"),
        ("optimizer:\n\tlr: 3\n", "line 2, column 1: while scanning for the next token"),
        ("optimizer:\n\tlr: 3\n", "indent with spaces"),
        ("optimizer:\n  lr: 3\n name: x\n", "line 3, column 2"),
        ("a: 'x\n", "line 2, column 1: while scanning a quoted scalar"),
        ("a: \x00\n", "the character"),
        ("epochs: 7\n# größe\n".encode("latin-1"), "line 2: byte 0xf6 is not UTF-8"),
        ("epochs: 7\n".encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
        ("epochs: 010\n", "line 1: YAML reads 010 as octal"),
        ("epochs: -007\n", "line 1: YAML reads -007 as octal"),
        ("a: [1, 1:30]\n", "line 1: YAML reads 1:30 in base 60"),
        ("a: 1:30.5\n", "line 1: YAML reads 1:30.5 in base 60"),
        ("optimizer.lr: 0.1\n", "must be nested: 'optimizer:' and, indented below it, 'lr:'"),
        ("optimizer:\n  a.b: 0.1\n", "line 2: the key 'a.b' must be nested"),
        ("seed: 1\nname: ${a\n", "line 2: name: "),
        ("a: {b: '${x:'}\n", "line 1: a.b: "),
        ("hydra: {job: {chdir: true}}\n", "line 1: unsupported setting of Hydra"),
        ("hydra:\n  run: {dir: x, other: 1}\n", "line 2: unsupported setting of Hydra"),
        ("hydra: 3\n", "line 1: unsupported setting of Hydra"),
        ("defaults: optimizer\nseed: 1\n", "line 1: defaults must be a list"),
        ("defaults: [3]\nseed: 1\n", "line 1: an entry of defaults is a file or one 'group: file'"),
        ("defaults: [{a: b, c: d}]\n", "line 1: an entry of defaults is"),
        ("defaults: [{override /a: 3}]\n", "line 1: 'override /a' in defaults needs the name"),
        ("defaults:\n- optimizer: sgd\n", "line 2: write 'override /optimizer: sgd'"),
        ("defaults:\n- /optimizer: sgd\n", "line 2: write 'override /optimizer: sgd'"),
        ("defaults:\n- override optimizer: sgd\n", "line 2: write 'override /optimizer: sgd'"),
        ("defaults:\n- override /a@b: sgd\n", "leave '@...' out"),
        ("defaults:\n- override /hydra/help: a\n", "line 2: unsupported file of Hydra"),
        ("x: " + "y" * 1_000_001, "is larger than 1,000,000 bytes"),
    ],
    ids=lambda x: repr(x)[:40],
)
def test_wrong_conf_file_is_refused_with_reason(
    tmp_path: Path, text: str | bytes, expected: str
) -> None:
    assert expected in refused(tmp_path, text)


def test_conf_file_whose_aliases_give_too_many_values_is_refused(tmp_path: Path) -> None:
    text = "a: &x {b: 1, c: [2]}\nd: *x\ne: {<<: *x, b: 3}\n"
    expected = {"a": {"b": 1, "c": [2]}, "d": {"b": 1, "c": [2]}, "e": {"b": 3, "c": [2]}}
    assert read(tmp_path, text)[0] == expected
    lines = [f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 10)}]" for i in range(1, 9)]
    bomb = "\n".join(["k0: &k0 [x, x]", *lines])
    assert "more than 3,000 values, aliases included" in refused(tmp_path, bomb)


def test_values_of_conf_file_are_read_as_yaml(tmp_path: Path) -> None:
    text = "a: 1e-3\nb: .5\nc: 1_000\nd: no\ne: 0x10\nf: 0\ng: 09\nh: 0.10\ni: '010'\n"
    expected = [0.001, 0.5, 1000, False, 16, 0, "09", 0.1, "010"]
    assert list(read(tmp_path, text)[0].values()) == expected


def test_keys_of_params_in_conf_file_may_have_dots(tmp_path: Path) -> None:
    sweep = "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      optimizer.lr: 0.1,0.2\n"
    params = {"optimizer.lr": "0.1,0.2"}
    assert read(tmp_path, sweep, "ablation/mine")[0]["hydra"]["sweeper"]["params"] == params
    text = "params: {optimizer.lr: '0.1,0.2'}\n"
    assert read(tmp_path, text, "hydra/sweeper/mine") == ({"params": params}, "hydra.sweeper")


def test_unreadable_conf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment" / "mine.yaml").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"mine\.yaml: cannot be read: Is a directory"):
        read_conf_file(tmp_path / "experiment" / "mine.yaml", "experiment/mine", OWN)


def test_settings_of_key_have_line_numbers(tmp_path: Path) -> None:
    read(tmp_path, "# mine\noptimizer:\n  lr: 0.3\nschedule:\n")
    path = tmp_path / "experiment" / "mine.yaml"
    assert list(settings_of(path, ["optimizer", "lr"])) == [(3, 0.3)]
    assert list(settings_of(path, ["optimizer"])) == [(2, ...)]
    assert list(settings_of(path, ["schedule", "name"])) == [(4, None)]
    assert not list(settings_of(path, ["optimizer", "name"]))


def test_settings_of_a_key_in_params_and_grids_are_found(tmp_path: Path) -> None:
    text = "hydra:\n  sweeper:\n    params:\n      optimizer.lr: 0.1,0.2\n    grids:\n"
    read(tmp_path, text + "      - {optimizer.lr: 1}\n      - {seed: 3}\n      - optimizer.lr: 2\n")
    path = tmp_path / "experiment" / "mine.yaml"
    rate = ["optimizer", "lr"]
    assert list(settings_of(path, ["hydra", "sweeper", "params", *rate])) == [(4, "0.1,0.2")]
    assert list(settings_of(path, ["hydra", "sweeper", "grids", *rate])) == [(6, 1), (8, 2)]
    assert not list(settings_of(path, rate))
