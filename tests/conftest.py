"""What the tests share: a small drawn data set, options as a script would have them, a way to run a script."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from stand_in import write_stand_in  # noqa: E402


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder with both data sets, drawn: 300 training and 100 test images each."""
    folder = tmp_path_factory.mktemp("data")
    write_stand_in(folder, train=300, test=100)
    return folder


@pytest.fixture
def options(tmp_path):
    """Options of a training run on the CPU that keeps everything in a temporary folder."""
    return Namespace(device=torch.device("cpu"), precision="fp32", epochs=2, batch_size=10, lr=1e-3, seed=[0],
                     limit=None, holdout=False, resume=False, checkpoint_dir=tmp_path, run_dir=tmp_path / "run")


@pytest.fixture
def script(drawn, tmp_path):
    """A function that runs a script of the project on the drawn data and returns the finished process."""

    def run(name, *arguments, data_dir=drawn, **keywords):
        if name in ("task_3_1_a", "task_3_1_c", "task_3_1_d", "task_3_2_a", "task_3_2_b", "task_3_2_c"):
            arguments = (*arguments, "--data-dir", data_dir, "--log-dir", tmp_path / "runs")
        return subprocess.run([sys.executable, ROOT / f"{name}.py", *map(str, arguments)],
                              capture_output=True, text=True, cwd=tmp_path, **keywords)

    return run


@pytest.fixture(scope="session")
def real_data():
    """The folder with the published data sets; tests that need them are skipped where it is not given."""
    folder = os.environ.get("MLGV_DATA")
    if not folder or not (Path(folder) / "FashionMNIST").is_dir():
        pytest.skip("needs the published data sets: set MLGV_DATA to their folder")
    return Path(folder).resolve()  # the scripts run in another folder
