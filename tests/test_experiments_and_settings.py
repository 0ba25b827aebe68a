"""The augmentation, the experiments, and what settings and options change."""

import hashlib
import io
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import common
import how_much_skip
import task_3_1_a
import task_3_1_c
import task_3_2_b
import task_3_2_c
from common import EncoderDecoder, FashionNet, LabelledImages, Settings, UserError
from conftest import SETTINGS, Scale, mean_output, observed
from task_3_2_a import NoisyFashionMNIST
from task_3_2_b import UNet
from test_networks_and_data import is_linear
from what_each_bug_does import WithoutThirdReLU
from what_makes_a_good_start import Shuffled
from what_the_skip_lets_through import split_errors
from why_the_skip_hurts import LeakySkipConnection, SkipStartedFromX, StartedFromX, dead_channels, write_identity


@pytest.mark.parametrize("size", ["fine", "middle"])
def test_unet_hands_the_encoders_features_to_the_decoder(size):
    """With the way through the coarser sizes cut off, the encoder still has a part in the output."""
    network = UNet()
    for parameter in getattr(network, f"up_{size}").parameters():
        nn.init.zeros_(parameter)
    network(torch.rand(2, 1, 28, 28)).sum().backward()
    assert getattr(network, f"encode_{size}")[0].weight.grad.abs().sum() > 0


def test_equation_2_is_a_mean_of_norms_not_a_norm_of_all():
    outputs = torch.tensor([[[[3.0, 4.0]]], [[[6.0, 8.0]]]])
    assert task_3_2_b.image_l2_norm(outputs, torch.zeros_like(outputs)) == 7.5


def test_validation_noise_has_the_law_of_the_training_noise(images):
    noisy, clean = NoisyFashionMNIST(images, noise_seed=1, amplitude=0.2)[:]
    noise = noisy - clean
    assert -1e-6 < noise.min() < 0.01 and 0.19 < noise.max() < 0.2001
    assert noise.mean() == pytest.approx(0.1, abs=0.002) and noise.var() == pytest.approx(0.04 / 12, abs=1e-4)


def test_no_training_draws_the_validation_noise():
    highest = 1000 * 999_999 + 999  # of the highest seed that --seed takes, after the most epochs
    assert highest < task_3_2_b.VALIDATION_SEED < 2 ** 63 - 1


def test_half_of_the_images_are_flipped(images):
    torch.manual_seed(0)
    original = images[:1].float().repeat(400, 1, 1, 1)
    changed = task_3_1_a.random_affine(original, flip=True)
    flipped, same = (changed.isclose(other, atol=1e-2).all(dim=(1, 2, 3)) for other in (original.flip(-1), original))
    assert torch.equal(same, ~flipped) and 0.4 < flipped.float().mean() < 0.6
    assert task_3_1_a.random_affine(original).allclose(original, atol=1e-2)


@pytest.mark.parametrize("options", [{"degrees": 20}, {"scale": 0.2}])
def test_every_image_draws_its_own_angle_and_scale(images, options):
    torch.manual_seed(0)
    changed = task_3_1_a.random_affine(images[:1].float().repeat(64, 1, 1, 1), **options)
    assert len(changed.round().unique(dim=0)) > 60


def test_clothes_are_flipped_and_shifted_by_a_pixel_and_digits_are_not_flipped():
    torch.manual_seed(0)
    points = torch.zeros(400, 1, 28, 28)
    points[..., 10, 5] = 1
    places = {tuple(place) for place in (task_3_1_c.random_clothes(points) > 0.5).nonzero()[:, 2:].tolist()}
    assert places == {(y, x) for y in (9, 10, 11) for x in (4, 5, 6, 21, 22, 23)}
    assert task_3_1_a.random_digits(points)[..., 14:].max() == 0


def test_every_image_draws_its_own_rectangle():
    torch.manual_seed(0)
    inside = task_3_1_c.random_clothes(torch.ones(400, 1, 28, 28))[:, 0, 1:-1, 1:-1]
    erased = inside.isclose(torch.zeros(()))
    erased = erased[erased.any(dim=(1, 2))]
    assert len(erased.unique(dim=0)) > 0.9 * len(erased)
    assert all(len(erased.any(dim=dim).sum(dim=1).unique()) > 8 for dim in (1, 2))


def test_label_smoothing_by_hand():
    logits = torch.zeros(1, 10)
    logits[0, 3] = 100  # -log p: 0 for class 3, 100 for the nine others, each with a target of 0.01
    assert task_3_1_a.smoothed_cross_entropy(logits, torch.tensor([3])) == pytest.approx(9)


