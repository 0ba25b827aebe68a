"""Experiment for 3.2 c: at which noise level does the skip connection pay off?

When the noise is weak: with noise on (0, A), X + π(X) is better below about A = 0.16 (0.13 to 0.18, depending on the
seed), a standard deviation of 12/255; the sheet's noise, A = 1, has 74/255. With the skip connection the error is the
part of the noise that π fails to remove. It goes to 0 with A, as the A/4 that X - A/2 has without any network. Without
it, the error is the detail that π fails to output, and falls more slowly: 0.0161 at A = 0.05. Ten epochs, peak 5e-3,
three seeds; for each seed all amplitudes share the initial weights, the batches and the noise draws, scaled by A.
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
from common import joined, last_values, mean_std
from task_3_2_a import draw_noise
from task_3_2_b import LISTED, train_denoisers
from task_3_2_c import SkipConnection

AMPLITUDES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # the sheet's noise is the last
NETWORKS = {}
for amplitude in AMPLITUDES:
    without = replace(LISTED, epochs=10, lr=5e-3, noise=amplitude)
    NETWORKS[f"without skip, A = {amplitude}"] = without
    NETWORKS[f"with skip, A = {amplitude}"] = replace(without, network=SkipConnection)


def crossing(without, with_skip):
    """The amplitude at which two lists are equal, by linear interpolation; nan if they do not cross once, upwards."""
    gaps = [float(worse - better) for better, worse in zip(without, with_skip)]
    places = [i for i in range(len(gaps) - 1) if (gaps[i] < 0) != (gaps[i + 1] < 0)]  # where the sign changes
    if len(places) != 1 or gaps[0] >= 0:
        return math.nan
    low, high = places[0], places[0] + 1
    return AMPLITUDES[low] + gaps[low] / (gaps[low] - gaps[high]) * (AMPLITUDES[high] - AMPLITUDES[low])


def plot(args, without, with_skip, baseline, place):
    """Draw the MAE's mean over the seeds and their range; both [amplitudes, seeds]; baseline: X - A/2 at A = 1."""
    figure, axes = common.make_figure(4.2, 2.8)
    for label, maes in (("without skip", without), ("with skip", with_skip)):
        line, = axes.plot(AMPLITUDES, maes.mean(dim=1), label=label)
        axes.fill_between(AMPLITUDES, maes.amin(dim=1), maes.amax(dim=1), color=line.get_color(), alpha=0.2)
    axes.plot((0, 1), (0, baseline), ":", color="grey", label="X − A/2, no network")
    axes.axvline(place, color="grey", linewidth=0.8, label=f"they cross at A = {place:.2f}")
    highest = 1.1 * float(with_skip.max())  # the grey line leaves the picture
    axes.set(xlabel="noise amplitude A", ylabel="validation MAE", xlim=(0, 1.02), ylim=(0, highest))
    axes.legend(loc="lower right")
    common.save_figure(args, figure, "when_the_skip_pays_off.png")


def main():
    args = common.start_run(common.make_parser(__doc__, NETWORKS), "FashionMNIST")
    (training, _), (validation, _) = common.load_split(args)
    trained = train_denoisers(NETWORKS, training, validation, args)

    noise = draw_noise((10_000, 784), torch.Generator().manual_seed(0))
    baseline, deviation = float((noise - noise.mean()).abs().mean()), float(noise.std())
    without, with_skip = [], []  # for each amplitude, each seed's
    rows = [("A", "σ in 1/255", "X - A/2", "without skip", "with skip",
             "each seed without skip", "each seed with skip")]
    for amplitude in AMPLITUDES:
        runs = trained[f"with skip, A = {amplitude}"]
        without.append(last_values(trained[f"without skip, A = {amplitude}"], "MAE"))
        with_skip.append(last_values(runs, "MAE"))
        rows.append((f"{amplitude:g}", f"{255 * amplitude * deviation:.1f}", f"{amplitude * baseline:.4f}",
                     mean_std(without[-1], 4), mean_std(with_skip[-1], 4),
                     joined(without[-1], 4), joined(with_skip[-1], 4)))
    without, with_skip = torch.tensor(without), torch.tensor(with_skip)  # [amplitudes, seeds]
    place = crossing(without.mean(dim=1), with_skip.mean(dim=1))
    places = [crossing(*columns) for columns in zip(without.T, with_skip.T)]
    plot(args, without, with_skip, baseline, place)
    common.print_results(args, [
        f"validation MAE on {len(validation)} images after epoch {len(runs[0].history)}; noise of amplitude A",
        *common.table(*rows), f"the means cross at A = {place:.2f}, σ = {255 * place * deviation:.1f}/255"
        f" (each seed at A = {joined(places)})"], trained)


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python report/when_the_skip_pays_off.py --seed 0 1 2
# validation MAE on 10000 images after epoch 10; noise of amplitude A
# A       σ in 1/255  X - A/2     without skip        with skip  each seed without skip     each seed with skip
# 0.05           3.7   0.0125  0.0161 ± 0.0008  0.0084 ± 0.0003  0.0152, 0.0164, 0.0167  0.0086, 0.0081, 0.0085
# 0.1            7.4   0.0250  0.0191 ± 0.0008  0.0159 ± 0.0010  0.0182, 0.0194, 0.0196  0.0165, 0.0147, 0.0163
# 0.15          11.0   0.0375  0.0219 ± 0.0012  0.0209 ± 0.0004  0.0205, 0.0227, 0.0225  0.0212, 0.0209, 0.0205
# 0.2           14.7   0.0500  0.0241 ± 0.0009  0.0271 ± 0.0007  0.0237, 0.0235, 0.0251  0.0272, 0.0277, 0.0263
# 0.3           22.1   0.0750  0.0292 ± 0.0007  0.0396 ± 0.0038  0.0286, 0.0290, 0.0300  0.0355, 0.0431, 0.0401
# 0.5           36.8   0.1250  0.0368 ± 0.0011  0.0600 ± 0.0049  0.0358, 0.0367, 0.0380  0.0551, 0.0649, 0.0601
# 1             73.6   0.2501  0.0524 ± 0.0009  0.1041 ± 0.0088  0.0518, 0.0521, 0.0534  0.0952, 0.1128, 0.1042
# the means cross at A = 0.16, σ = 11.9/255 (each seed at A = 0.13, 0.16, 0.18)
# (AMD EPYC, 2 threads, bf16, torch 2.15.0+cu132, 41.4 minutes)
