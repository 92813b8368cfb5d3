from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import pytest
from PIL import Image

from deepsim.evaluate.figures import compose, pdf
from deepsim.evaluate.figures.document import Document, Grid, Panel, Tabular
from deepsim.evaluate.figures.html import render
from deepsim.evaluate.figures.panels import theirs
from deepsim.evaluate.paper import TABLE_2
from tests.evaluate.figures.figure_fakes import IMAGE, VAE, fake_studio, member
from tests.evaluate.html_page import Page

HOSTILE = "<script>alert('x')</script>\"&'"


def document_of(*members) -> Document:
    return compose.compose(members, fake_studio(list(members)))


MEMBERS = (
    member("image", **IMAGE),
    member("full"),
    member("fc7", layer="fc7"),
    member("random", comparator_seed=3),
    member("before", generator="dosovitskiy2015", **IMAGE),
    member("vae", **VAE),
)


@pytest.fixture(scope="module")
def document() -> Document:
    return document_of(*MEMBERS)


@pytest.fixture(scope="module")
def page(document) -> str:
    return render(document)


def plain(text: str) -> str:
    return " ".join(text.replace("\u00a0", " ").split())


def test_every_figure_is_there_in_order(document, page):
    titles = [figure.title.partition(".")[0] for figure in document.figures]
    assert titles == ["Figure 1", "Figure 3", "Figure 4", "Figure 5", "Figure 6", "Figure 7", "Figure 8", "Table 2"]
    parsed = Page(page)
    identifiers = parsed.values("id")
    assert len(identifiers) == len(set(identifiers))
    assert [link.removeprefix("#") for link in parsed.values("href")] == [
        *(figure.anchor for figure in document.figures),
        "sources",
    ]
    assert set(parsed.values("aria-labelledby")) <= set(identifiers)
    assert not document.missing


def test_needs_nothing_from_outside(page):
    parsed, without = Page(page), re.sub(r"base64,[\w+/=]+", "", page)
    assert "http:" not in without and "https:" not in without and "//" not in without
    assert all(source.startswith("data:image/jpeg;base64,") for source in parsed.values("src"))
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    assert not re.search(r"url\(|@import|javascript:|\son\w+=", without)
    assert "default-src 'none'" in page


def test_pictures_have_alternative_texts_and_decode(page):
    parsed = Page(page)
    assert len(parsed.values("alt")) == len(parsed.values("src")) == parsed.tags.count("img") > 0
    assert all(parsed.values("alt"))
    assert "photo-0.png by image" in parsed.values("alt") and "Photograph photo-3.png" in parsed.values("alt")
    for source in set(parsed.values("src")):
        Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).verify()


def test_names_of_runs_and_photographs_are_no_markup():
    hostile = replace(member(HOSTILE), name=HOSTILE)
    assert "<script" not in render(document_of(hostile, member("fc7", layer="fc7")))


def test_what_stands_below_the_pictures_is_what_was_measured(document):
    (panel,) = document.figures[0].parts
    assert isinstance(panel, Panel)
    assert [measure.name for measure in panel.measures] == [
        "image error",
        "the paper",
        "feature error",
        "the paper",
        "sharpness",
    ]
    assert [strip.heading for strip in panel.strips] == ["photograph", "image", "image + feature + adversarial"]
    assert [plain(" ".join(strip.figures)) for strip in panel.strips] == [
        "",
        "10.1 % 46 % 20.1 % 79 % 0.50",
        "11.1 % 55 % 21.1 % 48 % 0.50",
    ]


def test_columns_that_were_not_trained_alike_are_said_to_be_so(document):
    (alike,) = document.figures[0].parts
    (unlike,) = document_of(member("a", step=100, **IMAGE), member("b", step=1000)).figures[0].parts
    assert alike.note == "Errors and sharpness are means over 4 photographs."
    assert unlike.note.endswith("trained on up to 64,000 photographs, repeats counted, against 6,400.")


