"""3.2 c) The same denoiser with a skip connection, X + π(X): better or worse, and why?

Worse: a validation MAE of 0.1138 ± 0.0123 against 0.0490 ± 0.0006 without it (three seeds, each with the same initial
weights, batches and noise for both; the 10,000 test images, after the last epoch).

With the skip connection π has to output the negative of the noise, 15/16 of whose energy is fine: deviations from the
means over 4 x 4 pixels. The bottleneck, the output of π's encoder, holds just as many numbers as the image has pixels,
7 x 7 x 16 = 784; trained from a random start, it comes to hold the fine part of X and loses the coarse one, the
garment: a linear map reads 1.5 % of the coarse part back out of it, 96.7 % without the skip connection
(report/figures/task_3_2_c_bottleneck.png). So π can hardly output coarse noise or tell it from clothes: 74.5 % of it
stays, as blotches, against 25.6 %. With more channels, or a start near π(X) = -X, which lets all of X through, the
garment stays in the bottleneck and most of the harm is gone (`report/why_the_skip_hurts.py`). Where the noise is weak,
little can stay: there the skip connection pays off (`report/when_the_skip_pays_off.py`).

The possible benefits: only a residual has to be learned, which is easier when it is small or simple (He et al. 2015,
arXiv:1512.03385); detail bypasses the bottleneck; in deep networks gradients have a direct path, because the derivative
of X + π(X) is the identity plus that of π (not here: within π nothing is bypassed).
"""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

import common
from common import joined, last_values, mean_std
from task_3_2_a import NoisyFashionMNIST
from task_3_2_b import LISTED, VALIDATION_SEED, EncoderDecoder, score_table, train_denoisers


class SkipConnection(nn.Module):
    """Equation (3): X -> X + π(X); images [B, 1, 28, 28] to images of the same shape; network: returns π."""

    def __init__(self, network=EncoderDecoder):
        super().__init__()
        self.network = network()

    def forward(self, images):
        return images + self.network(images)


NETWORKS = {"without skip connection": LISTED, "with skip connection": replace(LISTED, network=SkipConnection)}


def coarse_and_fine(images):
    """Split images [N, 1, 28, 28] into their means over 4 x 4 pixels, [N, 1, 7, 7], and the deviations from them."""
    means = F.avg_pool2d(images, 4)
    return means, images - F.interpolate(means, scale_factor=4)


def best_constant(targets):
    """The smallest MAE that a constant output has: that of the median."""
    return float((targets - targets.median()).abs().mean())


def coarse_noise_left(outputs, noisy, clean):
    """The share in % of the coarse noise that stays: the least-squares slope of the error over it; [N, 1, 28, 28]."""
    (error, _), (noise, _) = coarse_and_fine(outputs - clean), coarse_and_fine(noisy - clean)
    noise = noise - noise.mean()
    return 100 * float((error * noise).sum() / noise.square().sum())


def positions(images, size, stride=1, padding=0):
    """For batches of B images [N, C, H, W], their windows at all 7 x 7 positions: float64 [B * 49, C * size²]."""
    for batch in images.split(500):
        yield F.unfold(batch, size, padding=padding, stride=stride).mT.flatten(0, 1).double()


def encoder_of(network):
    """The encoder of π, [B, 1, 28, 28] to the bottleneck's features, of a network without or with skip connection."""
    return getattr(network, "network", network).encoder


def read_bottleneck(network, pairs, args):
    """Read X back out of π's bottleneck by a linear map, fitted on the first half of the images, for the second half.

    It is one least-squares map for all 7 x 7 positions: from the features there and at the neighbouring positions,
    which is what the decoder sees, to the 4 x 4 pixels there. Both are taken without their mean over the images.
    pairs: a NoisyFashionMNIST. Returns what was read and X, both [N / 2, 1, 28, 28] and without the mean image.
    """
    features, _ = common.evaluate(encoder_of(network), pairs, args)
    noisy, _ = pairs[:]
    half = len(noisy) // 2
    noisy, features = noisy - noisy[:half].mean(dim=0), features - features[:half].mean(dim=0)
    gram, moments = 0, 0
    for inputs, pixels in zip(positions(features[:half], 3, padding=1), positions(noisy[:half], 4, stride=4)):
        gram, moments = gram + inputs.T @ inputs, moments + inputs.T @ pixels
    weights = torch.linalg.pinv(gram, rtol=1e-9, hermitian=True) @ moments  # not solve: some features are always 0
    blocks = [inputs @ weights for inputs in positions(features[half:], 3, padding=1)]
    read = F.fold(torch.cat(blocks).reshape(-1, 49, 16).mT.float(), (28, 28), kernel_size=4, stride=4)
    return read, noisy[half:]


def shares_read(read, noisy):
    """The share in % of the coarse and of the fine part of X that was read: 100 (1 - squared error / squared X)."""
    return [100 * (1 - float((guess - part).square().sum() / part.square().sum()))
            for guess, part in zip(coarse_and_fine(read), coarse_and_fine(noisy))]


def shares_of_seeds(readings):
    """The coarse and the fine shares of several readings, (what was read, X) each, in %: two tuples."""
    return zip(*(shares_read(read, noisy) for read, noisy in readings))


