"""Loading of plug-ins: faults in one line, active components, records with hashes."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nnopt
from nnopt.architecture.layers import LAYERS
from nnopt.config.compose import compose_config, make_plan
from nnopt.config.plugins.load import activate, deactivate, stored_plugins
from nnopt.errors import ConfigError
from nnopt.results.collect import settings_of
from nnopt.schema import VARIANTS
from nnopt.schema.tables import COMPONENTS

ACTIVATION = """
def register(registry):
    registry.activation("twice", torch=lambda x: 2 * x, numpy=(lambda x: (2 * x, 0), {backward}))
"""

OPTIMIZER = """
from dataclasses import dataclass
from typing import Annotated
from nnopt import OptimizerConfig, Range

class Mine(OptimizerConfig):
    {fields}

def register(registry):
    registry.optimizer("mine", Mine, numpy=lambda w, g, state, lr, step, config: {change})
"""

Write = Callable[..., str]


@pytest.fixture(autouse=True)
def without_plugins() -> Iterator[None]:
    yield
    deactivate()


@pytest.fixture
def write(workplace: Path) -> Write:
    """Return a function that writes a plug-in into the working folder and returns its name."""

    def write(code: str, name: str = "mine.py", **parts: str) -> str:
        for key, text in parts.items():
            code = code.replace(f"{{{key}}}", text)
        Path(name).write_text(code)
        return name

    return write


def problems_of(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make_plan(overrides)
    return caught.value.problems


@pytest.mark.parametrize(
    ("code", "fragment"),
    [
        ("import nothing_here", "line 1: ModuleNotFoundError: No module named 'nothing_here'"),
        ("x = 1\ny = (", "line 2: SyntaxError: '(' was never closed"),
        ("raise SystemExit(3)", "line 1: SystemExit: 3"),
        ("x = 1", "is incomplete: it defines no function register(registry)"),
        ("register = 3", "its register is no function"),
        ("def register(registry): pass", "registers no component"),
        ("def register(registry):\n    1 / 0", "line 2: ZeroDivisionError: division by zero"),
        ("def register(): pass", "TypeError: register() takes 0 positional arguments"),
    ],
)
def test_plugin_that_fails_to_load_names_file_and_line(
    write: Write, code: str, fragment: str
) -> None:
    (problem,) = problems_of(f"plugins=[{write(code)}]")
    assert problem.startswith("plugins = 'mine.py': ")
    assert fragment in problem
    assert not COMPONENTS


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("nowhere.py", "cannot be read in .*: No such file or directory; restore the file, or"),
        ("nowhere", "there is no such installed plug-in; installed: none; a file needs its suffix"),
        ("3", "plugins = 3: needs the path of a Python file, or the name of an installed plug-in"),
    ],
)
def test_entry_that_names_no_plugin_is_refused(workplace: Path, entry: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_plan([f"plugins=[{entry}]"])


def test_fault_in_a_file_of_the_user_has_its_location(write: Write) -> None:
    write("import nothing_here")
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/config.yaml").write_text("epochs: 1\nplugins: []\n")
    Path("conf/experiment/one.yaml").write_text("# a comment\nplugins:\n  - mine.py\n")
    (problem,) = problems_of("experiment=one")
    assert problem.endswith("'nothing_here' (conf/experiment/one.yaml, line 3)")


REFUSED = {
    "a name of nnopt": (
        "def register(registry): registry.activation('relu', torch=abs)",
        "mine.py: the activation 'relu' has the name of a component of nnopt; rename it",
    ),
    "the name of a loss of nnopt": (
        "def register(registry): registry.loss('mse', torch=abs)",
        "mine.py: the loss 'mse' has the name of a component of nnopt; rename it",
    ),
    "no part": (
        "def register(registry): registry.loss('mine')",
        "mine.py: the loss 'mine' is incomplete: it has neither a NumPy nor a torch part",
    ),
    "half a part": (
        "def register(registry): registry.loss('mine', numpy=(abs,))",
        "mine.py: the loss 'mine' is incomplete: numpy needs two functions, (forward, backward)",
    ),
    "a wrong name": (
        "def register(registry): registry.loss('Mine', torch=abs)",
        "mine.py: the loss 'Mine' needs a name of small letters, digits and '_' that starts with a "
        "letter",
    ),
    "twice": (
        "def register(registry):\n  for _ in 'ab': registry.loss('mine', torch=abs)",
        "mine.py: the loss 'mine' is registered twice",
    ),
    "a default out of range": (
        OPTIMIZER.replace("{fields}", "lr: Annotated[float, Range(below=1)] = 2.0"),
        "mine.py: the optimizer 'mine' has a wrong default: lr = 2.0: needs to be below 1",
    ),
    "another class": (
        "def register(registry): registry.optimizer('mine', int, torch=abs)",
        "mine.py: the optimizer 'mine' needs a subclass of nnopt.OptimizerConfig",
    ),
    "no rule for shapes": (
        "from nnopt import Layer\nclass Mine(Layer): pass\n"
        "def register(registry): registry.layer('mine', Mine, torch=abs)",
        "mine.py: the layer 'mine' is incomplete: Mine defines no output_shape",
    ),
    "a layer of nnopt": (
        "from nnopt.architecture.layers import ReLU\nclass Mine(ReLU): pass\n"
        "def register(registry): registry.activation('mine', record=Mine, torch=abs)",
        "mine.py: the activation 'mine' must derive from nnopt.Activation itself",
    ),
    "a metric of nnopt": (
        "def register(registry): registry.metric('accuracy', abs)",
        "mine.py: the metric 'accuracy' has the name of a metric of nnopt, test_accuracy; rename "
        "it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_incomplete_component_is_refused(write: Write, case: str) -> None:
    code, message = REFUSED[case]
    assert problems_of(f"plugins=[{write(code)}]") == [message]
    assert not COMPONENTS


def test_name_of_another_plugin_is_refused(write: Write) -> None:
    code = ACTIVATION.replace("{backward}", "abs")
    names = write(code, "one.py"), write(code + "# other", "two.py")
    assert problems_of(f"plugins=[{','.join(names)}]") == [
        "two.py: the activation 'twice' has a name that one.py has registered"
    ]


def test_plugins_of_another_command_line_are_inactive(write: Write) -> None:
    name = write(OPTIMIZER, fields="lr: float = 0.5", change="lr * g")
    assert compose_config([f"plugins=[{name}]", "optimizer=mine"]).optimizer.lr == 0.5
    assert "mine" in VARIANTS["optimizer"]
    (problem,) = problems_of("optimizer=mine")
    assert problem.startswith("optimizer = 'mine': allowed: ")
    assert "mine" not in VARIANTS["optimizer"]


def test_activation_of_a_point_replaces_other_versions_of_its_plugin(write: Write) -> None:
    code = ACTIVATION.replace("{backward}", "abs")
    (first,) = activate([write(code)])
    record = LAYERS["twice"]
    (second,) = activate([write(code + "# changed")])
    assert LAYERS["twice"] is not record
    activate([first])
    assert LAYERS["twice"] is record
    assert first["sha256"] != second["sha256"]


def test_near_name_of_a_component_is_suggested(write: Write) -> None:
    name = write(OPTIMIZER, fields="lr: float = 0.5\n    strength: float = 1.0", change="lr * g")
    problems = problems_of(f"plugins=[{name}]", "optimizer=mime", "optimizer.strenght=2")
    assert "optimizer = 'mime': did you mean 'mine'?" in problems[0]
    problems = problems_of(f"plugins=[{name}]", "optimizer=mine", "optimizer.strenght=2")
    assert problems == ["unknown key 'optimizer.strenght'; did you mean 'optimizer.strength'?"]


def test_key_without_default_must_be_set(write: Write) -> None:
    name = write(OPTIMIZER, fields="strength: float", change="lr * g")
    (problem, _) = problems_of(f"plugins=[{name}]", "optimizer=mine")
    assert problem == "the key 'optimizer.lr' is missing; set it with optimizer.lr=..."
    given = ["optimizer=mine", "optimizer.lr=1", "optimizer.strength=2"]
    assert compose_config([f"plugins=[{name}]", *given]).optimizer.name == "mine"


# identity -----------------------------------------------------------------------------------------


def test_hash_of_the_code_is_part_of_the_id(write: Write) -> None:
    code = ACTIVATION.replace("{backward}", "abs")
    overrides = ["architecture.activation=twice"]
    ids = [make_plan([f"plugins=[{write(code)}]", *overrides]).points[0].id]
    ids.append(make_plan([f"plugins=[{write(code, 'moved.py')}]", *overrides]).points[0].id)
    ids.append(make_plan([f"plugins=[{write(code + '# x')}]", *overrides]).points[0].id)
    assert ids[0] == ids[1] != ids[2]


def test_changed_plugin_differs_from_its_record(write: Write) -> None:
    plan = make_plan([f"plugins=[{write(OPTIMIZER, fields='lr: float = 1.0', change='g')}]"])
    record = plan.points[0].container["plugins"][0]
    changed = record["sha256"].translate(str.maketrans("0123456789", "1234567890"))
    text = f"{{source: {record['source']}, sha256: '{changed}'}}"
    (problem,) = problems_of(f"plugins=[{text}]")
    assert "has changed since the configuration was recorded: its SHA-256 is" in problem


def test_point_with_components_can_be_pickled_without_its_classes(write: Write) -> None:
    name = write(OPTIMIZER, fields="lr: float = 0.5", change="lr * g")
    (point,) = make_plan([f"plugins=[{name}]", "optimizer=mine"]).points
    data = pickle.dumps(point)
    deactivate()
    restored = pickle.loads(data)
    assert restored == point
    assert "mine" in VARIANTS["optimizer"]


def test_settings_of_runs_do_not_depend_on_the_folder_of_a_plugin() -> None:
    records = [{"source": f"{folder}/mine.py", "sha256": "ab" * 32} for folder in ("/a", "/b")]
    one, two = (settings_of({"plugins": [record]}, ())["plugins"] for record in records)
    assert one == two == ("mine.py ababababab",)


def test_plugin_inside_a_received_folder_is_refused(tmp_path: Path) -> None:
    record = {"source": str(tmp_path / "run" / "evil.py"), "sha256": "0" * 64}
    with pytest.raises(ConfigError, match="nnopt runs no code of a received folder"):
        stored_plugins({"plugins": [record]}, tmp_path / "run")
    assert stored_plugins({"plugins": [record]}, tmp_path / "other") == {"plugins": [record]}


def test_installed_plugin_is_loaded_by_the_name_of_its_entry_point(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "lib" / "pack").mkdir(parents=True)
    (workplace / "lib" / "pack" / "__init__.py").write_text("")
    code = ACTIVATION.replace("{backward}", "abs")
    (workplace / "lib" / "pack" / "parts.py").write_text(code + "# installed")
    info = workplace / "lib" / "pack-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pack\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[nnopt.plugins]\nmy_pack = pack.parts\n")
    monkeypatch.syspath_prepend(str(workplace / "lib"))
    config = compose_config(["plugins=[my_pack]", "architecture.activation=twice"])
    assert config.plugins[0].source == "my_pack"
    with pytest.raises(ConfigError, match="no such installed plug-in; installed: my_pack;"):
        make_plan(["plugins=[my_pak]"])
    sys.modules.pop("pack.parts")


def test_public_names_are_imported_from_their_places() -> None:
    assert nnopt.__all__ == list(nnopt._PLACES)
    assert {name: getattr(nnopt, name).__name__ for name in nnopt.__all__} == {
        **{name: name for name in nnopt.__all__},
        "Activation": "Elementwise",
        "Layer": "PluginLayer",
        "LearningRate": "Annotated",
        "Shape": "tuple",
    }
