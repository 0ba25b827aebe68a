"""Every figure in the README's table and in a script's docstring was printed by a command and recorded below the script."""

import ast
import re

import pytest

import common
from conftest import ROOT

SCRIPTS = sorted([*ROOT.glob("task_3_*.py"), *ROOT.glob("report/*.py")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIGURE = r"\d[\d,]*\.\d{2,}(?: ± \d+\.\d+)?|\d{1,3}(?:,\d{3})+"  # 92.83, 0.0472 ± 0.0003, 6,444,170; but not 3.1


def figures(text):
    """The figures in a text, in their order, each with its standard deviation if it has one."""
    found = re.findall(rf"(?<![\d.,:])(?:{FIGURE})(?!\d|\.\d)", " ".join(text.split()))
    return [figure for figure in found if not figure.endswith("0,000")]  # numbers of images are no results


def recorded(script):
    """The recorded blocks of a script: {command: what it printed}."""
    results = script.read_text(encoding="utf-8").partition(common.MARK)[2]
    return {block.split("\n")[0].removeprefix("# "): block.replace("\n#", "\n") for block in results.split("\n\n") if block}


def missing(quoted, block):
    """The first quoted figure that the block does not hold as a whole, after the figures quoted before it."""
    found = iter(figures(block))
    return next((figure for figure in quoted if figure not in found), None)


def test_a_part_of_a_figure_or_another_order_is_found_out():
    assert missing(["94.92"], "accuracy 94.92 %") is None
    assert figures("from 1.33, to 3.66. In 3.1 a") == ["1.33", "3.66"]
    assert missing(["4.92"], "accuracy 94.92 %") == "4.92"
    assert missing(["94.9"], "accuracy 94.92 %") == "94.9"
    assert missing(["94.92 ± 0.06"], "accuracy 94.92 ± 0.07 %") == "94.92 ± 0.06"
    assert missing(["1.11", "2.22"], "a 2.22\nb 1.11") == "2.22"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_docstring_repeats_recorded_figures(script):
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))
    named = [ROOT / name for name in re.findall(r"`(report/\w+\.py)", docstring)]  # experiments that it quotes
    together = "\n".join(block for path in (script, *named) for block in recorded(path).values())
    printed = set(figures(together)) | {figure.split(" ± ")[0] for figure in figures(together)}
    assert "ANSWER" not in docstring
    assert [figure for figure in figures(docstring) if figure not in printed] == []


def test_readme_repeats_recorded_figures_in_their_order():
    rows = re.findall(r"^\|[^|]*\| `python ((\w+)\.py[^`]*)` \|([^|]*)\|", README, re.M)
    assert {name for _, name, _ in rows} >= {script.stem for script in SCRIPTS if script.stem.startswith("task")}
    for command, name, result in rows:
        block = next(block for line, block in recorded(ROOT / f"{name}.py").items() if f"$ python {command}" in line)
        assert missing(figures(result), block) is None, command


def test_no_result_is_recorded_on_other_data_or_in_part():
    for script in SCRIPTS:
        assert not any("--limit" in command or "--holdout" in command for command in recorded(script))
