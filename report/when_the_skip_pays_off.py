"""Experiment for 3.2 c: at which noise level does the skip connection pay off?

When the noise is weak: with noise on (0, A), X + π(X) is better below A = 0.16. With the skip connection the error is
the noise that π fails to remove, a share of the A/4 that X - A/2 has without any network, so it goes to 0 with A.
Without it, the error is the detail that π fails to draw, and levels off: 0.0164 at A = 0.05. Ten epochs, three seeds;
for each seed all amplitudes share the initial weights, the batches and the noise draws, scaled by A.
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
from common import last_values, mean_std
from task_3_2_a import draw_noise
from task_3_2_b import SETTINGS, EncoderDecoder, train_denoisers
from task_3_2_c import SkipConnection

AMPLITUDES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # the sheet's noise is the last
KINDS = {"without skip": EncoderDecoder, "with skip": SkipConnection}
NETWORKS = {f"{kind}, A = {amplitude}": replace(SETTINGS, epochs=10, network=network, noise=amplitude)
            for amplitude in AMPLITUDES for kind, network in KINDS.items()}


def crossing(without, with_skip):
    """The amplitude at which the two are equal, by linear interpolation; nan if they do not cross once, upwards."""
    gaps = [b - a for a, b in zip(without, with_skip)]
    places = [i for i in range(len(gaps) - 1) if (gaps[i] < 0) != (gaps[i + 1] < 0)]  # where the sign changes
    if len(places) != 1 or gaps[0] >= 0:
        return math.nan
    low, high = places[0], places[0] + 1
    return AMPLITUDES[low] + gaps[low] / (gaps[low] - gaps[high]) * (AMPLITUDES[high] - AMPLITUDES[low])


def plot(args, maes, baseline, place):
    """Draw the mean MAE against the amplitude; maes: {kind: one per amplitude}; baseline: the MAE at A = 1."""
    figure, axes = common.make_figure(4.2, 2.8)
    for kind, values in maes.items():
        axes.plot(AMPLITUDES, values, label=kind)
    axes.plot((0, 1), (0, baseline), ":", color="grey", label="X - A/2, no network")
    axes.axvline(place, color="grey", linewidth=0.8, label=f"they cross at A = {place:.2f}")
    highest = 1.1 * max(maes["with skip"])  # the grey line leaves the picture
    axes.set(xlabel="noise amplitude A", ylabel="validation MAE", xlim=(0, 1.02), ylim=(0, highest))
    axes.legend()
    common.save_figure(args, figure, "when_the_skip_pays_off.png")


def main():
    args = common.start_run(common.make_parser(__doc__, NETWORKS), "FashionMNIST")
    (training, _), (validation, _) = common.load_split("FashionMNIST", args)
    trained = train_denoisers(NETWORKS, training, validation, args)

    noise = draw_noise((10_000, 784), torch.Generator().manual_seed(0))
    baseline, deviation = float((noise - noise.mean()).abs().mean()), float(noise.std())
    maes = {kind: [last_values(trained[f"{kind}, A = {amplitude}"], "MAE") for amplitude in AMPLITUDES]
            for kind in KINDS}
    rows = [("A", "σ in 1/255", "X - A/2", *KINDS, *(f"each seed {kind}" for kind in KINDS))]
    for amplitude, *pair in zip(AMPLITUDES, *maes.values()):
        rows.append((f"{amplitude:g}", f"{255 * amplitude * deviation:.1f}", f"{amplitude * baseline:.4f}",
                     *(mean_std(values, 4) for values in pair),
                     *(", ".join(f"{value:.4f}" for value in values) for values in pair)))
    places = [crossing(*([values[number] for values in kind] for kind in maes.values()))
              for number in range(len(args.seed))]
    means = {kind: [sum(values) / len(values) for values in lists] for kind, lists in maes.items()}
    place = crossing(*means.values())
    plot(args, means, baseline, place)
    common.report(args, [
        f"validation MAE on {len(validation)} images after epoch {len(trained['with skip, A = 1.0'][0].history)};"
        " noise of amplitude A", *common.table(*rows),
        f"the means cross at A = {place:.2f}, σ = {255 * place * deviation:.1f}/255"
        f" (each seed at A = {', '.join(f'{value:.2f}' for value in places)})"], trained)


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
