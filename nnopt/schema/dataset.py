"""The keys of ``conf/dataset/`` and ``data``."""

from dataclasses import dataclass
from typing import Annotated, Literal

from nnopt.schema.range import LARGEST_SEED, Range


@dataclass(frozen=True)
class Validation:
    """The source of validation samples. Only CINIC-10 has its own validation part ("own")."""

    source: Literal["train", "test", "own", "none"]
    fraction: Annotated[float, Range(above=0, below=1)]  # of the samples of the source


@dataclass(frozen=True)
class DatasetConfig:
    """The keys of every dataset."""

    name: str
    subset: Annotated[int | None, Range(minimum=1)]
    normalization: Literal["unit", "standard", "none"]
    validation: Validation


@dataclass(frozen=True)
class SpiralConfig(DatasetConfig):
    """Interleaved spiral arms, one per class."""

    name: Literal["spiral"]
    classes: Annotated[int, Range(minimum=2, maximum=100)]
    samples_per_class: Annotated[int, Range(minimum=2, maximum=1_000_000)]
    noise: Annotated[float, Range(minimum=0, maximum=1000)]
    seed: Annotated[int, Range(minimum=0, maximum=LARGEST_SEED)]


@dataclass(frozen=True)
class TwoClassConfig(DatasetConfig):
    """Two half moons, or two concentric circles."""

    name: Literal["moons", "circles"]
    samples_per_class: Annotated[int, Range(minimum=2, maximum=1_000_000)]
    noise: Annotated[float, Range(minimum=0, maximum=1000)]
    seed: Annotated[int, Range(minimum=0, maximum=LARGEST_SEED)]


@dataclass(frozen=True)
class ImageConfig(DatasetConfig):
    """A published image dataset, with all classes or the selected ``classes``."""

    name: Literal["mnist", "fashion_mnist", "cifar10", "cinic10"]
    classes: tuple[int | str, ...] | None


@dataclass(frozen=True)
class CsvConfig(DatasetConfig):
    """A CSV file with a column of labels and columns of features or pixels."""

    name: Literal["csv"]
    classes: tuple[int | str, ...] | None
    train: str
    test: str | None
    test_fraction: Annotated[float, Range(above=0, below=1)]
    label: int | str
    drop_columns: tuple[int | str, ...]
    header: bool
    separator: Literal["comma", "semicolon", "tab", "pipe", ",", ";"] | None
    decimal: Literal["point", "comma"]
    shape: Annotated[tuple[int, ...] | None, Range(minimum=1)]
    shape_order: Literal["chw", "hwc"]


@dataclass(frozen=True)
class DataConfig:
    """The folder ``root`` of the datasets, and the folder ``cache`` of decoded arrays, if any."""

    root: str
    cache: str | None
    download: bool  # whether missing files are downloaded


DatasetVariant = SpiralConfig | TwoClassConfig | ImageConfig | CsvConfig
