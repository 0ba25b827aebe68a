"""Experiment for 3.2 b: what does one pixel reveal, and what limits the denoiser: bottleneck, noise or network?

Not the bottleneck's size as such: trained without noise, the listed network has an MAE of 0.0089 and returns stripes,
straps and soles. Not the noise alone: the U-Net has an MAE of 0.0329 on the same noisy images, the listed network with
the same loss 0.0475 (by equation (2): 0.0501). So the network does not find all of the texture in the noise; more
channels help (`report/why_the_skip_hurts.py`), but they widen the bottleneck too, and the U-Net bypasses it: what its
width, depth and a path at full resolution each contribute was not measured. All are the networks of 3.2 b, seed 0,
from checkpoints/. Simple estimates: the best guess from one pixel (`single_pixel_median`) has an MAE of 0.1220, a mean
of 3x3 pixels 0.1166.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
import task_3_2_b
from common import EncoderDecoder
from task_3_2_a import NoisyFashionMNIST
from task_3_2_b import VALIDATION_SEED, UNet, score_table

NETWORKS = {"trained without noise": replace(task_3_2_b.SETTINGS, noise=0.0)}
CHECKPOINTS = {"L2, equation (2)": (EncoderDecoder, "task_3_2_b.pt"),
               "L1, the MAE": (EncoderDecoder, "task_3_2_b_l1.pt"),
               "U-Net, L1": (UNet, "task_3_2_b_unet_l1.pt")}


def load_denoiser(network, name):
    """Load weights from checkpoints/ into a network; returns it in eval mode and the history of its training.

    Raises UserError if the file is missing or damaged or holds another network.
    """
    path = common.ROOT / "checkpoints" / name
    state = common.load_checkpoint(path)
    common.load_weights(network, state["weights"], path)
    return network.eval(), state["history"]


def single_pixel_median(noisy, images):
    """The guess of a clean pixel from its noisy value alone that has the smallest MAE: its conditional median.

    Noise uniform on (0, 1) restricts the clean value to [X - 1, X], where its likelihood is constant: the guess is the
    median of all training pixels in that interval. noisy: float32 in [0, 2), images: uint8, any shapes; returns float32
    in [0, 1], of the shape of noisy.
    """
    below = F.pad(torch.bincount(images.flatten().int(), minlength=256).cumsum(0).double(), (1, 0))  # below[v]: < v
    first = ((noisy - 1) * 255).ceil().clamp(0, 255).long()
    last = (noisy * 255).floor().clamp(0, 255).long()
    half = (below[first] + below[last + 1]) / 2
    return (torch.searchsorted(below, half) - 1).clamp(0, 255) / 255


def telling_images(clean, errors):
    """Titles and indices of telling images; clean: [N, 1, 28, 28], errors: a denoiser's MAE on them, [N]."""
    detail = (clean - F.avg_pool2d(clean, 3, 1, 1)).abs().mean(dim=(1, 2, 3))
    brightness, order = clean.mean(dim=(1, 2, 3)), errors.argsort()
    picks = {"typical": order[len(order) // 2], "darkest": brightness.argmin(), "most texture": detail.argmax(),
             "thinnest": (detail / brightness).argmax(), "best": order[0], "worst": order[-1]}
    return list(picks), [int(index) for index in picks.values()]


def main():
    args = common.make_parser(__doc__, training=True).parse_args()
    setup = common.setup(args, NETWORKS, "FashionMNIST")
    (training, _), (validation, _) = common.load_split("FashionMNIST", setup)
    pairs = NoisyFashionMNIST(validation, VALIDATION_SEED)
    noisy, clean = pairs[:]
    outputs, curves = {}, {}
    for label, (network, name) in CHECKPOINTS.items():
        denoiser, history = load_denoiser(network(), name)
        outputs[label], _ = common.evaluate(denoiser.to(setup.device), pairs, setup)
        curves[label] = [common.Run(denoiser, outputs[label], history, None)]
    trained = task_3_2_b.train_denoisers(setup, training, validation)

    common.plot_curves(setup, "what_the_denoiser_keeps_curves.png", curves, "MAE", "MAE", yscale="log")
    errors = (outputs["L2, equation (2)"] - clean).abs().mean(dim=(1, 2, 3))
    titles, picks = telling_images(clean, errors)
    common.plot_images(setup, "what_the_denoiser_keeps.png", titles, {
        "noisy": (noisy[picks], 0, 2), **{label: (images[picks], 0, 1) for label, images in outputs.items()},
        "no noise": (trained["trained without noise"][0].outputs[picks], 0, 1), "clean": (clean[picks], 0, 1)})
    common.report(setup, [f"validation on {len(clean)} images", *score_table({
        "noisy image X": [noisy], "X - 0.5": [noisy - 0.5], "clamp(X - 0.75, 0, 1)": [(noisy - 0.75).clamp(0, 1)],
        "3x3 mean of X, - 0.5": [F.avg_pool2d(noisy, 3, 1, 1, count_include_pad=False) - 0.5],
        "best from one pixel": [single_pixel_median(noisy, training)],
        **{label: [images] for label, images in outputs.items()},
        "no noise, bottleneck alone": [run.outputs for run in trained["trained without noise"]]}, clean)], trained)


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python report/what_the_denoiser_keeps.py
# validation on 10000 images
#                                  MAE  MAE, clamped      MSE  PSNR in dB
# noisy image X                 0.4999        0.3966  0.33326        4.77
# X - 0.5                       0.2500        0.1651  0.08335       10.79
# clamp(X - 0.75, 0, 1)         0.1431        0.1431  0.05529       12.57
# 3x3 mean of X, - 0.5          0.1166        0.0981  0.02394       16.21
# best from one pixel           0.1220        0.1220  0.05604       12.51
# L2, equation (2)              0.0501        0.0490  0.00823       20.85
# L1, the MAE                   0.0475        0.0473  0.00898       20.47
# U-Net, L1                     0.0329        0.0329  0.00499       23.02
# no noise, bottleneck alone    0.0089        0.0081  0.00028       35.58
# (AMD EPYC, 1 thread, bf16, torch 2.15.0+cu132, 5.3 minutes)
