"""The networks, the data and the measures, checked against what the sheet and the mathematics say."""

import pytest
import torch
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

import common
import task_3_1_b
import task_3_1_c
import task_3_2_b
import task_3_2_c
from common import ConvNet, EncoderDecoder, FashionNet, LabelledImages
from task_3_2_a import NoisyFashionMNIST
from task_3_2_b import UNet
from task_3_2_c import Skip


@pytest.fixture
def images():
    return torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_sheets_network_has_the_sheets_size():
    assert common.parameter_count(ConvNet()) == 6_444_170


def test_improved_network_is_small():
    assert common.parameter_count(FashionNet()) < 2_000_000


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


@pytest.mark.parametrize("make_network", [EncoderDecoder, UNet, lambda: Skip(EncoderDecoder())])
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
    noisy, network = torch.rand(2, 1, 28, 28), EncoderDecoder()
    assert torch.equal(Skip(network)(noisy), noisy + network(noisy))


def test_output_size_formula():
    task_3_1_b.check_formula()
    assert [task_3_1_b.valid_output_size(size) for size in (3, 4, 5, 28)] == [1, 1, 2, 13]


def test_layer_list_has_names_types_and_shapes():
    rows = task_3_1_b.layers(ConvNet(), torch.zeros(1, 1, 28, 28))
    assert rows[0] == ("features.0", "Conv2d", [1, 32, 28, 28])
    assert rows[-1] == ("classifier.3", "Linear", [1, 10])
    assert len(rows) == 10


def test_accuracy_is_a_share_not_a_count():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 1.0]])
    assert common.accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75


def test_denoising_measures_by_hand():
    clean, outputs = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    outputs[0] = torch.tensor([[3.0, 0.0], [4.0, 0.0]])  # norm 5, mean 7/4; the other image is perfect
    assert task_3_2_b.image_l2_norm(outputs, clean) == 2.5
    mae, clamped, mse, psnr = task_3_2_b.scores(outputs, clean)
    assert (mae, clamped, mse) == (7 / 8, 2 / 8, 25 / 8)
    assert psnr == pytest.approx(-4.9485, abs=1e-4)


def test_noise_left():
    clean = torch.rand(20, 1, 28, 28)
    noisy = clean + torch.rand(clean.shape)
    assert task_3_2_c.noise_left(noisy, noisy, clean) == pytest.approx(1, abs=1e-4)
    assert task_3_2_c.noise_left(clean, noisy, clean) == 0
    assert task_3_2_c.noise_left(clean + (noisy - clean) / 4, noisy, clean) == pytest.approx(1 / 4, abs=1e-4)


def test_crossing_of_two_curves():
    assert task_3_2_c.crossing((0, 1, 2), (1, 1, 1), (0, 0.5, 1.5)) == 1.5
    assert task_3_2_c.crossing((0, 1), (1, 1), (2, 3)) is None


def test_confusion_matrix_rows_are_the_true_classes():
    confusion = task_3_1_c.confusion_matrix(torch.tensor([1, 1, 3]), torch.tensor([2, 2, 3]))
    assert confusion[2, 1] == 2 and confusion[3, 3] == 1 and confusion.sum() == 3


def test_every_image_draws_its_own_flip_and_shift(images):
    original = images[:1].float().repeat(64, 1, 1, 1)
    torch.manual_seed(0)
    changed = common.random_affine(original, shift=2, flip=True)
    padded = nn.functional.pad(original[:1], (2, 2, 2, 2))
    possible = [crop for image in (padded, padded.flip(-1)) for y in range(5) for x in range(5)
                for crop in [image[..., y:y + 28, x:x + 28]]]
    found = {next(number for number, crop in enumerate(possible) if torch.allclose(image, crop, atol=1e-2))
             for image in changed}
    assert len(found) > 20  # of 50


def test_random_affine_turns_and_scales_as_torchvision_does(images, monkeypatch):
    image = images[:1].float() / 255
    assert torch.allclose(common.random_affine(image), image, atol=1e-5)
    monkeypatch.setattr(torch, "rand", torch.ones)  # the largest angle and factor
    changed = common.random_affine(image, degrees=20, scale=0.25)
    expected = affine(image, angle=-20, translate=[0, 0], scale=1 / 1.25, shear=0,
                      interpolation=InterpolationMode.BILINEAR)
    assert torch.allclose(changed, expected, atol=0.02)
    assert not torch.allclose(changed, image, atol=0.2)


def test_augmentation_cuts_a_rectangle_into_about_every_second_image():
    torch.manual_seed(0)
    inside = task_3_1_c.augment(torch.ones(400, 1, 28, 28))[:, 0, 1:-1, 1:-1]  # where no shift by a pixel reaches
    holes = inside.isclose(torch.zeros(()))
    rows, columns = holes.any(dim=2), holes.any(dim=1)
    assert torch.equal(holes, rows[:, :, None] & columns[:, None, :])
    assert 3 <= max(rows.sum(dim=1).max(), columns.sum(dim=1).max()) <= 11
    assert 0.4 < holes.any(dim=(1, 2)).float().mean() < 0.6


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
    assert abs((noise[:, 0, 0, 0] - noise[:, 0, 0, 1]).mean()) > 0  # each pixel has its own


def test_training_noise_is_fresh_and_validation_noise_is_fixed(images):
    training, validation = NoisyFashionMNIST(images), NoisyFashionMNIST(images, noise_seed=1)
    assert not torch.equal(training[3][0], training[3][0])
    batch = validation.__getitems__([5, 3])[0]
    torch.manual_seed(99)
    assert torch.equal(validation[3][0], batch[1])
    assert validation[3][0].shape == (1, 28, 28) and validation[3][0].dtype == torch.float32
    assert not torch.equal(validation[3][0] - validation[3][1], validation[5][0] - validation[5][1])


def test_noise_amplitude(images):
    noisy, clean = NoisyFashionMNIST(images, amplitude=0.2).__getitems__(range(40))
    assert 0.19 < (noisy - clean).max() < 0.2001
