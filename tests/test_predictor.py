"""The offline predictor: reading images, probabilities, the sheet's ten images."""

import hashlib
import os
import re

import pytest
import torch
from PIL import Image

import common
import task_3_1_d
from common import ConvNet, FashionNet
from conftest import assert_one_line_error


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    network = FashionNet()
    common.save_checkpoint(tmp_path / "net.pt", {
        "settings": {"network": "FashionNet"}, "weights": network.state_dict(), "history": []})
    return tmp_path / "net.pt"


def test_probabilities_sum_to_one_over_the_classes(checkpoint):
    """The template's Softmax(dim=0) gives a single image 1.0 for each class."""
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    network = task_3_1_d.load_classifier(checkpoint)
    together, alone = task_3_1_d.predict(images, network), task_3_1_d.predict(images[:1], network)
    assert together.shape == (3, 10)
    assert torch.allclose(together.sum(dim=1), torch.ones(3)) and torch.allclose(together[:1], alone, atol=1e-5)
    assert alone.max() < 1


def test_prediction_does_not_depend_on_the_batch(checkpoint):
    """In training mode, batch normalisation would mix the images of a batch."""
    images = torch.randint(0, 256, (501, 1, 28, 28), dtype=torch.uint8)
    network = task_3_1_d.load_classifier(checkpoint)
    assert torch.allclose(task_3_1_d.predict(images, network)[-1], task_3_1_d.predict(images[-1:], network)[0], atol=1e-5)


def read(tmp_path, image, name="image.png", **keywords):
    image.save(tmp_path / name)
    return task_3_1_d.read_image(tmp_path / name, **keywords)


def test_a_grey_28x28_image_is_read_as_it_is(tmp_path):
    pixels = torch.arange(784, dtype=torch.int64).remainder(256).byte().reshape(28, 28)
    found, note = read(tmp_path, Image.fromarray(pixels.numpy()))
    assert torch.equal(found[0], pixels) and note == ""


def test_transparent_is_black(tmp_path):
    found, note = read(tmp_path, Image.new("RGBA", (28, 28), (255, 255, 255, 0)))
    assert found.max() == 0 and note == "converted from 28x28 RGBA"
    found, _ = read(tmp_path, Image.new("LA", (28, 28), (200, 255)))
    assert found.min() == 200


def test_16_bits_are_scaled_not_cut_off(tmp_path):
    found, _ = read(tmp_path, Image.new("I;16", (28, 28), 128 * 257))
    assert found.unique().tolist() == [128]


@pytest.mark.parametrize("top", (1, 1.001, 255))
def test_float_images_are_scaled_by_their_range(tmp_path, top):
    values = torch.linspace(0, top, 784)
    found, note = read(tmp_path, Image.frombytes("F", (28, 28), values.numpy().tobytes()), "image.tif")
    expected = (values / top * 255).round().reshape(1, 28, 28)
    assert (found - expected).abs().max() <= 1 and note == "converted from 28x28 F"


def test_float_images_with_nan_are_refused(tmp_path):
    values = torch.linspace(0, 1, 784)
    values[5] = float("nan")
    with pytest.raises(common.UserError, match="finite"):
        read(tmp_path, Image.frombytes("F", (28, 28), values.numpy().tobytes()), "image.tif")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are POSIX's")
def test_a_pipe_is_no_image_and_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read_file in (task_3_1_d.read_image, common.load_checkpoint):
        with pytest.raises(common.UserError, match="no such file"):
            read_file(tmp_path / "pipe")


def test_wide_images_are_padded_not_squeezed(tmp_path):
    found, note = read(tmp_path, Image.new("L", (56, 28), 255))
    assert found[0, 14].min() == 255 and found[0, :6].max() == 0 and note == "converted from 56x28 L"


def test_invert(tmp_path):
    found, _ = read(tmp_path, Image.new("L", (28, 28), 255), invert=True)
    assert found.max() == 0


def test_both_classifiers_are_rebuilt_from_their_checkpoints(checkpoint, tmp_path):
    assert isinstance(task_3_1_d.load_classifier(checkpoint), FashionNet)
    common.save_checkpoint(tmp_path / "base.pt", {
        "settings": {"network": "ConvNet"}, "weights": ConvNet().state_dict(), "history": []})
    network = task_3_1_d.load_classifier(tmp_path / "base.pt")
    assert isinstance(network, ConvNet) and not network.training


def test_the_ten_images_are_the_sheets(real_data, tmp_path, monkeypatch):
    """MD5 of the pixels of img00 … img09 as they came with the sheet."""
    monkeypatch.setattr(task_3_1_d, "SAMPLES", [tmp_path / f"img{i:02}.png" for i in range(10)])
    task_3_1_d.make_samples(real_data)
    pixels = b"".join(Image.open(path).tobytes() for path in task_3_1_d.SAMPLES)
    assert hashlib.md5(pixels).hexdigest() == "9916c9eb14eec63974455f4775db1501"


def test_the_morph_runs_from_one_image_to_the_other():
    first, last = torch.zeros(1, 28, 28, dtype=torch.uint8), torch.full((1, 28, 28), 90, dtype=torch.uint8)
    assert task_3_1_d.morph_images(first, last, 10)[:, 0, 0, 0].tolist() == list(range(0, 91, 10))
    assert task_3_1_d.morph_images(first, first + 1, 4)[:, 0, 0, 0].tolist() == [0, 0, 1, 1]  # rounded, not cut off


def test_the_label_flips_once_along_the_morph_of_the_ten_images(script, real_data):
    ten = script("task_3_1_d", data_dir=real_data).stdout
    rows = [line.split("\t") for line in ten.splitlines() if line.startswith("img")]
    line = script("report/where_the_label_flips", data_dir=real_data).stdout
    (flip, label), = re.findall(r"from a share of the dress of ([\d.]+): (\w+)", line)
    assert "at a share of the dress of 0: Bag" in line and label == "Dress" and 0 < float(flip) < 1
    assert [row[1] for row in rows] == ["Bag" if number / 9 < float(flip) else "Dress" for number in range(10)]
    assert float(rows[0][2]) > 0.5 and float(rows[9][2]) > 0.5


def test_ten_images_cannot_be_made_of_synthetic_data(synthetic, tmp_path, monkeypatch):
    monkeypatch.setattr(task_3_1_d, "SAMPLES", [tmp_path / f"img{i:02}.png" for i in range(10)])
    with pytest.raises(common.UserError, match="published"):
        task_3_1_d.make_samples(synthetic)
    assert not any(path.exists() for path in task_3_1_d.SAMPLES)


def test_the_morph_of_other_data_is_refused(script):
    assert_one_line_error(script("report/where_the_label_flips"), "published")
