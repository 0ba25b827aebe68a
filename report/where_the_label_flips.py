"""Experiment for 3.1 d: at which mixing weight does the label of the morph from bag to dress flip?

The sheet's ten images lie on a line between two training images, a bag and a dress. The networks of 3.1 c predict the
labels at 1001 evenly spaced points of it. Each of the three networks predicts Bag first and Dress from mixing weight
0.196, 0.195 or 0.213 on, so image 2, at 2/9, is close to the flip.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
from common import FASHION_CLASSES
from task_3_1_d import bag_and_dress, load_classifier, morph_images, predict

CHECKPOINTS = ("task_3_1_c.pt", "task_3_1_c_seed1.pt", "task_3_1_c_seed2.pt")


def plot_morph(args, weights, probabilities, thumbnails):
    """Draw the predicted probabilities along the line, and the ten images at their places on it.

    weights: of the dress, [N] in 0 … 1; probabilities: for each network [N, 10]; thumbnails: uint8 [10, 1, 28, 28].
    """
    figure, (curves, below) = common.make_figure(6.3, 3.2, nrows=2, height_ratios=(3, 1), sharex=True)
    for style, label, color in (("-", "Bag", "C0"), ("--", "Dress", "C1")):
        percent = torch.stack([100 * values[:, FASHION_CLASSES.index(label)] for values in probabilities], dim=1)
        lines = curves.plot(weights, percent, style, color=color)  # one for each seed
        lines[0].set_label(label)
    curves.set(ylabel="predicted probability in %", ylim=(0, 100))
    curves.legend()
    for number, image in enumerate(thumbnails):
        below.imshow(image[0].numpy(), extent=(number / 9 - 0.05, number / 9 + 0.05, 0, 1), vmin=0, vmax=255)
        below.text(number / 9, 1.05, number, ha="center")
    below.set(xlim=(-0.06, 1.06), ylim=(0, 1), yticks=[], aspect="auto",
              xlabel="mixing weight i/9 of the dress, for images 0 to 9")
    below.grid(False)
    common.save_figure(args, figure, "where_the_label_flips.png")


def main():
    args = common.start_run(common.make_parser(__doc__), "FashionMNIST")
    paths = [common.ROOT / "checkpoints" / name for name in CHECKPOINTS]
    missing = [path.name for path in paths if not path.exists()]
    common.require(not missing, f"checkpoints/ lacks {', '.join(missing)}: run 'python task_3_1_c.py --seed 0 1 2'")
    ends = bag_and_dress(args.data_dir)
    networks = [load_classifier(path)[0] for path in paths]
    weights = torch.linspace(0, 1, 1001)
    probabilities = [predict(morph_images(*ends, len(weights)), network) for network in networks]
    plot_morph(args, weights, probabilities, morph_images(*ends, 10))

    lines = []
    for seed, (network, values) in enumerate(zip(networks, probabilities)):
        ten = predict(morph_images(*ends, 10), network).argmax(dim=1)
        lines.append(f"seed {seed}, images 0 to 9: {', '.join(FASHION_CLASSES[label] for label in ten)}")
        labels = values.argmax(dim=1)
        for before, after, weight in zip(labels, labels[1:], weights[1:]):
            if before != after:
                lines.append(f"  {FASHION_CLASSES[before]} becomes {FASHION_CLASSES[after]}"
                             f" at mixing weight {weight:.3f}")
    common.print_results(args, lines)


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python report/where_the_label_flips.py
# seed 0, images 0 to 9: Bag, Bag, Dress, Dress, Dress, Dress, Dress, Dress, Dress, Dress
#   Bag becomes Dress at mixing weight 0.196
# seed 1, images 0 to 9: Bag, Bag, Dress, Dress, Dress, Dress, Dress, Dress, Dress, Dress
#   Bag becomes Dress at mixing weight 0.195
# seed 2, images 0 to 9: Bag, Bag, Dress, Dress, Dress, Dress, Dress, Dress, Dress, Dress
#   Bag becomes Dress at mixing weight 0.213
# (Intel Xeon, 2 threads, fp32, torch 2.15.0+cu132, 0.1 minutes)
