"""The networks, the data and the measures, checked against what the sheet and the mathematics say."""

import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

import common
import what_each_change_brings
from common import ConvNet, Run
from conftest import same_weights
from task_3_1_a import (
    TEMPLATE, LabelledImages, accuracy, each_seed, random_affine, random_digits, smoothed_cross_entropy)
from task_3_1_c import IMPROVED, FashionNet, confusion_matrix, random_clothes
from task_3_2_a import NoisyFashionMNIST
from task_3_2_b import VALIDATION_SEED, EncoderDecoder, UNet, image_l2_norm, score_table
from task_3_2_c import (
    SkipConnection, best_constant, coarse_and_fine, coarse_noise_left, read_bottleneck, shares_read)
from what_each_bug_does import NeverZeroed, WithoutThirdReLU
from when_the_skip_pays_off import crossing
from why_the_skip_hurts import Variant, started_near, write_identity


@pytest.mark.parametrize("make, parameters, relus, shape", [
    (ConvNet, 6_444_170, 4, (2, 10)), (WithoutThirdReLU, 6_444_170, 3, (2, 10)), (FashionNet, 1_791_770, 0, (2, 10)),
    (EncoderDecoder, 9_585, 5, (2, 1, 28, 28)), (Variant, 9_585, 5, (2, 1, 28, 28)),
    (UNet, 262_297, 10, (2, 1, 28, 28)), (SkipConnection, 9_585, 5, (2, 1, 28, 28))])
def test_networks_have_the_recorded_size_and_bug_1_lacks_a_relu(make, parameters, relus, shape):
    network, images = make(), torch.rand(2, 1, 28, 28)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert sum(isinstance(layer, nn.ReLU) for layer in network.modules()) == relus
    assert network(images).shape == shape
    if make in (EncoderDecoder, Variant):
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
    first, second = started_near(-1), started_near(-1)
    assert 0 < SkipConnection(lambda: first)(noisy).abs().mean() < 0.2 and not same_weights(first, second)


def outline(network):
    """The kind of each layer of a network, its number of parameters and the shape of its output but for the width."""
    images, layers = torch.rand(2, 1, 28, 28), []
    for layer in network.features:
        images = layer(images)
        layers.append((type(layer), len(list(layer.parameters())), images.shape[2:]))
    return layers, network(torch.rand(2, 1, 28, 28)).shape


def test_the_ablation_leads_from_the_template_to_the_improved_network():
    """With all changes, its variant differs from FashionNet in the width alone."""
    rows = list(what_each_change_brings.NETWORKS.values())
    assert replace(rows[0], epochs=TEMPLATE.epochs) == TEMPLATE
    assert replace(rows[-1], epochs=IMPROVED.epochs) == IMPROVED
    assert outline(rows[-2].network()) == outline(FashionNet())


def test_accuracy_is_in_percent():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 1.0]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 1])) == 75


def test_smoothed_cross_entropy_by_hand():
    """-log p is 0 for class 3 and 100 for the nine others, each of which has a target of 0.01."""
    assert smoothed_cross_entropy(100 * torch.eye(10)[3:4], torch.tensor([3])) == pytest.approx(9)


