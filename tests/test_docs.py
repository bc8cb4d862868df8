"""Keys, columns, files and links in docs/, compared with the code."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import pytest
from omegaconf import OmegaConf

from nnopt.architecture.layers import LAYERS
from nnopt.backends.protocol import Loader, Network
from nnopt.config.search_space import COLUMNS
from nnopt.io.own_files import CHECKPOINTS
from nnopt.results.metrics_file import METRICS_COLUMNS, LayerRow
from nnopt.results.prediction_files import (
    CLASS_COLUMNS,
    CONFUSION_COLUMNS,
    NEW_PREDICTION_COLUMNS,
    PREDICTION_COLUMNS,
)
from nnopt.schema import (
    LARGEST_SEED,
    PLUGINS,
    VARIANTS,
    Config,
    Entries,
    GridConfig,
    Names,
    OptunaConfig,
    PluginConfig,
    Range,
    Text,
)
from nnopt.schema.reader import types_of
from nnopt.sweeps.point_folder import ENDED, INTERRUPTED, PENDING, RUNNING
from nnopt.sweeps.results_table import METRICS

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
CONF = REPOSITORY / "conf"
DOCUMENTS = [*DOCS.glob("*.md"), *REPOSITORY.glob("*.md")]

Row = tuple[str, ...]


def rows_of(document: Path, *header: str) -> list[Row]:
    """Return the cells of each row of all tables with this header in a document."""
    rows: list[Row] = []
    for table in re.findall(r"(?:^\|.*\n)+", document.read_text("utf-8"), re.M):
        head, _, *lines = [
            tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            for line in table.splitlines()
        ]
        rows += lines if head == header else []
    return rows


# configuration.md ---------------------------------------------------------------------------------


def allowed_text(kind: Any) -> str:
    """Return the allowed values of a key as text, as in documents and error messages."""
    bounds = ""
    if get_origin(kind) is Annotated:
        kind, *metadata = get_args(kind)
        (limits,) = metadata
        if isinstance(limits, Range):
            bounds = range_text(limits)
        else:  # for a pattern, launchers.md describes the allowed texts
            assert isinstance(limits, Text | Entries | Names)
    alternatives = get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)
    plain, *words = [x for x in alternatives if x is not NoneType]
    others = [name_of(x) for x in words] + ["`null`"] * (NoneType in alternatives)
    comma = "," if bounds else ""
    return name_of(plain) + bounds + "".join(f"{comma} or {other}" for other in others)


def range_text(limits: Range) -> str:
    ends = {key: end for key, end in asdict(limits).items() if end is not None}
    words = {"minimum": "at least", "maximum": "at most"}
    bounds = " and ".join(f"{words.get(key, key)} {number(end)}" for key, end in ends.items())
    return f", {bounds}"


def name_of(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        plural = {
            int: "whole numbers",
            int | str: "names or numbers",
            str: "names",
            Any: "layers",
            float: "numbers",
            PluginConfig: "plug-ins",
        }
        return f"list of {plural[item]}"
    names = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text", Any: "map"}
    return names[kind]


def number(value: float) -> str:
    return "2⁶³ - 1" if value == LARGEST_SEED else f"{value:,}"


def keys_of(record: type, container: Any, prefix: str) -> Iterator[tuple[str, str, Any]]:
    """Yield (dotted key, allowed values, value in the YAML file) for every key of a dataclass."""
    for name, kind in types_of(record).items():
        key, value = f"{prefix}{name}", container[name]
        if isinstance(kind, type) and is_dataclass(kind):
            yield from keys_of(kind, value, f"{key}.")
        elif not (record is Config and name in VARIANTS):
            yield key, allowed_text(kind), value


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, list):
        return f"`[{', '.join('...' if isinstance(x, dict) else str(x) for x in value)}]`"
    if value is None or isinstance(value, bool):
        return f"`{ {None: 'null', True: 'true', False: 'false'}[value] }`"
    return f"`{value}`"


def load(path: Path) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))


def documented_keys() -> set[Row]:
    """Return key, allowed values and default of every key except group names.

    The default is the text "its own" if the default differs between files.
    """
    top = load(CONF / "config.yaml")
    groups = {"regularizer": "none", "initializer": "he"}
    top |= {group: load(CONF / group / f"{file}.yaml") for group, file in groups.items()}
    top |= dict.fromkeys(VARIANTS)
    found: dict[tuple[str, str], set[str]] = {}
    for key, allowed, value in keys_of(Config, top, ""):
        found.setdefault((key, allowed), set()).add(shown(value))
    for group, records in VARIANTS.items():
        for name, record in records.items():
            container = load(CONF / group / f"{name}.yaml")
            for key, allowed, value in keys_of(record, container, f"{group}."):
                if key != f"{group}.name":
                    found.setdefault((key, allowed), set()).add(shown(value))
    return {
        (f"`{key}`", allowed, values.pop() if len(values) == 1 else "its own")
        for (key, allowed), values in found.items()
    }


def test_documented_configuration_keys_match_schema() -> None:
    rows = rows_of(DOCS / "configuration.md", "Key", "Allowed", "Default", "Meaning")
    assert all(row[3] for row in rows)
    documented = [row[:3] for row in rows]
    assert len(documented) == len(set(documented)), "a key is documented twice"
    assert set(documented) == documented_keys()


def test_documented_launcher_keys_match_schema() -> None:
    rows = rows_of(DOCS / "launchers.md", "Launcher", "Key", "Allowed", "Default", "Meaning")
    assert all(row[4] for row in rows)
    expected = set[Row]()
    for name, record in PLUGINS["hydra.launcher"].items():
        container = load(CONF / "hydra" / "launcher" / f"{name}.yaml")
        for key, allowed, value in keys_of(record, container, "hydra.launcher."):
            if key != "hydra.launcher.name":
                expected.add((f"`{name}`", f"`{key}`", allowed, shown(value)))
    assert sorted(row[:4] for row in rows) == sorted(expected)


@pytest.mark.parametrize("group", sorted({path.parent.name for path in CONF.glob("*/*.yaml")}))
def test_group_files_are_documented_completely(group: str) -> None:
    text = (DOCS / "configuration.md").read_text("utf-8")
    section = re.search(rf"^## `{group}`\n.*?(?=^## |\Z)", text, re.M | re.S)
    assert section, f"configuration.md has no section on {group}"
    for path in (CONF / group).glob("*.yaml"):
        assert f"`{path.stem}`" in section[0], f"{group}/{path.stem} is not documented"


def test_layers_are_documented_with_all_arguments() -> None:
    rows = rows_of(DOCS / "configuration.md", "Layer", "Arguments, the main one first", "Output")
    arguments = {name: names_in(row[1]) for row in rows for name in names_in(row[0])}
    assert set(arguments) == set(LAYERS)
    for name, record in LAYERS.items():
        shown = {word.partition(":")[0] for word in arguments[name]} - {"classes"}
        assert shown == {field.name for field in fields(record)}, name


# results.md ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a short run."""
    from nnopt.config.compose import make_plan
    from nnopt.recipe.run import run

    folder = tmp_path_factory.mktemp("run")
    run(make_plan(["epochs=1", "dataset.samples_per_class=20"]).points[0], folder)
    return folder


