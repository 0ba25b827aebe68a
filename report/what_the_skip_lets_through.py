"""3.2 c, what: which errors do the networks without and with the skip connection make?

The trained networks of 3.2 b and c (seed 0, from checkpoints/) on validation images:
- The MSE is split into the variance over repeated noise draws of the same image (leaked noise) and the squared bias
  that remains in their mean (lost detail).
- The MAE is split into background (clean pixels that are 0) and garment.
- The singular values of the Jacobian ∂output/∂X tell how many of the 784 directions of the input get through, and how
  strongly: for π and X + π(X), for the π inside the latter, and for the weights written down as -X, all of whose are 1.

Three times as much noise leaks through with the skip connection, 0.01095 against 0.00363 of the MSE, and slightly more
detail is lost, 0.00511 against 0.00452. π passes 46 directions with a gain above 0.5, the π inside X + π(X) 606 of the
784 that it needs.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
import task_3_2_b
from common import EncoderDecoder
from task_3_2_c import SkipConnection
from what_the_denoiser_keeps import load_denoiser
from why_the_skip_hurts import write_minus_identity

IMAGES, DRAWS = 1000, 20  # validation images, and noise draws of each
JACOBIANS = 20  # images over which singular values are averaged


@torch.no_grad()
def split_errors(network, clean):
    """MSE as (leaked noise, lost detail), MAE as (background, garment); clean: [N, 1, 28, 28].

    The mean over K draws still holds 1/K of the leaked variance: it is moved from the bias to where it belongs.
    """
    generator = torch.Generator().manual_seed(task_3_2_b.VALIDATION_NOISE)
    outputs = torch.stack([network(clean + torch.rand(clean.shape, generator=generator)) for _ in range(DRAWS)])
    leaked = outputs.var(dim=0).mean()
    lost = (outputs.mean(dim=0) - clean).square().mean() - leaked / DRAWS
    errors = (outputs - clean).abs().mean(dim=0)
    return [float(value) for value in (leaked, lost, errors[clean == 0].mean(), errors[clean > 0].mean())]


def singular_values(network, noisy):
    """The singular values of ∂output/∂X, largest first, averaged over the images: [784]; noisy: [N, 1, 28, 28]."""
    jacobian = torch.func.vmap(torch.func.jacrev(lambda image: network(image[None]).flatten()))(noisy)
    return torch.linalg.svdvals(jacobian.reshape(len(noisy), 784, 784)).mean(dim=0).detach()


def main():
    args = common.make_parser(__doc__, "data").parse_args()
    setup = common.setup(args, data="FashionMNIST")
    without = load_denoiser(EncoderDecoder(), "task_3_2_b.pt")
    with_skip = load_denoiser(SkipConnection(), "task_3_2_c.pt")
    written_down = EncoderDecoder()
    write_minus_identity(written_down)
    images, _ = common.load("FashionMNIST", False, args.data_dir)
    pairs = task_3_2_b.NoisyFashionMNIST(images[:IMAGES], task_3_2_b.VALIDATION_NOISE)
    noisy, clean = pairs.__getitems__(range(len(pairs)))

    lines = [f"{'':<24}{'leaked noise':>14}{'lost detail':>14}{'background':>14}{'garment':>12}"]
    for label, network in (("without skip, π(X)", without), ("with skip, X + π(X)", with_skip)):
        leaked, lost, background, garment = split_errors(network, clean)
        lines.append(f"{label:<24}{leaked:>14.5f}{lost:>14.5f}{background:>14.4f}{garment:>12.4f}")

    curves = {"π(X), without skip": without, "X + π(X), with skip": with_skip,
              "the π inside X + π(X)": with_skip.network, "-X, written down": written_down}
    figure, axes = common.make_figure(6.3, 2.8)
    for color, style, (label, network) in zip(common.COLORS, ("-", "--", "-.", ":"), curves.items()):
        values = singular_values(network, noisy[:JACOBIANS])
        axes.plot(range(1, 785), values, style, color=color, label=label)
        lines.append(f"∂output/∂X, {label}: {(values > 0.5).sum()} of 784 singular values above 0.5,"
                     f" sum of squares {values.square().sum():.1f}")
    axes.set(xlabel="number of the singular value", ylabel="singular value of ∂output/∂X")
    axes.legend()
    common.save_figure(setup, figure, "what_the_skip_lets_through.png")
    worst = float((noisy + written_down(noisy)).abs().max().detach())
    common.report(setup, [
        f"{len(pairs)} validation images, {DRAWS} noise draws of each: the MSE is leaked noise + lost detail;"
        " the MAE on background and garment", *lines,
        f"X + π(X) with π written down as -X: largest absolute value {worst}"])


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python report/what_the_skip_lets_through.py
# 1000 validation images, 20 noise draws of each: the MSE is leaked noise + lost detail; the MAE on background and garment
#                           leaked noise   lost detail    background     garment
# without skip, π(X)             0.00363       0.00452        0.0157      0.0837
# with skip, X + π(X)            0.01095       0.00511        0.0835      0.1089
# ∂output/∂X, π(X), without skip: 46 of 784 singular values above 0.5, sum of squares 47.6
# ∂output/∂X, X + π(X), with skip: 212 of 784 singular values above 0.5, sum of squares 246.2
# ∂output/∂X, the π inside X + π(X): 606 of 784 singular values above 0.5, sum of squares 626.0
# ∂output/∂X, -X, written down: 784 of 784 singular values above 0.5, sum of squares 784.0
# X + π(X) with π written down as -X: largest absolute value 0.0
# (AMD EPYC, 1 thread, fp32, torch 2.15.0+cu132, 1.1 minutes)
