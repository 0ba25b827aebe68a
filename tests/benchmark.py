"""How fast are the scripts, as ratios measured side by side in one run?

    python tests/benchmark.py            16 minutes on 2 cores
    python tests/benchmark.py --quick    fewer images

The rivals take turns (A B A B …); a ratio is printed as the median of the turns with its smallest and largest.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler is not to say what it looked for and did not find

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from tqdm import tqdm  # noqa: E402

import common  # noqa: E402
from common import ConvNet, LabelledImages  # noqa: E402
from task_3_1_a import SETTINGS  # noqa: E402

TURNS = 3  # of all that take turns

# Multiplications and additions of ConvNet for one image, forward; backward costs twice as much again
FLOP = 2 * (28 * 28 * 9 * 32 * (1 + 32 + 32) + 28 * 28 * 32 * 256 + 256 * 10)


def seconds(function, *arguments):
    """The time that one call takes."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def spread(values, unit=""):
    """The median and the range of some values as text."""
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f} … {max(values):.2f})"


def tutorial(data_dir, images, log_dir):
    """A function that trains and validates for one epoch as tutorials do it, in a process of its own."""
    process = subprocess.Popen([sys.executable, ROOT / "tests" / "tutorial.py", data_dir, str(images), log_dir],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def epoch():
        process.stdin.write(b"epoch\n")
        process.stdin.flush()
        assert process.stdout.readline(), "tests/tutorial.py stopped"
    return epoch


def make_setup(precision, folder=None, args=None):
    """A Setup on the CPU that publishes nothing."""
    return common.Setup(device=torch.device("cpu"), precision=precision, networks={}, folder=folder, publishes=False,
                        args=args)


def ours(data_dir, images, precision):
    """A function that trains and validates for one epoch as task_3_1_a.py does, and its data loader."""
    setup = make_setup(precision)
    (train_images, train_labels), (test_images, test_labels) = (
        common.load("MNIST", train, data_dir) for train in (True, False))
    training_set = LabelledImages(train_images[:images], train_labels[:images])
    loader = common.batches(training_set, SETTINGS.batch_size, shuffle=True)
    test_set = LabelledImages(test_images[:images // 6], test_labels[:images // 6])
    network = ConvNet().to(memory_format=torch.channels_last)
    optimizer, scheduler = common.make_optimizer(network, replace(SETTINGS, schedule="constant"), len(loader))

    def train():
        common.train_epoch(network, loader, {"loss": SETTINGS.loss, "accuracy": common.accuracy}, optimizer, scheduler,
                           setup)

    return train, lambda: common.evaluate(network, test_set, setup), lambda: sum(1 for _ in loader)


def cpu_precisions():
    """The precisions to compare: fp32, and bf16 where it is fast."""
    return ["fp32"] + ["bf16"] * common.has_fast_bf16(torch.device("cpu"))


def matrix_product_rate(dtype, size=4096):
    """This machine's own rate in GFLOP/s: the best of five products of two square matrices."""
    a, b = torch.rand(2, size, size).to(dtype)
    return 2 * size ** 3 / min(seconds(torch.matmul, a, b) for _ in range(5)) / 1e9


def profile(train, largest=8):
    """The operations that training spends its time in, the largest first, in percent of all: the fastest turn."""
    turns = []
    for _ in range(TURNS):
        with torch.profiler.profile() as profiler:
            train()
        turns.append({event.key.removeprefix("aten::"): event.self_cpu_time_total for event in profiler.key_averages()})
    shares = min(turns, key=lambda turn: sum(turn.values()))  # the profiler's own fresh memory may slow one down
    ordered = sorted(shares, key=shares.get, reverse=True)[:largest]
    return ", ".join(f"{name} {100 * shares[name] / sum(shares.values()):.0f} %" for name in ordered)


def compare_epochs(data_dir, quick, folder):
    """Rows 1 to 3: an epoch against the tutorial's, the share of the matrix rate, the data path's share."""
    images = 3_000 if quick else 60_000
    precisions = cpu_precisions()
    parts = {precision: ours(data_dir, images, precision) for precision in precisions}  # downloads the data, if need be
    rivals = {"tutorial": tutorial(data_dir, images, folder)}
    for precision, (train, validate, _) in parts.items():
        rivals[precision] = lambda train=train, validate=validate: (train(), validate())
    for epoch in rivals.values():
        epoch()  # the first call compiles kernels
    times = {name: [] for name in rivals}
    for _ in range(TURNS):
        for name, epoch in rivals.items():
            times[name].append(seconds(epoch))
    yield f"1. an epoch of {images} images, a tutorial's loop: {spread(times['tutorial'], ' s')}"
    for precision in precisions:
        ratios = [slow / fast for slow, fast in zip(times["tutorial"], times[precision])]
        yield f"   ours, {precision}: {spread(times[precision], ' s')}, {spread(ratios, 'x')} as fast"
    for precision in precisions:
        train, _, data = parts[precision]
        rate = images * 3 * FLOP / statistics.median(seconds(train) for _ in range(TURNS)) / 1e9
        best = matrix_product_rate(torch.float32 if precision == "fp32" else torch.bfloat16)
        yield f"2. {precision}: {rate:.0f} of {best:.0f} GFLOP/s of a matrix product, {100 * rate / best:.0f} %"
        yield f"   spent in {profile(ours(data_dir, 3_000, precision)[0])}"  # longer ones may slow what they measure
        yield f"3. {precision}: data path {100 * seconds(data) / statistics.median(times[precision]):.1f} % of an epoch"


def compare_predictor(data_dir, quick, folder):
    """Row 4: the whole process of the predictor against the bare imports, and images per second."""
    files = 2_000 if quick else 10_000
    predictor = [sys.executable, ROOT / "task_3_1_d.py", "--log-dir", folder, "--data-dir", data_dir]
    imports = [sys.executable, "-c", "import torch, torchvision"]
    run = lambda command: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: E731
    run(predictor)  # makes the ten images
    ratios = [seconds(run, predictor) / seconds(run, imports) for _ in range(TURNS)]
    yield f"4. predictor on ten images, picture included: {spread(ratios, 'x')} the bare imports"
    images, _ = common.load("FashionMNIST", False, data_dir)
    names = []
    for number in range(files):
        names.append(folder / f"{number}.png")
        Image.fromarray(images[number, 0].numpy()).save(names[-1])
    yield f"   {files / seconds(run, [*predictor, *names]):.0f} images/s on {files} files, start included"


def compare_speed_up(data_dir, quick, folder):
    """Row 6: training without common.speed_up against training with it, each in a process of its own.

    Two short epochs from random weights: mainly the gain of the memory that stays with the process.
    """
    images = "3000" if quick else "12000"
    measure = ("import sys; sys.path.insert(0, sys.argv[1]); import benchmark\n"
               "if sys.argv[2] == 'with': benchmark.common.speed_up()\n"
               "train, _, _ = benchmark.ours(sys.argv[3], int(sys.argv[4]), sys.argv[5])\n"
               "train(); print(benchmark.seconds(train))")
    for precision in cpu_precisions():
        time_of = lambda way: float(subprocess.run(  # noqa: E731
            [sys.executable, "-c", measure, ROOT / "tests", way, data_dir, images, precision], check=True,
            stdout=subprocess.PIPE).stdout)
        ratios = [time_of("without") / time_of("with") for _ in range(TURNS)]
        yield f"6. {precision}: training with common.speed_up is {spread(ratios, 'x')} as fast as without"


def peak_memory(data_dir, quick, folder):
    """Row 5: the resident set of each task, at its largest, in a run of one short epoch."""
    for script in sorted(ROOT.glob("task_3_*.py")):
        command = [sys.executable, script, "--log-dir", folder]
        if "3_1_b" not in script.name:
            command += ["--data-dir", data_dir]
        if script.stem in ("task_3_1_a", "task_3_1_c", "task_3_2_b", "task_3_2_c"):
            command += ["--epochs", "1", "--limit", "2000"]
        # a small process in between: a child begins with the peak of the one that started it
        measure = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=-3);"
                   "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
        peak = subprocess.run([sys.executable, "-c", measure, *command], check=True, stdout=subprocess.PIPE).stdout
        yield f"5. {script.name}: {int(peak) / 2 ** 20:.2f} GiB"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("MLGV_DATA") or common.ROOT / "data"))
    parser.add_argument("--quick", action="store_true", help="fewer images")
    parser.add_argument("--record", action="store_true", help="write the results into this file's trailing comments")
    args = parser.parse_args()
    precision = " and ".join(cpu_precisions())
    torch.manual_seed(0)
    parts = tqdm((compare_epochs, compare_predictor, peak_memory, compare_speed_up), leave=False, disable=None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common.report(make_setup(precision, folder, args), [
            line for part in parts for line in part(args.data_dir, args.quick, folder)])


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python tests/benchmark.py
# 1. an epoch of 60000 images, a tutorial's loop: 56.03 s (55.27 … 61.65)
#    ours, fp32: 39.12 s (38.72 … 43.17), 1.41x (1.30 … 1.59) as fast
#    ours, bf16: 17.55 s (17.21 … 19.03), 3.15x (2.94 … 3.58) as fast
# 2. fp32: 197 of 201 GFLOP/s of a matrix product, 98 %
#    spent in convolution_backward 31 %, mm 29 %, addmm 13 %, mkldnn_convolution 13 %, threshold_backward 5 %, _fused_adamw_ 3 %, copy_ 2 %, clamp_min 1 %
# 3. fp32: data path 0.2 % of an epoch
# 2. bf16: 435 of 766 GFLOP/s of a matrix product, 57 %
#    spent in convolution_backward 31 %, mm 15 %, mkldnn_convolution 14 %, threshold_backward 8 %, addmm 7 %, _fused_adamw_ 7 %, copy_ 7 %, clamp_min 2 %
# 3. bf16: data path 0.5 % of an epoch
# 4. predictor on ten images, picture included: 0.72x (0.71 … 0.74) the bare imports
#    928 images/s on 10000 files, start included
# 5. task_3_1_a.py: 1.07 GiB
# 5. task_3_1_b.py: 0.67 GiB
# 5. task_3_1_c.py: 1.23 GiB
# 5. task_3_1_d.py: 0.69 GiB
# 5. task_3_2_a.py: 0.88 GiB
# 5. task_3_2_b.py: 1.21 GiB
# 5. task_3_2_c.py: 1.31 GiB
# 6. fp32: training with common.speed_up is 1.43x (1.25 … 1.53) as fast as without
# 6. bf16: training with common.speed_up is 1.75x (1.68 … 1.96) as fast as without
# (AMD EPYC, 2 threads, fp32 and bf16, torch 2.15.0+cu132, 15.7 minutes)
