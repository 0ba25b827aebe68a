"""3.2 a) A data flow of (noisy, clean) Fashion-MNIST pairs, shown as a grid of 80 pairs.

The noise is uniform on (0, 1), drawn for each pixel by itself, and added without clamping: a noisy image lies
in [0, 2), and its noise has mean 0.5 and variance 1/12. The mean is part of what a denoiser has to take away.
"""

import torch
from torch.utils.data import Dataset

import common

FIRST, LAST, PAIRS = 100, 200, 80  # as in the template: 80 samples out of these training images


class NoisyFashionMNIST(Dataset):
    """(noisy, clean) pairs, float32 [1, 28, 28] each: clean in [0, 1], noisy = clean + noise in [0, 2).

    images: uint8 [N, 1, 28, 28]; the noise is uniform on (0, amplitude). It is fresh at every access, from
    torch's random numbers, so that training never sees a noisy image twice; with `noise_seed` it is one fixed
    draw for each index, so that a validation loss differs between epochs and networks by the network alone.
    """

    def __init__(self, images, noise_seed=None, amplitude=1.0):
        self.images, self.amplitude, self.fixed_noise = images, amplitude, None
        if noise_seed is not None:
            self.fixed_noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(noise_seed))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        noisy, clean = self.__getitems__([index])
        return noisy[0], clean[0]

    def __getitems__(self, indices):
        """A whole batch at once, as a DataLoader asks for it: two tensors [B, 1, 28, 28]."""
        clean = self.images[indices].float() / 255
        noise = torch.rand(clean.shape) if self.fixed_noise is None else self.fixed_noise[indices]
        return clean + self.amplitude * noise, clean


def plot_pairs(noisy, clean, titles, path):
    """Draw pairs, 8 in a row, noisy beside clean; both [N, 1, 28, 28], N a multiple of 8."""
    from matplotlib.figure import Figure

    rows = len(noisy) // 8
    figure = Figure(figsize=(13, 0.95 * rows + 0.5), layout="constrained")
    for axis, pair, title in zip(figure.subplots(rows, 8, squeeze=False).flat, zip(noisy / 2, clean), titles):
        axis.imshow(torch.cat(pair, dim=2)[0], cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, fontsize=7, pad=2)
        axis.axis("off")
    figure.suptitle("Fashion-MNIST, number and class: noisy, black to white = 0 to 2 | clean, 0 to 1")
    common.save_figure(figure, path)


def main():
    parser = common.parser(__doc__, "data")
    parser.add_argument("--seed", type=int, nargs=1, default=[0], metavar="S", help="which images, which noise")
    args = common.start(parser.parse_args(), "FashionMNIST")
    images, labels = common.load("FashionMNIST", True, args.data_dir)
    torch.manual_seed(args.seed[0])
    indices = (FIRST + torch.randperm(LAST - FIRST)[:PAIRS]).tolist()
    dataset = NoisyFashionMNIST(images)
    noisy, clean = dataset.__getitems__(indices)
    titles = [f"{index}: {common.FASHION_CLASSES[labels[index]]}" for index in indices]
    plot_pairs(noisy, clean, titles, args.figure_dir / "task_3_2_a.jpg")
    noise = noisy - clean
    common.report(args, [
        f"{len(dataset)} pairs, each image {list(noisy[0].shape)} {noisy.dtype}",
        f"clean in [{clean.min():.3f}, {clean.max():.3f}], noisy in [{noisy.min():.3f}, {noisy.max():.3f}]",
        f"noise: mean {noise.mean():.4f} (1/2), variance {noise.var():.4f} (1/12 = 0.0833)",
    ])


if __name__ == "__main__":
    common.run(main)


# Results, each block printed by the command above it

# $ python task_3_2_a.py
# 60000 pairs, each image [1, 28, 28] torch.float32
# clean in [0.000, 1.000], noisy in [0.000, 1.999]
# noise: mean 0.5005 (1/2), variance 0.0829 (1/12 = 0.0833)
# (AMD EPYC, 2 threads, fp32, torch 2.15.0+cu132, 0.0 minutes)
