"""The networks, the data and the measures, checked against what the sheet and the mathematics say."""

import math
import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import common
import what_each_change_brings
from common import ConvNet
from conftest import same_weights
from task_3_1_a import TEMPLATE, LabelledImages, accuracy, random_affine, random_digits, smoothed_cross_entropy
from task_3_1_c import IMPROVED, FashionNet, confusion_matrix, random_clothes
from task_3_2_a import NoisyFashionMNIST
from task_3_2_b import VALIDATION_SEED, EncoderDecoder, UNet, image_l2_norm, score_table
from task_3_2_c import SkipConnection, noise_left
from what_each_bug_does import NeverZeroed, WithoutThirdReLU
from when_the_skip_pays_off import crossing
from why_the_skip_hurts import best_constant, started_near_minus_x, write_identity


@pytest.mark.parametrize("make, parameters, relus, shape", [
    (ConvNet, 6_444_170, 4, (2, 10)), (WithoutThirdReLU, 6_444_170, 3, (2, 10)), (FashionNet, 1_791_770, 0, (2, 10)),
    (EncoderDecoder, 9_585, 5, (2, 1, 28, 28)), (lambda: EncoderDecoder(stride=1), 9_585, 5, (2, 1, 28, 28)),
    (UNet, 262_297, 10, (2, 1, 28, 28)), (SkipConnection, 9_585, 5, (2, 1, 28, 28))])
def test_networks_have_the_recorded_size_and_bug_1_lacks_a_relu(make, parameters, relus, shape):
    network, images = make(), torch.rand(2, 1, 28, 28)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert sum(isinstance(layer, nn.ReLU) for layer in network.modules()) == relus
    assert network(images).shape == shape
    if make is EncoderDecoder:
        assert network.encoder(images).shape == (2, 16, 7, 7)
    if make is SkipConnection:  # equation (3)
        assert torch.equal(network(images), images + network.network(images))


@pytest.mark.parametrize("network, zeroed", [(ConvNet, True), (NeverZeroed, False)])
def test_training_is_the_usual_loop_and_bug_2_the_one_without_zero_grad(images, make_args, network, zeroed):
    """14 images in batches of 4: the last batch of 2 counts half in the mean loss."""
    loader, losses = common.batches(LabelledImages(images[:14], torch.arange(14) % 10), 4), []
    torch.manual_seed(0)
    network, plain = network(), ConvNet()
    plain.load_state_dict({key: value for key, value in network.state_dict().items() if key in plain.state_dict()})
    optimizer, scheduler = common.make_optimizer(network, TEMPLATE, len(loader))
    means = common.train_epoch(network, loader, {"loss": TEMPLATE.loss}, optimizer, scheduler, make_args())
    adam = torch.optim.Adam(plain.parameters(), TEMPLATE.lr, fused=True)
    for inputs, labels in loader:
        if zeroed:
            adam.zero_grad()
        loss = TEMPLATE.loss(plain(inputs), labels)
        loss.backward()
        adam.step()
        losses += [loss.item()] * len(labels)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(network.parameters(), plain.parameters()))
    assert means["loss"] == pytest.approx(sum(losses) / 14, rel=1e-4)


def test_written_down_weights_give_minus_x_and_a_start_near_them_nearly():
    network, noisy = EncoderDecoder(), 2 * torch.rand(3, 1, 28, 28)
    write_identity(network, factor=-1)
    assert torch.equal(network(noisy), -noisy)
    torch.manual_seed(0)
    first, second = started_near_minus_x(), started_near_minus_x()
    assert 0 < SkipConnection(lambda: first)(noisy).abs().mean() < 0.2 and not same_weights(first, second)


def test_the_ablation_leads_from_the_template_to_the_improved_network():
    """With all changes, its variant differs from FashionNet in the width alone."""
    rows = list(what_each_change_brings.NETWORKS.values())
    assert replace(rows[0], epochs=TEMPLATE.epochs) == TEMPLATE
    assert replace(rows[-1], epochs=IMPROVED.epochs) == IMPROVED
    variant, improved = (re.sub(r"\d{2,}", "", str(network)) for network in (rows[-2].network(), FashionNet()))
    assert variant.replace("Variant", "FashionNet") == improved


