"""What the tests share: small synthetic data, a setup as a script would have it, ways to run scripts."""

import argparse
import hashlib
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side; torch reads it when it is imported

import pytest  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.optim.optimizer import register_optimizer_step_pre_hook  # noqa: E402

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "report")]

import common  # noqa: E402
from child import run_script  # noqa: E402
from common import LabelledImages, Settings  # noqa: E402
from stand_in import write_stand_in  # noqa: E402


class Small(nn.Sequential):
    """A classifier of 28x28 images with batch normalisation."""

    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(196, 10))


class Scale(nn.Module):
    """One weight times the mean of the image: its gradient does not depend on the weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return images.mean(dim=(1, 2, 3)) * self.weight


def mean_output(outputs, targets):
    return outputs.mean()


SETTINGS = Settings(network=Small, loss=F.cross_entropy, epochs=2, batch_size=10, lr=1e-3)


def observed(rates):
    """A hook that appends each step's learning rate and momentum."""
    return register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0])))


def assert_one_line_error(process, text):
    """Exit status 2, one line on standard error that holds `text`, no traceback."""
    assert process.returncode == 2, process.stderr
    assert len(process.stderr.strip().splitlines()) == 1, process.stderr
    assert text in process.stderr


def pytest_addoption(parser):
    parser.addoption("--fire", action="store_true", help="thousands of hostile files and dozens of killed trainings")


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """A folder with both data sets, synthetic: 300 training and 100 test images each."""
    folder = tmp_path_factory.mktemp("data")
    write_stand_in(folder, train=300, test=100)
    return folder


@pytest.fixture
def make_setup(tmp_path):
    """A function that returns the Setup of a training on the CPU that keeps everything in a temporary folder."""
    def make(folder="run", precision="fp32", seeds=(0,), **networks):
        return common.Setup(device=torch.device("cpu"), precision=precision, networks=networks,
                            folder=tmp_path / folder, publishes=False,
                            args=argparse.Namespace(seed=list(seeds), record=False))
    return make


@pytest.fixture
def images():
    return torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (55, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (55,), generator=generator)
    return LabelledImages(images[:35], labels[:35]), LabelledImages(images[35:], labels[35:])


@pytest.fixture
def fit(make_setup, data):
    """A function that trains with settings and a seed, in a folder of its own."""
    def train(settings=SETTINGS, seed=0, data=data, folder=None, on_epoch_end=None, **setup):
        folder = folder or f"{id(object())}-{len(runs)}"
        runs.append(common.fit("net", data, {"accuracy": common.accuracy} if settings.network is Small else {},
                               make_setup(folder, net=settings, **setup), seed, on_epoch_end))
        return runs[-1]
    runs = []
    return train


@pytest.fixture
def script(synthetic, tmp_path):
    """A function that runs a script of the project on the synthetic data and returns the finished process."""

    def run(name, *arguments, data_dir=synthetic, env=()):
        data = () if name.endswith("3_1_b") else ("--data-dir", data_dir)
        return run_script(ROOT / f"{name}.py", *arguments, *data, "--log-dir", tmp_path / "runs", cwd=tmp_path, env=env)

    return run


@pytest.fixture
def project(synthetic, tmp_path):
    """A copy of the project for which the synthetic data are the published ones, and two epochs the task's own."""
    copy = tmp_path / "project"
    copy.mkdir()
    for path in (*ROOT.glob("*.py"), *ROOT.glob("report/*.py")):
        (copy / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(path, copy / path.relative_to(ROOT))
    source = (copy / "common.py").read_text(encoding="utf-8")
    for name, md5 in common.MD5.items():
        content = b"".join(path.read_bytes() for path in common.raw_files(name, synthetic))
        source = source.replace(md5, hashlib.md5(content).hexdigest())
    (copy / "common.py").write_text(source, encoding="utf-8")
    for name, epochs in (("task_3_1_a", 15), ("task_3_2_b", 20)):
        source = (copy / f"{name}.py").read_text(encoding="utf-8")
        assert f"epochs={epochs}," in source
        (copy / f"{name}.py").write_text(source.replace(f"epochs={epochs},", "epochs=2,"), encoding="utf-8")
    return copy


@pytest.fixture(scope="session")
def real_data():
    """The folder with the published data sets; tests that need them are skipped where it is not given."""
    folder = os.environ.get("MLGV_DATA")
    if not folder or not (Path(folder) / "FashionMNIST").is_dir():
        pytest.skip("needs the published data sets: set MLGV_DATA to their folder")
    return Path(folder).resolve()  # the scripts run in another folder
