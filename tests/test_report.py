"""The report is built from what the scripts have recorded: no result that it reads can go stale or missing."""

import re
import shutil

import pytest

from conftest import ROOT, change

typst = pytest.importorskip("typst", reason="builds the report: pip install typst")
pypdf = pytest.importorskip("pypdf", reason="reads the built report: pip install pypdf")


def text_of(pdf):
    """The words of a PDF, whatever separates them."""
    return " ".join(" ".join(page.extract_text() for page in pypdf.PdfReader(pdf).pages).split())


@pytest.fixture
def build(tmp_path):
    """A function that builds the report of a copy of the project and returns its text; .script: a script to change."""
    def build():
        typst.compile(tmp_path / "report" / "report.typ", output=tmp_path / "built.pdf", root=tmp_path,
                      ignore_system_fonts=True)
        return text_of(tmp_path / "built.pdf")

    for path in (*ROOT.glob("*.py"), *ROOT.glob("report/*.*"), *ROOT.glob("report/figures/*")):
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    build.script = tmp_path / "task_3_2_c.py"
    return build


def test_committed_report_is_what_its_sources_give_with_any_newlines_and_text_below(build):
    committed = text_of(ROOT / "report" / "report.pdf")
    assert build() == committed
    for path in (*build.script.parent.glob("*.py"), *build.script.parent.glob("report/*.py")):
        source = path.read_text(encoding="utf-8") + "\n\ndef mine():\n    return 1\n"
        path.write_text(source, encoding="utf-8", newline="\r\n")  # as Git for Windows does
    assert build() == committed


@pytest.mark.parametrize("start, old, new, message", [
    ("$ python task_3_2_c.py", " --seed 0 1 2", "", "nothing is recorded for `python task_3_2_c.py --seed 0 1 2`"),
    ("with skip", "with skip", "other", "no line `with skip"),
    ("with skip", "0.", "0.00", "the results no longer support: worse")])
def test_what_is_missing_or_contradicts_the_text_stops_the_build_and_is_named(build, start, old, new, message):
    line = re.search(rf"^# {re.escape(start)}.*$", build.script.read_text(encoding="utf-8"), re.M)[0]
    change(build.script, (line, line.replace(old, new, 1)))
    with pytest.raises(typst.TypstError, match=re.escape(message)):
        build()


def tagged(element, kind):
    """All elements of a kind below an element of a PDF's structure tree."""
    element = element.get_object()
    if isinstance(element, list):
        return [found for child in element for found in tagged(child, kind)]
    if not isinstance(element, dict):
        return []
    return [element] * (element.get("/S") == kind) + (tagged(element["/K"], kind) if "/K" in element else [])


def test_every_picture_has_an_alternative_text():
    figures = tagged(pypdf.PdfReader(ROOT / "report" / "report.pdf").trailer["/Root"]["/StructTreeRoot"], "/Figure")
    assert len(figures) >= 13 and all(len(figure.get("/Alt", "")) > 10 for figure in figures)
