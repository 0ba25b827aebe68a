"""3.2 c) The same denoiser with a skip connection, X + π(X): better or worse, and why?

ANSWER
"""

from torch import nn

import common
import task_3_2_b
from common import EncoderDecoder
from task_3_2_b import VALIDATION_NOISE, NoisyFashionMNIST


class SkipConnection(nn.Module):
    """Equation (3) around any network: X -> X + network(X); options: the network's."""

    def __init__(self, network=EncoderDecoder, **options):
        super().__init__()
        self.network = network(**options)

    def forward(self, images):
        return images + self.network(images)


NETWORKS = {"without_skip": task_3_2_b.SETTINGS,
            "with_skip": common.replace(task_3_2_b.SETTINGS, network=SkipConnection)}
LABELS = {"without_skip": "without skip, π(X)", "with_skip": "with skip, X + π(X)"}


def main():
    args = common.make_parser(__doc__, "data", "device", "training").parse_args()
    setup = common.setup(args, NETWORKS, "FashionMNIST")
    (training_images, _), (validation_images, _) = common.load_split("FashionMNIST", args)
    runs = {LABELS[name]: seeds for name, seeds
            in task_3_2_b.train_denoisers(setup, training_images, validation_images).items()}
    without, with_skip = runs.values()

    noisy, clean = NoisyFashionMNIST(validation_images, VALIDATION_NOISE).__getitems__(range(len(validation_images)))
    common.plot_curves(setup, "task_3_2_c.png", runs, "MAE", "MAE")
    errors = [seeds[0].outputs - clean for seeds in runs.values()]
    titles, picks = task_3_2_b.spread_of(errors[1].abs().mean(dim=(1, 2, 3)))
    common.plot_images(setup, "task_3_2_c_images.png", titles, {
        "X": (noisy[picks], 0, 2),
        "π(X)": (without[0].outputs[picks], 0, 1), "X + π(X)": (with_skip[0].outputs[picks], 0, 1),
        "clean": (clean[picks], 0, 1),
        "error of π(X)": (errors[0][picks], -0.5, 0.5), "error of X + π(X)": (errors[1][picks], -0.5, 0.5)})
    common.publish(setup, with_skip[0], "task_3_2_c.pt")

    epochs = [epoch for epoch in (1, 2, 5, 10, 20) if epoch <= len(without[0].history)]
    lines = [f"{'validation MAE after epoch':<28}" + "".join(f"{epoch:>18}" for epoch in epochs)]
    for label, seeds in runs.items():
        lines.append(f"{label:<28}" + "".join(f"{common.mean_std(values, 4):>18}" for values in (
            [run.history[epoch - 1]["validation"]["MAE"] for run in seeds] for epoch in epochs)))
    gaps = [b - a for a, b in zip(common.final(without, "MAE"), common.final(with_skip, "MAE"))]
    common.report(setup, [
        f"validation on {len(clean)} images after epoch {epochs[-1]}",
        *task_3_2_b.score_table({label: [run.outputs for run in seeds] for label, seeds in runs.items()}, clean),
        *lines, f"the skip connection changes the MAE by {common.mean_std(gaps, 4)} (paired over the seeds)"], runs)


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python task_3_2_c.py --seed 0 1 2
# validation on 10000 images after epoch 20
#                                            MAE      MAE, clamped                 MSE      PSNR in dB
# without skip, π(X)             0.0501 ± 0.0009   0.0491 ± 0.0006   0.00828 ± 0.00014    20.82 ± 0.07
# with skip, X + π(X)            0.0988 ± 0.0077   0.0775 ± 0.0042   0.01719 ± 0.00201    17.67 ± 0.49
# validation MAE after epoch                   1                 2                 5                10                20
# without skip, π(X)             0.0847 ± 0.0025   0.0683 ± 0.0023   0.0590 ± 0.0061   0.0541 ± 0.0033   0.0501 ± 0.0009
# with skip, X + π(X)            0.2463 ± 0.0013   0.1823 ± 0.0083   0.1208 ± 0.0098   0.1036 ± 0.0071   0.0988 ± 0.0077
# the skip connection changes the MAE by 0.0487 ± 0.0084 (paired over the seeds)
# (AMD EPYC, 1 thread, fp32, torch 2.15.0+cu132, 52.7 minutes)

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
