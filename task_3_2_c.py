"""3.2 c) The same denoiser with a skip connection, X + network(X): better or worse, and why?

Worse: a validation MAE of 0.0956 ± 0.0043 against 0.0502 ± 0.0002 without it (three seeds, the same for both; the
10,000 test images, after the last epoch), and worse after every epoch, the first ones included.

Why. Without the skip connection the network puts out the clean image, which is smooth: the bottleneck can leave out
what it has no room for, and the noise is left out first. With it, the network puts out minus the noise: 784
independent numbers for each image, of which none can be guessed from the others, through a bottleneck of
7 x 7 x 16 = 784 numbers that is to forget the garment as well. What does not get through stays in the output. The
experiment: regressed on the noise, the error of the output has a slope of 0.196 ± 0.013 (0.076 ± 0.001 without).
If the network took away the noise by a projection, that slope would be the share of its energy that is left, and
this share of 1/12 is nearly the whole MSE of 0.01648: what is wrong with the output is mostly noise.

More room helps it: with 32 channels instead of 16, 0.0720 against 0.0483, after 0.1182 against 0.0537 (5 epochs, one
seed, as all that follows). Less noise helps it more (`--sweep`): below an amplitude of about 0.16 the skip connection
wins, 0.0189 against 0.0229 at 0.1. There is little to undo then, and the identity carries the fine detail that
the bottleneck loses. A path at full resolution (`--network unet`) nearly closes the gap: noise can be computed
where it is, 0.061 of it is left instead of 0.060 without the skip connection, and the MAE is 0.0384 against 0.0362
after 3 epochs. It is still not better; that network has skip connections of its own, inside.

So the possible benefits are: the network starts from its input instead of from nothing, what is good already passes
unharmed, details that the bottleneck cannot hold survive, gradients have a short way, and only the difference has to
be learnt. They come true where the difference is small or easy to compute; here it is large and random.
"""

from functools import partial

import torch
from torch import nn

import common
import task_3_2_b
from common import EncoderDecoder
from task_3_2_b import NETWORKS, scores, score_line, train

AMPLITUDES = (0.1, 0.2, 0.3, 0.4, 0.6, 1.0)  # of the sweep; the sheet's noise is the last
CHANNELS = (32,)  # of a wider network; the sheet's has 16


class Skip(nn.Module):
    """The skip connection of equation (3) around any network: X -> X + network(X)."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return images + self.network(images)


def noise_left(outputs, noisy, clean):
    """The share of the noise that is still in the output: the slope of its error against the noise.

    All three [N, 1, H, W]; 1 for the noisy image itself, 0 for a perfect output or one that ignores the noise.
    """
    noise = (noisy - clean) - (noisy - clean).mean()
    return float(((outputs - clean) * noise).sum() / noise.square().sum())


def compare(name, make_network, args, seed, amplitude=1.0):
    """Train a network without and with the skip connection.

    Returns for both (Run, outputs [N, 1, H, W]), and the validation set's (noisy, clean) images.
    """
    pair = []
    for suffix, make in (("_plain", make_network), ("", lambda: Skip(make_network()))):
        run, validation_set = train(name + suffix, make, args, seed, amplitude)
        pair.append((run, common.infer(run.network, validation_set, args)[0]))
    return pair, validation_set.__getitems__(range(len(validation_set)))


def crossing(amplitudes, plain, skip):
    """The amplitude at which two curves of MAE cross, by linear interpolation; None if they do not."""
    gaps = [with_skip - without for without, with_skip in zip(plain, skip)]
    for (low, below), (high, above) in zip(zip(amplitudes, gaps), zip(amplitudes[1:], gaps[1:])):
        if below < 0 <= above:
            return low + (high - low) * below / (below - above)


def sweep(args):
    """Compare at several noise amplitudes and at several widths of the bottleneck."""
    args = common.changed(args, checkpoint_dir=args.checkpoint_dir / "sweep")
    name = task_3_2_b.variant("task_3_2_c", args)
    settings = [(f"amplitude {amplitude}", NETWORKS[args.network], amplitude) for amplitude in AMPLITUDES]
    if args.network == "listed":
        settings += [(f"{channels} channels", partial(EncoderDecoder, channels), 1.0) for channels in CHANNELS]
    lines, maes, all_runs = [], [], []
    for label, make_network, amplitude in settings:
        rows = []
        for seed in args.seed:
            pair, (noisy, clean) = compare(f"{name}_{label.replace(' ', '_')}", make_network, args, seed, amplitude)
            rows.append([value for run, outputs in pair for value in (
                float(common.mean_absolute_error(outputs, clean)), noise_left(outputs, noisy, clean))])
            all_runs += [run for run, _ in pair]
        maes.append(torch.tensor(rows).mean(dim=0)[::2].tolist())
        lines.append(f"{label:<16}" + "".join(f"{common.mean_std(values, digits=4):>18}" for values in zip(*rows)))

    plain, skip = zip(*maes[:len(AMPLITUDES)])
    plot_sweep(plain, skip, args.figure_dir / f"{name}_sweep.png")
    meeting = crossing(AMPLITUDES, plain, skip)
    common.report(args, [
        f"{args.epochs} epochs, {args.network} network, {args.loss} loss, noise uniform on (0, amplitude)",
        f"{'':<16}{'MAE of π':>18}{'noise left in π':>18}{'MAE of π′':>18}{'noise left in π′':>18}", *lines,
        "the curves do not cross" if meeting is None else
        f"the skip connection helps below the amplitude {meeting:.2f}"], all_runs)


def plot_sweep(plain, skip, path):
    """Draw both networks' MAE against the noise amplitude."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4))
    axes = figure.subplots()
    axes.plot(AMPLITUDES, plain, ".-", label="π(X)")
    axes.plot(AMPLITUDES, skip, ".-", label="X + π(X)")
    axes.set(xlabel="noise amplitude", ylabel="validation MAE")
    axes.grid(alpha=0.3)
    axes.legend()
    common.save_figure(figure, path)