def test_measures_by_hand():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 1.0]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 1])) == 75  # in percent, not a count
    logits = 100 * torch.eye(10)[3:4]  # -log p: 0 for class 3, 100 for the nine others, each with a target of 0.01
    assert smoothed_cross_entropy(logits, torch.tensor([3])) == pytest.approx(9)
    outputs = torch.tensor([[[[3.0, 4.0]]], [[[6.0, 8.0]]]])
    assert image_l2_norm(outputs, torch.zeros_like(outputs)) == 7.5  # equation (2): a mean of norms
    confusion = confusion_matrix(torch.tensor([1, 1, 3]), torch.tensor([2, 2, 3]))
    assert confusion[2, 1] == 2 and confusion[3, 3] == 1 and confusion.sum() == 3  # rows are the true classes
    assert best_constant(torch.tensor([0, 0, 0, 0.5, 1.0])) == pytest.approx(0.3)
    assert common.mean_std([99.0, 98.0, 100.0]) == "99.00 ± 1.00"  # n - 1 in the denominator
    assert common.mean_std([0.5], digits=1) == "0.5"
    assert common.table(("", "MAE"), ("denoiser", "0.05 ± 0.01"), ("X", "0.5")) == [
        "                    MAE", "denoiser    0.05 ± 0.01", "X                   0.5"]
    nested = partial(SkipConnection, network=partial(EncoderDecoder, channels=32))  # settings are saved as texts
    assert common.name_of(nested) == "SkipConnection(network=EncoderDecoder(channels=32))"
    assert list(map(common.name_of, (ConvNet, 1e-3, None))) == ["ConvNet", "0.001", "None"]


def test_score_table_crossing_and_noise_left_by_hand():
    """Errors 2 and 4 in the background, 0.5 and 0.1 on the garment; clamped to [0, 1], 0, 1, 0.5 and 0.1."""
    clean = torch.tensor([0, 0, 0.5, 1]).reshape(1, 1, 2, 2)
    outputs = torch.tensor([-2, 4, 1, 0.9]).reshape(1, 1, 2, 2)
    header, one, two = score_table({"one": [outputs], "two": [clean + 2, clean + 4]}, clean)
    assert header.split() == ["MAE", "background", "garments", "clamped", "MSE", "PSNR", "in", "dB"]
    mse = (2 ** 2 + 4 ** 2 + 0.5 ** 2 + 0.1 ** 2) / 4
    assert one.split() == ["one", "1.6500", "3.0000", "0.3000", "0.4000", f"{mse:.5f}", f"{-10 * math.log10(mse):.2f}"]
    assert two.count("3.0000 ± 1.4142") == 3
    without = [1.0] * 7  # at the amplitudes 0.05, 0.1, 0.15, 0.2, 0.3, 0.5 and 1
    assert crossing(without, [0.0, 0, 0, 0, 4, 5, 6]) == pytest.approx(0.225)  # gaps of -1 at 0.2 and of 3 at 0.3
    for never_twice_or_down in ([2.0] * 7, [0.0] * 7, [0.0, 2, 0, 2, 2, 2, 2], [2.0, 2, 2, 2, 0, 0, 0]):
        assert math.isnan(crossing(without, never_twice_or_down))
    means = torch.rand(1, 1, 7, 7).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    rest = torch.tensor([1.0, -1]).repeat(14)  # stripes, whose mean over 4 x 4 pixels is 0
    image = torch.rand(1, 1, 28, 28)
    assert noise_left(image + 0.5 * means + 0.1 * rest + 3, image + means + rest, image) == pytest.approx([50, 10])


def test_batches_hold_every_image_once_as_floats_from_0_to_1_with_its_label(images):
    images[0, 0, 0, :2] = torch.tensor([0, 255])
    batches = list(common.batches(LabelledImages(images, torch.arange(40)), 7, shuffle=True))
    pixels, labels = map(torch.cat, zip(*batches))
    assert len(batches) == 6 and labels.tolist() != list(range(40)) and sorted(labels.tolist()) == list(range(40))
    assert torch.equal(pixels, images[labels].float() / 255) and (pixels.min(), pixels.max()) == (0, 1)


