"""Experiment for 3.1 d: at which share of the dress does the label of the morph from bag to dress flip?

The sheet's ten images lie on a line between two training images, a bag and a dress. At 1001 evenly spaced points of it,
the classifier of 3.1 c (seed 0, from checkpoints/) predicts Bag below a share of the dress of 0.197, and Dress from
there on.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
from common import FASHION_CLASSES
from task_3_1_d import CHECKPOINT, bag_and_dress, load_classifier, morph_images, predict


def plot_morph(setup, shares, probabilities, thumbnails, name):
    """Draw the predicted probabilities along the line, and the ten images at their places on it.

    shares: of the dress, [N] in 0 … 1; probabilities: [N, 10]; thumbnails: uint8 [10, 1, 28, 28].
    """
    bag, dress = (100 * probabilities[:, FASHION_CLASSES.index(label)] for label in ("Bag", "Dress"))
    figure, (curves, below) = common.make_figure(6.3, 3.2, nrows=2, height_ratios=(3, 1), sharex=True)
    curves.plot(shares, bag, "-", label="Bag")
    curves.plot(shares, dress, "--", label="Dress")
    curves.plot(shares, 100 - bag - dress, ":", color="black", label="all others")
    curves.set(ylabel="predicted probability in %", ylim=(0, 100))
    curves.legend()
    for number, image in enumerate(thumbnails):
        below.imshow(image[0].numpy(), extent=(number / 9 - 0.05, number / 9 + 0.05, 0, 1), vmin=0, vmax=255)
        below.text(number / 9, 1.05, number, ha="center")
    below.set(xlim=(-0.06, 1.06), ylim=(0, 1), yticks=[], aspect="auto",
              xlabel="share of the dress; images 0 to 9 are at 0/9, 1/9, … 9/9")
    below.grid(False)
    common.save_figure(setup, figure, name)


def main():
    args = common.make_parser(__doc__).parse_args()
    setup = common.setup(args, data="FashionMNIST")
    ends = bag_and_dress(args.data_dir)
    shares = torch.linspace(0, 1, 1001)
    probabilities = predict(morph_images(*ends, len(shares)), load_classifier(CHECKPOINT))
    plot_morph(setup, shares, probabilities, morph_images(*ends, 10), "where_the_label_flips.png")

    labels = probabilities.argmax(dim=1)
    lines = [f"at a share of the dress of 0: {FASHION_CLASSES[labels[0]]}"]
    for before, after, share in zip(labels, labels[1:], shares[1:]):
        if before != after:
            lines.append(f"from a share of the dress of {share:.3f}: {FASHION_CLASSES[after]}")
    common.report(setup, lines)


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python report/where_the_label_flips.py
# at a share of the dress of 0: Bag
# from a share of the dress of 0.197: Dress
# (AMD EPYC, 1 thread, fp32, torch 2.15.0+cu132, 0.0 minutes)
