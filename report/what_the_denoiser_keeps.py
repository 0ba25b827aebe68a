"""Experiment for 3.2 b: what limits the denoiser, its coarse middle, the noise or the network?

Not the coarse middle as such: trained without noise, the listed network has an MAE of 0.0094. Not the noise alone: the
U-Net has an MAE of 0.0328 on the same noisy images, the listed network with the same loss 0.0472. Without a network,
clamp(X - 0.75, 0, 1) has 0.1431. Those trained with noise are the networks of 3.2 b, seed 0, from checkpoints/.
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
    common.require(args.seed == [0], "the checkpoints are those of seed 0: leave out --seed")
    (training, _), (validation, _) = common.load_split(args)
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
    common.print_results(args, [f"validation on {len(clean)} images, seed {args.seed[0]}",
                         *score_table({label: [images] for label, images in results.items()}, clean)],
                  {"without noise": without_noise})


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python report/what_the_denoiser_keeps.py
# validation on 10000 images, seed 0
#                                MAE  background  garments  clamped      MSE  PSNR in dB
# noisy image X               0.4999      0.4998    0.5001   0.3966  0.33326        4.77
# X - mean noise              0.2500      0.2500    0.2501   0.1652  0.08335       10.79
# clamp(X - 0.75, 0, 1)       0.1431      0.0312    0.2549   0.1431  0.05529       12.57
# L2, equation (2)            0.0500      0.0162    0.0837   0.0489  0.00818       20.87
# L1, the MAE                 0.0472      0.0073    0.0872   0.0471  0.00893       20.49
# U-Net, L1                   0.0328      0.0026    0.0629   0.0327  0.00496       23.05
# no noise, listed network    0.0094      0.0033    0.0155   0.0087  0.00033       34.86
# (Intel Xeon, 2 threads, bf16, torch 2.15.0+cu132, 3.7 minutes)
