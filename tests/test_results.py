"""Every figure in the README and in a script's docstring was printed by a command and recorded below a script."""

import ast
import re

import pytest

from conftest import ROOT

SCRIPTS = sorted([*ROOT.glob("task_3_*.py"), *ROOT.glob("report/w*.py")])
FIGURE = r"\d[\d,]*\.\d{2,}(?: ± \d+\.\d+)?|\d{1,3}(?:,\d{3})+"  # 92.83, 0.0472 ± 0.0003, 6,444,170; but not 3.1


def figures(text):
    """The figures in a text, in their order, each with its standard deviation if it has one."""
    found = re.findall(rf"(?<![\d.,:])(?:{FIGURE})(?!\d|\.\d)", " ".join(text.split()))
    return [figure for figure in found if not figure.endswith("0,000")]  # numbers of images are no results


def recorded(script):
    """The recorded blocks of a script: {command: what it printed, with the line of the environment}."""
    source = script.read_text(encoding="utf-8")
    results = source.partition("\n# Results, each block printed by the command above it\n")[2]
    return dict(re.findall(r"^# \$ (.+)\n((?:#(?! \$ ).*\n)*?# \(.*, torch .* minutes\))$", results, re.M))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_has_records_of_its_own_results_and_its_docstring_repeats_them(script):
    blocks = recorded(script)
    source = script.read_text(encoding="utf-8")
    assert blocks and len(blocks) == source.count("\n# $ ")
    assert not any(option in command for command in blocks for option in ("--limit", "--holdout", "--epochs"))
    assert max(map(len, source.partition("\n# Results, ")[0].splitlines())) <= 120  # ruff does not check them
    docstring = ast.get_docstring(ast.parse(source))
    named = [ROOT / name for name in re.findall(r"`(report/\w+\.py)", docstring)]  # experiments that it quotes
    printed = figures("\n".join(block for path in (script, *named) for block in recorded(path).values()))
    printed += [figure.split(" ± ")[0] for figure in printed]
    assert [figure for figure in figures(docstring) if figure not in printed] == []


def test_the_readme_repeats_recorded_figures():
    """In a row of a table, those of its command in their order; elsewhere, those of any record."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    # without versions of Python and what is printed by a quick check
    readme = re.sub(r"\b3\.1[0-4]\b|^```\n.*?^```$", "", readme, flags=re.M | re.S)
    rows = re.findall(r"^\|.*?`python (([\w/]+\.py)[^`]*)`(.*)$", readme, re.M)
    assert {name for _, name, _ in rows} >= {f"task_3_{name}.py" for name in ("1_a", "1_c", "2_b", "2_c")}
    for command, name, text in rows:
        found = iter(figures(recorded(ROOT / name)[f"python {command}"]))
        assert [figure for figure in figures(text) if figure not in found] == [], command
    everything = [figure for path in (*SCRIPTS, ROOT / "tests" / "benchmark.py") for block in recorded(path).values()
                  for figure in figures(block)]
    assert [figure for figure in figures(readme) if figure not in everything] == []
