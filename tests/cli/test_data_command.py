"""``nnopt data``: its subcommands ``list`` and ``verify``, and wrong usage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from data_files import data_config, image_config, write_idx

from nnopt.cli.data import main
from nnopt.data import load, published
from nnopt.data.dataset_files import sha256
from nnopt.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data folder with a small MNIST. Its checksums replace the published checksums."""
    write_idx(tmp_path)
    known = {
        name: sha256((tmp_path / "MNIST/raw" / name).read_bytes())
        for name in published.MNIST.sha256
    }
    monkeypatch.setitem(published.PUBLISHED, "mnist", replace(published.MNIST, sha256=known))
    monkeypatch.setenv("NNOPT_DATA_DIR", str(tmp_path))
    return tmp_path


def test_data_list_command_shows_every_dataset(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "name",
        "training",
        "validation",
        "test",
        "shape",
        "classes",
        "here",
        "where",
    ]
    assert [line.split()[0] for line in lines] == ["mnist", "fashion_mnist", "cifar10", "cinic10"]
    assert lines[0].split()[1:] == ["60,000", "10,000", "1x28x28", "10", "yes", f"{root}/MNIST/raw"]
    assert " no " in lines[1]
    assert f"FashionMNIST/raw/train-images-idx3-ubyte not found in {root}" in lines[1]
    assert lines[3].split()[1:4] == ["90,000"] * 3


def test_json_output_of_data_list_command_has_every_dataset(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found = json.loads(captured.out)
    assert found["root"] == str(root)
    mnist, fashion_mnist, _, cinic10 = found["datasets"]
    assert mnist == {
        "name": "mnist",
        "samples": {"train": 60_000, "validation": None, "test": 10_000},
        "shape": [1, 28, 28],
        "classes": list("0123456789"),
        "present": True,
        "folder": f"{root}/MNIST/raw",
        "problem": None,
    }
    assert (fashion_mnist["present"], fashion_mnist["folder"]) == (False, None)
    assert f"train-images-idx3-ubyte not found in {root}" in fashion_mnist["problem"]
    assert cinic10["samples"]["validation"] == 90_000


def test_root_option_of_data_command_is_used(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--root", str(tmp_path / "other")]) == 0
    assert " yes " not in capsys.readouterr().out


def test_data_verify_command_compares_checksums(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify"]) == 0
    assert main(["verify", "mnist"]) == 0
    expected = "mnist: all files have the published SHA-256\n"
    assert capsys.readouterr().out == 2 * expected


def test_data_verify_command_finds_changed_pixel(root: Path) -> None:
    path = root / "MNIST/raw/t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"mnist: .*t10k-images.* not the published file") as caught:
        main(["verify"])
    assert caught.value.exit_code == 3


def test_data_verify_command_finds_damaged_cache(root: Path) -> None:
    load(image_config("mnist"), data_config(root), seed=0)
    (path,) = root.glob("cache/mnist-*/test_inputs.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"test_inputs\.npy is damaged; delete its folder"):
        main(["verify", "mnist"])


def test_data_verify_command_reports_all_problems(root: Path) -> None:
    (root / "MNIST/raw/t10k-labels-idx1-ubyte").write_bytes(b"short")
    with pytest.raises(DataError) as caught:
        main(["verify", "mnist", "cinic10"])
    first, second = str(caught.value).splitlines()
    assert first.startswith("mnist: ")
    assert "truncated: 5 bytes" in first
    assert second.startswith("cinic10: CINIC-10/train not found")


def test_wrong_usage_of_data_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no dataset 'mnits' to fetch; did you mean 'mnist'"):
        main(["fetch", "mnits"])
    with pytest.raises(DataError, match="no dataset in "):
        main(["verify", "--root", str(tmp_path)])
    for arguments in ([], ["fetch"], ["eat"]):
        with pytest.raises(ConfigError, match=r"`nnopt data.* --help` lists the options"):
            main(arguments)
