"""Hostile files, killed trainings, full disks, several at once: the long version runs with `pytest --fire`."""

import gzip
import hashlib
import io
import os
import pickle
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision import datasets  # noqa: F401  it is slow, which is not the hostile file's fault

import common
import task_3_1_d
from child import run_script
from common import FashionNet, UserError
from conftest import ROOT, assert_one_line_error

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and file systems")


@pytest.fixture(autouse=True)
def memory_stays_below_two_gigabytes():
    yield
    if sys.platform == "linux":
        import resource
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 2 ** 20  # KiB


@pytest.fixture
def rounds(request):
    """How many inputs of a kind are tried: (short, long) to one of the two."""
    return lambda short, long: long if request.config.getoption("--fire") else short


def quietly(function, *arguments):
    """What a function returns, or None where it ends in a UserError; any other exception fails the test."""
    start = time.perf_counter()
    try:
        return function(*arguments)
    except UserError as error:
        assert str(error).strip()
    finally:
        assert time.perf_counter() - start < 10


def mutate(content, rng):
    """Bytes with some flipped, cut off, doubled or replaced."""
    content = bytearray(content)
    kind = rng.randrange(4)
    if kind == 0:
        for _ in range(rng.randrange(1, 20)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[rng.randrange(len(content)):]
    elif kind == 2:
        start = rng.randrange(len(content))
        content[start:start] = content[start:start + rng.randrange(1, 100)]
    else:
        start = rng.randrange(len(content))
        content[start:start + 8] = rng.randbytes(8)
    return bytes(content)


def image_files():
    """Images of all formats and modes that are read: {name: bytes}."""
    base, files = Image.effect_noise((40, 30), 60), {}
    for kind, modes in {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"),
                        "GIF": ("L", "P"), "BMP": ("1", "L", "RGB"), "TIFF": ("1", "L", "F", "I;16", "CMYK", "RGBA"),
                        "WEBP": ("RGB", "RGBA"), "PPM": ("L", "RGB")}.items():
        for mode in modes:
            buffer = io.BytesIO()
            base.convert(mode).save(buffer, kind)
            files[f"{kind} {mode}"] = buffer.getvalue()
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        base.save(buffer, kind, save_all=True, append_images=[base.rotate(90), base.rotate(180)])
        files[f"{kind} animated"] = buffer.getvalue()
    for size in ((1, 1), (20_000, 1), (1, 20_000)):
        buffer = io.BytesIO()
        Image.new("L", size, 200).save(buffer, "PNG")
        files[f"PNG {size}"] = buffer.getvalue()
    return files


@pytest.mark.parametrize("name, content", list(image_files().items()))
def test_every_sound_image_is_read(tmp_path, name, content):
    (tmp_path / "image").write_bytes(content)
    pixels, _ = task_3_1_d.read_image(tmp_path / "image")
    assert pixels.shape == (1, 28, 28) and pixels.dtype == torch.uint8
    assert pixels.max() > 0 or "20000" in name  # a line of 20,000 pixels is thinner than a pixel of the 28


def test_a_damaged_image_is_read_or_refused(tmp_path, rounds):
    rng, files = random.Random(0), list(image_files().values())
    for number in range(rounds(150, 3000)):
        (tmp_path / "image").write_bytes(mutate(files[number % len(files)], rng))
        result = quietly(task_3_1_d.read_image, tmp_path / "image")
        assert result is None or result[0].shape == (1, 28, 28)


def checkpoint_bytes(weights=None, **state):
    """A checkpoint of the improved network as bytes, with some entries replaced."""
    network = FashionNet()
    buffer = io.BytesIO()
    torch.save({"settings": {"network": "FashionNet"}, "weights": weights or network.state_dict(), "history": []} | state,
               buffer)
    return buffer.getvalue()


def test_a_damaged_checkpoint_is_read_or_refused(tmp_path, rounds):
    """Flips near the pickle and the zip's directory, where they hurt; one in a weight itself cannot be noticed."""
    rng, content = random.Random(0), checkpoint_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = archive.getinfo("archive/data.pkl" if "archive/data.pkl" in archive.namelist()
                                else archive.namelist()[0]).header_offset
    for _ in range(rounds(40, 2000)):
        damaged = bytearray(content)
        kind = rng.randrange(3)
        if kind == 0:
            for _ in range(rng.randrange(1, 8)):
                damaged[start + rng.randrange(6000)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            for _ in range(rng.randrange(1, 8)):
                damaged[-1 - rng.randrange(4000)] ^= 1 << rng.randrange(8)
        else:
            del damaged[rng.randrange(len(damaged)):]
        (tmp_path / "net.pt").write_bytes(damaged)
        network = quietly(task_3_1_d.load_classifier, tmp_path / "net.pt")
        if network:
            assert all(values.isfinite().all() for values in network.state_dict().values())


class Hostile:
    """A pickle that creates a file when it is loaded as code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def strange_weights(first):
    """What may stand in place of a weight tensor: (name, value)."""
    yield "another shape", torch.zeros(3)
    yield "not a number", torch.full_like(first, float("nan"))
    yield "infinite", torch.full_like(first, float("inf"))
    yield "overflowing", torch.full_like(first, 1e300, dtype=torch.float64)
    yield "a string", "weights"
    yield "a list", [1.0, 2.0]
    yield "None", None
    yield "on the meta device", torch.empty_like(first, device="meta")
    yield "sparse", torch.ones_like(first).to_sparse()
    yield "complex", torch.ones_like(first, dtype=torch.complex64)
    yield "of integers", torch.ones_like(first, dtype=torch.int64)
    yield "expanded, of a huge declared size", torch.zeros(1).expand(10 ** 12)


@pytest.mark.parametrize("name, value", list(strange_weights(FashionNet().features[0].weight.detach())))
def test_strange_weights_are_refused(tmp_path, name, value):
    weights = FashionNet().state_dict() | {"features.0.weight": value}
    (tmp_path / "net.pt").write_bytes(checkpoint_bytes(weights))
    with pytest.raises(UserError):
        task_3_1_d.load_classifier(tmp_path / "net.pt")


@pytest.mark.parametrize("state", [
    {"settings": ["FashionNet"]}, {"settings": None}, {"settings": {"network": ["FashionNet"]}},
    {"settings": {"network": {"FashionNet": 1}}}, {"settings": {"network": 7}}, {"settings": {}},
    {"weights": [1]}, {"weights": None}, {"history": 3}], ids=str)
def test_strange_settings_are_refused(tmp_path, state):
    torch.save({"settings": {"network": "FashionNet"}, "weights": {}, "history": []} | state, tmp_path / "net.pt")
    with pytest.raises(UserError):
        task_3_1_d.load_classifier(tmp_path / "net.pt")


def test_no_code_from_a_checkpoint_runs(tmp_path):
    trace = tmp_path / "trace"
    (tmp_path / "pickle").write_bytes(pickle.dumps(Hostile(trace)))
    torch.save(Hostile(trace), tmp_path / "torch")
    torch.save({"settings": {"network": Hostile(trace)}, "weights": {}, "history": []}, tmp_path / "inside")
    for name in ("pickle", "torch", "inside"):
        with pytest.raises(UserError):
            task_3_1_d.load_classifier(tmp_path / name)
    assert not trace.exists()


def test_a_damaged_idx_file_is_read_or_refused(synthetic, tmp_path, rounds):
    """Damage to pixels and to labels that stay within 0 to 9 cannot be noticed; all else ends in one line."""
    rng = random.Random(0)
    shutil.copytree(synthetic / "MNIST", tmp_path / "MNIST")
    raw = tmp_path / "MNIST" / "raw"
    for _ in range(rounds(100, 2000)):
        path = raw / rng.choice(("train-images-idx3-ubyte", "train-labels-idx1-ubyte"))
        content = path.read_bytes()
        header = bytearray(content)
        for _ in range(rng.randrange(1, 4)):
            header[rng.randrange(16)] ^= 1 << rng.randrange(8)
        path.write_bytes(rng.choice((bytes(header), mutate(content, rng))))
        result = quietly(common.load, "MNIST", True, tmp_path)
        if result:
            images, labels = result
            assert images.shape[1:] == (1, 28, 28) and len(images) == len(labels) and labels.max() <= 9
        path.write_bytes(content)


@pytest.mark.parametrize("counts, shape", [((300,), (28, 28)), ((300, 14, 56), (14, 56)), ((2 ** 31, 28, 28), (28, 28))])
def test_idx_files_of_another_size_are_refused(synthetic, tmp_path, counts, shape):
    shutil.copytree(synthetic / "MNIST", tmp_path / "MNIST")
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(
        struct.pack(f">4B{len(counts)}I", 0, 0, 8, len(counts), *counts) + bytes(300 * shape[0] * shape[1]))
    with pytest.raises(UserError, match="damaged"):
        common.load("MNIST", True, tmp_path)


def test_the_folder_of_an_old_torchvision_is_not_read(synthetic, tmp_path):
    shutil.copytree(synthetic / "MNIST", tmp_path / "MNIST")
    (tmp_path / "MNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(7, 28, 28, dtype=torch.uint8), torch.zeros(7, dtype=torch.int64)),
                   tmp_path / "MNIST" / "processed" / name)
    with pytest.raises(UserError, match="processed"):
        common.load("MNIST", True, tmp_path)


def test_sound_data_that_cannot_be_read_is_not_to_be_deleted(synthetic, tmp_path):
    shutil.copytree(synthetic / "MNIST", tmp_path / "MNIST")
    (tmp_path / ".lock").mkdir()
    with pytest.raises(OSError):
        common.load("MNIST", True, tmp_path)


def test_a_damaged_archive_beside_is_not_read(synthetic, tmp_path):
    shutil.copytree(synthetic / "MNIST", tmp_path / "MNIST")
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b damaged")
    images, _ = common.load("MNIST", True, tmp_path)
    assert len(images) == 300


SMALL = ("--epochs", "4", "--batch-size", "50", "--limit", "100")
TRAININGS = {"task_3_1_a": ("--seed", "0", "1"), "task_3_1_c": (), "task_3_2_b": ("--seed", "0", "1"), "task_3_2_c": ()}


@pytest.fixture(scope="module")
def training(synthetic, tmp_path_factory):
    """A function that gives a script's command for a small training, its undisturbed run's folder and its seconds."""
    def make(script):
        if script not in done:
            folder, start = tmp_path_factory.mktemp(script), time.perf_counter()
            command = [sys.executable, ROOT / f"{script}.py", "--data-dir", synthetic, *SMALL, *TRAININGS[script]]
            subprocess.run([*command, "--log-dir", folder], check=True, capture_output=True)  # as long as the killed ones
            done[script] = command, next(folder.glob("*/*/results.txt")).parent, time.perf_counter() - start
        return done[script]
    done = {}
    return make


def assert_same_run(whole, folder):
    """The one finished run below a folder has the weights and the curves of the undisturbed one, and nothing else."""
    finished = next(path.parent for path in folder.glob("*/*/results.txt"))
    names = [sorted(path.relative_to(run) for path in run.rglob("*") if path.suffix in (".pt", ".tmp"))
             for run in (whole, finished)]
    assert names[0] == names[1] and names[0]
    for path in names[0]:
        first, second = (torch.load(run / path, weights_only=True) for run in (whole, finished))
        assert all(torch.equal(first["weights"][key], second["weights"][key]) for key in first["weights"]), path
        for kind in ("training", "validation"):
            curve = [[(event.step, event.value) for event in EventAccumulator(
                str(run / path.parent / kind)).Reload().Scalars("loss")] for run in (whole, finished)]
            assert [step for step, _ in curve[0]] == [1, 2, 3, 4] and curve[0] == curve[1], path


@POSIX
@pytest.mark.parametrize("script", TRAININGS)
def test_killed_at_random_moments(training, tmp_path, rounds, script):
    """After each SIGKILL the training continues; in the end, weights and curves are those of an undisturbed one."""
    rng, killed, kills = random.Random(script), 0, rounds(script == "task_3_1_a", 15)
    if kills == 0:
        pytest.skip("only with --fire")
    command, whole, duration = training(script)
    resumed = [*command, "--log-dir", tmp_path, "--resume"]
    while killed < kills:
        process = subprocess.Popen(resumed, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            process.wait(rng.uniform(0.4, 1) * duration)  # before that, it imports
            shutil.rmtree(tmp_path / script)  # it came to its end: once more from the beginning
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    assert run_script(*resumed[1:]).returncode == 0
    assert len(list(tmp_path.glob("*/*/settings.json"))) <= kills + 1
    assert_same_run(whole, tmp_path)


KILLED = """
import os, runpy, signal, sys
from tensorboard.summary.writer.record_writer import RecordWriter

kind, number, script, calls = sys.argv[1], int(sys.argv[2]), sys.argv[3], 0
sys.argv, sys.path[0] = sys.argv[3:], os.path.dirname(script)
real = os.fsync, os.replace, RecordWriter.write

def is_now():
    global calls
    calls += 1
    return calls == number

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def fsync(file):
    if is_now():
        os.ftruncate(file, os.fstat(file).st_size // 2)
        die()
    real[0](file)

def rename(*paths):
    if is_now():
        die()
    real[1](*paths)

def write(self, data):
    real[2](self, data)
    if is_now():
        self.flush()
        file = self._writer.fileno() if hasattr(self._writer, "fileno") else os.open(self._writer.filename, os.O_WRONLY)
        os.ftruncate(file, os.fstat(file).st_size - 9)
        die()

if kind == "state":
    os.fsync = fsync
elif kind == "rename":
    os.replace = rename
else:
    RecordWriter.write = write
runpy.run_path(script, run_name="__main__")
"""


@POSIX
@pytest.mark.parametrize("kind, calls", [("state", 6), ("rename", 6), ("curves", 30)])
def test_killed_in_the_middle_of_writing(training, tmp_path, rounds, kind, calls):
    """A state half written, a state written but not renamed, half of a record in TensorBoard's file."""
    rng = random.Random(kind)
    command, whole, _ = training("task_3_2_b")
    for attempt in range(rounds(1, 4)):
        folder = tmp_path / str(attempt)
        for number in (rng.randrange(3, calls), *[rng.randrange(2, 4)] * rounds(False, True)):
            killed = subprocess.run([sys.executable, "-c", KILLED, kind, str(number), *command[1:], "--log-dir", folder,
                                     "--resume"], capture_output=True, text=True)
            assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert run_script(*command[1:], "--log-dir", folder, "--resume").returncode == 0
        assert_same_run(whole, folder)


@pytest.fixture
def mount(tmp_path):
    """A function that mounts a file system below tmp_path; skips where that is not allowed."""
    def make(*arguments):
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("mounting a file system needs root on Linux")
        folder = tmp_path / f"mount{len(mounted)}"
        folder.mkdir()
        if subprocess.run(["mount", *map(str, arguments), folder], capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        mounted.append(folder)
        return folder
    mounted = []
    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_the_last_state(synthetic, tmp_path, mount):
    """A disk that holds one training state of 3.1 a, but not the next one beside it."""
    disk = mount("-t", "tmpfs", "-o", "size=120m", "none")
    process = run_script(ROOT / "task_3_1_a.py", "--data-dir", synthetic, *SMALL, "--log-dir", disk)
    assert_one_line_error(process, "No space left")
    state = next(disk.rglob("checkpoint.pt"))
    assert len(common.load_checkpoint(state)["history"]) == 1 and not list(disk.rglob("*.tmp"))


def test_a_read_only_checkout_works_with_folders_elsewhere(synthetic, tmp_path, project, mount):
    checkout = mount("--bind", "-o", "ro", project)
    command = [checkout / "task_3_2_b.py", "--data-dir", synthetic]
    elsewhere = run_script(*command, "--log-dir", tmp_path / "runs")
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert_one_line_error(run_script(*command), "ead-only")


@POSIX
def test_a_file_replaced_by_a_folder_is_one_line(training, tmp_path):
    command, whole, _ = training("task_3_2_b")
    shutil.copytree(whole, tmp_path / "task_3_2_b" / whole.name)
    run = tmp_path / "task_3_2_b" / whole.name
    (run / "results.txt").unlink()
    checkpoint = next(run.rglob("checkpoint.pt"))
    checkpoint.unlink()
    checkpoint.mkdir()
    assert_one_line_error(run_script(*command[1:], "--log-dir", tmp_path, "--resume"), "checkpoint.pt")


def test_several_at_once_lose_nothing(project, synthetic):
    """Two records into one file at once, the same command twice at once."""
    commands = [("task_3_1_a",), ("task_3_1_a", "--seed", "0", "1", "2"), ("task_3_2_b",), ("task_3_2_b",)]
    processes = [subprocess.Popen([sys.executable, project / f"{script}.py", *options, "--record", "--data-dir",
                                   synthetic], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                 for script, *options in commands]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    assert len(list(project.glob("runs/*/*/results.txt"))) == 4
    for script, *options in commands:
        source = (project / f"{script}.py").read_text(encoding="utf-8")
        compile(source, script, "exec")
        assert source.count(f"# $ {' '.join(['python', f'{script}.py', *options])}\n") == 1
        assert common.load_checkpoint(project / "checkpoints" / f"{script}.pt")["seed"] == 0
    assert all(Image.open(path).width > 100 for path in (project / "report" / "figures").iterdir())
    assert not list(project.rglob("*.tmp"))


DOWNLOAD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import common
from torchvision import datasets
datasets.MNIST.mirrors = [sys.argv[2]]
datasets.MNIST.resources = [tuple(pair.split("=")) for pair in sys.argv[4:]]
common.load("MNIST", True, Path(sys.argv[3]))
"""


def test_two_scripts_started_together_download_once(synthetic, tmp_path):
    asked, served, md5s = [], tmp_path / "served", []
    served.mkdir()
    for path in (synthetic / "MNIST" / "raw").iterdir():
        content = gzip.compress(path.read_bytes())
        (served / f"{path.name}.gz").write_bytes(content)
        md5s.append(f"{path.name}.gz={hashlib.md5(content).hexdigest()}")

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=served)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, "-c", DOWNLOAD, ROOT, f"http://127.0.0.1:{server.server_port}/", tmp_path / "data", *md5s]
        processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        errors = [process.communicate()[1] for process in processes]
        server.shutdown()
    assert [process.returncode for process in processes] == [0, 0], errors
    paths = [f"/{path.name}" for path in served.iterdir()]
    assert sorted(asked) == sorted(paths + paths)  # torchvision asks for the address, then for the content


def test_a_network_that_never_answers_is_one_line(tmp_path, rounds):
    """A proxy that takes the connection and is silent: the time limit is 30 seconds per mirror."""
    if not rounds(False, True):
        pytest.skip("only with --fire: it takes long")
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        process = subprocess.run(
            [sys.executable, ROOT / "task_3_2_a.py", "--data-dir", tmp_path, "--log-dir", tmp_path / "runs"],
            capture_output=True, text=True, timeout=240, env=os.environ | {"http_proxy": proxy, "https_proxy": proxy})
    assert_one_line_error(process, "stand_in.py")


@pytest.mark.parametrize("environment", [
    {"HOME": "/nonexistent", "MPLCONFIGDIR": "/nonexistent/matplotlib"}, {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
    {"PYTHONHASHSEED": "1", "COLUMNS": "20"}], ids=lambda environment: next(iter(environment)))
def test_odd_environments_change_no_weight(training, tmp_path, environment):
    command, whole, _ = training("task_3_2_b")
    process = subprocess.run([*command, "--log-dir", tmp_path], capture_output=True, env=os.environ | environment)
    assert process.returncode == 0, process.stderr
    assert_same_run(whole, tmp_path)
