"""``metrics.csv``: complete rows, and numbers that are read back bit by bit."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import math
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnopt.errors import DataError, OutputError
from nnopt.results.metrics_file import METRICS_COLUMNS, EpochRow, MetricsFile, read_metrics

ROW = EpochRow(1, 20, 0.1, 1.0, 0.5, 1.25, 0.4, 0.0, 2.5, 0.125, 0.75)

floats = st.floats(allow_nan=True, allow_infinity=True)
rows = st.builds(
    EpochRow,
    epoch=st.integers(1, 10**7),
    step=st.integers(0, 2**63),
    lr=floats,
    train_loss=floats,
    train_accuracy=floats,
    validation_loss=st.none() | floats,
    validation_accuracy=st.none() | floats,
    penalty=floats,
    gradient_norm=floats,
    seconds=floats,
    sparsity=floats,
)


def bits(row: EpochRow) -> list[bytes | int | None]:
    """Return the bits of every value; all NaN are equal."""
    return [
        value
        if value is None or isinstance(value, int)
        else b"nan"
        if math.isnan(value)
        else struct.pack("d", value)
        for value in dataclasses.astuple(row)
    ]


def test_metrics_file_columns_are_fixed() -> None:
    assert ",".join(METRICS_COLUMNS) == (
        "epoch,step,lr,train_loss,train_accuracy,validation_loss,validation_accuracy,"
        "penalty,gradient_norm,seconds,sparsity"
    )


def test_metrics_file_header_and_rows_are_written_immediately(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    with MetricsFile(path) as file:
        assert path.read_text() == ",".join(METRICS_COLUMNS) + "\n"
        file.append(ROW)
        assert path.read_text().splitlines()[1:] == ["1,20,0.1,1.0,0.5,1.25,0.4,0.0,2.5,0.125,0.75"]
        file.append(
            dataclasses.replace(
                ROW, validation_loss=None, validation_accuracy=None, penalty=math.nan
            )
        )
        assert path.read_text().splitlines()[2:] == ["1,20,0.1,1.0,0.5,,,nan,2.5,0.125,0.75"]


@given(history=st.lists(rows, max_size=4))
def test_written_metrics_are_read_back_bit_by_bit(
    history: list[EpochRow], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("history") / "metrics.csv"
    history = [dataclasses.replace(row, epoch=i) for i, row in enumerate(history, start=1)]
    with MetricsFile(path) as file:
        for row in history:
            file.append(row)
    assert [bits(row) for row in read_metrics(path)] == [bits(row) for row in history]


def test_metrics_file_of_earlier_version_has_sparsity_zero(tmp_path: Path) -> None:
    """Earlier versions could not prune, and wrote no column ``sparsity``."""
    header = "epoch,step,lr,train_loss,train_accuracy,validation_loss,validation_accuracy,"
    header += "penalty,gradient_norm,seconds"
    (tmp_path / "m.csv").write_text(f"{header}\n1,20,0.1,1.0,0.5,1.25,0.4,0.0,2.5,0.125\n")
    assert read_metrics(tmp_path / "m.csv") == [dataclasses.replace(ROW, sparsity=0.0)]


def test_numpy_scalars_are_written_as_plain_numbers(tmp_path: Path) -> None:
    import numpy as np

    row = dataclasses.replace(ROW, train_loss=np.float64(0.1), lr=np.float32(0.5))
    with MetricsFile(tmp_path / "m.csv") as file:
        file.append(row)
    assert read_metrics(tmp_path / "m.csv") == [dataclasses.replace(ROW, train_loss=0.1, lr=0.5)]


def test_metrics_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("mine")
    with pytest.raises(OutputError, match="file exists"):
        MetricsFile(tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text() == "mine"


def test_metrics_file_in_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"missing/m\.csv"):
        MetricsFile(tmp_path / "missing" / "m.csv")


def test_metrics_file_on_full_disk_has_only_complete_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk accepts only the first seven bytes of the second row."""
    real_write = os.write

    def partial(descriptor: int, data: bytes) -> int:
        if len(data) < 40:  # the rest of the row
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data[:7])

    path = tmp_path / "m.csv"
    with MetricsFile(path) as file:
        file.append(ROW)
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", partial)
        with pytest.raises(
            OutputError, match=r"m\.csv: the disk, or its quota, has no room for 4\d bytes"
        ):
            file.append(ROW)
        assert path.read_bytes() == before
        monkeypatch.undo()
        second = dataclasses.replace(ROW, epoch=2)
        file.append(second)
    assert read_metrics(path) == [ROW, second]


