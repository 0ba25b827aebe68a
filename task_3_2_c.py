"""3.2 c) The same denoiser with a skip connection, X + π(X): better or worse, and why?

Worse: a validation MAE of 0.1007 ± 0.0152 against 0.0504 ± 0.0007 without it (three seeds, each with the same initial
weights, batches and noise for both; the 10,000 test images, after the last epoch).

The skip connection changes what π has to draw (report/figures/task_3_2_c_what_pi_draws.png): without it the clothes,
with it the negative of the noise. Clothes are smooth and alike; noise is 784 independent numbers. The middle of π has
room for 7 x 7 x 16 = 784, just enough, but training from a random start does not use it fully: started near π(X) = -X,
ten epochs reach 0.0587 instead of 0.1041, and wider or finer layers help too (`report/why_the_skip_hurts.py`). What π
misses stays in the image: 66.1 % of the coarse part of the noise, seen as blotches, against 26.9 % without the skip
connection. Where the noise is weak, little can stay: there the skip connection pays off
(`report/when_the_skip_pays_off.py`).

The possible benefits: only a residual has to be learned, which is easier when it is small or simple (He et al. 2015,
arXiv:1512.03385); detail bypasses the coarse middle; in deep networks gradients have a direct path (not here: within π
nothing is bypassed).
"""

from dataclasses import replace

import torch
from torch import nn

import common
from task_3_2_a import NoisyFashionMNIST
from task_3_2_b import SETTINGS, VALIDATION_SEED, EncoderDecoder, score_table, train_denoisers


class SkipConnection(nn.Module):
    """Equation (3): X -> X + π(X); images [B, 1, 28, 28] to images of the same shape; network: returns π."""

    def __init__(self, network=EncoderDecoder):
        super().__init__()
        self.network = network()

    def forward(self, images):
        return images + self.network(images)


NETWORKS = {"without_skip": SETTINGS, "with_skip": replace(SETTINGS, network=SkipConnection)}
LABELS = {"without_skip": "without skip, π(X)", "with_skip": "with skip, X + π(X)"}


def noise_left(outputs, noisy, clean):
    """The share of the noise that is left in %: of its means over 4 x 4 pixels, and of the deviations from them.

    A share is the least-squares slope of the error over the noise; 4 x 4 pixels are one position of the network's
    middle. All [N, 1, 28, 28].
    """
    def parts(images):
        images = images - images.mean()
        means = nn.functional.avg_pool2d(images, 4)
        return means, images - nn.functional.interpolate(means, scale_factor=4)

    return [100 * float((error * noise).sum() / noise.square().sum())
            for error, noise in zip(parts(outputs - clean), parts(noisy - clean))]


def plot_what_is_drawn(args, noisy, clean, without, with_skip):
    """Draw what π has to draw and what it draws in both networks, and the results; all [3, 1, 28, 28].

    Black to white is 0 to 1, but -1 to 0 in the first two rows on the right, the negative of the noise.
    """
    blank = torch.full((1, 1, 28, 28), torch.nan)
    rows = {"π has to draw": (clean, clean - noisy + 1), "π draws": (without, with_skip - noisy + 1),
            "result": (without, with_skip)}
    titles = ["", "without skip connection", "", "", "", "with skip connection", ""]  # three images, a blank, three
    common.plot_images(args, "task_3_2_c_what_pi_draws.png", titles, {
        label: (torch.cat([left, blank, right]), 0, 1) for label, (left, right) in rows.items()})


def main():
    args = common.start_run(common.make_parser(__doc__, NETWORKS), "FashionMNIST")
    (training_images, _), (validation_images, _) = common.load_split(args)
    trained = train_denoisers(NETWORKS, training_images, validation_images, args)
    trained = {LABELS[name]: runs for name, runs in trained.items()}
    without, with_skip = trained.values()

    pairs = NoisyFashionMNIST(validation_images, VALIDATION_SEED)
    noisy, clean = pairs[:]
    outputs = {label: [common.evaluate(run.network, pairs, args)[0] for run in runs] for label, runs in trained.items()}
    common.plot_curves(args, "task_3_2_c.png", trained, "MAE", "MAE")
    first_without, first_with = (seeds[0] for seeds in outputs.values())
    plot_what_is_drawn(args, noisy[:3], clean[:3], first_without[:3], first_with[:3])
    common.plot_images(args, "task_3_2_c_images.png", [""] * 8, {
        "X": (noisy[:8], noisy.min(), noisy.max()),
        "π(X)": (first_without[:8], 0, 1), "X + π(X)": (first_with[:8], 0, 1), "clean": (clean[:8], 0, 1),
        "error of π(X)": ((first_without - clean)[:8], -0.5, 0.5),
        "error of X + π(X)": ((first_with - clean)[:8], -0.5, 0.5)})
    common.publish(args, with_skip, "task_3_2_c")

    maes = {label: common.last_values(runs, "MAE") for label, runs in trained.items()}
    differences = [b - a for a, b in zip(*maes.values())]
    left = {label: zip(*(noise_left(images, noisy, clean) for images in seeds)) for label, seeds in outputs.items()}
    common.print_results(args, [
        f"validation on {len(clean)} images after epoch {len(without[0].history)}; background: the clean image is 0",
        *score_table(outputs, clean),
        *(f"noise left, {label}: {common.mean_std(means, 1)} % of its means over 4 x 4 pixels,"
          f" {common.mean_std(rest, 1)} % of the rest" for label, (means, rest) in left.items()),
        *(f"MAE of each seed, {label}: {', '.join(f'{mae:.4f}' for mae in values)}" for label, values in maes.items()),
        f"the skip connection changes the MAE by {common.mean_std(differences, 4)} (paired over the seeds)"], trained)


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python task_3_2_c.py --seed 0 1 2
# validation on 10000 images after epoch 20; background: the clean image is 0
#                                    MAE       background         garments          clamped                MSE    PSNR in dB
# without skip, π(X)     0.0504 ± 0.0007  0.0164 ± 0.0009  0.0843 ± 0.0006  0.0492 ± 0.0004  0.00832 ± 0.00013  20.80 ± 0.07
# with skip, X + π(X)    0.1007 ± 0.0152  0.0894 ± 0.0155  0.1121 ± 0.0149  0.0787 ± 0.0086  0.01809 ± 0.00459  17.51 ± 1.04
# noise left, without skip, π(X): 26.9 ± 0.6 % of its means over 4 x 4 pixels, 6.3 ± 0.2 % of the rest
# noise left, with skip, X + π(X): 66.1 ± 6.2 % of its means over 4 x 4 pixels, 18.6 ± 5.5 % of the rest
# MAE of each seed, without skip, π(X): 0.0500, 0.0499, 0.0512
# MAE of each seed, with skip, X + π(X): 0.0928, 0.1182, 0.0911
# the skip connection changes the MAE by 0.0504 ± 0.0156 (paired over the seeds)
# (AMD EPYC, 2 threads, bf16, torch 2.15.0+cu132, 12.2 minutes)
