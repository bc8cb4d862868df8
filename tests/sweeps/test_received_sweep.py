"""Unsafe settings of another person's sweep are ignored, or must be given again on resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from nnopt.config.point import Point, point_id
from nnopt.config.validate import read_plugin
from nnopt.errors import ConfigError, ResumeError
from nnopt.schema import RayConfig, SubmititConfig
from nnopt.sweeps.resume_checks import check_launcher, with_safe_data

NONE = frozenset[str]()
SUBMITIT = {"name": "submitit", "cluster": "slurm", "workers": 1, "threads": 1, "gpus": 0}
SUBMITIT |= {"memory": None, "partition": None, "options": {}, "timeout": 60, "folder": None}
RAY = {"name": "ray", "address": None, "workers": 1, "threads": 1, "gpus": 0, "timeout": None}


def submitit(**changes: Any) -> SubmititConfig:
    found: SubmititConfig = read_plugin("hydra.launcher", SUBMITIT | changes)
    return found


@pytest.mark.parametrize(
    "folder", ["/elsewhere", "~/jobs", "~no-such-user/x", "..", "INSIDE/../../x"]
)
def test_launcher_folder_outside_sweep_is_refused_until_given_again(
    tmp_path: Path, folder: str
) -> None:
    launcher = submitit(folder=folder.replace("INSIDE", str(tmp_path)))
    with pytest.raises(ResumeError, match=r"give it again: hydra\.launcher\.folder="):
        check_launcher(launcher, NONE, tmp_path)
    check_launcher(launcher, frozenset({"hydra.launcher.folder"}), tmp_path)
    with pytest.raises(ResumeError):  # the choice of a launcher does not confirm the folder
        check_launcher(launcher, frozenset({"hydra/launcher"}), tmp_path)


def test_launcher_folder_inside_sweep_is_accepted(tmp_path: Path) -> None:
    check_launcher(submitit(), NONE, tmp_path)
    check_launcher(submitit(folder=str(tmp_path / "jobs")), NONE, tmp_path)


def test_cluster_address_of_launcher_is_refused_until_given_again(tmp_path: Path) -> None:
    for address in (None, "auto", "local"):
        check_launcher(read_plugin("hydra.launcher", RAY | {"address": address}), NONE, tmp_path)
    launcher: RayConfig = read_plugin("hydra.launcher", RAY | {"address": "10.0.0.1:6379"})
    with pytest.raises(ResumeError, match="can run programs on this machine"):
        check_launcher(launcher, NONE, tmp_path)
    check_launcher(launcher, frozenset({"hydra.launcher.address"}), tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("partition", "gpu\ntouch x"),
        ("partition", "gpu --wrap=x"),
        ("partition", ""),
        ("options", {"wrap": "touch x"}),
        ("options", {"output": "x"}),
        ("options", {"chdir": "x"}),
        ("options", {"export": "ALL"}),
        ("options", {"qos": "high\nx"}),
        ("options", {"qos": "$(x)"}),
        ("options", {"nodelist": "/etc/passwd"}),
        ("options", {"exclusive": False}),
        ("options", {"nice": 10**30}),
        ("options", {"gres": ["gpu"]}),
        ("options", {"qos\nx": 1}),
        ("folder", "jobs\nx"),
    ],
)
def test_submitit_with_unsafe_option_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"hydra\.launcher\.{key}"):
        submitit(**{key: value})


def test_submitit_resource_options_are_accepted() -> None:
    options = {"qos": "high", "constraint": "[a100|v100]&ib", "gres": "gpu:a100:2", "nice": 5}
    options |= {"mail_user": "me@example.org", "exclusive": True, "begin": "now+1hour"}
    assert submitit(options=options, partition="gpu,long").options == options


def point_at(make_config: Callable[..., Any], **data: Any) -> Point:
    config = make_config(**{f"data.{key}": value for key, value in data.items()})
    return Point(point_id(config), config, asdict(config), ())


def test_unsafe_cache_of_received_sweep_is_not_used(
    tmp_path: Path, make_config: Callable[..., Any]
) -> None:
    """A cache is unsafe if nnopt did not write it, or if it is in the sweep's folder."""
    sweep = tmp_path / "sweep"
    for cache in (tmp_path / "photos", sweep / "cache"):
        (cache / "index").mkdir(parents=True)
        if cache.parent == sweep:
            (cache / "index" / "mnist-0123456789abcdef.json").touch()
        point = point_at(make_config, cache=str(cache), download=True)
        safe = with_safe_data(point, NONE, sweep)
        assert (safe.config.data.cache, safe.config.data.download) == (None, False)
        assert safe.container["data"]["cache"] is None
        asked = frozenset({"data.cache", "data.download"})
        assert with_safe_data(point, asked, sweep) is point


def test_safe_cache_and_given_root_of_received_sweep_are_used(
    tmp_path: Path, make_config: Callable[..., Any]
) -> None:
    cache = tmp_path / "cache"
    (cache / "index").mkdir(parents=True)
    (cache / "index" / "mnist-0123456789abcdef.json").touch()
    point = point_at(make_config, cache=str(cache))
    assert with_safe_data(point, NONE, tmp_path / "sweep") is point
    moved = point_at(make_config, root="/new", cache="/old/cache")
    safe = with_safe_data(moved, frozenset({"data.root"}), tmp_path / "sweep")
    assert safe.config.data.cache == "/new/cache"
