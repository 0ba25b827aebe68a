"""The report is built from what the scripts have recorded: no result that it reads can go stale or missing."""

import re
import shutil

import pytest

from conftest import ROOT

typst = pytest.importorskip("typst", reason="builds the report: pip install typst")
pypdf = pytest.importorskip("pypdf", reason="reads the built report: pip install pypdf")


def text_of(pdf):
    """The words of a PDF, whatever separates them."""
    return " ".join(" ".join(page.extract_text() for page in pypdf.PdfReader(pdf).pages).split())


def build(root):
    """Build the report of a copy of the project; returns its text."""
    pdf = root / "built.pdf"
    typst.compile(root / "report" / "report.typ", output=pdf, root=root, ignore_system_fonts=True)
    return text_of(pdf)


@pytest.fixture
def sources(tmp_path):
    """A copy of everything that the report reads."""
    for path in (*ROOT.glob("*.py"), *ROOT.glob("report/*.py"), *ROOT.glob("report/*.typ"), *ROOT.glob("report/figures/*")):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


def change(path, old, new):
    """Replace text in a file, which must have it."""
    source = path.read_text(encoding="utf-8")
    assert old in source
    path.write_text(source.replace(old, new), encoding="utf-8")


def test_committed_report_is_what_its_sources_give(sources):
    assert build(sources) == text_of(ROOT / "report" / "report.pdf")


def test_a_changed_number_changes_the_report(sources):
    script = sources / "task_3_2_b.py"
    before = build(sources)
    block = script.read_text(encoding="utf-8").partition("$ python task_3_2_b.py --seed 0 1 2\n")[2]
    line = next(line for line in block.splitlines() if line.startswith("# denoiser"))
    mae = line.split()[2]  # such as 0.0501
    changed = mae[:-1] + str((int(mae[-1]) + 1) % 10)
    change(script, line, line.replace(mae, changed, 1))
    after = build(sources)
    assert after.count(changed) > before.count(changed) and after.count(mae) < before.count(mae)


def test_a_missing_record_stops_the_build_and_is_named(sources):
    change(sources / "task_3_2_c.py", "# $ python task_3_2_c.py --seed 0 1 2\n", "# $ python task_3_2_c.py\n")
    with pytest.raises(typst.TypstError, match="nothing is recorded for `python task_3_2_c.py --seed 0 1 2`"):
        build(sources)


def test_a_missing_row_stops_the_build_and_is_named(sources):
    change(sources / "task_3_2_b.py", "# denoiser ", "# other ")
    with pytest.raises(typst.TypstError, match="no line `denoiser`"):
        build(sources)


def test_a_result_that_contradicts_the_text_stops_the_build(sources):
    script = sources / "task_3_2_c.py"
    line = re.search(r"^# with skip, X \+ π\(X\) +0\.0.*", script.read_text(encoding="utf-8"), re.M)[0]
    change(script, line, line.replace("0.0", "0.00", 1))
    with pytest.raises(typst.TypstError, match="the results no longer support: worse"):
        build(sources)
