"""Hostile folders of results: a table with one function for each folder.

Each function, a ``Build``, changes a copy of a sweep of nnopt. The sweep's first point is done, and
the second is interrupted. Helpers such as ``linked`` return a ``Build`` for their arguments.
``HOSTILE`` has the allowed exit codes of ``nnopt resume``. Every nnopt command must keep the
guarantees in ``test_hostile_folders.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from data_files import summary_values

from nnopt.config.point import point_id
from nnopt.config.validate import read_config

SECRET = "the-password-of-another-person"


@dataclass(frozen=True)
class Received:
    """A sweep from another person, and the files around it.

    done, interrupted: the folders of its two points. outside: a folder with private files, such as
    ``secret.json`` and a folder ``run`` that looks like an interrupted point. marker: a file that
    only an injected command would create.
    """

    sweep: Path
    done: Path
    interrupted: Path
    outside: Path
    marker: Path


Build = Callable[[Received], None]


@dataclass(frozen=True)
class Hostile:
    """A function that builds a folder, and the allowed exit codes of resuming it.

    shown: whether a command may print a private file. A command cannot distinguish a hard link from
    the linked file.
    """

    build: Build
    resume: frozenset[int] = field(default_factory=lambda: frozenset({4}))
    shown: bool = False


def private_files(folder: Path) -> None:
    """Create files that no command may change or, except for ``shared.txt``, print."""
    (folder / "run" / "plots").mkdir(parents=True)
    summary = summary_values(status="interrupted", error=SECRET, config={"name": SECRET})
    for name in ("secret.json", "run/summary.json"):
        (folder / name).write_text(json.dumps(summary))
    for name in ("run/run.log", "run/metrics.csv", "run/thesis.txt", "run/plots/a.png", "a.svg"):
        (folder / name).write_text(f"<svg>{SECRET}</svg>\n")
    (folder / "shared.txt").write_text("notes\n")


def sealed(received: Received, change: Callable[[dict[str, Any]], Any]) -> None:
    """Apply ``change`` to the content of ``sweep.json``, and correct its checksum."""
    path = received.sweep / "sweep.json"
    found = json.loads(path.read_text())
    del found["sha256"]
    found = change(found) or found
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items()]
    sealed_text(received, ",\n".join(lines))


def sealed_text(received: Received, body: str) -> None:
    """Write ``body`` and its correct checksum to ``sweep.json``."""
    digest = hashlib.sha256(body.encode()).hexdigest()
    (received.sweep / "sweep.json").write_text(f'{{"sha256": "{digest}",\n{body}}}\n')


def with_key(key: str, value: Any) -> Build:
    """Set a top-level key of ``sweep.json``."""
    return lambda received: sealed(received, lambda found: found.update({key: value}))


def with_point(key: str, value: Any) -> Build:
    """Set a key of the interrupted point in ``sweep.json``."""
    return lambda received: sealed(received, lambda found: found["points"][1].update({key: value}))


def with_config(dotted: str, value: Any) -> Build:
    """Set a key of the configuration of every point in ``sweep.json``."""

    def change(found: dict[str, Any]) -> None:
        for point in found["points"]:
            *groups, leaf = dotted.split(".")
            place = point["config"]
            for group in groups:
                place = place[group]
            place[leaf] = value

    return lambda received: sealed(received, change)


def with_launcher(**settings: Any) -> Build:
    """Store launcher settings; replace "MARKER" and "OUTSIDE" by the paths in ``Received``."""

    def build(received: Received) -> None:
        paths = {"MARKER": str(received.marker), "OUTSIDE": str(received.outside)}
        text = json.dumps({**LAUNCHERS.get(settings["name"], {}), **settings})
        for name, path in paths.items():
            text = text.replace(name, path)
        sealed(received, lambda found: found.update(launcher=json.loads(text)))

    return build


LAUNCHERS: dict[str, dict[str, Any]] = {
    "pool": {"workers": 1, "threads": 1, "timeout": None, "devices": None},
    "ray": {"address": None, "workers": 1, "threads": 1, "gpus": 0, "timeout": None},
    "submitit": {
        "cluster": "local",
        "workers": 1,
        "threads": 1,
        "gpus": 0,
        "memory": None,
        "partition": None,
        "options": {},
        "timeout": 60,
        "folder": None,
    },
}


def linked(where: str, target: str) -> Build:
    """Replace a file or folder by a link.

    where: a path below the sweep, in which DONE and INTERRUPTED represent the points' folders.
    target: a path below the private folder.
    """

    def build(received: Received) -> None:
        path = _place(received, where)
        _remove(path)
        path.symlink_to(received.outside / target)

    return build


def hard_linked(where: str) -> Build:
    """Replace a file by a hard link to a file outside of the sweep.

    nnopt may print the content of the linked file. A received archive cannot contain such a link,
    but a harmless copy of a folder can.
    """

    def build(received: Received) -> None:
        path = _place(received, where)
        _remove(path)
        os.link(received.outside / "shared.txt", path)

    return build


def piped(where: str) -> Build:
    """Replace a file by a named pipe, which blocks a reader."""

    def build(received: Received) -> None:
        path = _place(received, where)
        _remove(path)
        os.mkfifo(path)

    return build


def huge(where: str) -> Build:
    """Extend a file to 64 GiB without using space on the disk; create it if it is absent."""

    def build(received: Received) -> None:
        path = _place(received, where)
        with path.open("ab") as file:
            file.truncate(64 * 2**30)

    return build


def written(where: str, text: str) -> Build:
    """Write a text into a file."""
    return lambda received: _write(_place(received, where), text)


def with_id(identity: str) -> Build:
    """Change the id of the interrupted point: the name of the folder that ``resume`` empties."""

    def build(received: Received) -> None:
        name = identity.replace("OUTSIDE", str(received.outside))
        up = os.path.relpath(received.outside, received.sweep)
        with_point("id", name.replace("UP", up))(received)

    return build


def with_cache_outside(received: Received) -> None:
    """Change ``sweep.json`` so that it names a private folder as the cache of decoded data."""
    with_config("data.cache", str(received.outside / "cache"))(received)
    with_data(received, "data.cache", str(received.outside / "run"))


def with_download_outside(received: Received) -> None:
    """Request a download of MNIST to a private folder."""
    for key, value in (("data.root", str(received.outside)), ("data.download", True)):
        with_data(received, key, value)
    dataset = {
        "name": "mnist",
        "subset": None,
        "normalization": "unit",
        "validation": {"source": "train", "fraction": 0.2},
        "classes": None,
    }
    with_data(received, "dataset", dataset)


def with_data(received: Received, key: str, value: Any) -> None:
    """Set a key of the interrupted point's configuration, and the id of the new configuration."""

    def change(found: dict[str, Any]) -> None:
        point = found["points"][1]
        *groups, leaf = key.split(".")
        place = point["config"]
        for group in groups:
            place = place[group]
        place[leaf] = value
        point["id"] = point_id(read_config(point["config"]))

    sealed(received, change)


