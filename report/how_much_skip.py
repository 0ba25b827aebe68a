"""Experiment for 3.2 c: how much skip connection would the network choose, and at which noise level does it pay off?

X -> a X + π(X) with one learned scalar a contains both of the sheet's networks: a = 0 and a = 1. All three are trained
on noise uniform on (0, A). A Wiener filter that passes X with the gain a, against noise of variance A²/12, has
a = d / (d + A²/12), where d is the power per pixel of the signal to pass on.

Nearly all when the noise is weak, almost none at the sheet's level. The learned a falls from 0.971 at A = 0.05 to 0.043
at the sheet's A = 1, where it ends at 0.039 or 0.044 if it starts at 0 or 1 instead of 0.5. The Wiener gain with d =
0.00255, fitted, falls roughly like it (right panel). It is a fit, not an explanation: what π loses without any noise is
0.00028 (`report/what_the_denoiser_keeps.py`), its squared bias at A = 1 is 0.00459
(`report/what_the_skip_lets_through.py`). The skip connection (a = 1) pays off when the noise is weak: below A = 0.16 in
terms of the MAE, below A = 0.25 in terms of equation (2), the loss of all three. Up to A = 0.15, a = 1 has the best
mean in both measures. From A = 0.2 on, a = 0 has the best mean MAE, and the learned a the best mean of equation (2), at
A = 1 by no more than its spread, 2.551 ± 0.019 against 2.569 ± 0.024. Many of these differences are within the spreads,
and for each seed all amplitudes share the initial weights, the batches and the noise draws, scaled by A. Ten epochs,
three seeds.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
import task_3_2_b
from common import EncoderDecoder, mean_std
from task_3_2_c import SkipConnection

AMPLITUDES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # the sheet's noise is the last


class LearnedSkip(nn.Module):
    """X -> a X + network(X) with one learned scalar a; start: its initial value; images [B, 1, 28, 28]."""

    def __init__(self, start=0.5):
        super().__init__()
        self.network = EncoderDecoder()
        self.gain = nn.Parameter(torch.tensor(start))

    def forward(self, images):
        return self.gain * images + self.network(images)


KINDS = {"without skip": EncoderDecoder, "with skip": SkipConnection, "learned a": LearnedSkip}
NETWORKS = {f"{kind}, A = {amplitude}": replace(task_3_2_b.SETTINGS, epochs=10, network=network, noise=amplitude)
            for amplitude in AMPLITUDES for kind, network in KINDS.items()}
STARTS = (0.0, 1.0)  # does the learned a depend on its first value?
NETWORKS |= {f"learned a from {start}": replace(NETWORKS["learned a, A = 1.0"], options={"start": start})
             for start in STARTS}


def means(values):
    """The means over the seeds; values: for each amplitude those of all seeds."""
    return torch.tensor(values).mean(dim=1).tolist()


def fit_detail(gains):
    """The d of a = d / (d + A²/12) that fits the learned gains best (least squares on a grid); gains: one per A."""
    grid = torch.logspace(-5, -1, 4001)[:, None]
    variance = torch.tensor(AMPLITUDES).square() / 12
    squares = (grid / (grid + variance) - torch.tensor(gains)).square().sum(dim=1)
    return float(grid[squares.argmin()])


def crossover(without, with_skip):
    """The amplitude at which the two are equal, by linear interpolation; None if they do not cross once, upwards."""
    gaps = [b - a for a, b in zip(without, with_skip)]
    places = [i for i in range(len(gaps) - 1) if (gaps[i] < 0) != (gaps[i + 1] < 0)]  # where the sign changes
    if len(places) != 1 or gaps[0] >= 0:
        return None
    low, high = places[0], places[0] + 1
    share = gaps[low] / (gaps[low] - gaps[high])
    return AMPLITUDES[low] + share * (AMPLITUDES[high] - AMPLITUDES[low])


def plot(setup, maes, gains, detail, crossing):
    """Draw MAE against the amplitude for the three networks, and the learned gain beside the Wiener gain."""
    figure, (left, right) = common.make_figure(6.3, 2.8, ncols=2)
    for kind, values in maes.items():
        left.plot(AMPLITUDES, values, label=kind)
    if crossing:
        left.axvline(crossing, color="grey", linestyle=":", label=f"crossover, A = {crossing:.2f}")
    left.set(xlabel="noise amplitude A", ylabel="validation MAE", xscale="log", yscale="log")
    left.set_xticks(AMPLITUDES, [f"{amplitude:g}" for amplitude in AMPLITUDES])
    left.set_yticks((0.01, 0.02, 0.05, 0.1), ("0.01", "0.02", "0.05", "0.1"))
    left.minorticks_off()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    fine = torch.linspace(0, 1, 201)
    right.plot(fine, detail / (detail + fine.square() / 12), "--", color="grey",
               label=f"d / (d + A²/12), d = {detail:.4f}")
    right.plot(AMPLITUDES, gains, "^", color="C2", label="learned a")  # C2: as on the left, the third colour
    right.set(xlabel="noise amplitude A", ylabel="gain a of the skip connection", xlim=(0, None), ylim=(0, 1))
    right.legend()
    common.save_figure(setup, figure, "how_much_skip.png")


def main():
    args = common.make_parser(__doc__, training=True).parse_args()
    setup = common.setup(args, NETWORKS, "FashionMNIST")
    (training, _), (validation, _) = common.load_split("FashionMNIST", setup)
    trained = task_3_2_b.train_denoisers(setup, training, validation)

    def finals(kind, metric):
        return [common.final(trained[f"{kind}, A = {amplitude}"], metric) for amplitude in AMPLITUDES]

    def gains(name):
        return [run.network.gain.item() for run in trained[name]]

    learned = [gains(f"learned a, A = {amplitude}") for amplitude in AMPLITUDES]
    lines, crossings = [], {}
    for metric, title, digits in (("MAE", "MAE", 4), ("loss", "equation (2)", 3)):
        columns = [(title, *(f"A = {amplitude}" for amplitude in AMPLITUDES)),
                   *((kind, *(mean_std(values, digits) for values in finals(kind, metric))) for kind in KINDS),
                   ("a", *(mean_std(values, 3) for values in learned))]
        crossing = crossover(means(finals("without skip", metric)), means(finals("with skip", metric)))
        lines += [*common.table(*zip(*columns)),
                  f"{title}: the curves without and with skip do not cross exactly once" if crossing is None else
                  f"{title}: the skip connection is better below A = {crossing:.2f}"]
        crossings[metric] = crossing
    detail = fit_detail(means(learned))
    plot(setup, {kind: means(finals(kind, "MAE")) for kind in KINDS}, means(learned), detail, crossings["MAE"])
    started = [f"{name}: {mean_std(gains(name), 3)}, MAE {mean_std(common.final(trained[name], 'MAE'), 4)}"
               for name in (f"learned a from {start}" for start in STARTS)]
    common.report(setup, [
        f"validation after epoch {setup.networks['with skip, A = 1.0'].epochs}, noise uniform on (0, A)", *lines,
        f"at A = {AMPLITUDES[-1]}, " + "; ".join(started),
        f"Wiener gain d / (d + A²/12) fitted to the learned a: d = {detail:.5f}"], trained)


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python report/how_much_skip.py --seed 0 1 2
# validation after epoch 10, noise uniform on (0, A)
# MAE            without skip        with skip        learned a              a
# A = 0.05    0.0164 ± 0.0012  0.0085 ± 0.0012  0.0094 ± 0.0006  0.971 ± 0.004
# A = 0.1     0.0192 ± 0.0009  0.0156 ± 0.0003  0.0164 ± 0.0009  0.808 ± 0.018
# A = 0.15    0.0221 ± 0.0013  0.0210 ± 0.0007  0.0222 ± 0.0012  0.572 ± 0.024
# A = 0.2     0.0244 ± 0.0011  0.0271 ± 0.0011  0.0255 ± 0.0013  0.402 ± 0.013
# A = 0.3     0.0290 ± 0.0005  0.0389 ± 0.0031  0.0306 ± 0.0014  0.228 ± 0.016
# A = 0.5     0.0373 ± 0.0015  0.0615 ± 0.0029  0.0387 ± 0.0005  0.104 ± 0.010
# A = 1.0     0.0522 ± 0.0009  0.1011 ± 0.0042  0.0541 ± 0.0006  0.043 ± 0.003
# MAE: the skip connection is better below A = 0.16
# equation (2)     without skip      with skip      learned a              a
# A = 0.05        0.784 ± 0.075  0.319 ± 0.029  0.335 ± 0.013  0.971 ± 0.004
# A = 0.1         0.912 ± 0.068  0.578 ± 0.003  0.610 ± 0.016  0.808 ± 0.018
# A = 0.15        1.047 ± 0.080  0.807 ± 0.012  0.831 ± 0.033  0.572 ± 0.024
# A = 0.2         1.133 ± 0.043  1.033 ± 0.031  1.000 ± 0.037  0.402 ± 0.013
# A = 0.3         1.373 ± 0.029  1.482 ± 0.068  1.292 ± 0.039  0.228 ± 0.016
# A = 0.5         1.794 ± 0.053  2.293 ± 0.082  1.743 ± 0.010  0.104 ± 0.010
# A = 1.0         2.569 ± 0.024  3.743 ± 0.135  2.551 ± 0.019  0.043 ± 0.003
# equation (2): the skip connection is better below A = 0.25
# at A = 1.0, learned a from 0.0: 0.039 ± 0.003, MAE 0.0541 ± 0.0007; learned a from 1.0: 0.044 ± 0.002, MAE 0.0554 ± 0.0003
# Wiener gain d / (d + A²/12) fitted to the learned a: d = 0.00255
# (AMD EPYC, 1 thread, bf16, torch 2.15.0+cu132, 113.3 minutes)
