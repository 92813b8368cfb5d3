"""Pages of the packages in this folder: templates with autoescape, and the colours and faces that all of them share."""

from __future__ import annotations

from functools import cache
from typing import Any

import jinja2


def filled(package: str, template: str, **given: Any) -> str:
    """Fill a template of a package; every variable that it names must be given, and what is given is escaped.

    Templates may include ``tokens.css``: colours, light and dark, and faces.
    """
    return _environment(package).get_template(template).render(given)


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