def names_in(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def test_run_files_are_documented_completely(finished_run: Path) -> None:
    rows = rows_of(DOCS / "results.md", "File", "Content")
    written = {
        path.relative_to(finished_run).as_posix()
        for path in finished_run.rglob("*")
        if path.is_file()
    }
    of_images = ["plots/samples.png", "plots/filters.png", "plots/feature_maps.png"]
    on_demand = ["layers.csv", "plots/layer_statistics.png", "lr_find.csv", "plots/lr_find.png"]
    on_demand += ["predictions.csv"]
    on_demand += ["events.out.tfevents.nnopt", *CHECKPOINTS]
    on_demand += ["masks.npz", "architecture.yaml", "plots/kept.png", "plots/mask.png"]
    documented = sorted(row[0].strip("`") for row in rows)
    assert documented == sorted([*written, *of_images, *on_demand])


def test_metrics_columns_are_documented_completely() -> None:
    rows = rows_of(DOCS / "results.md", "Column", "Unit", "Definition")
    assert [row[0] for row in rows] == [f"`{column}`" for column in METRICS_COLUMNS]


def test_layer_columns_are_documented_completely() -> None:
    rows = rows_of(DOCS / "results.md", "Column of a layer", "Unit", "Definition")
    assert [row[0] for row in rows] == [f"`{field.name}`" for field in fields(LayerRow)]


def test_columns_of_test_tables_are_documented_completely() -> None:
    tables = {
        "classes.csv": CLASS_COLUMNS,
        "confusion.csv": CONFUSION_COLUMNS,
        "predictions.csv": (*PREDICTION_COLUMNS, "probability_CLASS"),
    }
    for file, columns in tables.items():
        rows = rows_of(DOCS / "results.md", f"Column of `{file}`", "Definition")
        assert [row[0] for row in rows] == [f"`{column}`" for column in columns]


def test_summary_keys_are_documented_completely(finished_run: Path) -> None:
    summary = json.loads((finished_run / "summary.json").read_text("utf-8"))
    rows = {
        row[0].strip("`"): row[2]
        for row in rows_of(DOCS / "results.md", "Key", "Unit", "Definition")
    }
    assert list(rows) == list(summary)
    for key in ("data", "versions", "git", "machine", "threads"):
        if summary[key] is not None:
            assert set(summary[key]) <= names_in(rows[key]), key


def test_keys_of_model_file_are_documented_completely(finished_run: Path) -> None:
    rows = rows_of(DOCS / "models.md", "Key of `model.json`", "Definition")
    model = json.loads((finished_run / "model.json").read_text("utf-8"))
    assert [row[0] for row in rows] == [f"`{key}`" for key in model]


def test_columns_of_new_predictions_are_documented_completely() -> None:
    rows = rows_of(DOCS / "models.md", "Column of the predictions", "Definition")
    index, prediction = NEW_PREDICTION_COLUMNS
    columns = [index, "file", prediction, "probability_CLASS"]
    assert [row[0] for row in rows] == [f"`{column}`" for column in columns]


def test_results_table_columns_are_documented_completely() -> None:
    rows = rows_of(DOCS / "results.md", "Column", "Definition")
    first = [row[0] for row in rows]
    assert first[:6] == [
        "`number`",
        "`id`",
        "`status`",
        "`error`",
        "one for each key that varies",
        "`seed`",
    ]
    assert first[6] == ", ".join(f"`{name}`" for name in METRICS)


def test_grid_settings_are_documented_completely() -> None:
    rows = rows_of(DOCS / "sweeps.md", "`hydra.sweeper.`", "Allowed", "Default", "Meaning")
    defaults = load(CONF / "hydra" / "sweeper" / "grid.yaml")
    hints = typing.get_type_hints(GridConfig)
    assert [row[0] for row in rows] == [f"`{key}`" for key in hints if key != "name"]
    assert [row[2] for row in rows] == [shown(defaults[row[0].strip("`")]) for row in rows]
    modes = ", ".join(f"`{mode}`" for mode in get_args(hints["mode"]))
    assert rows[0][1] == modes


def test_point_statuses_are_documented_completely() -> None:
    rows = rows_of(DOCS / "sweeps.md", "Status", "Meaning")
    known = {*ENDED, PENDING.status, RUNNING.status, INTERRUPTED.status}
    assert set().union(*(names_in(row[0]) for row in rows)) == known


# search.md ----------------------------------------------------------------------------------------


def test_search_settings_are_documented_completely() -> None:
    shown_rows = {
        r[0]: r[1:3] for r in rows_of(DOCS / "search.md", "Key", "Allowed", "Default", "Meaning")
    }
    defaults = load(CONF / "hydra" / "sweeper" / "optuna.yaml")
    hints = typing.get_type_hints(OptunaConfig, include_extras=True)
    assert shown_rows.keys() == {f"`hydra.sweeper.{key}`" for key in hints if key != "name"}
    for key in hints.keys() - {"name", "params", "metric"}:
        row = shown_rows[f"`hydra.sweeper.{key}`"]
        assert row == (allowed_text(hints[key]), shown(defaults[key]))
    metrics = ", ".join(f"`{name}`" for name in COLUMNS)
    assert shown_rows["`hydra.sweeper.metric`"] == (metrics, shown(defaults["metric"]))


# links --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_documents_have_targets(document: Path) -> None:
    text = document.read_text("utf-8")
    links = re.findall(r"\]\(([^)#]+)", text) + re.findall(r'(?:src|href)="([^"#]+)"', text)
    for link in links:
        if not link.startswith(("http://", "https://")):
            assert (document.parent / link).exists(), f"{document.name} links to {link}"


# backends.md --------------------------------------------------------------------------------------


def test_backend_protocol_methods_are_documented_completely() -> None:
    rows = rows_of(DOCS / "backends.md", "Method", "Effect or result")
    shown = {row[0].strip("`").partition("(")[0] for row in rows}
    methods = {
        f"{name}.{method}"
        for name, protocol in (("network", Network), ("loader", Loader))
        for method in vars(protocol)
        if not method.startswith("_")
    }
    assert shown == methods


def test_random_streams_are_documented_completely() -> None:
    """In the code, the name of a stream is the second argument of ``generator`` or ``*_key``."""
    (text,) = re.findall(
        r"^## Randomness.*", (DOCS / "backends.md").read_text("utf-8"), re.M | re.S
    )
    code = "\n".join(path.read_text("utf-8") for path in (REPOSITORY / "nnopt").rglob("*.py"))
    streams = set(re.findall(r'(?:generator|_key)\([\w.]+, f?"([^"]+)"', code))
    assert {"shuffle", "augment", "split", "subset"} <= streams
    general = {re.sub(r"\{layer(\.name)?\}", "LAYER", stream) for stream in streams}
    general = {re.sub(r"^\{config.name\}/\{part\}$", "DATASET/PART", stream) for stream in general}
    assert general - {"gradcheck"} <= names_in(text)