def test_limit_shortens_the_training_data_and_holdout_never_opens_the_test_set(synthetic, make_args, monkeypatch):
    everything, classes = common.load("MNIST", True, synthetic)
    args = make_args(data_dir=synthetic, limit=7)
    assert [len(part) for split in common.load_split(args) for part in split] == [7, 7, 60, 60]
    args.limit, args.holdout, load = None, True, common.load
    monkeypatch.setattr(common, "load", lambda name, train, data_dir: load(name, train, data_dir) if train else 1 / 0)
    (training, first), (validation, last) = common.load_split(args)
    assert torch.equal(torch.cat([training, validation]), everything) and len(validation) == 40
    assert torch.equal(torch.cat([first, last]), classes)


@pytest.mark.parametrize("augment", [random_digits, random_clothes])
def test_augmentation_keeps_shape_and_range_and_differs_from_image_to_image(images, augment):
    torch.manual_seed(0)
    batch = images[:1].float().repeat(400, 1, 1, 1) / 255
    changed = augment(batch)
    assert changed.shape == batch.shape and changed.min() >= 0 and changed.max() <= 1 + 1e-5
    assert len(changed.unique(dim=0)) > 200 and torch.allclose(random_affine(batch), batch, atol=1e-5)


def test_clothes_are_shifted_by_a_pixel_half_of_them_flipped_and_half_erased_but_digits_never_flipped():
    torch.manual_seed(0)
    points = torch.zeros(400, 1, 28, 28)
    points[..., 10, 5] = 1
    places = [tuple(place) for place in (random_clothes(points) > 0.5).nonzero()[:, 2:].tolist()]
    assert set(places) == {(y, x) for y in (9, 10, 11) for x in (4, 5, 6, 21, 22, 23)}
    assert 0.4 < sum(x > 14 for _, x in places) / len(places) < 0.6
    assert random_digits(points)[..., 14:].max() == 0
    inside = random_clothes(torch.ones(400, 1, 28, 28))[:, 0, 1:-1, 1:-1]  # where no shift by a pixel reaches
    erased = inside.isclose(torch.zeros(()))
    rows, columns = erased.any(dim=2), erased.any(dim=1)
    assert torch.equal(erased, rows[:, :, None] & columns[:, None, :])  # a rectangle
    assert 8 <= max(rows.sum(dim=1).max(), columns.sum(dim=1).max()) <= 11
    assert 0.4 < erased.any(dim=(1, 2)).float().mean() < 0.6


@pytest.mark.parametrize("noise_seed, amplitude", [(None, 1.0), (None, 0.2), (1, 0.2)])
def test_noise_is_uniform_added_and_not_clamped_and_in_validation_fixed(images, noise_seed, amplitude):
    dataset = NoisyFashionMNIST(images, noise_seed, amplitude)
    noisy, clean = dataset[:]
    noise = (noisy - clean) / amplitude
    assert torch.equal(clean, images.float() / 255) and noisy.max() > 1 + 0.9 * amplitude
    assert noise.min() > -1e-5 and noise.max() < 1 + 1e-5
    assert noise.mean() == pytest.approx(1 / 2, abs=0.01) and noise.var() == pytest.approx(1 / 12, abs=0.002)
    for neighbours in (noise[..., 1:] - 1 / 2) * (noise[..., :-1] - 1 / 2), (noise[1:] - 1 / 2) * (noise[:-1] - 1 / 2):
        assert abs(neighbours.mean()) < 0.002  # independent per pixel and per image: equal ones would give 1/12
    assert dataset[3][0].shape == (1, 28, 28) and torch.equal(dataset[[5, 3]][0][1], noisy[3]) == bool(noise_seed)
    assert 1000 * 999_999 + 999 < VALIDATION_SEED < 2 ** 32 - 1  # seeds of training; torch keeps the low 32 bits
