"""The published datasets: their files, addresses and checksums.

The SHA-256 of an unpacked file was computed from a fetched copy. TensorFlow Datasets publishes the
SHA-256 of the Fashion-MNIST and CIFAR-10 archives. For the CINIC-10 archive, only an MD5 is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

OBJECTS = (  # the classes of CIFAR-10 and CINIC-10
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@dataclass(frozen=True)
class Download:
    """One file to fetch. An archive is removed after unpacking."""

    file: str  # target, relative to data.root
    addresses: tuple[str, ...]  # tried in this order
    checksum: str  # ``sha256:...`` or ``md5:...``, as pooch expects


@dataclass(frozen=True)
class Published:
    """A published image dataset. Its ``repr`` is part of the keys of the cache."""

    name: str
    folder: str  # relative to data.root
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    parts: Mapping[str, int]  # name of a part -> number of images
    downloads: tuple[Download, ...]
    sha256: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # by file name

    def relative(self, file: str) -> str:
        """Return the name of a file relative to data.root, for messages and results."""
        return f"{self.folder}/{file}"


def _sums(lines: str) -> Mapping[str, str]:
    """Parse the output of ``sha256sum``: file -> SHA-256."""
    pairs = (line.split() for line in lines.strip().splitlines())
    return MappingProxyType({file: checksum for checksum, file in pairs})


def _idx_dataset(
    name: str, folder: str, classes: tuple[str, ...], addresses: tuple[str, ...], checksums: str
) -> Published:
    """Return a dataset. ``checksums``: output of ``sha256sum`` for packed and unpacked files."""
    sums = _sums(checksums)
    packed = [file for file in sums if file.endswith(".gz")]
    return Published(
        name,
        folder,
        shape=(1, 28, 28),
        classes=classes,
        parts={"train": 60_000, "test": 10_000},
        downloads=tuple(
            Download(f"{folder}/{x}", tuple(a + x for a in addresses), f"sha256:{sums[x]}")
            for x in packed
        ),
        sha256=MappingProxyType({x: sums[x] for x in sums if x not in packed}),
    )


MNIST = _idx_dataset(
    "mnist",
    "MNIST/raw",
    tuple("0123456789"),
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    """
    440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609  train-images-idx3-ubyte.gz
    3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c  train-labels-idx1-ubyte.gz
    8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6  t10k-images-idx3-ubyte.gz
    f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6  t10k-labels-idx1-ubyte.gz
    ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db  train-images-idx3-ubyte
    65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5  train-labels-idx1-ubyte
    0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7  t10k-images-idx3-ubyte
    ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2  t10k-labels-idx1-ubyte
    """,
)

FASHION_MNIST = _idx_dataset(
    "fashion_mnist",
    "FashionMNIST/raw",
    (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    """
    3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84  train-images-idx3-ubyte.gz
    a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845  train-labels-idx1-ubyte.gz
    346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073  t10k-images-idx3-ubyte.gz
    67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5  t10k-labels-idx1-ubyte.gz
    c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888  train-images-idx3-ubyte
    bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9  train-labels-idx1-ubyte
    5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b  t10k-images-idx3-ubyte
    0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34  t10k-labels-idx1-ubyte
    """,
)

CIFAR10 = Published(
    name="cifar10",
    folder="cifar-10-batches-bin",
    shape=(3, 32, 32),
    classes=OBJECTS,
    parts={"train": 50_000, "test": 10_000},
    sha256=_sums(
        """
        cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5  data_batch_1.bin
        a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed  data_batch_2.bin
        bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67  data_batch_3.bin
        014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48  data_batch_4.bin
        755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add  data_batch_5.bin
        8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b  test_batch.bin
        """
    ),
    downloads=(
        Download(
            "downloads/cifar-10-binary.tar.gz",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
)

CINIC10 = Published(
    name="cinic10",
    folder="CINIC-10",
    shape=(3, 32, 32),
    classes=OBJECTS,
    parts={"train": 90_000, "valid": 90_000, "test": 90_000},
    downloads=(
        Download(
            "downloads/CINIC-10.tar.gz",
            ("https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz",),
            "md5:6ee4d0c996905fe93221de577967a372",
        ),
    ),
)

PUBLISHED = {dataset.name: dataset for dataset in (MNIST, FASHION_MNIST, CIFAR10, CINIC10)}


def owner(sha256: str) -> tuple[Published, str] | None:
    """Return the published dataset and file with this SHA-256, or None."""
    for published in PUBLISHED.values():
        for file, known in published.sha256.items():
            if known == sha256:
                return published, file
    return None
