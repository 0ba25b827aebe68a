"""What is read, sound, damaged, foreign or hostile: images and checkpoints by the predictor, data sets, downloads."""

import hashlib
import io
import os
import pickle
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

import pytest
import torch
from PIL import Image, ImageChops, ImageOps
from torchvision import datasets

import common
import task_3_1_c
import task_3_1_d
from common import ConvNet, UserError
from conftest import POSIX, ROOT, assert_one_line_error
from synthetic_data import draw_class
from task_3_1_c import FashionNet

pytestmark = pytest.mark.filterwarnings("ignore")  # of Pillow and torch, about damaged files
FIRST, WEIGHTS = "features.0.weight", FashionNet().state_dict()
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def checkpoint_bytes(network=FashionNet, **changes):
    """A checkpoint of a classifier as bytes, with some entries replaced or, where they are None, left out."""
    state = {"settings": {"network": common.name_of(network)}, "data": "FashionMNIST", "seed": 1,
             "command": "python task.py", "date": "2026-01-01", "history": [{"validation": {"accuracy": 12.3}}],
             "weights": network().state_dict()} | changes
    buffer = io.BytesIO()
    torch.save({key: value for key, value in state.items() if value is not None}, buffer)
    return buffer.getvalue()


def load(folder, content):
    """Read bytes as a checkpoint of a classifier."""
    (folder / "net.pt").write_bytes(content)
    return task_3_1_d.load_classifier(folder / "net.pt")


@pytest.mark.parametrize("network, data, label", [(ConvNet, "MNIST", "7"), (FashionNet, "FashionMNIST", "Sneaker")])
def test_a_network_answers_with_the_classes_of_its_data(tmp_path, network, data, label):
    """The template's Softmax(dim=0) gives a single image 1.0 for each class; 500 images are predicted at a time."""
    found, classes, origin = load(tmp_path, checkpoint_bytes(network, data=data))
    assert isinstance(found, network) and classes[7] == label
    assert f"net.pt, {network.__name__} trained on {data}, validation accuracy 12.30 % after epoch 1" in origin
    assert origin.endswith("by `python task.py` (seed 1) on 2026-01-01")
    images = torch.randint(0, 256, (501, 1, 28, 28), dtype=torch.uint8)
    together, alone = task_3_1_d.predict(images, found), task_3_1_d.predict(images[-1:], found)
    assert together.shape == (501, 10) and torch.allclose(together.sum(dim=1), torch.ones(501))
    assert torch.allclose(together[-1:], alone, atol=1e-5) and alone.max() < 1


class MyNet(ConvNet):
    """A network of one's own, with an argument."""

    def __init__(self, classes=10):
        super().__init__()
        self.classifier[3] = torch.nn.Linear(256, classes)


def test_ones_own_network_is_found_by_its_name_and_an_unknown_one_named(tmp_path, monkeypatch):
    """The checkpoint of another variant stays readable: `improved` is a network of NETWORKS and one of BEYOND."""
    for network, name in ((MyNet, "MyNet"), (partial(MyNet, classes=11), "MyNet(classes=11)")):
        content = checkpoint_bytes(network)
        with pytest.raises(UserError, match=re.escape(name) + ".* task_3_1_a.py or task_3_1_c.py"):
            load(tmp_path, content)
        monkeypatch.setitem(task_3_1_c.NETWORKS, "improved", replace(task_3_1_c.IMPROVED, network=network))
        found, _, origin = load(tmp_path, content)
        saved = torch.load(tmp_path / "net.pt", weights_only=True)["weights"]
        assert found.load_state_dict(saved) and f"net.pt, {name} trained on FashionMNIST" in origin
    assert isinstance(load(tmp_path, checkpoint_bytes())[0], FashionNet)


def read(tmp_path, image, name="image.png", **keywords):
    image.save(tmp_path / name)
    return task_3_1_d.read_image(tmp_path / name, **keywords)


