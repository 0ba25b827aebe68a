"""What the tests share: small synthetic data, arguments as a script would have them, ways to run scripts."""

import argparse
import itertools
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks gain nothing from more; torch reads it at its import

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "report")]

import common
from child import run_script
from task_3_1_a import LabelledImages, accuracy, random_digits


def small():
    """A classifier of 28x28 images with batch normalisation."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(196, 10))


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")
SETTINGS = common.Settings(network=small, loss=nn.functional.cross_entropy, epochs=2, batch_size=10, lr=1e-3)


def same_weights(network, other):
    return all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values()))


def only(folder, pattern):
    """The one file below a folder that fits a pattern."""
    found = list(Path(folder).rglob(pattern))
    assert len(found) == 1, found
    return found[0]


def change(path, *pairs):
    """Replace texts in a file, which must have each of them once."""
    source = path.read_text(encoding="utf-8")
    for old, new in pairs:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    path.write_text(source, encoding="utf-8")


def assert_one_line_error(process, *texts):
    """Exit status 2, one line on standard error that holds the texts, no traceback."""
    assert process.returncode == 2 and len(process.stderr.strip().splitlines()) == 1, process.stderr
    for text in texts:
        assert text in process.stderr


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """A folder with both data sets, synthetic: 240 training and 60 test images each."""
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    assert run_script(ROOT / "tests" / "synthetic_data.py", folder, "--train", 240, "--test", 60).returncode == 0
    return folder


@pytest.fixture
def images():
    return torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def data(images):
    """A training set of 25, augmented, and a validation set of 15 random images."""
    labels = torch.arange(40) % 10
    return LabelledImages(images[:25], labels[:25], random_digits), LabelledImages(images[25:], labels[25:])


@pytest.fixture
def make_args(tmp_path):
    """A function that returns the arguments of a script that has been started, for training on the CPU."""
    return lambda folder="run", **changes: argparse.Namespace(**{
        "device": "cpu", "precision": "fp32", "seed": [0], "epochs": None, "batch_size": None, "lr": None,
        "limit": None, "holdout": False, "folder": tmp_path / folder, "data_name": "MNIST", "command": ""} | changes)


@pytest.fixture
def fit(make_args, data):
    """A function that trains with some settings and arguments, in a folder of its own unless one is named."""
    numbers = itertools.count()
    return lambda settings=SETTINGS, data=data, folder=None, **changes: common.fit(
        "net", settings, *data, {"accuracy": accuracy}, make_args(folder or f"run{next(numbers)}", **changes), seed=0)


@pytest.fixture
def script(synthetic, tmp_path):
    """A function that runs a script of the project on the synthetic data and returns the finished process."""
    def run(name, *arguments, env=()):
        folders = [f"--log-dir={tmp_path / 'runs'}"] + [f"--data-dir={synthetic}"] * (not name.endswith("3_1_b"))
        return run_script(ROOT / f"{name}.py", *folders, *arguments, cwd=tmp_path, env=env)
    return run


@pytest.fixture
def project(synthetic, tmp_path):
    """A copy of the project for which the synthetic data are the published ones, and two epochs the tasks' own."""
    copy = tmp_path / "project"
    for path in (*ROOT.glob("*.py"), *ROOT.glob("report/*.py")):
        (copy / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy / path.relative_to(ROOT))
    for name, pixels in common.PUBLISHED.items():
        change(copy / "common.py", (f"{pixels:_}", str(int(common.load(name, True, synthetic)[0].sum()))))
    change(copy / "task_3_1_a.py", ("epochs=15,", "epochs=2,"))
    change(copy / "task_3_1_c.py", ("epochs=15,", "epochs=2,"), ("(80, 160, 320)", "(4, 4, 4)"))
    change(copy / "task_3_2_b.py", ("epochs=20,", "epochs=2,"))
    return copy


@pytest.fixture
def run_project(project, synthetic):
    """A function that runs a script of that copy and returns the finished process."""
    return lambda name, *arguments: run_script(project / f"{name}.py", *arguments, "--data-dir", synthetic, cwd=project)
