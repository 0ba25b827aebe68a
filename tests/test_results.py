"""Every figure in the README and in a task's docstring was printed by a command and recorded below the task."""

import ast
import re

import pytest

import common
from conftest import ROOT

TASKS = sorted(ROOT.glob("task_3_*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = r"\d[\d,]*\.\d{2,}|\d{1,3}(?:,\d{3})+"  # 92.83, 0.0472, 6,444,170; but not 3.1


def recorded(script):
    """The recorded blocks of a script: {command: what it printed}."""
    results = script.read_text(encoding="utf-8").partition(common.MARK)[2]
    return {block.split("\n")[0].removeprefix("# $ "): block for block in results.split("\n\n") if block}


@pytest.mark.parametrize("script", TASKS, ids=lambda path: path.stem)
def test_docstring_repeats_recorded_figures(script):
    blocks = recorded(script)
    assert blocks and all(command.startswith(f"python {script.name}") for command in blocks)
    together = "\n".join(blocks.values()).replace(",", "")
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))
    missing = [number for number in re.findall(NUMBER, docstring) if number.replace(",", "") not in together]
    assert not missing


def test_readme_repeats_recorded_figures():
    rows = re.findall(r"^\|[^|]*\| `(python (task_\w+\.py)[^`]*)` \|([^|]*)\|", README, re.M)
    assert {name for _, name, _ in rows} == {script.name for script in TASKS}
    for command, name, result in rows:
        block = recorded(ROOT / name)[command]
        missing = [number for number in re.findall(NUMBER, result) if number not in block]
        assert not missing, command


def test_readme_repeats_the_benchmark():
    block = recorded(ROOT / "tests" / "benchmark.py")["python tests/benchmark.py"]
    speed = README.partition("## Speed")[2].partition("## ")[0]
    figures = re.findall(r"\d\.\d\dx|\d+(?:\.\d)? %|\d\.\d\d GiB", speed)
    assert len(figures) >= 7
    missing = [figure for figure in figures if figure not in block]
    assert not missing


def test_no_result_is_recorded_on_other_data_or_in_part():
    for script in TASKS:
        assert not any("--limit" in command or "--holdout" in command for command in recorded(script))