@pytest.mark.parametrize("invert, advice", [(False, ""), (True, "out")])
def test_transparent_is_black_a_bright_background_noted_and_no_image_squeezed(tmp_path, invert, advice):
    image = Image.new("RGBA", (28, 28), (255, 255, 255, 0))
    image.paste((40, 40, 40, 255), (10, 10, 18, 18))
    found, note = read(tmp_path, image, invert=invert)
    assert found[0, 14, 14] == (215 if invert else 40) and found[0, :9].max() == 0
    assert note == "converted from 28x28 RGBA"
    for brightness in (20, 230):
        found, note = read(tmp_path, Image.new("L", (40, 20), brightness), invert=invert)
        assert found[0, :7].max() == 0  # padded with black, which is no background of the photo
        assert found[0, 7:21].unique().tolist() == [255 - brightness if invert else brightness]
        assert ("bright background: try it with" + advice + " --invert" in note) == ((brightness == 20) == invert)


@pytest.mark.parametrize("size, background, invert", [
    (280, 0, False), (140, 0, False), (93, 60, False), (140, 255, True), (280, 170, True), (93, 170, True)])
def test_a_photo_is_cropped_to_the_garment_whatever_its_background(tmp_path, size, background, invert):
    """A noisy photo, of which the garment fills the whole width, half or a third, has the pixels of a sharp one."""
    garment = ImageOps.autocontrast(Image.fromarray(draw_class("FashionMNIST", 8)).crop((4, 6, 25, 25)))
    sharp, _ = read(tmp_path, garment.resize((210, 190)))
    photo = Image.new("L", (280, 280))
    photo.paste(garment.resize((size, size * 19 // 21)), (0, 10))
    photo = photo.point(lambda value: background + ((0 if invert else 255) - background) * value / 255)
    photo = ImageChops.add(photo, Image.effect_noise(photo.size, 10), offset=-128)
    found, note = read(tmp_path, photo, invert=invert)
    assert (found.int() - sharp.int()).abs().float().mean() < 20 and note == "converted from 280x280 L"


@pytest.mark.parametrize("invert", [False, True])
def test_an_image_of_28x28_pixels_is_taken_as_it_is(tmp_path, invert):
    """Neither cropped nor stretched: a small, dim garment on a background that is nearly black."""
    image = Image.new("L", (28, 28), 235 if invert else 20)
    image.paste(100, (10, 10, 18, 18))
    found, note = read(tmp_path, image, invert=invert)
    expected = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(1, 28, 28)
    assert torch.equal(found, 255 - expected if invert else expected) and note == ""


def test_the_note_on_a_bright_background_looks_at_the_whole_image(tmp_path):
    """Cropped, a white garment fills the frame; a fully black image has nothing to be cropped to."""
    image = Image.new("L", (100, 100))
    assert read(tmp_path, image)[0].max() == 0 and read(tmp_path, image, invert=True)[0].min() == 255
    image.paste(255, (30, 30, 70, 70))
    found, note = read(tmp_path, image)
    assert found.min() > 250 and note == "converted from 100x100 L"
    found, note = read(tmp_path, image, crop=False)  # a digit keeps its margin
    assert found[0, :7].max() == 0 and found[0, 14, 14] == 255


@pytest.mark.parametrize("mode, scale", [("L", 1), ("I;16", 257), ("F", 1 / 255), ("F", 1.001 / 255), ("F", 1)])
def test_every_depth_is_scaled_to_the_same_256_values(tmp_path, mode, scale):
    pixels = (torch.arange(784) % 256).reshape(28, 28)
    kind = {"L": torch.uint8, "I;16": torch.uint16, "F": torch.float32}[mode]
    image = Image.frombytes(mode, (28, 28), (pixels * scale).to(kind).numpy().tobytes())
    found, note = read(tmp_path, image, "image.tif")
    assert (found[0].int() - pixels).abs().max() <= (mode == "F") and note.startswith("converted") == (mode != "L")


def encoded(kind, image, **options):
    """An image as the bytes of its file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def image_files():
    """Images of all formats and modes that are read: {name: bytes}."""
    base = Image.effect_noise((40, 30), 60)
    images = {f"{kind} {mode}": (kind, base.convert(mode), {}) for kind, modes in {
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"), "GIF": ("L", "P"),
        "BMP": ("1", "L", "RGB"), "TIFF": ("1", "L", "F", "I;16", "CMYK", "RGBA"), "WEBP": ("RGB", "RGBA"),
        "PPM": ("L", "RGB")}.items() for mode in modes}
    images |= {f"{kind} animated": (kind, base, {"save_all": True, "append_images": [base.rotate(90)]})
               for kind in ("GIF", "PNG", "WEBP", "TIFF")}
    images |= {f"PNG {size}": ("PNG", Image.new("L", size, 200), {}) for size in ((1, 1), (20_000, 1), (1, 20_000))}
    images |= {f"PNG {mode} transparent": ("PNG", base.convert(mode), {"transparency": 0}) for mode in ("P", "I;16")}
    return {name: encoded(kind, image, **options) for name, (kind, image, options) in images.items()}


@pytest.mark.parametrize("name, content", list(image_files().items()), ids=list(image_files()))
def test_every_sound_image_is_read_and_a_damaged_one_read_or_refused(tmp_path, name, content):
    (tmp_path / "image").write_bytes(content)
    pixels, _ = task_3_1_d.read_image(tmp_path / "image")
    assert pixels.shape == (1, 28, 28) and pixels.dtype == torch.uint8
    assert pixels.max() > 0 or "20000" in name  # a line of 20,000 pixels is thinner than a pixel of the 28
    random = Random(name)
    for _ in range(8):
        damaged = bytearray(content)
        for _ in range(random.randrange(1, 20)):
            damaged[random.randrange(len(content))] ^= 1 << random.randrange(8)
        (tmp_path / "image").write_bytes(damaged[:random.choice((None, random.randrange(len(content))))])
        try:
            assert task_3_1_d.read_image(tmp_path / "image")[0].shape == (1, 28, 28)
        except UserError as error:
            assert "cannot read" in str(error)


@pytest.mark.parametrize("content, text", [
    (b"", "cannot identify"), (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "formats: PNG, JPEG"),
    (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "formats: PNG, JPEG"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify"),  # not even opened as what it is
    (encoded("PNG", Image.new("1", (8200, 8200))), "more than 67 million pixels"),
    (b"Pf\n1 1\n-1.0\n\0\0\xc0\x7f", "finite")], ids=["empty", "HEIC", "AVIF", "EPS", "huge", "nan"])
def test_what_is_no_image_is_refused(tmp_path, content, text):
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(UserError, match=text):
        task_3_1_d.read_image(tmp_path / "image.png")


def test_patterns_are_expanded_and_options_stand_anywhere(script, tmp_path):
    """As in cmd and PowerShell, which do not expand them. One unreadable file stops no other one."""
    for name in ("a1.png", "a2.png", "photo[1].png", "photo1.png"):
        Image.new("L", (28, 28), 200).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"broken")
    names = ["a*.png", "--invert", "broken.png", "photo[1].png", "none*", ".", tmp_path / "a1.png"]
    process = script("task_3_1_d", *names)
    assert_one_line_error(
        process, "cannot read broken.png as an image", "formats: PNG", "no such file: none*", ". is a folder")
    rows = [line.split("\t") for line in process.stdout.splitlines() if "\t" in line]
    assert rows[0] == ["file", "label", "probability", "runner-up", "probability", "note"]
    assert [row[0] for row in rows[1:]] == ["a1.png", "a2.png", "photo[1].png", str(tmp_path / "a1.png")]
    assert {row[5] for row in rows[1:]} == {""} and all(1 >= float(row[2]) >= float(row[4]) > 0 for row in rows[1:])


def test_the_predictor_needs_neither_torchvision_nor_tensorboard_nor_a_notebooks_backend(tmp_path):
    Image.new("L", (28, 28), 90).save(tmp_path / "grey.png")
    code = ("import runpy, sys; sys.argv = sys.argv[1:]; sys.path[0] = sys.argv.pop(0)\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "print(sorted({'torchvision', 'tensorboard', 'torch.utils.tensorboard'} & set(sys.modules)))")
    process = subprocess.run(
        [sys.executable, "-c", code, ROOT, ROOT / "task_3_1_d.py", "grey.png", "--log-dir", tmp_path], cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "not_installed"}, capture_output=True, text=True)
    assert process.stdout.endswith("\n[]\n"), process.stderr
    assert re.search(r"weights: .*task_3_1_c.pt, FashionNet trained on FashionMNIST, validation accuracy 9\d\.\d\d %"
                     r" after epoch \d+, by `python task_3_1_c.py[^`]*`", process.stdout)
    assert next(tmp_path.rglob("task_3_1_d.png")).stat().st_size > 1000


def test_the_ten_images_run_from_one_to_the_other_and_are_the_sheets(synthetic, tmp_path, monkeypatch):
    """MD5 of the pixels of img00 … img09 as they came with the sheet; they are not made of other data."""
    first, last = torch.zeros(1, 28, 28, dtype=torch.uint8), torch.full((1, 28, 28), 90, dtype=torch.uint8)
    assert task_3_1_d.morph_images(first, last, 10)[:, 0, 0, 0].tolist() == list(range(0, 91, 10))
    assert task_3_1_d.morph_images(first, first + 1, 4)[:, 0, 0, 0].tolist() == [0, 0, 1, 1]  # rounded, not cut off
    monkeypatch.setattr(task_3_1_d, "SAMPLES", [tmp_path / f"img{i:02}.png" for i in range(10)])
    with pytest.raises(UserError, match="another Fashion-MNIST: put the published.* as img00.png to img09.png"):
        task_3_1_d.make_samples(synthetic)
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(UserError, match="(?s)refused.*: put the published.* as img00.png to img09.png") as caught:
        task_3_1_d.make_samples(tmp_path)
    assert "synthetic_data" not in str(caught.value)  # would be refused
    assert not any(path.exists() for path in task_3_1_d.SAMPLES)
    if not os.environ.get("MLGV_DATA"):
        pytest.skip("the rest needs the published data sets: set MLGV_DATA to their folder")
    task_3_1_d.make_samples(os.environ["MLGV_DATA"])
    pixels = b"".join(Image.open(path).tobytes() for path in task_3_1_d.SAMPLES)
    assert hashlib.md5(pixels).hexdigest() == "9916c9eb14eec63974455f4775db1501"


@pytest.mark.parametrize("change", [
    {"data": None}, {"command": None}, {"date": None}, {"seed": None}, {"settings": ["FashionNet"]}, {"settings": {}},
    {"settings": {"network": ["FashionNet"]}}, {"settings": {"network": "EncoderDecoder"}}, {"data": "CIFAR10"},
    {"history": 3}, {"history": []}, {"history": [{"validation": {"MAE": 0.1}}]}, {"weights": [1]},
    {"weights": ConvNet().state_dict()}, {"weights": WEIGHTS | {FIRST: "text"}},
    {"weights": WEIGHTS | {FIRST: torch.zeros(3)}}, {"weights": WEIGHTS | {FIRST: torch.zeros(1).expand(10 ** 12)}},
    {"weights": WEIGHTS | {FIRST: torch.full((80, 1, 3, 3), float("nan"))}},
    {"weights": WEIGHTS | {FIRST: torch.full((80, 1, 3, 3), 1e300, dtype=torch.float64)}}],
    ids=lambda change: next(iter(change)))
def test_foreign_checkpoints_and_weights_that_are_not_finite_are_refused(tmp_path, change):
    with pytest.raises(UserError, match="net.pt"):
        load(tmp_path, checkpoint_bytes(**change))


class Hostile:
    """A pickle that creates a file in the current folder when it is loaded as code."""

    def __reduce__(self):
        return open, ("trace", "w")


def test_no_code_from_a_checkpoint_runs(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside, buffer = checkpoint_bytes(settings={"network": Hostile()}), io.BytesIO()
    torch.save(Hostile(), buffer)
    for content in (pickle.dumps(Hostile()), buffer.getvalue(), b"", inside[:-1000], inside):
        with pytest.raises(UserError, match="damaged or not a checkpoint of this project"):
            load(tmp_path, content)
    assert_one_line_error(script("task_3_1_d", "net.pt", "--checkpoint", "net.pt"), "net.pt is damaged or not a")
    assert not (tmp_path / "trace").exists()


def idx(*counts, value=0):
    """A file of bytes in the IDX format."""
    content = bytes([value]) * torch.Size(counts).numel()
    return struct.pack(f">4B{len(counts)}I", 0, 0, 8, len(counts), *counts) + content


@pytest.mark.parametrize("name, content, cause", [
    (IMAGES, idx(240, 28, 28)[:-9], "size 188151"), (LABELS, b"", ""), (LABELS, None, "refused"),
    (LABELS, idx(240, value=11), "a label of 0 to 9"), (LABELS, idx(239), "28x28 pixels with a label"),
    (IMAGES, idx(240, 14, 56), "28x28 pixels")], ids=["cut off", "empty", "folder", "label 11", "too few", "14x56"])
def test_damaged_data_name_the_files_to_put_there_and_nothing_is_to_be_deleted(
        synthetic, tmp_path, monkeypatch, name, content, cause):
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])  # a missing file would be downloaded
    raw = shutil.copytree(synthetic / "MNIST", tmp_path / "MNIST") / "raw"
    (raw.parent / "processed").mkdir()  # an old torchvision's, and an archive: not read
    (raw / f"{IMAGES}.gz").write_bytes(b"\x1f\x8b damaged")
    assert len(common.load("MNIST", True, tmp_path)[0]) == 240
    (raw / name).unlink()
    if content is None:
        (raw / name).mkdir()
    else:
        (raw / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        common.load("MNIST", True, tmp_path)
    message = str(caught.value)
    assert message.startswith("MNIST cannot be read or downloaded (") and cause in message
    for text in (str(raw), "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "tests/synthetic_data.py synthetic"):
        assert text in message
    assert "delete" not in message and "remove" not in message


def test_damaged_data_and_no_network_are_one_line(script, synthetic, tmp_path):
    raw = shutil.copytree(synthetic / "MNIST", tmp_path / "MNIST") / "raw"
    (raw / IMAGES).write_bytes(b"damaged")
    assert_one_line_error(script("task_3_1_a", "--data-dir", tmp_path), "MNIST cannot be read", f"into {raw}")
    (raw / LABELS).unlink()
    proxies = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    process = script("task_3_1_a", "--data-dir", tmp_path, env=proxies)
    assert_one_line_error(process, "refused", str(raw), "tests/synthetic_data.py synthetic")


class Handler(BaseHTTPRequestHandler):
    """Answers as its server says: (seconds, status, content)."""

    def do_GET(self):
        seconds, status, content = self.server.answer
        time.sleep(seconds)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)


@POSIX
@pytest.mark.parametrize("answer, text", [
    ((0, 403, b""), "HTTP Error 403: Forbidden"), ((0, 200, b"<html>please log in</html>"), "corrupted"),
    ((0, 200, bytes(300_000)), "File too large"), ((1, 200, b""), "timed out")],
    ids=["403", "login page", "full disk", "hangs"])
def test_a_failed_download_names_its_cause(monkeypatch, tmp_path, answer, text):
    """No file may be larger than 200,000 bytes here, as on a full disk; the limit of 30 seconds is half of one."""
    import resource
    real, limits = socket.setdefaulttimeout, resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(socket, "setdefaulttimeout", lambda seconds: real(seconds / 60))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answer = answer
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        try:
            with pytest.raises(UserError) as caught:
                common.load("MNIST", True, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            real(None)
            server.shutdown()
    message = str(caught.value)
    assert message.startswith("MNIST cannot be read or downloaded (") and text in message
    assert "synthetic_data.py" in message and "delete" not in message
