"""The modules, YAML files and command of the package, installed editable and from a wheel.

The wheel is built from the source archive, so that a file missing in the archive is noticed.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nnopt

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = ("nnopt", "conf", "pyproject.toml", "README.md", "LICENSE")

WHAT_IS_INSTALLED = """
import importlib.resources, json, nnopt
root = importlib.resources.files("nnopt.conf")
names = [p.relative_to(root).as_posix() for p in root.rglob("*.yaml")]
typed = importlib.resources.files("nnopt").joinpath("py.typed").is_file()
report = [p.name for p in importlib.resources.files("nnopt.report").joinpath("web").iterdir()]
found = {"file": nnopt.__file__, "yaml": sorted(names), "typed": typed, "report": sorted(report)}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Return a map from package to version, read from constraints.txt."""
    lines = (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()
    overrides = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in overrides}


def test_packages_in_tree_are_listed_in_pyproject(project: dict[str, Any]) -> None:
    inits = (REPOSITORY / "nnopt").rglob("__init__.py")
    tree = {".".join(path.parent.relative_to(REPOSITORY).parts) for path in inits}
    assert set(project["tool"]["setuptools"]["packages"]) == tree | {"nnopt.conf"}
    for folder in {path.parent for path in (REPOSITORY / "nnopt").rglob("*.py")}:
        assert (folder / "__init__.py").exists(), f"{folder} has modules but no __init__.py"


def test_pinned_dependencies_are_within_ranges_of_pyproject(
    project: dict[str, Any], pins: dict[str, str]
) -> None:
    extras = project["project"]["optional-dependencies"]
    expected = [*project["project"]["dependencies"], *itertools.chain(*extras.values())]
    for requirement in map(Requirement, expected):
        name = canonicalize_name(requirement.name)
        if name == "nnopt":  # an extra that contains another extra
            assert requirement.extras <= set(extras)
            continue
        assert name in pins, f"{name} is not pinned in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{requirement} excludes {pins[name]}"


@pytest.mark.parametrize("name", ["torch", "pytest", "hydra-core", "matplotlib", "pandas"])
def test_requirements_of_pinned_packages_are_pinned(name: str, pins: dict[str, str]) -> None:
    needed = map(Requirement, importlib.metadata.requires(name) or [])
    for requirement in needed:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            assert canonicalize_name(requirement.name) in pins


def test_printed_version_equals_version_of_package(capsys: pytest.CaptureFixture[str]) -> None:
    from nnopt.cli.main import run_verb

    assert run_verb(["version"]) == 0
    assert capsys.readouterr().out == f"{nnopt.__version__}\n"


def run(*arguments: object, cwd: Path) -> str:
    """Return the output of a command that must succeed."""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")
    }
    result = subprocess.run(
        [str(word) for word in arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{arguments}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a copy of the packaged files, so that builds do not change the repository."""
    folder = tmp_path / "source"
    for name in SOURCES:
        original = REPOSITORY / name
        if original.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(original, folder / name, ignore=ignored)
        else:
            shutil.copy(original, folder / name)
    return folder


def wheel_of(source: Path) -> Path:
    target = source.parent / f"wheel of {source.name}"
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "wheel", *offline, "-w", target, source, cwd=source.parent)
    (wheel,) = target.glob("nnopt-*.whl")
    return wheel


def as_editable(source: Path) -> list[Path | str]:
    return ["-e", source]


def as_wheel_of_the_source_archive(source: Path) -> list[Path | str]:
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(source.parent)!r})"
    run(sys.executable, "-c", build, cwd=source)
    (archive,) = source.parent.glob("nnopt-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(source.parent / "archive", filter="data")
    shutil.rmtree(source)
    (unpacked,) = (source.parent / "archive").iterdir()
    return [wheel_of(unpacked)]


@pytest.mark.slow
@pytest.mark.parametrize("form", [as_editable, as_wheel_of_the_source_archive])
def test_installed_package_runs_in_another_folder(
    form: Callable[[Path], list[Path | str]], source: Path, tmp_path: Path
) -> None:
    """The package is in a new environment, which shares the dependencies of this environment."""
    import json
    import sysconfig

    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    packages = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path
    )
    # Python does not read the .pth files in a folder that a .pth file adds. The new environment
    # thus does not see an editable nnopt in that folder.
    borrowed = sysconfig.get_path("purelib")
    (Path(packages.strip()) / "borrowed.pth").write_text(borrowed, "utf-8")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    run(*pip, "install", *offline, *form(source), cwd=tmp_path)

    installed = json.loads(run(python, "-c", WHAT_IS_INSTALLED, cwd=elsewhere))
    conf = REPOSITORY / "conf"
    assert installed["yaml"] == sorted(
        path.relative_to(conf).as_posix() for path in conf.rglob("*.yaml")
    )
    assert installed["typed"]
    page = (REPOSITORY / "nnopt" / "report" / "web").iterdir()
    assert installed["report"] == sorted(path.name for path in page)
    assert Path(installed["file"]).is_relative_to(tmp_path)

    command = environment / "bin" / "nnopt"
    assert run(command, "version", cwd=elsewhere) == f"{nnopt.__version__}\n"
    assert "name: spiral" in run(command, "run", "--cfg", "job", cwd=elsewhere)
    assert not list(elsewhere.iterdir())
    run(command, "run", "epochs=1", "plots=false", cwd=elsewhere)
    assert (elsewhere / "outputs" / "latest" / "summary.json").is_file()