class Known(nn.Module):
    """A classifier with these logits whatever the images."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images):
        return self.logits


def test_an_ensemble_takes_the_largest_mean_softmax(make_args):
    """A majority would get the first image wrong, the mean of the logits the second."""
    networks = [Known([0.1, 0], [5.0, 0]), Known([0.1, 0], [5.0, 0]), Known([0, 9.0], [0, 20.0])]
    runs = [Run(network, [{"validation": {"accuracy": 50.0}}], None) for network in networks]
    validation = torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.tensor([1, 0])
    assert each_seed(runs, validation, make_args()) == ["each seed: 50.00, 50.00, 50.00; their ensemble: 100.00"]
    assert each_seed(runs[:1], validation, make_args()) == []


def test_equation_2_is_a_mean_of_norms():
    outputs = torch.tensor([[[[3.0, 4.0]]], [[[6.0, 8.0]]]])
    assert image_l2_norm(outputs, torch.zeros_like(outputs)) == 7.5


def test_the_rows_of_a_confusion_matrix_are_the_true_classes():
    confusion = confusion_matrix(torch.tensor([1, 1, 3]), torch.tensor([2, 2, 3]))
    assert confusion[2, 1] == 2 and confusion[3, 3] == 1 and confusion.sum() == 3


def test_the_best_constant_is_the_median():
    assert best_constant(torch.tensor([0, 0, 0, 0.5, 1.0])) == pytest.approx(0.3)


def test_mean_and_standard_deviation_as_text():
    assert common.mean_std([99.0, 98.0, 100.0]) == "99.00 ± 1.00"  # n - 1 in the denominator
    assert common.mean_std([0.5], digits=1) == "0.5"


def test_the_columns_of_a_table_are_aligned():
    assert common.table(("", "MAE"), ("denoiser", "0.05 ± 0.01"), ("X", "0.5")) == [
        "                    MAE", "denoiser    0.05 ± 0.01", "X                   0.5"]


def test_settings_as_text_name_functions_and_keywords():
    nested = partial(SkipConnection, network=partial(Variant, channels=32))
    assert common.name_of(nested) == "SkipConnection(network=Variant(channels=32))"
    assert list(map(common.name_of, (ConvNet, 1e-3, None))) == ["ConvNet", "0.001", "None"]


def test_score_table_by_hand():
    """Errors 2 and 4 in the background, 0.5 and 0.1 on the garment; clamped to [0, 1], 0, 1, 0.5 and 0.1."""
    clean = torch.tensor([0, 0, 0.5, 1]).reshape(1, 1, 2, 2)
    outputs = torch.tensor([-2, 4, 1, 0.9]).reshape(1, 1, 2, 2)
    header, one, two = score_table({"one": [outputs], "two": [clean + 2, clean + 4]}, clean)
    assert header.split() == ["MAE", "background", "garments", "clamped", "MSE", "PSNR", "in", "dB"]
    mse = (2 ** 2 + 4 ** 2 + 0.5 ** 2 + 0.1 ** 2) / 4
    assert one.split() == ["one", "1.6500", "3.0000", "0.3000", "0.4000", f"{mse:.5f}", f"{-10 * math.log10(mse):.2f}"]
    assert two.count("3.0000 ± 1.4142") == 3


def test_the_amplitude_of_the_crossing_by_hand():
    without = [1.0] * 7  # at the amplitudes 0.05, 0.1, 0.15, 0.2, 0.3, 0.5 and 1
    assert crossing(without, [0.0, 0, 0, 0, 4, 5, 6]) == pytest.approx(0.225)  # gaps of -1 at 0.2 and of 3 at 0.3
    for never_twice_or_down in ([2.0] * 7, [0.0] * 7, [0.0, 2, 0, 2, 2, 2, 2], [2.0, 2, 2, 2, 0, 0, 0]):
        assert math.isnan(crossing(without, never_twice_or_down))


COARSE = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(0))
BLOCKS = COARSE.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
STRIPES = torch.tensor([1.0, -1]).repeat(14).expand(1, 1, 28, 28)  # their mean over 4 x 4 pixels is 0


def test_coarse_and_fine_part_by_hand():
    coarse, fine = coarse_and_fine(BLOCKS + STRIPES)
    assert torch.allclose(coarse, COARSE) and torch.allclose(fine, STRIPES)


def test_coarse_noise_left_by_hand():
    """Half of the coarse noise; neither the fine noise nor a constant counts."""
    clean = torch.rand(1, 1, 28, 28)
    left = coarse_noise_left(clean + 0.5 * BLOCKS + 0.1 * STRIPES + 3, clean + BLOCKS + STRIPES, clean)
    assert left == pytest.approx(50, abs=0.01)


def test_shares_read_by_hand():
    assert shares_read(BLOCKS + 0.5 * STRIPES, BLOCKS + STRIPES) == pytest.approx([100, 75])
    assert shares_read(0 * BLOCKS, BLOCKS + STRIPES) == [0, 0]


class Noise(nn.Module):
    """An encoder whose features have nothing to do with the images."""

    def forward(self, images):
        return torch.rand(len(images), 16, 7, 7)


def constant():
    """An encoder all of whose ReLUs are dead."""
    return nn.Sequential(nn.Conv2d(1, 16, 4, stride=4), nn.Threshold(1e9, 0))


@pytest.mark.parametrize("encoder, coarse, fine", [
    (nn.PixelUnshuffle(4), 100, 100), (nn.AvgPool2d(4), 100, 0), (constant(), 0, 0), (Noise(), -20, -20)],
    ids=["all pixels", "means over 4 x 4 pixels", "constant", "noise"])
def test_what_is_read_from_a_bottleneck_is_what_its_features_hold(images, make_args, encoder, coarse, fine):
    """On the half of the images on which nothing was fitted: on the other one, noise would seem to hold something."""
    torch.manual_seed(0)
    pairs = NoisyFashionMNIST(images, noise_seed=1)
    read, noisy = read_bottleneck(SimpleNamespace(encoder=encoder), pairs, make_args())
    assert torch.allclose(noisy, pairs[20:][0] - pairs[:20][0].mean(dim=0))
    assert shares_read(read, noisy) == pytest.approx([coarse, fine], abs=10 if isinstance(encoder, Noise) else 2)


def test_the_bottleneck_of_a_network_that_lets_all_of_x_through_is_read_completely(images, make_args):
    network = SkipConnection()
    write_identity(network.network, factor=-1)
    pairs = NoisyFashionMNIST(images, noise_seed=1)
    assert shares_read(*read_bottleneck(network, pairs, make_args())) == pytest.approx([100, 100], abs=0.1)


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


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["labelled", "noisy"])
def test_a_plain_data_loader_reads_every_image_once_with_its_own_target(images, kind, workers):
    """Also through a Subset, in its order, and with worker processes."""
    dataset = {"labelled": LabelledImages(images, torch.arange(40)), "noisy": NoisyFashionMNIST(images, 1)}[kind]
    order = list(range(39, -1, -1))
    for part, expected in ((dataset, dataset[:]), (Subset(dataset, order), dataset[order])):
        batches = list(DataLoader(part, 32, num_workers=workers))
        assert [len(inputs) for inputs, _ in batches] == [32, 8]
        assert all(map(torch.equal, map(torch.cat, zip(*batches)), expected))


@pytest.mark.parametrize("augment", [None, random_digits, random_clothes])
def test_a_single_index_gives_one_pair(images, augment):
    image, label = LabelledImages(images, torch.arange(40), augment)[3]
    assert image.shape == (1, 28, 28) and label.shape == () and label == 3
    assert augment or torch.equal(image, images[3].float() / 255)
    noisy, clean = NoisyFashionMNIST(images)[3]
    assert noisy.shape == (1, 28, 28) and torch.equal(clean, images[3].float() / 255) and (noisy >= clean).all()


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
