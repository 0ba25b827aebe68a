"""Experiment for 3.2 c: what does π have to draw, and which of it goes through the coarse middle of the network?

Without the skip connection π has to draw the clothes, with it the negative of the noise. So the listed network learns
to copy clothes (no noise in its input, no skip connection) and noise (on black images, with it): which of the two
gets through? The same for the six layers at stride 1, whose middle is as fine as the image, for the sheet's task with
both, and with more channels. Ten epochs, three seeds.

With the listed network, noise is reproduced with an MAE of 0.0804; the sheet's task ends at 0.1011 with the skip
connection and 0.0522 without it, with 64 channels at 0.0545 and 0.0421. π(X) = -X can be represented
(`write_identity`), and started near it the network reaches 0.0580; from a random start it is not found.
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
from common import last_values, mean_std
from task_3_2_a import NoisyFashionMNIST
from task_3_2_b import SETTINGS, VALIDATION_SEED, EncoderDecoder, train_denoisers
from task_3_2_c import SkipConnection


@torch.no_grad()
def write_identity(network, factor):
    """Give an EncoderDecoder of 16 channels weights with which its output is exactly factor X, for X >= 0.

    Space to depth twice (each 4 x 4 block of pixels becomes 16 channels), the centre tap, depth to space twice, factor.
    """
    for parameter in network.parameters():
        parameter.zero_()
    first, second, third = (network.encoder[index].weight for index in (0, 2, 4))
    up_first, up_second, last = (network.decoder[index].weight for index in (0, 2, 4))
    for y in (0, 1):
        for x in (0, 1):  # tap (1 + y, 1 + x) reaches pixel (2 i + y, 2 j + x)
            first[2 * y + x, 0, 1 + y, 1 + x] = 1
            up_second[2 * y + x, 0, 1 + y, 1 + x] = 1
            for channel in range(4):
                second[4 * channel + 2 * y + x, channel, 1 + y, 1 + x] = 1
                up_first[4 * channel + 2 * y + x, channel, 1 + y, 1 + x] = 1
    for channel in range(16):
        third[channel, channel, 1, 1] = 1
    last[0, 0, 1, 1] = factor


def started_near_minus_x():
    """An EncoderDecoder with π(X) = -X, plus Gaussian noise of standard deviation 0.01 on every weight."""
    network = EncoderDecoder()
    write_identity(network, factor=-1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return network


BODIES = {"listed": EncoderDecoder, "stride 1": partial(EncoderDecoder, stride=1),
          "32 channels": partial(EncoderDecoder, channels=32), "64 channels": partial(EncoderDecoder, channels=64),
          "started near -X": started_near_minus_x}
WITHOUT = {f"without, {name}": replace(SETTINGS, epochs=10, network=body) for name, body in BODIES.items()}
WITH = {f"with, {name}": replace(SETTINGS, epochs=10, network=partial(SkipConnection, network=body))
        for name, body in BODIES.items()}
del WITHOUT["without, started near -X"]
COPYING = ("listed", "stride 1")
CLOTHES = {f"copying clothes, {name}": replace(WITHOUT[f"without, {name}"], noise=0.0) for name in COPYING}
NOISE = {f"copying noise, {name}": WITH[f"with, {name}"] for name in COPYING}  # on black images
NETWORKS = CLOTHES | NOISE | WITHOUT | WITH


def best_constant(targets):
    """The MAE of the constant that has the smallest: the median."""
    return float((targets - targets.median()).abs().mean())


def main():
    args = common.start_run(common.make_parser(__doc__, NETWORKS), "FashionMNIST")
    (training, _), (validation, _) = common.load_split("FashionMNIST", args)
    noisy, clean = NoisyFashionMNIST(validation, VALIDATION_SEED)[:]
    copied = train_denoisers(CLOTHES, training, validation, args)
    copied |= train_denoisers(NOISE, torch.zeros_like(training), torch.zeros_like(validation), args)
    trained = train_denoisers(WITHOUT | WITH, training, validation, args)

    rows = [("π has to reproduce", "MAE", "best constant", "left in %", "each seed")]
    for name, runs in copied.items():
        maes = last_values(runs, "MAE")
        constant = best_constant(clean if name in CLOTHES else noisy - clean)
        rows.append((name.removeprefix("copying "), mean_std(maes, 4), f"{constant:.3f}",
                     f"{100 * sum(maes) / len(maes) / constant:.1f}", ", ".join(f"{mae:.4f}" for mae in maes)))
    table = [("the sheet's noise", "without skip", "with skip", "each seed without", "each seed with")]
    for name in BODIES:
        pair = [last_values(trained.get(f"{kind}, {name}", []), "MAE") for kind in ("without", "with")]
        table.append((name, *(mean_std(maes, 4) if maes else "" for maes in pair),
                      *(", ".join(f"{mae:.4f}" for mae in maes) for maes in pair)))
    common.report(args, [
        f"validation MAE on {len(validation)} images after epoch {len(runs[0].history)}", *common.table(*rows), "",
        *common.table(*table)], copied | trained)


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python report/why_the_skip_hurts.py --seed 0 1 2
# validation MAE on 10000 images; its difference to "with skip", paired over the seeds; of the bottleneck's channels, those that are zero for 500 noisy images
#                                     epochs              MAE        difference  dead channels per seed
# without skip                            10  0.0522 ± 0.0009  -0.0489 ± 0.0036                 0, 0, 0
# with skip                               10  0.1011 ± 0.0042   0.0000 ± 0.0000                 1, 1, 1
# with skip, started from -X              10  0.0580 ± 0.0009  -0.0431 ± 0.0042                 0, 0, 0
# without skip, started from X            10  0.0514 ± 0.0003  -0.0497 ± 0.0044                 0, 0, 0
# with skip, orthogonal start             10  0.1214 ± 0.0081   0.0203 ± 0.0087                 2, 0, 0
# with skip, LeakyReLU                    10  0.0880 ± 0.0013  -0.0131 ± 0.0041                 -, -, -
# with skip, a fifth of the rate          10  0.1210 ± 0.0068   0.0199 ± 0.0028                 0, 2, 1
# with skip, twice the rate               10  0.1051 ± 0.0139   0.0040 ± 0.0127                 2, 4, 1
# with skip, 3 times the epochs           30  0.0946 ± 0.0034  -0.0065 ± 0.0060                 2, 0, 1
# without skip, 32 channels               10  0.0460 ± 0.0003  -0.0551 ± 0.0041                 2, 2, 0
# with skip, 32 channels                  10  0.0650 ± 0.0009  -0.0361 ± 0.0046                 1, 4, 0
# without skip, 64 channels               10  0.0421 ± 0.0003  -0.0590 ± 0.0038                 2, 5, 1
# with skip, 64 channels                  10  0.0545 ± 0.0011  -0.0466 ± 0.0052                13, 5, 6
# without skip, L1 loss                   10  0.0499 ± 0.0004  -0.0512 ± 0.0038                 1, 0, 1
# with skip, L1 loss                      10  0.1064 ± 0.0115   0.0053 ± 0.0140                 2, 1, 1
# without skip, as in the template        10  0.0583 ± 0.0013  -0.0428 ± 0.0039                 1, 1, 2
# with skip, as in the template           10  0.1393 ± 0.0071   0.0382 ± 0.0057                 2, 3, 2
# black images, 16 channels               10  0.0804 ± 0.0100                                   2, 1, 1
# black images, 32 channels               10  0.0040 ± 0.0002                                   2, 5, 1
# (AMD EPYC, 1 thread, bf16, torch 2.15.0+cu132, 150.4 minutes)