def test_improved_network_has_the_recorded_size_and_global_max_pooling():
    assert common.parameter_count(FashionNet()) == 1_791_770
    network = FashionNet(widths=(1,))
    network.features, image = nn.Identity(), torch.rand(3, 1, 28, 28)
    assert torch.equal(network(image), network.classifier(image.amax(dim=(2, 3))))


@pytest.mark.parametrize("factor", [-1, 1, 2])
def test_written_down_weights_are_a_multiple_of_the_identity(factor):
    network, noisy = EncoderDecoder(), 2 * torch.rand(3, 1, 28, 28)
    write_identity(network, factor)
    assert torch.equal(network(noisy), factor * noisy)


def test_shuffling_the_bottleneck_moves_pixels_within_their_block():
    torch.manual_seed(0)
    noisy = torch.rand(1, 1, 28, 28)
    blocks = [F.unfold(images, 4, stride=4) for images in (noisy, -Shuffled(noise=0).network(noisy))]
    assert not torch.equal(*blocks) and torch.equal(*(block.sort(dim=1).values for block in blocks))


def test_networks_of_the_experiments_are_what_they_are_called():
    torch.manual_seed(0)
    noisy = 2 * torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        assert (StartedFromX()(noisy) - noisy).abs().mean() < 0.2
        assert SkipStartedFromX()(noisy).abs().mean() < 0.2
        assert (SkipStartedFromX(factor=1)(noisy) - 2 * noisy).abs().mean() < 0.2
        assert how_much_skip.LearnedSkip(start=1.0).gain == 1
        learned = how_much_skip.LearnedSkip()
        for gain in (0, 0.25):
            learned.gain.fill_(gain)
            assert torch.equal(learned(noisy), gain * noisy + learned.network(noisy))
    assert not any(isinstance(layer, nn.ReLU) for layer in LeakySkipConnection().modules())
    bug = WithoutThirdReLU().double()
    assert is_linear(nn.Sequential(bug.features[4:], bug.classifier[:2]))


def test_squared_bias_does_not_hold_the_variance_of_the_mean():
    torch.manual_seed(0)
    variance, bias, _ = split_errors(lambda noisy: noisy - 0.5, torch.rand(30, 1, 28, 28).round())
    assert variance == pytest.approx([1 / 12] * 3, rel=0.03) and bias == pytest.approx([0] * 3, abs=1e-3)


@torch.no_grad()
def test_dead_channels_are_zero_for_all_images():
    network, noisy = EncoderDecoder(), torch.rand(5, 1, 28, 28)
    write_identity(network, 1)
    noisy[0] = 0  # zero for one image is not dead
    assert dead_channels(network, noisy) == 0 and dead_channels(network, noisy[:1]) == 16
    network.encoder[4].bias[:3] = -9
    assert dead_channels(network, noisy) == 3


def test_crossover_by_hand():
    """The amplitudes are 0.05, 0.1, 0.15, 0.2, 0.3, 0.5 and 1: gaps of -1 at 0.2 and of 3 at 0.3 meet at 0.225."""
    without = [1.0] * 7
    assert how_much_skip.crossover(without, [0.0, 0, 0, 0, 4, 5, 6]) == pytest.approx(0.225)
    for never_or_twice in ([2.0] * 7, [0.0] * 7, [0.0, 2, 0, 2, 2, 2, 2], [0.0, 2, 2, 2, 2, 2, 0]):
        assert how_much_skip.crossover(without, never_or_twice) is None


def test_wiener_gains_give_back_their_detail():
    gains = [0.002 / (0.002 + amplitude ** 2 / 12) for amplitude in how_much_skip.AMPLITUDES]
    assert how_much_skip.fit_detail(gains) == pytest.approx(0.002, rel=0.01)


def test_images_are_shown_from_the_best_to_the_worst():
    titles, picks = task_3_2_b.best_to_worst(torch.arange(100.0).flip(0))
    assert picks == [99, 94, 74, 49, 4, 0] and titles[0] == "best\n0.000" and titles[-1] == "worst\n99.000"


def test_validation_covers_all_its_batches(fit, data):
    """601 images: `evaluate` takes 250 at a time."""
    torch.manual_seed(0)
    images, labels = torch.randint(0, 256, (601, 1, 28, 28), dtype=torch.uint8), torch.arange(601) % 10
    run = fit(data=(data[0], LabelledImages(images, labels)))
    assert not run.network.training
    with torch.no_grad():
        logits = run.network(images / 255)
    assert run.outputs.shape == logits.shape and torch.allclose(run.outputs, logits, atol=1e-5)
    last = run.history[-1]["validation"]
    assert last["loss"] == pytest.approx(SETTINGS.loss(logits, labels).item(), rel=1e-5)
    assert last["accuracy"] == pytest.approx(common.accuracy(logits, labels).item())


