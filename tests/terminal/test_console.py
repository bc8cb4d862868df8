"""The output of a run on terminals, in pipes, in closed pipes, and in limited encodings."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnopt.results.metrics_file import EpochRow
from nnopt.terminal import console
from nnopt.terminal.console import column_widths
from nnopt.terminal.live_display import LiveDisplay, LrSearchProgress, TrainingProgress
from nnopt.terminal.safe_stream import aligned

ROW = EpochRow(1, 20, 0.1, 1.0, 0.5, 1.25, 0.4, 0.0, 2.5, 0.125)

TRAINING = """
from pathlib import Path
from dataclasses import replace
from nnopt.terminal import console
from nnopt.terminal.live_display import TrainingProgress
from nnopt.results.metrics_file import EpochRow
row = EpochRow(1, 20, 0.1, 1.0, 0.5, 1.25, 0.4, 0.0, 2.5, 0.125)
with TrainingProgress(8, 20) as run:
    for epoch in range(1, 9):
        for step in range(20):
            run.step(20 * (epoch - 1) + step + 1)
        run.epoch(replace(row, epoch=epoch, step=20 * epoch), best=epoch == 8)
        if epoch == 2:
            run.print_line("grüße")
console.summary("spiral", {"test accuracy": "0.99", "λ": "0.1"}, {"plots": Path("a/plots")})
console.error("learning rate η")
Path("finished").write_text("yes")
"""

TABLE = """
import time
from nnopt.terminal import live_display
from nnopt.terminal.live_display import LiveDisplay
live_display.REFRESH_FRACTION = 1  # a slow machine does not delay the next refresh
with LiveDisplay(total=4) as display:
    display.print_line("array           size")
    for row in ("dense1.weight  1,000", "input              7"):
        for _ in range(2):
            display.advance()
            time.sleep(0.11)
        display.print_line(row)
"""

SWEEP = """
import time
from nnopt.terminal import live_display
from nnopt.terminal.live_display import LrSearchProgress
live_display.REFRESH_FRACTION = 1  # a slow machine does not delay the next refresh
with LrSearchProgress(300) as sweep:
    for step in (1, 120, 300):
        sweep.step(step, 1e-5 * step, 1.5)
        time.sleep(0.11)
print("end")
"""


def train(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program TRAINING in ``folder`` with pipes, and return the finished process."""
    return subprocess.run(
        [sys.executable, "-c", TRAINING],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def train_on_terminal(folder: Path, columns: int, **environment: str) -> str:
    """Run the program TRAINING on a pseudo-terminal, and return the output."""
    return on_terminal(TRAINING, folder, columns, **environment)


def on_terminal(program: str, folder: Path, columns: int, **environment: str) -> str:
    """Return the output of a program on a pseudo-terminal."""
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TERM": "xterm",
            "COLUMNS": str(columns),
            "LINES": "24",
            **environment,
        },
        stdin=secondary,
        stdout=secondary,
        stderr=subprocess.PIPE,
    )
    os.close(secondary)
    sent = b""
    while True:
        try:
            block = os.read(primary, 65536)
        except OSError:  # Linux raises this error when the other end is closed
            break
        if not block:
            break
        sent += block
    os.close(primary)
    process.communicate()
    assert process.returncode == 0
    return sent.decode()


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def train_in_process(epochs: int, last: int) -> None:
    with TrainingProgress(epochs, steps_per_epoch=20) as run:
        for epoch in range(1, last + 1):
            run.step(20 * epoch)
            run.epoch(replace(ROW, epoch=epoch, step=20 * epoch), best=epoch == last)