def test_the_papers_numbers_are_labelled_as_theirs_wherever_they_stand(document, page):
    for figure in document.figures:
        for part in figure.parts:
            if isinstance(part, Panel):
                assert all(measure.is_theirs == (measure.name == "the paper") for measure in part.measures)
    (table,) = document.figures[-1].parts
    assert isinstance(table, Tabular)
    own = [row for row in table.rows if row.is_theirs]
    assert len(own) == len(TABLE_2) and all(row.cells[0].startswith("The paper, ") for row in own)
    assert "Dosovitskiy & Brox 2016, Table 2" in table.caption
    assert "51 / 57" in plain(" ".join(own[-1].cells))
    ours = [plain(cell) for row in table.rows if not row.is_theirs for cell in row.cells]
    assert "11.1 / 21.1" in ours and not any(cell in ours for cell in ("46 / 79", "55 / 48"))
    rows = re.findall(r"<tr class=\"theirs\">.*?</tr>", page, re.S)
    assert len(rows) >= len(TABLE_2) and all("the paper" in row.lower() for row in rows)
    assert "none of them is a result of these runs" in plain("".join(Page(page).text))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({}, 3),
        (IMAGE, 2),
        ({"generator": "dosovitskiy2015", **IMAGE}, 1),
        ({"comparator_seed": 3}, None),
        ({"comparator": "fc6"}, None),
        ({"lambda_adv": 0}, None),
        ({"comparator_weights": "v.pt"}, None),
        ({"encoder": "vgg16"}, None),
    ],
)
def test_the_papers_numbers_belong_to_the_same_method_alone(changes, place):
    assert theirs(member(**changes).facts) == (None if place is None else TABLE_2[place])


def test_figures_without_their_runs_are_named_with_what_makes_them():
    document = document_of(member("fc6"))
    missing = {absent.title.partition(".")[0]: absent.want for absent in document.missing}
    assert list(missing) == ["Figure 1", "Figure 3", "Figure 4", "Figure 6", "Figure 8"]
    text = plain("".join(Page(render(document)).text))
    for title, want in missing.items():
        assert want.words in text and want.commands, title
        assert all(command.startswith("deepsim ") and command in text for command in want.commands)
    assert [figure.title.partition(".")[0] for figure in document.figures] == ["Figure 5", "Figure 7", "Table 2"]


def test_nothing_of_ours_leaves_nothing_but_what_is_needed():
    document = document_of(member("encoder-learns", task="autoencoder", layer="latent"))
    assert document.figures == () and len(document.missing) == 8
    assert "What is not here" in render(document)


def test_a_figure_in_part_says_what_it_lacks(document):
    first = document.figures[0].want
    assert first is not None and first.words == "image + adversarial and image + feature"
    assert document.figures[2].want.words == "Mahendran & Vedaldi 2015"
    assert "squared error" in document.figures[6].want.words


def test_samples_and_sources(document):
    (grid,) = document.figures[6].parts
    assert isinstance(grid, Grid) and len(grid.pictures) == 16 and "Sharpness 0.75" in grid.note
    rows = {row.cells[0]: row.cells for row in document.sources.rows}
    assert rows["vae.deepsim"][-1] == "Fig.\u00a08"
    assert rows["full.deepsim"][1:5] == (
        "CaffeNet fc6",
        "caffenet.safetensors",
        "image, feature and adversarial loss",
        "CaffeNet pool5",
    )


@pytest.fixture(scope="module")
def written(document) -> tuple[bytes, list[tuple[str, float, float]]]:
    """Return the PDF, and each line in it with where it ends."""
    lines, file = [], io.BytesIO()
    whole = pdf._Paper.write

    def write(self, text, x, y, font, colour=pdf.INK):
        lines.append((text, x + pdf.extent(text, font), y))
        whole(self, text, x, y, font, colour)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdf._Paper, "write", write)
        pdf.write_pdf(document, file)
    return file.getvalue(), lines


def test_the_pdf_says_the_same_in_the_same_order(document, written):
    text = plain(" ".join(line for line, *_ in written[1]))
    at = 0
    for title in (document.title, *(figure.title for figure in document.figures), "What was given"):
        assert title in text[at:], title
        at = text.index(title, at)
    for figure in document.figures:
        assert figure.lead in text
        for part in figure.parts:
            if isinstance(part, Panel):
                assert part.title in text
                for figures in (strip.figures for strip in part.strips):
                    assert all(plain(number) in text for number in figures)
    assert all(sentence in text for sentence in document.conditions)


def test_the_pdf_keeps_within_its_margins(written):
    content, lines = written
    assert content.startswith(b"%PDF") and content.count(b"/Subtype /Image") == 108
    assert max(x for _, x, _ in lines) <= pdf.WIDTH - pdf.MARGIN + 1
    assert max(y for *_, y in lines) <= pdf.HEIGHT - pdf.MARGIN + 12


def test_equal_documents_give_equal_pdfs(document):
    part = replace(document, figures=document.figures[5:6])
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        pdf.write_pdf(part, file)
    assert files[0].getvalue() == files[1].getvalue()
