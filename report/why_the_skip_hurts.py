"""Experiment for 3.2 c: can the listed network with the skip connection represent the answer, and can it learn it?

X + π(X) is clean if π(X) is minus the noise: 784 independent numbers, through a bottleneck of 7 x 7 x 16 = 784. Three
explanations for its larger error:
- *It cannot be represented.* Weights with exactly π(X) = -X can be made by hand (`write_identity`): all the noise fits
  through, and so does the garment; the sum is black. Does a network that starts near them reach a small error?
- *It is hard to learn.* Other starts, activations, learning rates, three times the epochs; the same network on black
  images, where there is nothing but noise to reproduce (the best constant has an MAE of 1/4).
- *It is too narrow.* Twice and four times the channels in every layer, without and with the skip connection.
And does it depend on how the networks are trained? The L1 loss; the template's L1 loss, batches of 300 and constant
1e-3.

It can be represented better than it is learned. Started near -X, X + π(X) ends at a validation MAE of 0.0580 ± 0.0009,
from the usual random start at 0.1011 ± 0.0042, without the skip connection at 0.0522 ± 0.0009. Random orthogonal
weights do not help, 0.1214 ± 0.0081; other hand-made starts do, if they pass all 784 numbers
(`report/what_makes_a_good_start.py`). π without the skip connection, started near X, hardly gains, 0.0514 ± 0.0003.
LeakyReLU helps a little (0.0880); three times the epochs gain hardly more than the spread of the difference (-0.0065 ±
0.0060); twice the learning rate does not help (0.1051 ± 0.0139), a fifth of it hurts (0.1210).
One channel of the bottleneck is dead (zero for 500 noisy images) in each of the three usual runs, and with it 49 of the
784 numbers. That is not the whole reason: of the three runs from orthogonal weights, two have no dead channel.
Twice the channels close most of the gap, 0.0650 with and 0.0460 without the skip connection, and four times the
channels more of it, 0.0545 and 0.0421. On black images 16 channels end at 0.0804 ± 0.0100 and 32 at 0.0040 ± 0.0002.
It is worse with another loss and schedule too: 0.1064 with and 0.0499 without the skip connection when trained with the
L1 loss, 0.1393 and 0.0583 as in the template. Ten epochs unless the table says otherwise, three seeds.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
import task_3_2_b
from common import EncoderDecoder
from task_3_2_b import train_denoisers
from task_3_2_c import SkipConnection


@torch.no_grad()
def write_identity(network, factor):
    """Give an EncoderDecoder of at least 16 channels weights with which its output is exactly factor X, for X >= 0.

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


class StartedFromX(EncoderDecoder):
    """π that starts as factor X, plus Gaussian noise of standard deviation `noise` on every weight."""

    def __init__(self, factor=1, noise=0.01):
        super().__init__()
        write_identity(self, factor)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(noise * torch.randn_like(parameter))


class SkipStartedFromX(SkipConnection):
    """X + π(X) whose π starts near factor X: with -1, the sum starts near a black image."""

    def __init__(self, factor=-1, noise=0.01):
        super().__init__()
        self.network = StartedFromX(factor, noise)


class OrthogonalSkipConnection(SkipConnection):
    """X + π(X) whose π starts from random orthogonal weights, each layer scaled for ReLU."""

    def __init__(self):
        super().__init__()
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.orthogonal_(parameter, nn.init.calculate_gain("relu"))


class LeakySkipConnection(SkipConnection):
    """X + π(X) with LeakyReLU, with which no unit can die, instead of ReLU."""

    def __init__(self):
        super().__init__()
        for layers in (self.network.encoder, self.network.decoder):
            for index, layer in enumerate(layers):
                if isinstance(layer, nn.ReLU):
                    layers[index] = nn.LeakyReLU(0.1)


WITHOUT = replace(task_3_2_b.SETTINGS, epochs=10)
WITH = replace(WITHOUT, network=SkipConnection)
L1 = {"loss": nn.functional.l1_loss}
TEMPLATE = L1 | {"batch_size": 300, "lr": 1e-3, "schedule": "constant", "momentum": (0.9, 0.9)}
GARMENTS = {
    "without skip": WITHOUT,
    "with skip": WITH,
    "with skip, started from -X": replace(WITH, network=SkipStartedFromX),
    "without skip, started from X": replace(WITHOUT, network=StartedFromX),
    "with skip, orthogonal start": replace(WITH, network=OrthogonalSkipConnection),
    "with skip, LeakyReLU": replace(WITH, network=LeakySkipConnection),
    "with skip, a fifth of the rate": replace(WITH, lr=WITH.lr / 5),
    "with skip, twice the rate": replace(WITH, lr=WITH.lr * 2),
    "with skip, 3 times the epochs": replace(WITH, epochs=3 * WITH.epochs),
    **{f"{label} skip, {channels} channels": replace(settings, options={"channels": channels})
       for channels in (32, 64) for label, settings in (("without", WITHOUT), ("with", WITH))},
    **{f"{label} skip, {name}": replace(settings, **change)
       for name, change in (("L1 loss", L1), ("as in the template", TEMPLATE))
       for label, settings in (("without", WITHOUT), ("with", WITH))}}
BLACK = {f"black images, {channels} channels": replace(WITH, options={"channels": channels}) for channels in (16, 32)}


@torch.no_grad()
def dead_channels(network, images):
    """How many channels of an EncoderDecoder's bottleneck are zero everywhere for all images [N, 1, 28, 28]."""
    features = network.encoder(images)
    return int((features.amax(dim=(0, 2, 3)) <= 0).sum())


def main():
    args = common.make_parser(__doc__, training=True).parse_args()
    setup = common.setup(args, GARMENTS | BLACK, "FashionMNIST")
    (training, _), (validation, _) = common.load_split("FashionMNIST", setup)
    garments, black = (replace(setup, networks={name: setup.networks[name] for name in names})
                       for names in (GARMENTS, BLACK))
    trained = train_denoisers(garments, training, validation)
    trained |= train_denoisers(black, torch.zeros_like(training), torch.zeros_like(validation))

    noisy, clean = task_3_2_b.NoisyFashionMNIST(validation[:500], task_3_2_b.VALIDATION_SEED)[:]
    rows = [("", "epochs", "MAE", "difference", "dead channels per seed")]
    usual = common.final(trained["with skip"], "MAE")
    for name, runs in trained.items():
        maes = common.final(runs, "MAE")
        difference = common.mean_std([mae - other for mae, other in zip(maes, usual)], 4) if name in GARMENTS else ""
        seen = noisy if name in GARMENTS else noisy - clean
        inner = [getattr(run.network, "network", run.network).cpu() for run in runs]
        dead = ", ".join("-" if "Leaky" in name else str(dead_channels(network, seen)) for network in inner)
        rows.append((name, str(setup.networks[name].epochs), common.mean_std(maes, 4), difference, dead))
    common.report(setup, [
        f"validation MAE on {len(validation)} images; its difference to \"with skip\", paired over the seeds; of the"
        " bottleneck's channels, those that are zero for 500 noisy images", *common.table(*rows)], trained)


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
