"""How fast are the scripts? What is compared takes turns (A B A B …) in one run: median, smallest and largest of 3.

    python tests/benchmark.py    about 6 minutes on 2 cores
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import common
from common import ROOT
from task_3_1_a import TEMPLATE, LabelledImages
from task_3_1_c import IMPROVED
from task_3_2_a import NoisyFashionMNIST
from task_3_2_b import LISTED, UNet

TURNS, IMAGES = 3, 6_000  # an epoch here is a tenth of the training images
TYPES = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if common.has_fast_bf16("cpu") else {})
NETWORKS = (TEMPLATE, IMPROVED, LISTED, replace(LISTED, network=UNet))
# Multiplications and additions of ConvNet for one image, forward; backward costs twice as much again
FLOP = 2 * (28 * 28 * 9 * 32 * (1 + 32 + 32) + 28 * 28 * 32 * 256 + 256 * 10)


def seconds(function, *arguments):
    """The time that one call takes."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def spread(values, unit="x"):
    """The median and the range of some values as text."""
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f} … {max(values):.2f})"


def run(*command):
    """Run Python with these arguments to its end; returns what it prints."""
    return subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.PIPE).stdout


def parts_of_epoch(settings, precision, data_dir, images):
    """Two functions: one trains a network for an epoch, the other validates it, as `fit` does."""
    classifies = settings in (TEMPLATE, IMPROVED)
    make_data = LabelledImages if classifies else lambda images, labels, augment: NoisyFashionMNIST(images)
    args = argparse.Namespace(device="cpu", precision=precision)
    training, validation = ([part[:count] for part in common.load("MNIST", train, data_dir)]
                            for train, count in ((True, images), (False, images // 6)))
    loader = common.batches(make_data(*training, settings.augment), settings.batch_size, shuffle=True)
    network = settings.network().to(memory_format=torch.channels_last)
    optimizer, scheduler = common.make_optimizer(network, replace(settings, one_cycle=False), len(loader))
    return (partial(common.train_epoch, network, loader, {"loss": settings.loss}, optimizer, scheduler, args),
            partial(common.evaluate, network, make_data(*validation, None), args))


def compare_epochs(data_dir, folder):
    """Rows 1 and 2: an epoch of 3.1 a against the tutorial's; training's share of the rate of a matrix product."""
    def tutorial():
        process.stdin.write(b"epoch\n")
        process.stdin.flush()
        assert process.stdout.readline(), "tests/tutorial.py stopped"

    process = subprocess.Popen([sys.executable, ROOT / "tests" / "tutorial.py", data_dir, str(IMAGES), folder],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    parts = {precision: parts_of_epoch(TEMPLATE, precision, data_dir, IMAGES) for precision in TYPES}
    turns = []
    for _ in range(1 + TURNS):  # the first one compiles kernels
        ours = {precision: list(map(seconds, functions)) for precision, functions in parts.items()}
        turns.append({"tutorial": [seconds(tutorial)]} | ours)
    times = {name: [sum(turn[name]) for turn in turns[1:]] for name in turns[0]}
    yield f"1. an epoch of {IMAGES} images, a tutorial's loop: {spread(times['tutorial'], ' s')}"
    for precision in TYPES:
        ratios = [slow / fast for slow, fast in zip(times["tutorial"], times[precision])]
        yield f"   ours, {precision}: {spread(times[precision], ' s')}, {spread(ratios)} as fast"
    for precision, kind in TYPES.items():
        rate = IMAGES * 3 * FLOP / statistics.median(turn[precision][0] for turn in turns[1:]) / 1e9
        a, b = torch.rand(2, 4096, 4096).to(kind)
        best = 2 * 4096 ** 3 / min(seconds(torch.matmul, a, b) for _ in range(5)) / 1e9
        yield f"2. {precision}: {rate:.0f} of {best:.0f} GFLOP/s of a matrix product, {100 * rate / best:.0f} %"


def compare_predictor(data_dir, folder):
    """Row 3: the whole process of the predictor against the bare imports."""
    predictor = [ROOT / "task_3_1_d.py", "--log-dir", folder, "--data-dir", data_dir]
    run(*predictor)  # makes the ten images
    ratios = [seconds(run, *predictor) / seconds(run, "-c", "import torch, torchvision") for _ in range(TURNS)]
    yield f"3. predictor on ten images, picture included: {spread(ratios)} the bare imports of torch and torchvision"


def peak_memory(data_dir, folder):
    """Row 4: the resident set of each task, at its largest, in a run of one short epoch."""
    # a small process in between: a child begins with the peak of the one that started it
    measure = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=-3);"
               "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    for script in sorted(ROOT.glob("task_3_*.py")):
        data = [] if script.stem.endswith("1_b") else ["--data-dir", data_dir]
        short = ["--epochs", 1, "--limit", 2000] if script.stem[7:] in ("1_a", "1_c", "2_b", "2_c") else []
        peak = run("-c", measure, sys.executable, script, "--log-dir", folder, *data, *short)
        yield f"4. {script.name}: {int(peak) / 2 ** 20:.2f} GiB"


def compare_speed_up(data_dir, folder):
    """Row 5: the second of two short epochs of training with common.speed_up, or without, each in its own process."""
    measure = ("import sys; sys.path.insert(0, sys.argv[1]); import benchmark\n"
               "if sys.argv[2] == 'with': benchmark.common.speed_up()\n"
               "train, _ = benchmark.parts_of_epoch(benchmark.TEMPLATE, sys.argv[3], sys.argv[4], int(sys.argv[5]))\n"
               "train(); print(benchmark.seconds(train))")
    for precision in TYPES:
        turns = [[float(run("-c", measure, ROOT / "tests", way, precision, data_dir, IMAGES // 2))
                  for way in ("without", "with")] for _ in range(TURNS)]
        ratios = [slow / fast for slow, fast in turns]
        yield f"5. {precision}: training with common.speed_up is {spread(ratios)} as fast as without"


def compare_precisions(data_dir, folder):
    """Row 6: an epoch (training and validation) of each network in each precision, after a short one."""
    for settings in NETWORKS:
        times = []
        for precision in TYPES:
            for count in (IMAGES // 20, IMAGES):
                last = sum(map(seconds, parts_of_epoch(settings, precision, data_dir, count)))
            times.append(last)
        texts = [f"{precision} {time:.1f} s" for precision, time in zip(TYPES, times)]
        texts += [f"{times[0] / times[1]:.2f}x as fast"] * (len(times) == 2)
        yield f"6. an epoch of {settings.network.__name__}, batches of {settings.batch_size}: {', '.join(texts)}"


def main():
    args = common.start_run(common.make_parser(__doc__), "MNIST")
    args.environment = f"{common.device_name('cpu')}, {' and '.join(TYPES)}, torch {torch.__version__}"
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for part in (compare_epochs, compare_predictor, peak_memory, compare_speed_up, compare_precisions):
            for line in part(args.data_dir, folder):
                print(line, flush=True)
                lines.append(line)
    common.print_results(args, lines)


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python tests/benchmark.py
# 1. an epoch of 6000 images, a tutorial's loop: 8.58 s (7.70 … 9.72)
#    ours, fp32: 6.30 s (6.29 … 6.38), 1.36x (1.22 … 1.52) as fast
#    ours, bf16: 2.63 s (2.21 … 2.75), 3.70x (2.80 … 3.88) as fast
# 2. fp32: 126 of 279 GFLOP/s of a matrix product, 45 %
# 2. bf16: 300 of 1450 GFLOP/s of a matrix product, 21 %
# 3. predictor on ten images, picture included: 0.73x (0.63 … 0.99) the bare imports of torch and torchvision
# 4. task_3_1_a.py: 1.07 GiB
# 4. task_3_1_b.py: 0.67 GiB
# 4. task_3_1_c.py: 1.30 GiB
# 4. task_3_1_d.py: 0.70 GiB
# 4. task_3_2_a.py: 1.07 GiB
# 4. task_3_2_b.py: 1.37 GiB
# 4. task_3_2_c.py: 1.35 GiB
# 5. fp32: training with common.speed_up is 1.01x (0.95 … 1.20) as fast as without
# 5. bf16: training with common.speed_up is 2.33x (1.26 … 2.49) as fast as without
# 6. an epoch of ConvNet, batches of 100: fp32 5.9 s, bf16 3.2 s, 1.86x as fast
# 6. an epoch of FashionNet, batches of 250: fp32 19.1 s, bf16 11.4 s, 1.67x as fast
# 6. an epoch of EncoderDecoder, batches of 100: fp32 1.5 s, bf16 0.8 s, 1.92x as fast
# 6. an epoch of UNet, batches of 100: fp32 11.6 s, bf16 6.1 s, 1.90x as fast
# (Intel Xeon, 2 threads, fp32 and bf16, torch 2.15.0+cu132, 6.1 minutes)