@pytest.mark.parametrize(("epochs", "last"), [(1, 1), (20, 20), (21, 21), (500, 500), (500, 333)])
def test_training_in_pipe_prints_first_last_and_few_other_epochs(
    capsys: pytest.CaptureFixture[str], epochs: int, last: int
) -> None:
    train_in_process(epochs, last)
    lines = capsys.readouterr().out.splitlines()
    printed = [int(line.split()[1].split("/")[0]) for line in lines]
    assert printed == sorted(set(printed))
    assert printed[0] == 1
    assert printed[-1] == last
    assert lines[-1].endswith("best")
    assert len(lines) <= 25
    assert epochs > 20 or printed == list(range(1, epochs + 1))


def test_training_line_contains_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    train_in_process(1, 1)
    with TrainingProgress(1, 20) as run:
        run.epoch(replace(ROW, validation_loss=None, validation_accuracy=None), best=False)
    first, second = capsys.readouterr().out.splitlines()
    assert " ".join(first.split()) == (
        "epoch 1/1 loss 1 val 1.25 acc 0.5000 val 0.4000 lr 0.1 best"
    )
    assert " ".join(second.split()) == "epoch 1/1 loss 1 acc 0.5000 lr 0.1"


@pytest.mark.parametrize("epochs", [9, 60, 999, 100_000])
@pytest.mark.parametrize("loss", [0.1234, 0.01234, 2.345e-5, 123456.0, float("inf")])
def test_training_line_in_pipe_has_at_most_80_columns(
    capsys: pytest.CaptureFixture[str], epochs: int, loss: float
) -> None:
    with TrainingProgress(epochs, 20) as run:
        row = replace(ROW, train_loss=loss, validation_loss=loss, lr=1.234e-5)
        run.epoch(replace(row, epoch=epochs), best=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert len(line) <= 80
    assert line.startswith(f"epoch {epochs}/{epochs}  loss {loss:.4g}")
    assert line.endswith("best")
    assert "acc 0.5000 val 0.4000" in line


def test_training_line_of_usual_length_contains_all_metrics(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with TrainingProgress(999, 20) as run:
        row = replace(ROW, train_loss=0.1234, validation_loss=0.2345, lr=0.00123)
        run.epoch(replace(row, epoch=999), best=True)
    assert " ".join(capsys.readouterr().out.split()) == (
        "epoch 999/999 loss 0.1234 val 0.2345 acc 0.5000 val 0.4000 lr 0.00123 best"
    )


def test_epoch_with_nan_loss_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(5, 20) as run:
        run.epoch(replace(ROW, train_loss=float("nan")), best=False)
    assert "loss nan" in capsys.readouterr().out


def test_interrupted_training_prints_last_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        with TrainingProgress(100, 20) as run:
            for epoch in range(1, 8):
                run.epoch(replace(ROW, epoch=epoch), best=False)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        "1/100",
        "5/100",
        "7/100",
    ]


def test_summary_in_pipe_is_aligned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    console.summary(
        "spiral [red]",
        {"test accuracy": "0.99", "time": "1 s"},
        {"plots": tmp_path / "runs" / "plots", "other": Path("/elsewhere/a\nb")},
    )
    assert capsys.readouterr().out.splitlines() == [
        "spiral [red]",
        "  test accuracy  0.99",
        "  time           1 s",
        "  plots          runs/plots",
        "  other          /elsewhere/a\\nb",
    ]


def test_error_prints_one_line_for_each_problem(capsys: pytest.CaptureFixture[str]) -> None:
    console.error("lr: -1\nfile 'a\x1b[2Jb'")
    captured = capsys.readouterr()
    assert captured.err == "nnopt: error: lr: -1\nnnopt: error: file 'a\\x1b[2Jb'\n"
    assert captured.out == ""


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_characters_outside_the_encoding_are_escaped(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    printed = train(tmp_path, **environment)
    assert printed.stderr in (
        "nnopt: error: learning rate η\n",
        "nnopt: error: learning rate \\u03b7\n",
    )
    assert "gr" in printed.stdout
    assert (tmp_path / "finished").exists()


def test_output_in_strict_ascii_is_escaped(tmp_path: Path) -> None:
    printed = train(tmp_path, PYTHONIOENCODING="ascii:strict", PYTHONUTF8="0")
    assert "gr\\xfc\\xdfe" in printed.stdout
    assert "\\u03bb" in printed.stdout
    assert printed.stderr == "nnopt: error: learning rate \\u03b7\n"


@pytest.mark.parametrize("shell", ["| head -n 1", "| true", ">&-", "2>&-", ">/dev/full 2>&1"])
def test_output_to_closed_pipe_or_full_disk_does_not_stop_training(
    tmp_path: Path, shell: str
) -> None:
    script = f'set -o pipefail; "$0" -c "$1" {shell}'
    ended = subprocess.run(
        ["bash", "-c", script, sys.executable, TRAINING],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "finished").exists()
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "BrokenPipe" not in ended.stderr


FINAL_LINES = {
    40: "epoch 8/8  acc 0.5000 val 0.4000  best",
    60: "epoch 8/8  loss 1 val 1.25  acc 0.5000 val 0.4000  best",
    80: "epoch 8/8  loss 1 val 1.25  acc 0.5000 val 0.4000  lr 0.1  best",
}
"""Width of a terminal -> last line of the training. On a narrow terminal, parts are left out."""


@pytest.mark.parametrize("columns", FINAL_LINES)
def test_training_on_terminal_shows_bar_and_panel(tmp_path: Path, columns: int) -> None:
    text = without_codes(train_on_terminal(tmp_path, columns))
    assert "epoch 1/8 ━" in text
    assert "left" in text
    assert "grüße" in text
    assert FINAL_LINES[columns] in re.split(r"[\r\n]+", text)
    panel = text[text.index("╭") :].splitlines()
    assert "spiral" in panel[0]
    assert any("test accuracy" in line and "0.99" in line for line in panel)
    assert any("plots" in line and "a/plots" in line for line in panel)
    assert len({len(line) for line in panel}) == 1
    assert max(map(len, re.split(r"[\r\n]+", text))) <= columns


def test_display_on_terminal_has_bar_below_lines(tmp_path: Path) -> None:
    text = without_codes(on_terminal(TABLE, tmp_path, 60))
    shown = re.split(r"[\r\n]+", text)
    lines = [line for line in shown if re.search("array|weight|input", line)]
    assert [line.rstrip() for line in lines] == [
        *("array           size", "dense1.weight  1,000", "input              7")
    ]
    first = shown.index(lines[0])
    assert "━" in "".join(shown[first : shown.index(lines[1])])
    assert re.search(r"━ *50%|50%", text)


def test_display_in_pipe_prints_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveDisplay(total=2) as display:
        display.advance()
        display.print_line(aligned(("dense1.weight", "1,000"), (13, 5), "lr"))
        assert capsys.readouterr().out == "dense1.weight  1,000\n"
        display.print_line(aligned(("input", "7"), (13, 5), "lr"))
    assert capsys.readouterr().out == "input              7\n"


def test_lr_search_on_terminal_shows_a_bar(tmp_path: Path) -> None:
    text = without_codes(on_terminal(SWEEP, tmp_path, 80))
    shown = re.split(r"[\r\n]+", text)
    (middle,) = [i for i, line in enumerate(shown) if "step 120/300" in line]
    assert re.match("learning rate, step 120/300 ━.* 40%", shown[middle])
    assert re.split(r"  +", shown[middle + 1].strip()) == ["loss 1.5", "lr 0.0012"]
    assert shown[-2:] == ["end", ""]


def test_progress_of_lr_search_in_pipe_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with LrSearchProgress(300) as sweep:
        sweep.step(300, 0.1, 1.0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("columns", [24, 32, 44, 100])
def test_table_on_narrow_terminal_wraps_cells(tmp_path: Path, columns: int) -> None:
    header, rows = ("name", "mean ± std", "verdict"), [["adam", "0.9533 ± 0.0094", "worse " * 4]]
    program = "from nnopt.terminal.console import print_table\n"
    program += f"print_table({header}, {rows}, 'lrl')"
    lines = without_codes(on_terminal(program, tmp_path, columns)).splitlines()
    assert max(map(len, lines)) <= columns
    texts = " ".join(lines).split()
    for word in ("adam", "0.9533", "±", "0.0094"):
        assert word in texts  # no word is cut
    assert texts.count("worse") == 4


def test_table_with_many_columns_on_narrow_terminal_is_a_list(tmp_path: Path) -> None:
    """The words of ten columns are wider than 80 characters."""
    header, rows = [f"accuracy{i}" for i in range(10)], [["undecided (about 12 seeds)"] * 10] * 2
    program = "from nnopt.terminal.console import print_table\n"
    program += f"print_table({header}, {rows}, {'l' * 10!r})"
    lines = without_codes(on_terminal(program, tmp_path, 80)).splitlines()
    assert lines[0].split() == ["accuracy0", *["undecided", "(about", "12", "seeds)"]]
    assert [line for line in lines if not line.strip()] == [""]
    assert len(lines) == 21


@given(st.lists(st.lists(st.text("ab ", max_size=12), min_size=3, max_size=3), min_size=2))
def test_column_widths_cut_no_word_and_use_the_space(table: list[list[str]]) -> None:
    header, *rows = table
    found = column_widths(header, rows, 20)
    words = [
        [word for cell in column for word in cell.split()] for column in zip(*table, strict=True)
    ]
    least = [max(map(len, column), default=0) for column in words]
    if found is None:
        assert sum(least) > 20
        return
    longest = [max(map(len, column)) for column in zip(*table, strict=True)]
    assert all(a <= b <= c for a, b, c in zip(least, found, longest, strict=True))
    assert sum(found) == min(20, sum(longest))


def test_no_color_disables_colours(tmp_path: Path) -> None:
    colours = r"\x1b\[(?:[0-9]+;)*(?:3[0-7]|38;5;[0-9]+)m"
    assert re.search(colours, train_on_terminal(tmp_path, 80, NO_COLOR=""))
    assert not re.search(colours, train_on_terminal(tmp_path, 80, NO_COLOR="1"))


def test_training_on_ascii_terminal_prints_ascii(tmp_path: Path) -> None:
    text = train_on_terminal(tmp_path, 80, PYTHONIOENCODING="ascii:strict", PYTHONUTF8="0")
    assert text.isascii()
    assert "+--" in text
    assert "\\u03bb" in text


def test_training_on_dumb_terminal_prints_plain_lines(tmp_path: Path) -> None:
    text = train_on_terminal(tmp_path, 80, TERM="dumb")
    assert "\x1b" not in text
    assert text.count("epoch") == 8


def test_summary_wraps_long_path(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from nnopt.terminal import console, safe_stream\n"
        "safe_stream.Stream.is_terminal = lambda self: True\n"
        "console.summary('t', {}, {'plots': Path('/' + 'abcdefghi/' * 12)})"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "60"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    shown = "".join(re.findall(r"[a-i/]+(?= *│)", without_codes(printed)))
    assert shown == "/" + "/".join(["abcdefghi"] * 12)


def test_training_in_pipe_does_not_import_rich(tmp_path: Path) -> None:
    program = TRAINING + "\nimport sys; assert 'rich' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
    )


@pytest.mark.parametrize("columns", [20, 25, 32, 38])
def test_summary_on_narrow_terminal_shows_every_value(tmp_path: Path, columns: int) -> None:
    program = "from nnopt.terminal import console; from pathlib import Path\n"
    program += "console.summary('spiral', {'best validation accuracy': '0.9933 (epoch 12)'}, "
    program += "{'folder': Path('outputs/runs/one')})"
    text = without_codes(on_terminal(program, tmp_path, columns))
    assert "0.9933" in text
    assert "outputs/runs/one" in text
