"""3.2 a) A data flow of (noisy, clean) Fashion-MNIST pairs, shown as a grid of 80 pairs.

The noise is uniform on (0, 1), drawn independently per pixel, and added without clamping: a noisy image lies in [0, 2),
its noise has mean 0.5 and variance 1/12. The mean is part of what a denoiser has to remove.
"""

import torch
from torch.utils.data import Dataset

import common

FIRST, LAST, PAIRS = 100, 200, 80  # as in the template: 80 of the training images 100 to 199


def draw_noise(shape, generator=None):
    """The sheet's noise: uniform on (0, 1), independent per pixel."""
    return torch.rand(shape, generator=generator)


class NoisyFashionMNIST(Dataset):
    """(noisy, clean) pairs, float32 [1, 28, 28] each: clean in [0, 1], noisy = clean + amplitude * noise.

    images: uint8 [N, 1, 28, 28]. The noise is fresh at every access, from torch's random numbers, so training never
    sees a noisy image twice. With `noise_seed` it is one fixed draw per index, so that validation losses of different
    epochs and networks differ by the network alone.
    """

    def __init__(self, images, noise_seed=None, amplitude=1.0):
        self.images, self.amplitude, self.fixed_noise = images, amplitude, None
        if noise_seed is not None:
            self.fixed_noise = draw_noise(images.shape, torch.Generator().manual_seed(noise_seed))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        """One pair, or for a slice or a list of indices all their pairs at once: two tensors [B, 1, 28, 28]."""
        clean = self.images[index].float() / 255
        noise = draw_noise(clean.shape) if self.fixed_noise is None else self.fixed_noise[index]
        return clean + self.amplitude * noise, clean


def plot_pairs(args, noisy, clean, titles):
    """Draw pairs, 8 in a row, noisy beside clean; both [N, 1, 28, 28], N a multiple of 8."""
    rows, low, high = len(noisy) // 8, noisy.min(), noisy.max()
    figure, axes = common.make_figure(12, 0.98 * rows + 0.4, nrows=rows, ncols=8)
    gap = torch.ones(1, 28, 1)  # white
    for axis, left, right, title in zip(axes.flat, (noisy - low) / (high - low), clean, titles):
        axis.imshow(torch.cat([left, gap, right], dim=2)[0].numpy(), vmin=0, vmax=1)
        axis.set_title(title, fontsize=8, pad=2)
        axis.axis("off")
    figure.suptitle("Fashion-MNIST training images, number and class: noisy (black to white ="
                    f" {low:.1f} to {high:.1f}) | clean (0 to 1)", fontsize=12)
    common.save_figure(args, figure, "task_3_2_a.jpg")


def main():
    args = common.start_run(common.make_parser(__doc__), "FashionMNIST")
    images, labels = common.load(args.data_name, True, args.data_dir)
    common.require(len(images) >= LAST, f"this needs at least {LAST} training images, but there are {len(images)}")
    torch.manual_seed(0)
    indices = (FIRST + torch.randperm(LAST - FIRST)[:PAIRS]).tolist()
    dataset = NoisyFashionMNIST(images)
    noisy, clean = dataset[indices]
    titles = [f"{index}: {common.FASHION_CLASSES[labels[index]]}" for index in indices]
    plot_pairs(args, noisy, clean, titles)
    noise = noisy - clean
    common.print_results(args, [
        f"{len(dataset)} pairs, each image {list(noisy[0].shape)} {noisy.dtype}",
        f"clean in [{clean.min():.3f}, {clean.max():.3f}], noisy in [{noisy.min():.3f}, {noisy.max():.3f}]",
        f"noise of the {PAIRS} pairs: mean {noise.mean():.4f}, variance {noise.var():.4f}"])


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python task_3_2_a.py
# 60000 pairs, each image [1, 28, 28] torch.float32
# clean in [0.000, 1.000], noisy in [0.000, 1.999]
# noise of the 80 pairs: mean 0.5005, variance 0.0829
# (AMD EPYC, 2 threads, fp32, torch 2.15.0+cu132, 0.2 minutes)
