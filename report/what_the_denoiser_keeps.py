"""Experiment for 3.2 b: what limits the denoiser, its coarse middle, the noise or the network?

Not the coarse middle as such: trained without noise, the listed network has an MAE of 0.0089. Not the noise alone:
the U-Net has an MAE of 0.0329 on the same noisy images, the listed network with the same loss 0.0475. The best
estimate without a network, clamp(X - 0.75, 0, 1), has 0.1431. All are the networks of 3.2 b, seed 0, from
checkpoints/.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
from task_3_2_a import NoisyFashionMNIST
from task_3_2_b import SETTINGS, VALIDATION_SEED, EncoderDecoder, UNet, score_table, train_denoisers

NETWORKS = {"trained without noise": replace(SETTINGS, noise=0.0)}
CHECKPOINTS = {"L2, equation (2)": (EncoderDecoder, "task_3_2_b.pt"),
               "L1, the MAE": (EncoderDecoder, "task_3_2_b_l1.pt"),
               "U-Net, L1": (UNet, "task_3_2_b_unet_l1.pt")}


def main():
    args = common.start_run(common.make_parser(__doc__, NETWORKS), "FashionMNIST")
    (training, _), (validation, _) = common.load_split("FashionMNIST", args)
    pairs = NoisyFashionMNIST(validation, VALIDATION_SEED)
    noisy, clean = pairs[:]
    results = {"noisy image X": noisy, "X - mean noise": noisy - (noisy - clean).mean(),
               "clamp(X - 0.75, 0, 1)": (noisy - 0.75).clamp(0, 1)}
    for label, (network, name) in CHECKPOINTS.items():
        denoiser, path = network(), common.ROOT / "checkpoints" / name
        common.load_weights(denoiser, common.load_checkpoint(path)["weights"], path)
        results[label], _ = common.evaluate(denoiser.to(args.device), pairs, args)
    without_noise = train_denoisers(NETWORKS, training, validation, args)["trained without noise"]
    same = NoisyFashionMNIST(validation, VALIDATION_SEED, amplitude=0)
    results["no noise, listed network"], _ = common.evaluate(without_noise[0].network, same, args)

    common.plot_images(args, "what_the_denoiser_keeps.png", [""] * 8, {
        "noisy": (noisy[:8], noisy.min(), noisy.max()),
        **{label: (results[label][:8], 0, 1) for label in [*CHECKPOINTS, "no noise, listed network"]},
        "clean": (clean[:8], 0, 1)})
    common.report(args, [f"validation on {len(clean)} images, seed {args.seed[0]}",
                         *score_table({label: [images] for label, images in results.items()}, clean)],
                  {"without noise": without_noise})


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python report/what_the_denoiser_keeps.py
# validation on 10000 images
#                                  MAE  MAE, clamped      MSE  PSNR in dB
# noisy image X                 0.4999        0.3966  0.33326        4.77
# X - 0.5                       0.2500        0.1651  0.08335       10.79
# clamp(X - 0.75, 0, 1)         0.1431        0.1431  0.05529       12.57
# 3x3 mean of X, - 0.5          0.1166        0.0981  0.02394       16.21
# best from one pixel           0.1220        0.1220  0.05604       12.51
# L2, equation (2)              0.0501        0.0490  0.00823       20.85
# L1, the MAE                   0.0475        0.0473  0.00898       20.47
# U-Net, L1                     0.0329        0.0329  0.00499       23.02
# no noise, bottleneck alone    0.0089        0.0081  0.00028       35.58
# (AMD EPYC, 1 thread, bf16, torch 2.15.0+cu132, 5.3 minutes)