def plot_bottleneck(args, pairs, readings, outputs):
    """Draw what π has to output, what its bottleneck holds and the result, for both networks and three garments.

    readings, outputs: {network: [each seed's]}, of which the first is drawn.

    Black to white is 0 to 1, but 0 to 2 for what is held (plus the mean image), -1 to 0 for the negative of the noise.
    """
    noisy, clean = pairs[:]
    half = len(noisy) // 2
    three = slice(half, half + 3)  # of the half on which nothing was fitted
    targets, held, results = [clean[three], (clean - noisy)[three] + 1], [], []
    for name in outputs:
        read, _ = readings[name][0]
        held.append(read[:3] + noisy[:half].mean(dim=0))
        results.append(outputs[name][0][three])
    blank, rows = torch.full((1, 1, 28, 28), torch.nan), {}
    for label, (left, right), white in (
            ("π has to output", targets, 1), ("its bottleneck holds", held, 2), ("result", results, 1)):
        rows[label] = (torch.cat([left, blank, right]), 0, white)
    common.plot_images(args, "task_3_2_c_bottleneck.png", rows,
                       titles=["", "without skip connection", "", "", "", "with skip connection", ""])


def bottleneck_table(pairs, readings, outputs):
    """Lines of a table of what is read from each network's bottleneck and of the coarse noise left in its outputs."""
    rows = [("", "coarse part read", "fine part read", "coarse noise left", "each seed: coarse read", "fine read")]
    for name in outputs:
        coarse, fine = shares_of_seeds(readings[name])
        left = [coarse_noise_left(images, *pairs[:]) for images in outputs[name]]
        rows.append((f"{name}, in %", mean_std(coarse, 1), mean_std(fine, 1), mean_std(left, 1),
                     joined(coarse, 1), joined(fine, 1)))
    return common.table(*rows)


def main():
    args = common.start_run(common.make_parser(__doc__, NETWORKS), "FashionMNIST")
    (training_images, _), (validation_images, _) = common.load_split(args)
    trained = train_denoisers(NETWORKS, training_images, validation_images, args)
    without, with_skip = trained.values()

    pairs = NoisyFashionMNIST(validation_images, VALIDATION_SEED, LISTED.noise)
    noisy, clean = pairs[:]
    outputs, readings, each = {}, {}, []
    for name, runs in trained.items():
        outputs[name] = [common.evaluate(run.network, pairs, args)[0] for run in runs]
        readings[name] = [read_bottleneck(run.network, pairs, args) for run in runs]
        each.append(f"MAE of each seed, {name}: {joined(last_values(runs, 'MAE'), 4)}")
    differences = [worse - better for better, worse in zip(last_values(without, "MAE"), last_values(with_skip, "MAE"))]

    common.plot_curves(args, "task_3_2_c.png", trained, "MAE", "MAE")
    plot_bottleneck(args, pairs, readings, outputs)
    common.plot_images(args, "task_3_2_c_images.png", {
        "noisy X": (noisy[:8], noisy.min(), noisy.max()),
        **{name: (images[0][:8], 0, 1) for name, images in outputs.items()}, "clean": (clean[:8], 0, 1)})
    common.publish(args, with_skip, "task_3_2_c")
    common.print_results(args, [
        f"validation on {len(clean)} images after epoch {len(without[0].history)}; background: the clean image is 0",
        *score_table(outputs, clean), *each, f"paired difference of the MAE: {mean_std(differences, 4)}",
        f"MAE of the best constant output: {best_constant(clean):.3f} for the clothes,"
        f" {best_constant(noisy - clean):.3f} for the noise",
        f"what a linear map reads of X from π's bottleneck, on {len(noisy) - len(noisy) // 2} of these images; coarse:"
        " means over 4 x 4 pixels", *bottleneck_table(pairs, readings, outputs)], trained)


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python task_3_2_c.py --seed 0 1 2
# validation on 10000 images after epoch 20; background: the clean image is 0
#                                        MAE       background         garments          clamped                MSE    PSNR in dB
# without skip connection    0.0490 ± 0.0006  0.0153 ± 0.0007  0.0828 ± 0.0009  0.0481 ± 0.0005  0.00811 ± 0.00019  20.91 ± 0.10
# with skip connection       0.1138 ± 0.0123  0.1022 ± 0.0137  0.1254 ± 0.0109  0.0866 ± 0.0074  0.02188 ± 0.00447  16.66 ± 0.85
# MAE of each seed, without skip connection: 0.0484, 0.0492, 0.0495
# MAE of each seed, with skip connection: 0.1059, 0.1280, 0.1076
# paired difference of the MAE: 0.0648 ± 0.0121
# MAE of the best constant output: 0.287 for the clothes, 0.250 for the noise
# what a linear map reads of X from π's bottleneck, on 5000 of these images; coarse: means over 4 x 4 pixels
#                                  coarse part read  fine part read  coarse noise left  each seed: coarse read         fine read
# without skip connection, in %          96.7 ± 0.3      46.5 ± 0.9         25.6 ± 0.4        96.9, 96.9, 96.3  47.4, 46.5, 45.7
# with skip connection, in %              1.5 ± 1.0      66.2 ± 7.3         74.5 ± 4.4           0.8, 0.9, 2.7  70.3, 57.8, 70.4
# (AMD EPYC, 1 thread, fp32, torch 2.15.0+cu132, 63.7 minutes)
