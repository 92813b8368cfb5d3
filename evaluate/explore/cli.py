"""The command ``deepsim explore``: one page, served on this machine, on which a person explores a bundle."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from deepsim.runtime.cli.options import GivenPath, backend_options, bundle_argument, examples, open_inverter
from deepsim.runtime.errors import missing_extra

PORT = 8227
_OPEN_TO_OTHERS = (
    "--host {host} lets other machines connect. Whoever has the address can use the page, and nothing is encrypted."
)


@click.command(
    epilog=examples(
        "deepsim explore norm2.deepsim --open",
        "deepsim explore fc6.deepsim --port 0 --photos my-photographs/",
    )
)
@bundle_argument
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; the default is this machine alone."
)
@click.option(
    "--port",
    default=PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 is any free one.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--photos", type=GivenPath(path_type=Path), help="Folder of photographs to offer, instead of scikit-image's."
)
@backend_options
def explore(bundle: Path, host: str, port: int, open_browser: bool, photos: Path | None, **where: Any) -> None:
    """Serve one page on which a person explores BUNDLE in a browser, until Ctrl-C.

    Drop photographs, move between two of them, add directions, scale groups of units, re-encode. The page needs no
    network. Its address, with a token that is new at every start, is printed on stdout.
    """
    for module in ("starlette", "uvicorn", "jinja2"):
        if find_spec(module) is None:
            raise missing_extra(module, "explore")
    from deepsim.evaluate.explore.app import application
    from deepsim.evaluate.explore.explorer import Explorer
    from deepsim.evaluate.explore.guard import Door
    from deepsim.evaluate.explore.samples import samples
    from deepsim.evaluate.explore.serve import listen, new_token, serve

    token = new_token()
    with listen(host, port) as listener, open_inverter(bundle, **where) as inverter:
        explorer = Explorer(inverter)
        door = Door(host, token, f"deepsim-explore-{listener.port}")
        app = application(explorer, () if explorer.no_encoder else samples(photos), door)
        if not listener.is_local:
            click.echo(f"Warning: {_OPEN_TO_OTHERS.format(host=host)}", err=True)
        url = listener.url(token)
        click.echo(url)
        click.echo("Open this address in a browser. Ctrl-C ends it.", err=True)
        serve(app, listener, url, open_browser)