def nested(received: Received) -> None:
    """Write a ``sweep.json`` whose list of points is nested 100,000 levels deep."""
    sealed_text(received, '"format": 1,\n"nnopt": "1",\n"points": ' + "[" * 100_000 + "]" * 100_000)


def two_points_of_one_name(received: Received) -> None:
    def change(found: dict[str, Any]) -> None:
        found["points"][1] |= {"id": found["points"][0]["id"]}

    sealed(received, change)


def exchanged_ids(received: Received) -> None:
    def change(found: dict[str, Any]) -> None:
        first, second = found["points"]
        first["id"], second["id"] = second["id"], first["id"]

    sealed(received, change)


def stolen_temporary_name(received: Received) -> None:
    """Create links with the names of temporary files of nnopt, in the sweep and in a point."""
    for folder in (received.sweep, received.interrupted):
        (folder / ".1-0123456789ab.tmp").symlink_to(received.outside / "secret.json")
        (folder / ".999999999-0123456789ab.tmp").symlink_to(received.outside / "run")


def _place(received: Received, where: str) -> Path:
    for name, folder in (("DONE", received.done), ("INTERRUPTED", received.interrupted)):
        where = where.replace(name, folder.name)
    return received.sweep / where


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


RUNS = frozenset({0, 4})
"""Allowed exit codes if ``resume`` may either ignore the change or refuse the folder."""

