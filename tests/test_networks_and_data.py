"""The networks, the data and the measures, checked against what the sheet and the mathematics say."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

import common
import task_3_1_a
import task_3_1_b
import task_3_1_c
import task_3_2_b
import what_each_change_brings
from common import ConvNet, EncoderDecoder, LabelledImages
from task_3_2_a import NoisyFashionMNIST
from task_3_2_b import UNet
from task_3_2_c import SkipConnection
from what_the_denoiser_keeps import single_pixel_median
from why_the_skip_hurts import write_identity
from what_the_skip_lets_through import singular_values, split_errors


def test_sheets_network_has_the_sheets_size():
    assert common.parameter_count(ConvNet()) == 6_444_170


def is_linear(layers):
    """Whether layers are one affine map: f(a + b) - f(a) - f(b) + f(0) = 0."""
    a, b = torch.randn(2, 4, 32, 28, 28, dtype=torch.float64)
    with torch.no_grad():
        return torch.allclose(layers(a + b) + layers(torch.zeros_like(a)), layers(a) + layers(b))


def test_without_the_third_relu_two_layers_are_one_linear_map():
    """The template's first bug: convolution and linear layer collapse; ConvNet does not have it."""
    network = ConvNet().double()
    third_convolution, relu = network.features[4:]
    flatten, linear = network.classifier[:2]
    assert is_linear(nn.Sequential(third_convolution, flatten, linear))
    assert not is_linear(nn.Sequential(third_convolution, relu, flatten, linear))


@pytest.mark.parametrize("make_network", [EncoderDecoder, UNet, SkipConnection])
def test_denoisers_keep_the_shape_of_the_image(make_network):
    noisy = torch.rand(2, 1, 28, 28)
    assert make_network()(noisy).shape == noisy.shape


def test_encoder_decoder_is_the_sheets_list():
    layers = [module for module in EncoderDecoder().modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]
    assert [type(layer) for layer in layers] == [nn.Conv2d] * 3 + [nn.ConvTranspose2d] * 2 + [nn.Conv2d]
    assert [layer.stride[0] for layer in layers] == [2, 2, 1, 2, 2, 1]
    assert [layer.out_channels for layer in layers] == [16] * 5 + [1]
    assert all(layer.kernel_size == (3, 3) and layer.padding == (1, 1) for layer in layers)


def test_skip_connection_is_equation_3():
    noisy, network = torch.rand(2, 1, 28, 28), SkipConnection()
    assert torch.equal(network(noisy), noisy + network.network(noisy))


def test_output_size_formula():
    task_3_1_b.check_formula()
    assert [task_3_1_b.valid_output_size(size) for size in (3, 4, 5, 28)] == [1, 1, 2, 13]


def test_accuracy_is_in_percent_not_a_count():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 1.0]])
    assert common.accuracy(logits, torch.tensor([0, 1, 1, 1])) == 75


def test_denoising_measures_by_hand():
    clean, outputs = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    outputs[0] = torch.tensor([[3.0, 0.0], [4.0, 0.0]])  # norm 5, mean 7/4; the other image is perfect
    assert task_3_2_b.image_l2_norm(outputs, clean) == 2.5
    header, line = task_3_2_b.score_table({"by hand": [outputs]}, clean)
    assert line.removeprefix("by hand").split() == ["0.8750", "0.2500", "3.12500", "-4.95"]
    assert header.split("  ")[-1].strip() == "PSNR in dB"


def test_score_table_gives_mean_and_standard_deviation_over_seeds():
    clean = torch.zeros(1, 1, 2, 2)
    line = task_3_2_b.score_table({"two seeds": [clean + 0.2, clean + 0.4]}, clean)[1]
    assert "0.3000 ± 0.1414" in line


def test_single_pixel_median_minimises_the_error_by_brute_force():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (30, 1, 4, 4), dtype=torch.uint8)
    images[:20] //= 8  # mostly dark
    clean = images.float() / 255
    for value in (0.05, 0.5, 1.03, 1.6):
        possible = clean[(clean <= value) & (clean >= value - 1)]
        losses = [float((possible - guess).abs().mean()) for guess in torch.arange(256) / 255]
        guess = single_pixel_median(torch.tensor([value]), images)
        assert float((possible - guess).abs().mean()) == pytest.approx(min(losses), abs=1e-6)


def test_singular_values_of_minus_the_identity_are_1():
    network, noisy = EncoderDecoder(), 2 * torch.rand(3, 1, 28, 28)
    write_identity(network, -1)
    assert torch.allclose(singular_values(network, noisy), torch.ones(3, 784))


def test_errors_are_split_into_variance_and_squared_bias():
    torch.manual_seed(0)
    clean = torch.rand(30, 1, 28, 28) * (torch.rand(30, 1, 28, 28) < 0.5)
    variance, bias, mae = split_errors(lambda noisy: noisy, clean)
    assert variance == pytest.approx([1 / 12] * 3, rel=0.03)
    assert bias == pytest.approx([1 / 4] * 3, rel=0.03) and mae == pytest.approx([1 / 2] * 3, rel=0.03)
    variance, bias, mae = split_errors(lambda noisy: torch.zeros_like(noisy), clean)
    assert variance == [0, 0, 0] and bias[1] == mae[1] == 0 and bias[0] == pytest.approx(clean.square().mean())