def test_one_cycle_keeps_a_momentum_that_is_constant(fit):
    steps = []
    hook = observed(steps)
    fit(replace(SETTINGS, momentum=(0.9, 0.9)))
    hook.remove()
    assert [momentum for _, momentum in steps] == pytest.approx([0.9] * 8)


def test_weight_decay_shrinks_the_weights(fit):
    """On black images the gradient is zero: two steps leave (1 - 0.1 · 0.5)² of the weight."""
    black = LabelledImages(torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.zeros(1))
    run = fit(Settings(network=Scale, loss=mean_output, epochs=2, batch_size=1, lr=0.1, weight_decay=0.5,
                       schedule="constant"), data=(black, black))
    assert run.network.weight.item() == pytest.approx(0.95 ** 2)


def test_only_training_images_are_augmented(make_setup, data):
    def count(images):
        seen.append(len(images))
        return images

    seen, split = [], [(part.images, part.labels) for part in data]
    task_3_1_a.train_classifiers(make_setup(net=replace(SETTINGS, augment=count)), *split)
    assert sum(seen) == 1 + 2 * 35  # an image for TensorBoard's graph, then two epochs


class Unchanged(nn.Module):
    """A denoiser that returns its input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.weight * images


def test_denoisers_see_the_noise_of_their_settings(make_setup, tmp_path):
    """Of black images and a network that returns its input, the MAE is half of the amplitude."""
    black = torch.zeros(50, 1, 28, 28, dtype=torch.uint8)
    settings = replace(task_3_2_b.SETTINGS, network=Unchanged, noise=0.2, epochs=2, lr=1e-12)
    history = task_3_2_b.train_denoisers(make_setup(net=settings), black, black)["net"][0].history
    assert all(row[kind]["MAE"] == pytest.approx(0.1, abs=0.002) for row in history for kind in ("training", "validation"))
    assert history[0]["validation"] == history[1]["validation"]  # one fixed draw
    assert abs(history[0]["training"]["MAE"] - history[1]["training"]["MAE"]) > 1e-6  # fresh draws
    for kind in ("training", "validation"):
        events = EventAccumulator(str(tmp_path / "run" / "net" / "seed0" / kind)).Reload()
        png = events.Images("noisy, output, clean")[0].encoded_image_string
        noisy, output, clean = shown(png)
        assert (noisy, output, clean) == (pytest.approx(42, abs=1), pytest.approx(51, abs=1), 0)  # 0.2 / 1.2, 0.2, 0 of 255


def shown(png):
    """The largest values of the three images in the first row of a grid."""
    pixels = np.asarray(Image.open(io.BytesIO(png)))
    return [int(pixels[2:30, start:start + 28].max()) for start in (2, 32, 62)]


def test_limit_shortens_the_training_data_alone(synthetic, make_setup):
    for holdout, validated in ((False, 100), (True, 50)):
        setup = make_setup(net=replace(SETTINGS, limit=7, holdout=holdout))
        setup.args.data_dir = synthetic
        training, validation = common.load_split("MNIST", setup)
        assert [len(part) for part in (*training, *validation)] == [7, 7, validated, validated]


def test_resume_takes_the_newest_of_several_unfinished_runs(tmp_path):
    for name, description in (("20260101-000000", "same"), ("20260102-000000", "same"), ("20260103-000000", "other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text(description)
    (tmp_path / "20260104-notes.txt").write_text("")
    (tmp_path / "20260105-000000").mkdir()
    (tmp_path / "20260105-000000" / "settings.json").write_bytes(b"\xff\xfe")
    folder, _ = common.run_folder(tmp_path, "same", resuming=True)
    assert folder.name == "20260102-000000"


def test_resume_knows_the_data(monkeypatch, synthetic, tmp_path):
    monkeypatch.setattr(sys, "argv", ["task.py"])
    shutil.copytree(synthetic, tmp_path / "other")
    labels = common.raw_files("MNIST", tmp_path / "other")[1]
    content = bytearray(labels.read_bytes())
    content[-1] = (content[-1] + 1) % 10
    labels.write_bytes(content)
    parser = common.make_parser("Doc.", training=True)
    def folder(data_dir, *options):
        args = parser.parse_args(["--data-dir", str(data_dir), "--log-dir", str(tmp_path / "runs"), *options])
        setup = common.setup(args, {"net": SETTINGS}, "MNIST")
        setup.lock.release()
        return setup.folder
    first = folder(synthetic)
    assert folder(tmp_path / "other", "--resume") != first
    assert folder(synthetic, "--resume") == first


def test_only_the_tasks_own_run_on_published_data_publishes_and_records(monkeypatch, tmp_path):
    monkeypatch.setattr(common, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["task.py"])

    def settled(*options, publishable=True, published=True):
        monkeypatch.setattr(common, "checksum", lambda *_: common.MD5["MNIST"] if published else "other")
        args = common.make_parser("Doc.", training=True).parse_args(options)
        return common.setup(args, {"net": SETTINGS}, "MNIST", publishable)

    for options in ((), ("--seed", "0", "1", "2"), ("--device", "cpu"), ("--epochs", "2")):
        assert settled(*options).publishes  # two epochs are SETTINGS' own
    for option in ("--seed 7", "--seed 0 1", "--precision fp32", "--epochs 1", "--batch-size 9", "--lr 1e-4", "--limit 9", "--holdout",
                   f"--log-dir {tmp_path / 'elsewhere'}"):
        assert not settled(*option.split()).publishes, option
    assert not settled(publishable=False).publishes and not settled(published=False).publishes
    for options, state in ((("--limit", "9"), {}), (("--holdout",), {}), ((), {"publishable": False}),
                           ((), {"published": False})):
        with pytest.raises(UserError, match="--record needs"):
            settled("--record", *options, **state)


def test_the_published_data_are_recognised_when_they_have_just_been_downloaded(monkeypatch, synthetic, tmp_path):
    content = b"".join(path.read_bytes() for path in common.raw_files("MNIST", synthetic))
    monkeypatch.setitem(common.MD5, "MNIST", hashlib.md5(content).hexdigest())
    monkeypatch.setattr(common, "load", lambda name, train, data_dir: shutil.copytree(synthetic, data_dir))
    assert common.checksum("MNIST", tmp_path / "data") == common.MD5["MNIST"]


def test_options_change_their_settings(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["task.py"])
    args = common.make_parser("Doc.", training=True).parse_args(
        ["--log-dir", str(tmp_path), *"--epochs 5 --batch-size 9 --lr 0.5 --limit 7 --holdout".split()])
    assert common.setup(args, {"net": SETTINGS}).networks["net"] == replace(
        SETTINGS, epochs=5, batch_size=9, lr=0.5, limit=7, holdout=True)


@pytest.mark.parametrize("capabilities, fast", [({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({}, False)])
def test_bf16_is_taken_where_the_cpu_computes_with_it(monkeypatch, capabilities, fast):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    args = common.make_parser("Doc.", training=True).parse_args(["--device", "cpu"])
    assert common.has_fast_bf16(torch.device("cpu")) == fast
    assert common.choose_device(args)[1] == ("bf16" if fast else "fp32")


def test_accuracy_on_training_images_is_of_the_images_as_they_are(make_setup):
    """The label is the place of the one bright pixel, in the corner: no augmentation would leave it there."""
    labels, images = torch.arange(100) % 10, torch.zeros(100, 1, 28, 28, dtype=torch.uint8)
    images[range(100), 0, 0, labels] = 255
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    network.load_state_dict({"1.weight": torch.eye(10, 784), "1.bias": torch.zeros(10)})
    run = common.Run(network, None, None, None)
    assert task_3_1_c.training_accuracy(run, (images, labels), make_setup()) == 100


TRAINED = [  # command; the weights that it puts into --checkpoint-dir, with the settings that they are trained by
    (("task_3_1_a", "--template"), {"task_3_1_a_template": task_3_1_a.TEMPLATE}),
    (("task_3_1_c",), {f"task_3_1_c{suffix}": task_3_1_c.NETWORKS[name] for suffix, name in (
        ("", "improved"), ("_plain", "plain"), ("_augmented", "augmented"))}),
    (("task_3_2_b",), {"task_3_2_b": task_3_2_b.SETTINGS}),
    (("task_3_2_b", "--loss", "l1", "--network", "unet"), {"task_3_2_b_unet_l1": replace(
        task_3_2_b.SETTINGS, loss=torch.nn.functional.l1_loss, network=task_3_2_b.UNet)}),
    (("task_3_2_c", "--seed", 3, 4), {"task_3_2_c": task_3_2_c.NETWORKS["with_skip"]})]


@pytest.mark.parametrize("command, weights", TRAINED, ids=[" ".join(map(str, command)) for command, _ in TRAINED])
def test_weights_are_of_the_network_that_their_name_says(script, tmp_path, command, weights):
    name, *options = command
    process = script(name, *options, "--epochs", 1, "--limit", 20, "--checkpoint-dir", tmp_path / "weights")
    assert process.returncode == 0, process.stderr
    assert {path.stem for path in (tmp_path / "weights").iterdir()} == set(weights)
    for stem, settings in weights.items():
        state = common.load_checkpoint(tmp_path / "weights" / f"{stem}.pt")
        assert state["settings"] == replace(settings, epochs=1, limit=20).as_dict()
        assert state["seed"] == (3 if 3 in options else 0)  # the first one