INJECTION = "gpu\ntouch MARKER\n"

SBATCH = partial(with_launcher, name="submitit", cluster="slurm")

HOSTILE: dict[str, Hostile] = {
    # ids, which are names of folders
    "id absolute": Hostile(with_id("OUTSIDE/run")),
    "id upward": Hostile(with_id("UP/run")),
    "id dot": Hostile(with_id(".")),
    "id empty": Hostile(with_id("")),
    "id of two parts": Hostile(with_id("a/b")),
    "id of a sweep's file": Hostile(with_id("plots")),
    "id with a line break": Hostile(with_id("spiral-numpy-mlp-momentum-s1-0123456789\n")),
    "id with a null byte": Hostile(with_id("spiral-numpy-mlp-momentum-s1-012345678\0")),
    "id of another configuration": Hostile(with_id("spiral-numpy-mlp-momentum-s1-0123456789")),
    "id twice": Hostile(two_points_of_one_name),
    "ids exchanged": Hostile(exchanged_ids),
    # links instead of files and folders
    "link for a point": Hostile(linked("INTERRUPTED", "run")),
    "link for a finished point": Hostile(linked("DONE", "run")),
    "link for a point, dangling": Hostile(linked("INTERRUPTED", "new")),
    "link for the lock": Hostile(linked("lock", "new")),
    "link for a point's lock": Hostile(linked("INTERRUPTED/lock", "new")),
    "link for sweep.json": Hostile(linked("sweep.json", "secret.json")),
    "link for results.csv": Hostile(linked("results.csv", "secret.json")),
    "link for a summary": Hostile(linked("INTERRUPTED/summary.json", "secret.json")),
    "link for a finished summary": Hostile(linked("DONE/summary.json", "run/summary.json")),
    "link for a log": Hostile(linked("INTERRUPTED/run.log", "run/run.log")),
    "link for a finished log": Hostile(linked("DONE/run.log", "run/run.log")),
    "link for a finished metrics file": Hostile(linked("DONE/metrics.csv", "run/metrics.csv")),
    "link for plots": Hostile(linked("plots", "run/plots")),
    "link for a point's plots": Hostile(linked("INTERRUPTED/plots", "run/plots")),
    "link for plots.log": Hostile(linked("plots.log", "run/run.log")),
    "link for search.log": Hostile(linked("search.log", "run/run.log")),
    "link for search.lock": Hostile(linked("search.lock", "new")),
    "link for the journal": Hostile(linked("search.journal", "run/run.log")),
    "link for submitit": Hostile(linked("submitit", "run")),
    "link for a picture": Hostile(linked("DONE/loss.png", "a.svg"), RUNS),
    "link for report.html": Hostile(linked("report.html", "secret.json"), RUNS),
    "link for a temporary file": Hostile(stolen_temporary_name, RUNS),
    "hard link for a log": Hostile(hard_linked("INTERRUPTED/run.log"), RUNS, shown=True),
    "hard link for a finished metrics file": Hostile(hard_linked("INTERRUPTED/metrics.csv"), RUNS),
    # pipes and huge files
    "pipe for sweep.json": Hostile(piped("sweep.json")),
    "pipe for a summary": Hostile(piped("INTERRUPTED/summary.json")),
    "pipe for a finished summary": Hostile(piped("DONE/summary.json")),
    "pipe for the lock": Hostile(piped("lock")),
    "pipe for a point's lock": Hostile(piped("INTERRUPTED/lock")),
    "pipe for results.csv": Hostile(piped("results.csv")),
    "huge sweep.json": Hostile(huge("sweep.json")),
    "huge summary": Hostile(huge("INTERRUPTED/summary.json"), RUNS),
    # launchers
    "partition with a command": Hostile(SBATCH(partition=INJECTION)),
    "partition with a substitution": Hostile(SBATCH(partition="$(touch MARKER)")),
    "option with a command": Hostile(SBATCH(options={"qos": INJECTION})),
    "option's name with a command": Hostile(SBATCH(options={INJECTION: 1})),
    "option that wraps a command": Hostile(SBATCH(options={"wrap": "touch MARKER"})),
    "option that names a file": Hostile(SBATCH(options={"output": "OUTSIDE/secret.json"})),
    "unknown key with a command": Hostile(SBATCH(setup=["touch MARKER"])),
    "jobs outside": Hostile(with_launcher(name="submitit", folder="OUTSIDE/jobs")),
    "jobs outside, upward": Hostile(with_launcher(name="submitit", folder="../jobs")),
    "devices with a command": Hostile(with_launcher(name="pool", devices=["0; touch MARKER"])),
    "another's cluster": Hostile(with_launcher(name="ray", address="192.0.2.1:6379")),
    "cluster with a line break": Hostile(with_launcher(name="ray", address="auto\nx")),
    # wrong values in sweep.json, with a correct checksum
    "working is relative": Hostile(with_key("working", "evil")),
    "working is a list": Hostile(with_key("working", ["/"])),
    "working has a null byte": Hostile(with_key("working", "/\0")),
    "config_dir is a number": Hostile(with_key("config_dir", 3)),
    "words is a text": Hostile(with_key("words", "seed=0,1")),
    "words has a number": Hostile(with_key("words", [1])),
    "varied is a map": Hostile(with_key("varied", {"seed": 1})),
    "sweeper is a text": Hostile(with_key("sweeper", "grid")),
    "sweeper is unknown": Hostile(with_key("sweeper", {"name": "os.system"})),
    "launcher is null": Hostile(with_key("launcher", None)),
    "launcher is unknown": Hostile(with_key("launcher", {"name": "os.system"})),
    "points is a map": Hostile(with_key("points", {})),
    "points is empty": Hostile(with_key("points", [])),
    "points has a text": Hostile(with_key("points", ["a"])),
    "format is a text": Hostile(with_key("format", "1")),
    "format is huge": Hostile(with_key("format", 10**400)),
    "nnopt is a number": Hostile(with_key("nnopt", 1)),
    "number is twice": Hostile(with_point("number", 1)),
    "number is a truth value": Hostile(with_point("number", True)),
    "number is huge": Hostile(with_point("number", 10**400)),
    "overrides is a text": Hostile(with_point("overrides", "seed=1")),
    "overrides has a list": Hostile(with_point("overrides", [["seed=1"]])),
    "config is a list": Hostile(with_point("config", [])),
    "config has a missing key": Hostile(with_point("config", {"seed": 1})),
    "seed is a list": Hostile(with_config("seed", [0])),
    "epochs is huge": Hostile(with_config("epochs", 10**400)),
    "rate is no number": Hostile(with_config("optimizer.lr", float("nan"))),
    "layers is nested": Hostile(with_config("architecture.hidden", [[[[[[1]]]]]])),
    "key is unknown": Hostile(with_config("hydra", {"run": {"dir": "/tmp"}})),
    "cache outside": Hostile(with_cache_outside, RUNS),
    "download outside": Hostile(with_download_outside, frozenset({3, 4})),
    "cache is a list": Hostile(with_config("data.cache", ["/"])),
    "cache is relative": Hostile(with_config("data.cache", "../cache")),
    "nested 100,000 levels deep": Hostile(nested),
    "a list in place of the map": Hostile(written("sweep.json", "[1]\n")),
    "a text in place of the map": Hostile(written("sweep.json", '"a"\n')),
}