def test_row_of_metrics_file_is_removed_after_failed_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with MetricsFile(tmp_path / "m.csv") as file:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError):
            file.append(ROW)
    assert read_metrics(tmp_path / "m.csv") == []
    with pytest.raises(OutputError):
        MetricsFile(tmp_path / "n.csv")
    assert not (tmp_path / "n.csv").exists()


def test_incomplete_row_of_metrics_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    with MetricsFile(path) as file:
        file.append(ROW)
        file.append(ROW)
    whole = path.read_bytes()
    start = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert read_metrics(path) == [ROW]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no metrics file"),
        ("epoch,loss\n1,2\n", "no metrics file"),
        (",".join(METRICS_COLUMNS) + "\n1,2\n", "line 2: 2 cells, expected 11"),
        (",".join(METRICS_COLUMNS) + "\n1,2,x,1,1,1,1,1,1,1,0\n", "line 2: lr is 'x'"),
        (",".join(METRICS_COLUMNS) + "\n1.5,2,1,1,1,1,1,1,1,1,0\n", "line 2: epoch is '1.5'"),
        (",".join(METRICS_COLUMNS) + "\n1,2,1,,1,1,1,1,1,1,0\n", "line 2: train_loss is ''"),
    ],
)
def test_metrics_file_of_wrong_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_metrics(tmp_path / "m.csv")


def test_missing_metrics_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*m\.csv: No such file"):
        read_metrics(tmp_path / "m.csv")


GOOD = "1,20,0.1,1.0,0.5,1.25,0.4,0.0,2.5,0.125,0.75"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD.replace("1.25", "1_25"), "validation_loss is '1_25', expected a number"),
        (GOOD.replace("1.25", "٣"), "validation_loss is '٣'"),
        (GOOD.replace("1.25", " 1.25"), "validation_loss is ' 1.25'"),
        (GOOD.replace("1.25", "NaN"), "validation_loss is 'NaN'"),
        (GOOD.replace("1.25", "infinity"), "validation_loss is 'infinity'"),
        (GOOD.replace("1.25", "1.25\0"), "validation_loss is '1.25"),
        (GOOD.replace("1.25", "9" * 200_000), "199,952 more characters"),
        (GOOD.replace("1,20,", "1," + "9" * 5000 + ","), "step is '9999"),
        (GOOD.replace("1,20,", "2,20,"), "the epoch is 2, expected 1"),
        (GOOD.replace("1,20,", "1,-20,"), "step is '-20', expected a whole number"),
    ],
    ids=lambda text: text[:20],
)
def test_impossible_cell_of_metrics_is_refused(tmp_path: Path, row: str, reason: str) -> None:
    (tmp_path / "m.csv").write_text(f"{','.join(METRICS_COLUMNS)}\n{row}\n")
    with pytest.raises(DataError) as caught:
        read_metrics(tmp_path / "m.csv")
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


def test_metrics_file_changed_after_the_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"{','.join(METRICS_COLUMNS)}\n{GOOD}\n")
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(read_metrics(path, checksum)) == 1
    path.write_text(path.read_text().replace("0.4", "0.9"))
    assert read_metrics(path)[0].validation_accuracy == 0.9
    with pytest.raises(DataError, match=r"m\.csv was changed after the run"):
        read_metrics(path, checksum)
