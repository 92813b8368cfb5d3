"""The command ``deepsim fetch``: a published file by its name, verified."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from deepsim.export.published.fetch import Fetched, Progress, fetch, file_digest
from deepsim.export.published.known_sources import SOURCES, Digest, KnownSource, known_source, sha256_of
from deepsim.export.published.licence import NOTICE
from deepsim.runtime.cli.exits import Program
from deepsim.runtime.cli.options import GivenPath, command, overwrite_option
from deepsim.runtime.errors import UsageError


@click.command(
    name="fetch",
    cls=Program,
    epilog="""\b
Examples:
  deepsim fetch --list
  deepsim fetch icnn-vgg19
  deepsim fetch ctk-fc6 --trust
  deepsim fetch caffenet --url https://example.org/bvlc_reference_caffenet.caffemodel""",
)
@click.argument("name", required=False)
@click.option("--list", "is_list", is_flag=True, help="List the known sources, with addresses and checksums.")
@click.option("-o", "--output", type=GivenPath(path_type=Path), help="File to write. [the published name]")
@click.option("--url", help="Another address of the same file.")
@click.option("--sha256", help="The SHA-256 that the file must have.")
@click.option("--trust", is_flag=True, help="Take the file as it comes, where no checksum of it is known.")
@overwrite_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def main(
    name: str | None,
    is_list: bool,
    output: Path | None,
    url: str | None,
    sha256: str | None,
    trust: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Download a published file by its NAME and compare it with its checksum.

    An interrupted download is gone on with by the same command. Where no address or no checksum is known, pass --url,
    and --sha256 or --trust.
    """
    if is_list or name is None:
        if not is_list:
            raise UsageError("no NAME, expected a source of deepsim fetch --list.")
        click.echo(json.dumps([_record(source) for source in SOURCES.values()], indent=2) if as_json else _listing())
        return
    source = known_source(name)
    address, digests = _address(source, url), _digests(source, sha256, trust)
    path = output or Path(source.file)
    click.echo(f"Licence: {NOTICE}.", err=True)
    found = _present(path, digests, overwrite)
    if found is None:
        click.echo(f"{source.file} from {address}", err=True)
        with _bar() as progress:
            found = fetch(address, path, digests, progress)
    _tell(source, found, digests, as_json)


def _address(source: KnownSource, url: str | None) -> str:
    address = url or source.address
    if address is None:
        raise UsageError(f"{source.name}: no address is known of {source.file}, expected one. Pass --url.")
    return address


def _digests(source: KnownSource, sha256: str | None, trust: bool) -> tuple[Digest, ...]:
    """Return all checksums that the file must have. Raises UsageError where there is none, and none is waived."""
    given = () if sha256 is None else (sha256_of(sha256),)
    known = () if source.digest is None else (source.digest,)
    if not given and not known and not trust:
        raise UsageError(
            f"{source.name}: no checksum is known of {source.file}, expected one. "
            "Pass --sha256, or --trust to take the file as it comes."
        )
    return (*known, *given)


def _present(path: Path, digests: tuple[Digest, ...], overwrite: bool) -> Fetched | None:
    """Return the file that is there already and has the checksums. Raises UsageError when it is another."""
    if overwrite or not (path.exists() or path.is_symlink()):
        return None
    if path.is_file() and digests and all(each.matches(file_digest(path, each.algorithm)) for each in digests):
        size = path.stat().st_size
        return Fetched(path, size, file_digest(path, "sha256"), size)
    raise UsageError(f"{path}: exists already. Choose another output, or pass --overwrite to replace it.")


@contextmanager
def _bar() -> Iterator[Progress]:
    with tqdm(unit="B", unit_scale=True, disable=None) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _tell(source: KnownSource, found: Fetched, digests: tuple[Digest, ...], as_json: bool) -> None:
    checked = " and ".join(map(str, digests)) or "no checksum, taken as it came"
    if as_json:
        record = {"name": source.name, "file": str(found.path), "size": found.size, "sha256": found.sha256}
        click.echo(
            json.dumps({**record, "resumed_from": found.resumed_from, "checked": [str(d) for d in digests]}, indent=2)
        )
    else:
        click.echo(f"{found.path}  {found.size:,} bytes, SHA-256 {found.sha256}; {checked}")
    if source.is_archive:
        click.echo("Next:  unpack it, then deepsim import one of its files", err=True)
        return
    layer = ("--layer", source.layer) if source.layer in ("fc6", "fc7", "conv3", "conv4") else ()
    click.echo(f"Next:  {command('deepsim', 'import', found.path, *layer, '-o', f'{source.name}.deepsim')}", err=True)


def _record(source: KnownSource) -> dict[str, Any]:
    digest = None if source.digest is None else str(source.digest)
    record = {"name": source.name, "file": source.file, "holds": source.holds, "published": source.published}
    return {**record, "address": source.address, "checksum": digest}


def _listing() -> str:
    lines = []
    for source in SOURCES.values():
        lines.append(f"{source.name:18}{source.file}: {source.holds} ({source.published})")
        lines.append(f"{'':18}address {source.address or 'none known: pass --url'}")
        lines.append(f"{'':18}checksum {source.digest or 'none known: pass --sha256 or --trust'}")
    return "\n".join(lines)
