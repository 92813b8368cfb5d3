"""Pages of the packages in this folder: templates with autoescape, and the colours and faces that all of them share."""

from __future__ import annotations

import importlib.metadata
import re
from functools import cache
from typing import Any

import jinja2


def filled(package: str, template: str, **given: Any) -> str:
    """Fill a template of a package; every variable that it names must be given, and what is given is escaped.

    Templates may include ``tokens.css``: colours, light and dark, and faces; and, of a page that is read, ``head.html``
    and ``document.css``: text, tables and figures.
    """
    return _environment(package).get_template(template).render(given)


def compact(package: str, template: str, **given: Any) -> str:
    """Fill a template; the white space between tags that only its lines bring is left out."""
    return re.sub(r">\s*\n\s*<", "><", filled(package, template, **given))


def as_utf8(page: str) -> str:
    """Replace what UTF-8 cannot hold: halves of surrogate pairs, as JSON files and names of files can have them."""
    return page.encode("utf-8", "replace").decode("utf-8")


def version() -> str | None:
    """Return the installed version of deepsim; None in a checkout that is not installed."""
    try:
        return importlib.metadata.version("deepsim")
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def _environment(package: str) -> jinja2.Environment:
    loaders = [jinja2.PackageLoader(package), jinja2.PackageLoader("deepsim.evaluate")]
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