def test_confusion_matrix_rows_are_the_true_classes():
    confusion = task_3_1_c.confusion_matrix(torch.tensor([1, 1, 3]), torch.tensor([2, 2, 3]))
    assert confusion[2, 1] == 2 and confusion[3, 3] == 1 and confusion.sum() == 3


def test_every_image_draws_its_own_flip_and_shift(images):
    original = images[:1].float().repeat(64, 1, 1, 1)
    torch.manual_seed(0)
    changed = task_3_1_a.random_affine(original, shift=2, flip=True)
    padded = nn.functional.pad(original[:1], (2, 2, 2, 2))
    possible = [crop for image in (padded, padded.flip(-1)) for y in range(5) for x in range(5)
                for crop in [image[..., y:y + 28, x:x + 28]]]
    found = {next(number for number, crop in enumerate(possible) if torch.allclose(image, crop, atol=1e-2))
             for image in changed}
    assert len(found) > 20  # of 50


def test_random_affine_rotates_and_scales_as_torchvision_does(images, monkeypatch):
    image = images[:1].float() / 255
    assert torch.allclose(task_3_1_a.random_affine(image), image, atol=1e-5)
    monkeypatch.setattr(torch, "rand", torch.ones)  # the largest angle and factor
    changed = task_3_1_a.random_affine(image, degrees=20, scale=0.25)
    expected = affine(image, angle=-20, translate=[0, 0], scale=1 / 1.25, shear=0,
                      interpolation=InterpolationMode.BILINEAR)
    assert torch.allclose(changed, expected, atol=0.02)
    assert not torch.allclose(changed, image, atol=0.2)


def test_random_erasing_blackens_a_rectangle_with_probability_one_half():
    torch.manual_seed(0)
    inside = task_3_1_c.random_clothes(torch.ones(400, 1, 28, 28))[:, 0, 1:-1, 1:-1]  # where no shift by a pixel reaches
    erased = inside.isclose(torch.zeros(()))
    rows, columns = erased.any(dim=2), erased.any(dim=1)
    assert torch.equal(erased, rows[:, :, None] & columns[:, None, :])
    assert 3 <= max(rows.sum(dim=1).max(), columns.sum(dim=1).max()) <= 11
    assert 0.4 < erased.any(dim=(1, 2)).float().mean() < 0.6


def test_batches_hold_every_image_once(images):
    labels = torch.arange(40)
    loader = common.batches(LabelledImages(images, labels), 7, shuffle=True)
    seen = [(batch, classes) for batch, classes in loader]
    order = torch.cat([classes for _, classes in seen])
    assert order.tolist() != list(range(40)) and sorted(order.tolist()) == list(range(40))
    assert torch.equal(torch.cat([batch for batch, _ in seen]), images[order].float() / 255)


def test_noise_is_uniform_added_and_not_clamped(images):
    noisy, clean = NoisyFashionMNIST(images).__getitems__(range(40))
    noise = noisy - clean
    assert clean.min() >= 0 and clean.max() <= 1 and noisy.max() > 1.9
    assert noise.min() > -1e-6 and noise.max() < 1 + 1e-6
    assert noise.mean() == pytest.approx(1 / 2, abs=0.01) and noise.var() == pytest.approx(1 / 12, abs=0.002)
    for neighbours in (noise[..., 1:] - 1 / 2) * (noise[..., :-1] - 1 / 2), (noise[1:] - 1 / 2) * (noise[:-1] - 1 / 2):
        assert abs(neighbours.mean()) < 0.002  # independent per pixel and per image: equal ones would give 1/12


def test_training_noise_is_fresh_and_validation_noise_is_fixed(images):
    training, validation = NoisyFashionMNIST(images), NoisyFashionMNIST(images, noise_seed=1)
    assert not torch.equal(training[3][0], training[3][0])
    batch = validation.__getitems__([5, 3])[0]
    torch.manual_seed(99)
    assert torch.equal(validation[3][0], batch[1])
    assert validation[3][0].shape == (1, 28, 28) and validation[3][0].dtype == torch.float32
    assert not torch.equal(validation[3][0] - validation[3][1], validation[5][0] - validation[5][1])


def test_ablation_leads_from_the_sheets_network_to_the_improved_one_without_the_test_set():
    rows = list(what_each_change_brings.NETWORKS.values())
    sheet, improved = task_3_1_c.SHEET, task_3_1_c.IMPROVED
    assert replace(rows[0], epochs=sheet.epochs, holdout=False, momentum=sheet.momentum) == sheet
    assert replace(rows[-1], epochs=improved.epochs, holdout=False) == improved
    assert all(row.holdout and row.epochs == rows[0].epochs for row in rows)


def test_shifted_moves_a_pixel_in_four_directions():
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[0, 0, 1, 14] = 7
    moved = what_each_change_brings.shifted(image, 2).nonzero()[:, [0, 2, 3]].tolist()
    assert sorted(moved) == [[0, 1, 12], [1, 1, 16], [3, 3, 14]]  # upwards, it leaves the image
