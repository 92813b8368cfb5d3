"""README and docs/ say what is so: links lead somewhere, files and options exist, nothing public is left out."""

import importlib
import re
import tomllib
from pathlib import Path

import click
import pytest

from deepsim.runtime.cli import COMMANDS, LazyGroup, main
from deepsim.runtime.networks import ENCODERS
from deepsim.train.objective import TERMS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
API = ROOT / "docs/api"
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
OURS = re.compile(r"(?:deepsim[ -]([a-z]+)|(?:python|torchrun) [^|;]*train/run\.py) ?([^#|]*)")
CODE = ("kernels", "runtime", "train", "export", "benchmarks", "evaluate", "tests", "cmake")
STAND_IN = "DEEPSIM_STAND_IN_"  # the family of the fake driver's variables, documented as one


def name_of(page):
    return str(page.relative_to(ROOT))


def prose(page):
    """Return a page without its fenced code."""
    return FENCE.sub("", page.read_text())


def anchors(page):
    """List the anchors of a page's headings, as Markdown viewers make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[`*]", "", heading).lower() for heading in headings)
    return [re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain]


def broken(page):
    """List the links of a page that lead nowhere inside the checkout."""
    wrong = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_anchors_exist(page):
    assert broken(page) == []
    assert len(set(anchors(page))) == len(anchors(page)), "two headings share an anchor"


def test_a_wrong_link_is_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("# A b\n\n[x](#a-b) [x](#nowhere) [x](missing.md) [x](a.md#a-b) [x](https://example.org/x)\n")
    assert broken(page) == ["#nowhere", "missing.md"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_of_the_checkout_exist(page):
    names = [name for name in INLINE.findall(prose(page)) if re.fullmatch(rf"(?:{'|'.join(CODE)}|docs)/[\w./-]*", name)]
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_every_page_is_in_the_readme_and_on_the_site():
    readme, site = (ROOT / "README.md").read_text(), (ROOT / "mkdocs.yml").read_text()
    for page in sorted((ROOT / "docs").glob("*.md")):
        assert page.name == "index.md" or f"(docs/{page.name}" in readme, page.name
    for page in (ROOT / "docs").rglob("*.md"):
        assert f": {page.relative_to(ROOT / 'docs')}\n" in site, page


def test_the_readme_is_short_and_has_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    targets = re.findall(r"^make (\S+)", text, re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in (*targets, "test-all"))
    assert "make test-all" in (ROOT / ".ci/run").read_text()


def options_of(name):
    """Return the options of a command: name -> the parameter."""
    module, attribute = COMMANDS[name][0].split(":")
    command = getattr(importlib.import_module(module), attribute)
    if isinstance(command, LazyGroup):
        members = [command.get_command(None, member) for member in command.lazy]
        return {text: option for member in members for text, option in _options(member).items()}
    return _options(command)


def _options(command):
    found = {text: option for option in command.params for text in (*option.opts, *option.secondary_opts)}
    return {**found, "--help": None}


@pytest.fixture(scope="module")
def known():
    return {name: options_of(name) for name in COMMANDS}


@pytest.fixture(scope="module")
def bench_gpu():
    parser = importlib.import_module("deepsim.benchmarks.gpu.__main__").main
    assert isinstance(parser, click.Command)
    return {text for option in parser.params for text in option.opts}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_have_the_options_that_pages_name(page, known, bench_gpu):
    text = page.read_text()
    lines = [line.strip() for block in FENCE.findall(text) for line in block.splitlines()]
    for line in (*lines, *INLINE.findall(prose(page))):
        found = OURS.match(line)
        if found:
            command = found[1] or "train"
            assert command in COMMANDS, line
            assert set(OPTION.findall(found[2])) <= set(known[command]), line
        elif line.startswith("--"):
            anywhere = {option for options in known.values() for option in options} | {"--version"}
            assert set(OPTION.findall(line)) <= anywhere, line
        elif line.startswith("OPTIONS="):
            assert set(OPTION.findall(line)) <= bench_gpu | {"--help"}, line


def test_every_command_has_its_paragraph():
    page = (ROOT / "docs/commands.md").read_text()
    assert re.findall(r"^## `deepsim (\S+)`$", page, re.MULTILINE) == list(main.list_commands(None))


def test_every_preset_and_extra_is_described():
    from deepsim.train.config import PRESETS

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = [line for page in ("train", "python") for line in (ROOT / f"docs/{page}.md").read_text().splitlines()]
    tables = "".join(line for line in lines if line.startswith("| `"))
    assert [name for name in (*PRESETS, *extras) if f"`{name}`" not in tables] == []


def variables_in_the_code():
    """Find the DEEPSIM_* variables of the environment, and the options of CMake."""
    files = [
        path for part in CODE for path in (ROOT / part).rglob("*") if path.suffix in (".py", ".cpp", ".h", ".cmake")
    ]
    found = set()
    for path in (*files, ROOT / "CMakeLists.txt", ROOT / "setup.py"):
        text = path.read_text(errors="replace")
        if path.suffix in (".cmake", ".txt"):
            found.update(re.findall(r"(?:option|set)\((DEEPSIM_\w+) \"[^\n]*(?:CACHE|\$\{|OFF|ON)", text))
            found.update(re.findall(r"set\((DEEPSIM_\w+) \S+ CACHE", text))
        elif path != Path(__file__):
            found.update(re.findall(r"\"(DEEPSIM_[A-Z0-9_]+)\"", text))
    return {name for name in found if not name.startswith(STAND_IN)}


def test_every_loss_is_described():
    text = (ROOT / "docs/train.md").read_text()
    for term in TERMS:
        option = "--" + term.weight.replace("_", "-")
        assert f"| `{term.name}` | `{option}` |" in text, term.name


def test_every_encoder_is_described_where_it_is_chosen():
    pages = {name: (ROOT / "docs" / name).read_text() for name in ("networks-and-layers.md", "import.md")}
    helps = [
        next(option.help for option in main.get_command(None, name).params if option.name == "encoder")
        for name in ("train", "export")
    ]
    for name in ENCODERS:
        assert all(f"`{name}`" in text for text in pages.values()), name
        assert all(name in text for text in helps), name


def test_every_environment_variable_is_described():
    page = (ROOT / "docs/environment-variables.md").read_text()
    assert f"`{STAND_IN}*`" in page
    described = set(re.findall(r"^\| `(DEEPSIM_\w+)`", page, re.MULTILINE))
    assert described == variables_in_the_code()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_name_variables_that_exist(page):
    exist = variables_in_the_code()
    named = {name for name in re.findall(r"DEEPSIM_[A-Z0-9_]+", page.read_text()) if not name.startswith(STAND_IN)}
    assert named <= exist