def main():
    parser = task_3_2_b.parser(__doc__)
    parser.add_argument("--sweep", action="store_true", help="compare at several amplitudes and widths")
    args = common.start(parser.parse_args(), "FashionMNIST")
    if args.sweep:
        return sweep(args)

    name = task_3_2_b.variant("task_3_2_c", args)
    pairs = []
    for seed in args.seed:
        pair, (noisy, clean) = compare(name, NETWORKS[args.network], args, seed)
        pairs.append(pair)
    legend = ("without skip, π(X)", "with skip, X + π(X)")
    by_network = list(zip(*pairs))  # [2][seeds] of (Run, outputs)
    curves = {label: [[row["validation MAE"] for row in run.history] for run, _ in entries]
              for label, entries in zip(legend, by_network)}
    common.plot_curves(curves, "validation MAE", args.figure_dir / f"{name}.png")

    epochs = [epoch for epoch in (1, 2, 3, 5, 10, 20) if epoch <= args.epochs]
    lines = [f"validation on {len(clean)} images after epoch {args.epochs}, {args.network} network, {args.loss} loss",
             task_3_2_b.HEADER]
    for label, entries in zip(legend, by_network):
        lines.append(score_line(label, [scores(outputs, clean) for _, outputs in entries]))
    for label, entries in zip(legend, by_network):
        left = [noise_left(outputs, noisy, clean) for _, outputs in entries]
        lines.append(f"{label}: share of the noise left in the output {common.mean_std(left, digits=3)}")
    lines.append(f"{'MAE after epoch':<24}" + "".join(f"{epoch:>20}" for epoch in epochs))
    for label, seeds in curves.items():
        lines.append(f"{label:<24}" + "".join(
            f"{common.mean_std([values[epoch - 1] for values in seeds], digits=4):>20}" for epoch in epochs))
    common.report(args, lines, [run for pair in pairs for run, _ in pair])


if __name__ == "__main__":
    common.run(main)


# Results, each block printed by the command above it

# $ python task_3_2_c.py --seed 0 1 2
# validation on 10000 images after epoch 20, listed network, l2 loss
#                                          MAE        MAE, clamped                 MSE          PSNR in dB
# without skip, π(X)           0.0502 ± 0.0002     0.0491 ± 0.0003   0.00826 ± 0.00010        20.83 ± 0.05
# with skip, X + π(X)          0.0956 ± 0.0043     0.0754 ± 0.0023   0.01648 ± 0.00111        17.84 ± 0.29
# without skip, π(X): share of the noise left in the output 0.076 ± 0.001
# with skip, X + π(X): share of the noise left in the output 0.196 ± 0.013
# MAE after epoch                            1                   2                   3                   5                  10                  20
# without skip, π(X)           0.0837 ± 0.0015     0.0699 ± 0.0024     0.0623 ± 0.0026     0.0599 ± 0.0026     0.0550 ± 0.0005     0.0502 ± 0.0002
# with skip, X + π(X)          0.2436 ± 0.0057     0.1762 ± 0.0123     0.1342 ± 0.0063     0.1122 ± 0.0038     0.1018 ± 0.0032     0.0956 ± 0.0043
# (AMD EPYC, 2 threads, bf16, torch 2.15.0+cu132, 14.2 minutes)

# $ python task_3_2_c.py --sweep --epochs 5
# 5 epochs, listed network, l2 loss, noise uniform on (0, amplitude)
#                           MAE of π   noise left in π         MAE of π′  noise left in π′
# amplitude 0.1               0.0229            0.2634            0.0189            0.6703
# amplitude 0.2               0.0272            0.2126            0.0297            0.4639
# amplitude 0.3               0.0321            0.1818            0.0405            0.3961
# amplitude 0.4               0.0360            0.1510            0.0510            0.3452
# amplitude 0.6               0.0416            0.1145            0.0753            0.3215
# amplitude 1.0               0.0537            0.0730            0.1182            0.2815
# 32 channels                 0.0483            0.0704            0.0720            0.1301
# the skip connection helps below the amplitude 0.16
# (AMD EPYC, 2 threads, bf16, torch 2.15.0+cu132, 11.4 minutes)

# $ python task_3_2_c.py --network unet --epochs 3
# validation on 10000 images after epoch 3, unet network, l2 loss
#                                          MAE        MAE, clamped                 MSE          PSNR in dB
# without skip, π(X)                    0.0362              0.0358             0.00510               22.92
# with skip, X + π(X)                   0.0384              0.0370             0.00514               22.89
# without skip, π(X): share of the noise left in the output 0.060
# with skip, X + π(X): share of the noise left in the output 0.061
# MAE after epoch                            1                   2                   3
# without skip, π(X)                    0.0489              0.0394              0.0362
# with skip, X + π(X)                   0.0578              0.0447              0.0384
# (AMD EPYC, 2 threads, bf16, torch 2.15.0+cu132, 4.9 minutes)
