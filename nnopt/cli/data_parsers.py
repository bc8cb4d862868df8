"""The parsers of ``nnopt data`` and of its verbs."""

from __future__ import annotations

from nnopt.cli.parsers import Parser, add_format, add_overrides, make_parser
from nnopt.io.paths import DATA_FOLDER, environment

SHOW_EXAMPLES = """\
examples:
  nnopt data show mnist
  nnopt data show cifar10 dataset.classes=[cat,dog] regularizer=augmentation --out dogs.png
  nnopt data show csv dataset.train=iris.csv

Images are those of the first batches of epoch 1, with the seed of the configuration. If the
configuration augments images, the same images are also drawn as the training sees them.
"""


def data_parser() -> Parser:
    """Return the parser of ``nnopt data``, with the parsers of its verbs."""
    from nnopt.data.published import PUBLISHED

    parser = make_parser("data", "List, download, verify or show datasets.")
    root = Parser(add_help=False)
    root.add_argument(
        "--root",
        default=environment("NNOPT_DATA_DIR", DATA_FOLDER),
        help="the folder of the datasets (default: $NNOPT_DATA_DIR, else ./data)",
    )
    metavar = "list | fetch | verify | show"
    verbs = parser.add_subparsers(dest="verb", required=True, metavar=metavar)
    listing = verbs.add_parser("list", parents=[root], help="list the datasets and their locations")
    add_format(listing)
    known = ", ".join(PUBLISHED)
    fetch = verbs.add_parser("fetch", parents=[root], help="download datasets")
    fetch.add_argument("names", nargs="+", metavar="NAME", help=f"a dataset: {known}")
    verify = verbs.add_parser(
        "verify", parents=[root], help="check files with their published checksums"
    )
    verify.add_argument(
        "names", nargs="*", metavar="NAME", help=f"a dataset (default: all present of {known})"
    )
    verbs.add_parser("show", help="count the classes of a dataset, and draw training samples")
    return parser


def show_parser() -> Parser:
    """Return the parser of ``nnopt data show``."""
    description = (
        "Print the number of samples of each class in each part of a dataset, and draw training "
        "samples: images, points in the plane, or histograms of features."
    )
    parser = make_parser("data show", description, SHOW_EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="a file of the group dataset, such as mnist")
    add_overrides(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the picture, .png or .svg (default: data_NAME.png, or data_NAME-2.png and so on)",
    )
    return parser
