"""Hostile files and killed trainings: a short version here, the long one with `pytest --fire tests/test_under_fire.py`."""

import io
import os
import pickle
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import common
import task_3_1_d
from common import FashionNet, UserError
from conftest import ROOT

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


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
@pytest.mark.parametrize("script, options", [
    ("task_3_1_a", ("--seed", "0", "1")), ("task_3_1_c", ()), ("task_3_2_b", ("--seed", "0", "1"))])
def test_killed_at_random_moments(synthetic, tmp_path, rounds, script, options):
    """After each SIGKILL the training continues; in the end, weights and curves are those of an undisturbed one."""
    kills = rounds(2, 18)
    rng = random.Random(script)
    command = [sys.executable, ROOT / f"{script}.py", "--data-dir", synthetic, "--epochs", "4", "--batch-size", "50",
               "--limit", "100", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run([*command, "--log-dir", tmp_path / "whole"], check=True, capture_output=True, env=environment)
    duration = time.perf_counter() - start
    killed = 0
    while killed < kills:
        process = subprocess.Popen([*command, "--log-dir", tmp_path / "killed", "--resume"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, env=environment)
        try:
            process.wait(rng.uniform(0.2, 1) * duration)
            shutil.rmtree(tmp_path / "killed")  # it came to its end: once more from the beginning
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    subprocess.run([*command, "--log-dir", tmp_path / "killed", "--resume"], check=True, capture_output=True,
                   env=environment)
    assert len(list(tmp_path.glob("killed/*/*/settings.json"))) <= kills + 1
    assert not list(tmp_path.rglob("*.tmp"))
    finished = next(path.parent for path in tmp_path.glob("killed/*/*/results.txt"))
    whole = next(tmp_path.glob("whole/*/*/results.txt")).parent
    weights = sorted(path.relative_to(whole) for path in whole.rglob("weights.pt"))
    assert weights
    for path in weights:
        first, second = (torch.load(folder / path, weights_only=True) for folder in (whole, finished))
        assert all(torch.equal(first["weights"][key], second["weights"][key]) for key in first["weights"]), path
        for kind in ("training", "validation"):
            curve = [[(event.step, event.value) for event in EventAccumulator(
                str(folder / path.parent / kind)).Reload().Scalars("loss")] for folder in (whole, finished)]
            assert [step for step, _ in curve[0]] == [1, 2, 3, 4] and curve[0] == curve[1], path
