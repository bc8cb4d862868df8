"""The HTML page: ``page.html`` filled with the style, the scripts and the data."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from importlib.resources import files
from typing import Any

SCRIPTS = ("dom.js", "series.js", "plot.js", "chart.js", "table.js", "details.js", "page.js")
"""Files that are concatenated into one script, in this order."""


def fill_page(records: dict[str, Any]) -> str:
    """Return the page as text.

    The page loads no files except the plots that it links to. It runs only its own script.
    """
    style, script = _asset("page.css"), "\n".join(map(_asset, SCRIPTS))
    script = f'"use strict";\n(() => {{\n{script}\n}})();\n'
    parts = {
        "title": escape(f"{records['title']} – nnopt report"),
        "style": style,
        "style_digest": _digest(style),
        "script": script,
        "script_digest": _digest(script),
        "data": as_json(records),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def as_json(records: Any) -> str:
    """Return ASCII JSON without ``<``, ``>`` and ``&``, so that a script element can contain it."""
    text = json.dumps(records, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return files("nnopt.report").joinpath("web", name).read_text("utf-8")


def _digest(text: str) -> str:
    """Return the digest of a script or a style as a CSP hash source (CSP level 2, 4.2.5)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
