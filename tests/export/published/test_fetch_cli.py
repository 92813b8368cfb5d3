"""The command: which sources are known, what must be passed where something is not known, exit codes."""

import json
import re

import pytest
from click.testing import CliRunner

from deepsim.export.published import fetch_cli
from deepsim.export.published.fetch import Fetched
from deepsim.export.published.known_sources import SOURCES, Digest
from deepsim.runtime.files import sha256


def run(*arguments):
    return CliRunner().invoke(fetch_cli.main, [str(argument) for argument in arguments])


@pytest.fixture
def fetched(monkeypatch):
    """Stand for the download: write a few bytes, and tell what was asked for."""
    calls = []

    def fetch(url, path, digests, progress):
        calls.append((url, digests))
        path.write_bytes(b"weights")
        progress(7, 7)
        return Fetched(path, 7, sha256(b"weights"), 0)

    monkeypatch.setattr(fetch_cli, "fetch", fetch)
    return calls


def test_the_list_says_what_is_not_known():
    text = run("--list").stdout
    assert all(f"{name} " in text for name in SOURCES)
    assert "none known: pass --url" in text and "none known: pass --sha256 or --trust" in text
    assert "SHA1 4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46" in text and "MD5 bf9d4de4..." in text
    listed = json.loads(run("--list", "--json").stdout)
    assert [each["name"] for each in listed] == list(SOURCES)
    assert (
        {each["address"] is None for each in listed} == {each["checksum"] is None for each in listed} == {True, False}
    )


def test_the_table_holds_addresses_and_checksums_of_the_right_form():
    for source in SOURCES.values():
        assert source.address is None or source.address.startswith("https://")
        assert source.digest is None or re.fullmatch("[0-9a-f]{8,64}", source.digest.digits)
        assert "/" not in source.file


def test_a_known_file_is_fetched(fetched, tmp_path):
    found = run("icnn-vgg19", "-o", tmp_path / "file")
    assert found.exit_code == 0, found.output
    assert fetched == [(SOURCES["icnn-vgg19"].address, (Digest("md5", "49f4d6db"),))]
    assert f"SHA-256 {sha256(b'weights')}; MD5 49f4d6db..." in found.stdout
    assert "for research only" in found.stderr and "unpack it" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no NAME, expected a source of deepsim fetch --list"),
        (["fc6"], "source 'fc6': unknown, expected one of caffenet"),
        (["ctk-fc6"], "no checksum is known of upconvGAN_fc6.pt, expected one. Pass --sha256, or --trust"),
        (["caffenet"], "no address is known of bvlc_reference_caffenet.caffemodel, expected one. Pass --url"),
        (["ctk-fc6", "--sha256", "abc"], "--sha256: 'abc', expected 64 hexadecimal digits"),
        (["ctk-fc6", "--trust", "-o", "there"], "there: exists already"),
        (["caffenet", "--url", "http://x/y", "-o", "there"], "there: exists already"),
    ],
)
def test_what_must_be_passed(fetched, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("another file")
    found = run(*arguments)
    assert found.exit_code == 2 and message in found.stderr.splitlines()[-1] and not fetched
    assert (tmp_path / "there").read_text() == "another file"


def test_where_a_checksum_is_not_known_it_is_given_or_waived(fetched, tmp_path):
    given = "AB" * 32
    found = run("ctk-fc6", "--sha256", given, "-o", tmp_path / "a", "--json")
    assert json.loads(found.stdout)["checked"] == [f"SHA256 {given.lower()}"]
    found = run("ctk-fc6", "--trust", "--url", "http://mirror/x", "-o", tmp_path / "b.pt")
    assert fetched[1] == ("http://mirror/x", ()) and "no checksum, taken as it came" in found.stdout
    assert f"deepsim import {tmp_path / 'b.pt'} --layer fc6 -o ctk-fc6.deepsim" in found.stderr


def test_a_known_checksum_is_compared_also_with_another_address(fetched, tmp_path):
    run("caffenet", "--url", "http://mirror/x", "--trust", "-o", tmp_path / "a")
    assert fetched == [("http://mirror/x", (SOURCES["caffenet"].digest,))]


def test_a_file_that_is_there_is_not_fetched_again(fetched, tmp_path):
    (tmp_path / "a").write_bytes(b"weights")
    found = run("ctk-fc6", "--sha256", sha256(b"weights"), "-o", tmp_path / "a")
    assert found.exit_code == 0 and sha256(b"weights") in found.stdout and not fetched
    assert run("ctk-fc6", "--sha256", "00" * 32, "-o", tmp_path / "a").exit_code == 2
    assert run("ctk-fc6", "--trust", "-o", tmp_path / "a", "--overwrite").exit_code == 0 and fetched
