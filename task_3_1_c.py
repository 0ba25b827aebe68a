"""3.1 c) Fashion-MNIST with the network of 3.1 a, then with an improved one: what helps, and why?

With an earlier version (see its record below; the present one has not been measured yet), the sheet's network reached
93.13 ± 0.25 %, trained on augmented images 93.82 ± 0.06 %, and the improved one, with 1,791,770 weights instead of
6,444,170 but three times the minutes, 94.92 ± 0.06 % (three seeds; the 10,000 test images, after the last epoch).

The sheet's network memorises its training images: 100.00 % training accuracy against 93.13 %. Trained on flipped, shifted
and randomly erased images it no longer does (94.96 % on those, harder, images) and validates better. The improved network
has pooling, batch normalisation and more, narrower layers in place of the one large linear layer that holds nearly all
the weights of the sheet's network.
"""

from dataclasses import replace

import torch

import common
import task_3_1_a
from common import FASHION_CLASSES, FashionNet, LabelledImages, Settings
from task_3_1_a import smoothed_cross_entropy, train_classifiers


def random_clothes(images):
    """Horizontal flip with probability 0.5, shift by up to a pixel, random erasing with probability 0.5.

    Clothes have no left and right; an erased rectangle makes the network look at more than one part of them
    (Zhong et al. 2017, arXiv:1708.04896). images: float32 [B, 1, 28, 28], any range; returns the same.
    """
    count, size = len(images), images.shape[-1]
    images = task_3_1_a.random_affine(images, shift=1, flip=True)
    sides = torch.randint(2, 12, (2, count, 1))
    centres = torch.randint(0, size, (2, count, 1))
    rows, columns = (torch.arange(size) - centres).abs() * 2 < sides  # which ones the rectangle covers, [B, 28] each
    erased = torch.rand(count, 1, 1) < 0.5
    return images.masked_fill((rows[:, :, None] & columns[:, None, :] & erased)[:, None], 0)


SHEET = task_3_1_a.SETTINGS
IMPROVED = Settings(
    network=FashionNet,
    loss=smoothed_cross_entropy,
    epochs=15,  # the sheet's
    batch_size=250,  # fewer, larger steps: a CPU computes them faster
    lr=3e-3,  # larger batches take a larger rate
    weight_decay=0.05,
    augment=random_clothes)
NETWORKS = {"improved": IMPROVED, "sheet": SHEET, "sheet_augmented": replace(SHEET, augment=random_clothes)}


def training_accuracy(run, training, setup):
    """The final network's accuracy in % on the training images as they are, not augmented."""
    logits, labels = common.evaluate(run.network, LabelledImages(*training), setup)
    return float(common.accuracy(logits, labels))


def confusion_matrix(predictions, labels):
    """Counts [10, 10]: row = the true class, column = the predicted one; both arguments int64 [N]."""
    return torch.bincount(labels * 10 + predictions, minlength=100).reshape(10, 10)


def plot_confusion(setup, confusion, name):
    """Draw a confusion matrix in % of each true class, colored by its errors; the diagonal is the accuracy."""
    percent = 100 * confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)
    errors = percent.clone().fill_diagonal_(0)
    figure, axes = common.make_figure(6.3, 5)
    axes.imshow(errors, cmap="Oranges")
    for row in range(10):
        for column in range(10):
            axes.text(column, row, f"{percent[row, column]:.1f}", ha="center", va="center",
                      weight="bold" if row == column else "normal",
                      color="white" if errors[row, column] > errors.max() / 2 else "black")
    axes.set_xticks(range(10), FASHION_CLASSES, rotation=45, ha="right")
    axes.set_yticks(range(10), FASHION_CLASSES)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(False)
    common.save_figure(setup, figure, name)


def main():
    args = common.make_parser(__doc__, "data", "device", "training").parse_args()
    setup = common.setup(args, NETWORKS, "FashionMNIST")
    split = common.load_split("FashionMNIST", setup)
    training, (_, labels) = split
    runs = train_classifiers(setup, split)

    common.plot_curves(setup, "task_3_1_c.png", runs, "accuracy", "Fashion-MNIST accuracy in %")
    predictions = runs["improved"][0].outputs.argmax(dim=1)
    confusion = confusion_matrix(predictions, labels)
    plot_confusion(setup, confusion, "task_3_1_c_confusion.png")
    for name in runs:
        common.publish(setup, runs[name][0], "task_3_1_c.pt" if name == "improved" else f"task_3_1_c_{name}.pt")

    lines = [f"{'':<18}{'parameters':>12}{'minutes':>9}{'training':>16}{'validation':>16}{'gap':>14}"]
    for name, seeds in runs.items():
        on_training = [training_accuracy(run, training, setup) for run in seeds]
        on_validation = common.final(seeds, "accuracy")
        gaps = [a - b for a, b in zip(on_training, on_validation)]
        lines.append(f"{name:<18}{common.parameter_count(seeds[0].network):>12,}"
                     f"{common.minutes(seeds) / len(seeds):>9.1f}{common.mean_std(on_training):>16}"
                     f"{common.mean_std(on_validation):>16}{common.mean_std(gaps):>14}")
    recall = 100 * confusion.diag() / confusion.sum(dim=1).clamp(min=1)
    alike = confusion[:, [0, 2, 4, 6]][[0, 2, 4, 6]].fill_diagonal_(0).sum()
    common.report(setup, [
        f"accuracy in % after epoch {setup.networks['improved'].epochs} on the training images (as they are) and on"
        f" {len(labels)} validation images; minutes per seed", *lines,
        f"accuracy of each class in %, improved, seed {setup.seeds[0]}: "
        + ", ".join(f"{name} {value:.1f}" for name, value in zip(FASHION_CLASSES, recall)),
        f"among T-shirt/top, Pullover, Coat and Shirt: {alike} of its {(predictions != labels).sum()} errors"], runs)


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python task_3_1_c.py --seed 0 1 2   [an earlier version: the seeds shared batch order, augmentation and noise; the improved network was trained by Muon]
# the sheet's network: 6,444,170 parameters, 6.4 minutes, after epoch 15 training accuracy 100.00 ± 0.00 %, validation accuracy 93.13 ± 0.25 %
# the same, augmented: 6,444,170 parameters, 5.1 minutes, after epoch 15 training accuracy 94.96 ± 0.08 %, validation accuracy 93.82 ± 0.06 %
# the improved network: 1,791,770 parameters, 16.8 minutes, after epoch 15 training accuracy 98.30 ± 0.03 %, validation accuracy 94.92 ± 0.06 %
# accuracy of each class in %, improved network, seed 0: T-shirt/top 91.0, Trouser 99.2, Pullover 93.0, Dress 95.7, Coat 93.6, Sandal 98.7, Shirt 83.0, Sneaker 98.5, Bag 99.7, Ankle boot 97.3
# (AMD EPYC, 2 threads, bf16, torch 2.15.0+cu132, 82.2 minutes)
