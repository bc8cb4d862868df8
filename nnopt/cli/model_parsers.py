"""The parsers of the verbs that use a trained network."""

from __future__ import annotations

from collections.abc import Callable

from nnopt.cli.parsers import Parser, add_format, make_parser

EVALUATE_EXAMPLES = """\
examples:
  nnopt evaluate outputs/latest
  nnopt evaluate outputs/latest --part validation --weights last
  nnopt evaluate outputs/latest dataset.test=new.csv --predictions
  nnopt evaluate outputs/runs/NAME dataset=cinic10 --format json

docs/models.md describes the files.
"""

PREDICT_EXAMPLES = """\
examples:
  nnopt predict outputs/latest new.csv --out predictions.csv
  nnopt predict outputs/latest images/ --resize --out predictions.csv

docs/models.md describes the inputs and the columns.
"""


def evaluate_parser() -> Parser:
    """Return the parser of ``nnopt evaluate``."""
    description = (
        "Evaluate the trained network of a run on a part of its dataset, or of another one. The "
        "metrics are those of the end of a run."
    )
    parser = make_parser("evaluate", description, EVALUATE_EXAMPLES)
    add = parser.add_argument
    add("run", metavar="RUN", help="the folder of a run")
    _add_changes(parser, "dataset.*, data.*, backend.device, threads, precision, compile")
    add(
        "--part",
        choices=("train", "validation", "test"),
        default="test",
        help="the part of the dataset (default: test)",
    )
    _add_weights(parser)
    add("--predictions", action="store_true", help="also write predictions.csv")
    add("--out", metavar="DIR", help="a new folder (default: outputs/evaluate/DATE_TIME_NAME)")
    add_format(parser)
    return parser


def predict_parser() -> Parser:
    """Return the parser of ``nnopt predict``."""
    description = (
        "Predict the classes of new samples with the trained network of a run. The dataset of the "
        "run is not needed."
    )
    parser = make_parser("predict", description, PREDICT_EXAMPLES)
    add = parser.add_argument
    add("run", metavar="RUN", help="the folder of a run")
    add("input", metavar="INPUT", help="a CSV file, a .npy file, an image or a folder of images")
    _add_changes(parser, "backend.device, threads, precision, compile, dataset.separator, decimal")
    add("--out", metavar="FILE", required=True, help="the predictions, a CSV file")
    _add_weights(parser)
    add("--resize", action="store_true", help="scale images to the size of the training images")
    return parser


def _add_changes(parser: Parser, keys: str) -> None:
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help=f"changes of the run's configuration: {keys}",
    )


def _add_weights(parser: Parser) -> None:
    parser.add_argument(
        "--weights",
        choices=("best", "last"),
        help="use the weights of this epoch (default: those that the run has tested)",
    )


MODEL_PARSERS: dict[str, Callable[[], Parser]] = {
    "evaluate": evaluate_parser,
    "predict": predict_parser,
}
"""Verb -> the function that makes its parser."""
