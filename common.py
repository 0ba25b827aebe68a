"""What the tasks of exercise 3 share: *Data*, *Networks* and *Training* are the exercise; the rest is convenience."""

import argparse
import contextlib
import ctypes
import io
import math
import os
import platform
import re
import shlex
import socket
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent


class UserError(Exception):
    """A mistake that the user can fix: run_script prints its text in one line and exits with status 2."""


def require(condition, message):
    """Raise UserError with this message unless a condition holds."""
    if not condition:
        raise UserError(message)


# ======================================================= Data =======================================================

FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                   "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PUBLISHED = {"MNIST": 1_567_298_545, "FashionMNIST": 3_431_114_169}  # sum of all training pixels: identifies them


def load(name, train, data_dir):
    """Read "MNIST" or "FashionMNIST", downloading it first if it is not there; UserError if that is impossible.

    Returns images, uint8 [N, 1, 28, 28] in 0 … 255, and labels, int64 [N] in 0 … 9.
    """
    from torchvision import datasets  # imported here: the offline predictor does not need it

    socket.setdefaulttimeout(30)  # seconds: a connection that never answers counts as none
    try:
        dataset = getattr(datasets, name)(data_dir, train, download=True)
        images, labels = dataset.data, dataset.targets
        require(images.shape[1:] == (28, 28) and 0 < len(images) == len(labels) and labels.max() <= 9,
                "these are not images of 28x28 pixels with a label of 0 to 9 each")
    except Exception as error:  # no connection, full disk, damaged file, …
        cause = str(error) or repr(error)  # some errors have no text
        raise UserError(f"{name} cannot be read or downloaded ({cause}): put its uncompressed files {', '.join(FILES)}"
                        f" into {Path(data_dir) / name / 'raw'}, or run 'python tests/synthetic_data.py synthetic' and"
                        " add --data-dir synthetic") from None
    return images.unsqueeze(1), labels


def load_split(args):
    """Training and validation data: ((images, labels), (images, labels)), of which training is limited by --limit.

    Validation is on the 10,000 test images; with --holdout, on the last 10,000 training images, which are then not
    trained on, and the test images are never loaded: use it to choose hyper-parameters.
    """
    images, labels = load(args.data_name, True, args.data_dir)
    if not args.holdout:
        return (images[:args.limit], labels[:args.limit]), load(args.data_name, False, args.data_dir)
    split = len(images) * 5 // 6
    return (images[:split][:args.limit], labels[:split][:args.limit]), (images[split:], labels[split:])


def batches(dataset, batch_size, shuffle=False):
    """A DataLoader whose sampler gives it lists of indices: it takes a whole batch, `dataset[indices]`, at once."""
    order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    return DataLoader(dataset, batch_size=None, sampler=BatchSampler(order, batch_size, drop_last=False))


# ===================================================== Networks =====================================================

class ConvNet(nn.Module):
    """The sheet's classifier (3.1 a), 6,444,170 parameters: images [B, 1, 28, 28] to logits [B, 10]."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())  # the template forgets this ReLU: bug 1
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(32 * 28 * 28, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, images):
        return self.classifier(self.features(images))


# ===================================================== Training =====================================================

@dataclass(frozen=True)
class Settings:
    """How a network is trained."""

    network: Callable  # returns a new network, such as ConvNet or partial(EncoderDecoder, channels=32)
    loss: Callable  # maps (outputs, targets) to the batch mean
    epochs: int  # passes over the training images
    batch_size: int  # images per step
    lr: float  # learning rate; in one cycle, its peak
    one_cycle: bool = True  # True: the rate rises and falls to zero; False: it is constant
    weight_decay: float = 0.0
    augment: Callable | None = None  # changes a batch of training images at random
    noise: float = 1.0  # the amplitude of a denoiser's noise


# history: for each epoch {"training": {"loss": …, metrics}, "validation": the same, "seconds": …}; checkpoint: a path
Run = namedtuple("Run", "network history checkpoint")


def forward(network, images, args):
    """The network's outputs, float32 on args.device, for images [B, 1, 28, 28]; computed in args.precision."""
    with torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16"):
        return network(images.to(args.device)).float()


@torch.inference_mode()
def evaluate(network, dataset, args):
    """Outputs (float32) and targets of a whole data set in its order, on the CPU; leaves the network in eval mode."""
    network.eval()
    pairs = [(forward(network, images, args).cpu(), targets) for images, targets in batches(dataset, 250)]
    outputs, targets = zip(*pairs)
    return torch.cat(outputs), torch.cat(targets)


def make_optimizer(network, settings, steps_per_epoch):
    """AdamW, Adam if the weight decay is 0, and a scheduler: constant or one cycle (Smith & Topin 2018), of β₁ too."""
    optimizer = torch.optim.AdamW(network.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True)
    if settings.one_cycle:
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.lr, total_steps=settings.epochs * steps_per_epoch)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)


def train_epoch(network, loader, metrics, optimizer, scheduler, args):
    """One pass over the training images; returns the metrics' means over all images, while the weights change."""
    network.train()
    totals, count = dict.fromkeys(metrics, 0.0), 0
    for images, targets in loader:
        targets = targets.to(args.device)
        optimizer.zero_grad()  # the template forgets this: bug 2
        outputs = forward(network, images, args)
        loss = metrics["loss"](outputs, targets)
        loss.backward()
        optimizer.step()
        scheduler.step()  # after every batch, not every epoch
        count += len(images)
        for name, metric in metrics.items():  # totals stay on the device: .item() would wait for it
            totals[name] += metric(outputs.detach(), targets) * len(images)
    return {name: float(total) / count for name, total in totals.items()}


def fit(name, settings, training_set, validation_set, metrics, args, seed, log_images=None):
    """Train one network with one seed; continue after the last saved epoch, if there is one. Returns a Run.

    name: that of its folder; settings: --epochs, --batch-size and --lr replace theirs.
    metrics: {name: function} besides the loss; each maps (outputs, targets) to the batch mean.
    log_images: called after each epoch, for both data sets, with (TensorBoard writer, network, data set, epoch, args).
    Raises UserError if the loss diverges or the saved state cannot be continued.
    """
    from torch.utils.tensorboard import SummaryWriter  # imported here: it is slow

    settings = replace(settings, **{key: vars(args)[key] for key in ("epochs", "batch_size", "lr") if vars(args)[key]})
    metrics = {"loss": settings.loss, **metrics}
    torch.manual_seed(1000 * seed)  # the initial weights
    # faster; but on MPS, batch normalisation gets it wrong (pytorch#175189)
    layout = torch.channels_last if args.device in ("cpu", "cuda") else torch.contiguous_format
    network = settings.network().to(args.device, memory_format=layout)
    loader = batches(training_set, settings.batch_size, shuffle=True)
    optimizer, scheduler = make_optimizer(network, settings, len(loader))
    folder = args.folder / name / f"seed{seed}"
    parts = {"weights": network, "optimizer": optimizer, "scheduler": scheduler}
    as_text = {key: name_of(value) for key, value in vars(settings).items()}
    as_text["layers"] = str(network)  # --resume refuses edited ones, but sees no edit in `forward` or of the optimizer
    history = resume(folder / "checkpoint.pt", as_text, parts)
    # purge_step drops what was logged but not saved
    writers = {kind: SummaryWriter(folder / kind, purge_step=len(history) + 1) for kind in ("training", "validation")}
    for epoch in range(len(history) + 1, settings.epochs + 1):
        start = time.perf_counter()
        torch.manual_seed(1000 * seed + epoch)  # each epoch of each seed has random numbers of its own
        label = f"{name}, seed {seed}, epoch {epoch:2}/{settings.epochs}"
        bar = tqdm(loader, label, leave=False, disable=None)
        training = train_epoch(network, bar, metrics, optimizer, scheduler, args)
        outputs, targets = evaluate(network, validation_set, args)
        validation = {key: float(metric(outputs, targets)) for key, metric in metrics.items()}
        require(math.isfinite(training["loss"] + validation["loss"]), f"{label}: the loss diverges: try a smaller --lr")
        history.append({"training": training, "validation": validation, "seconds": time.perf_counter() - start})
        if log_images:
            log_images(writers["training"], network, training_set, epoch, args)
            log_images(writers["validation"], network, validation_set, epoch, args)
        log_epoch(writers, history, scheduler, label)
        saved = parts if epoch < settings.epochs else {"weights": network}  # at the end, only the weights are needed
        save_checkpoint(folder / "checkpoint.pt", {
            "settings": as_text, "data": args.data_name, "seed": seed, "command": args.command,
            "date": f"{datetime.now():%Y-%m-%d}", "history": history,
            **{key: part.state_dict() for key, part in saved.items()}})
    for writer in writers.values():
        writer.close()
    return Run(network, history, folder / "checkpoint.pt")


def resume(path, settings, parts):
    """Restore network, optimizer and scheduler from a checkpoint; returns its history, or [] if there is none yet.

    settings: as strings. Raises UserError if they have been edited since, or if the file is damaged.
    """
    for leftover in path.parent.glob("*.tmp.*"):  # of a process that was killed while saving
        leftover.unlink()
    if not path.exists():
        return []
    state = load_checkpoint(path)
    old = state["settings"]
    edited = ["the layers were edited" if key == "layers" else f"{key} {old.get(key)} -> {new}"
              for key, new in settings.items() if old.get(key) != new]
    require(not edited, f"{path} was trained with other settings ({', '.join(edited)}): leave out --resume")
    load_weights(parts["weights"], state["weights"], path)
    for key in ("optimizer", "scheduler"):
        if key in state:  # not after the last epoch
            parts[key].load_state_dict(state[key])
    print(f"{display_path(path)}: continuing after epoch {len(state['history'])}")
    return state["history"]


def log_epoch(writers, history, scheduler, label):
    """Write an epoch's values to TensorBoard, where equal tags share a chart, and print them in one line."""
    texts = []
    writers["training"].add_scalar("learning rate", scheduler.get_last_lr()[0], len(history))
    for kind, writer in writers.items():
        for name, value in history[-1][kind].items():
            writer.add_scalar(name, value, len(history))
        texts.append(f"{kind} " + ", ".join(f"{name} {value:.4g}" for name, value in history[-1][kind].items()))
        writer.flush()  # before the state is saved: an interrupted run repeats an epoch rather than lose its point
    print(label, *texts, f"{history[-1]['seconds']:.1f} s", sep="; ")


# =================================================== Checkpoints ====================================================

@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path; when the block succeeds, its file takes the place of `path` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{os.getpid()}.tmp.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def name_of(value):
    """A setting as text: a function or class by its name, a partial by its function's name and its arguments."""
    if isinstance(value, partial):
        texts = [*map(name_of, value.args), *(f"{key}={name_of(v)}" for key, v in value.keywords.items())]
        return f"{name_of(value.func)}({', '.join(texts)})"
    return getattr(value, "__name__", str(value))


def save_checkpoint(path, state):
    """Save a dict of tensors, strings and numbers."""
    buffer = io.BytesIO()  # on a full disk, torch.save itself raises RuntimeError instead of OSError
    torch.save(state, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load_checkpoint(path):
    """Read what fit has saved; no code from the file is ever run. UserError if it is anything else."""
    require(Path(path).is_file(), f"no such file: {path}")
    kinds = {"settings": dict, "data": str, "command": str, "date": str, "history": list, "weights": dict}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        sound = all(isinstance(state[key], kind) for key, kind in kinds.items())
    except Exception:  # a damaged or hostile file can fail in any way
        sound = False
    require(sound, f"{path} is damaged or not a checkpoint of this project")
    return state


def load_weights(network, weights, path):
    """Put the weights of a checkpoint into a network; UserError if they do not fit or are not finite."""
    try:
        network.load_state_dict(weights)
        finite = all(values.isfinite().all() for values in network.state_dict().values())
    except Exception:
        raise UserError(f"the weights in {path} do not fit a {type(network).__name__}") from None
    require(finite, f"the weights in {path} are not all finite numbers")


def publish(args, runs, name):
    """Copy the networks of all seeds to checkpoints/, where other scripts find them; a trial run does not."""
    if args.changed:  # a trial run
        return
    for seed, run in zip(args.seed, runs):
        path = ROOT / "checkpoints" / f"{name}{f'_seed{seed}' if seed else ''}.pt"
        with replacing(path) as temporary:
            temporary.write_bytes(run.checkpoint.read_bytes())
        print(f"wrote {display_path(path)}")


# ===================================================== Results ======================================================

def mean_std(values, digits=2):
    """Mean and, for several values, standard deviation as text, such as "99.21 ± 0.04"."""
    values = torch.tensor(values, dtype=torch.float64)
    text = f"{values.mean():.{digits}f}"
    return f"{text} ± {values.std():.{digits}f}" if len(values) > 1 else text


def table(*rows):
    """The lines of a table of texts: columns as wide as needed, the first left-aligned, the others right-aligned."""
    first, *others = [max(map(len, column)) + 2 for column in zip(*rows)]
    return [label.ljust(first) + "".join(map(str.rjust, texts, others)) for label, *texts in rows]


def last_values(runs, metric, kind="validation"):
    """A metric's values after the last epoch, one for each run."""
    return [run.history[-1][kind][metric] for run in runs]


def joined(values, digits=2):
    """The value of each seed as text, such as "99.25, 99.17"."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def count_parameters(network):
    """How many weights a network has, as text, such as "6,444,170"."""
    return f"{sum(parameter.numel() for parameter in network.parameters()):,}"


def minutes(runs):
    """The time that training and validation of some runs took, without interruptions."""
    return sum(row["seconds"] for run in runs for row in run.history) / 60


def print_results(args, lines, trained=None):
    """Print results, write them to the run's folder and, with --record, into the script's trailing comments.

    trained: {name: [Run per seed]}; the printed time is that of their training or, without them, of the script.
    """
    spent = minutes(sum(trained.values(), [])) if trained else (time.perf_counter() - args.started) / 60
    lines = [*lines, f"({args.environment}, {spent:.1f} minutes)"]
    print("", *lines, "", sep="\n")
    with replacing(args.folder / "results.txt") as temporary:
        temporary.write_text("\n".join([f"$ {args.command}", *lines, ""]), encoding="utf-8")
    if args.record:
        record(Path(sys.argv[0]), args.command, lines)


def record(script, command, lines):
    """Put a command and what it printed at a script's end, or in place of its old block; every other byte stays."""
    source = script.read_bytes().decode()
    newline = "\r\n" if "\r\n" in source else "\n"
    block = newline.join(f"# {line}".rstrip() for line in [f"$ {command}", *lines])
    # from the same command to the next line of an environment, no other command in between
    old = rf"^# \$ {re.escape(command)} *\r?\n(#(?! \$ ).*\n)*?# \(.*, torch .* minutes\)(?=\r?$)"
    source, found = re.subn(old, lambda _: block, source, flags=re.M)
    with replacing(script) as temporary:
        temporary.write_bytes((source if found else source + newline + block + newline).encode())
    print(f"recorded in {display_path(script)}")


# ===================================================== Figures ======================================================

def make_figure(width, height, **options):
    """A matplotlib figure of this size in inches, as on the page, and its axes; options: as for `subplots`."""
    os.environ.pop("MPLBACKEND", None)  # a notebook's, which may not be installed here; files need none
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()  # a user's own settings are not to change recorded pictures
    matplotlib.rcParams.update({
        "font.size": 8, "axes.titlesize": 8, "axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False,
        "axes.spines.right": False, "legend.frameon": False, "image.cmap": "gray", "lines.markersize": 3,
        # Okabe & Ito 2008: distinct for colour-blind readers too; the markers, in black and white
        "axes.prop_cycle": matplotlib.cycler(
            color=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9"), marker=list("os^Dvx"))})
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**options)


def save_figure(args, figure, name):
    """Write a figure into the run's folder and, with --record, a copy into report/figures/."""
    image = io.BytesIO()
    figure.savefig(image, dpi=200, format=Path(name).suffix[1:])  # only once: each time, the layout moves by a pixel
    for folder in [args.folder, *([ROOT / "report" / "figures"] if args.record else [])]:
        with replacing(folder / name) as temporary:
            temporary.write_bytes(image.getvalue())
        print(f"wrote {display_path(folder / name)}")


def plot_curves(args, name, trained, metric, label):
    """Draw a metric's mean over the seeds and their range; trained: {legend entry: [Run per seed]}."""
    figure, panels = make_figure(6.3, 2.8, ncols=2, sharex=True, sharey=True)
    for axes, kind in zip(panels, ("training", "validation")):
        for entry, runs in trained.items():
            values = torch.tensor([[row[kind][metric] for row in run.history] for run in runs])
            epochs = range(1, values.shape[1] + 1)
            line, = axes.plot(epochs, values.mean(dim=0), label=entry)
            axes.fill_between(epochs, values.amin(dim=0), values.amax(dim=0), color=line.get_color(), alpha=0.2)
        axes.set(title=kind, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_ylabel(label)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)  # covers no curve
    save_figure(args, figure, name)


def plot_images(args, name, rows, titles=None):
    """Draw images; rows: {label: ([N, 1, 28, 28], lowest, highest value)}; titles: N texts above the first row."""
    count = len(next(iter(rows.values()))[0])
    width, height = 0.62 * count + (1.2 if any(rows) else 0), 0.63 * len(rows) + 0.3  # 1.2: for the labels
    figure, axes = make_figure(width, height, nrows=len(rows), ncols=count, squeeze=False)
    for line, (label, (images, low, high)) in zip(axes, rows.items()):
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for axis, image in zip(line, images):
            axis.imshow(image[0].numpy(), vmin=low, vmax=high)
            axis.set(xticks=[], yticks=[], frame_on=False)
    for axis, title in zip(axes[0], titles or []):
        axis.set_title(title, fontsize=7)
    save_figure(args, figure, name)


# =================================================== Command line ===================================================

def refuse(message):
    """What argparse calls for a command line that it does not understand."""
    raise UserError(f"{message} (--help lists the options)")


def make_parser(doc, networks=None, data=True):
    """The shared command line; doc: the script's docstring; networks: {name: Settings} that it trains, if it does."""
    def default(name):
        values = {getattr(settings, name) for settings in networks.values()}
        return f"(default: {values.pop()})" if len(values) == 1 else "(defaults: see NETWORKS in the script)"

    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0], allow_abbrev=False)
    parser.error = refuse
    add = parser.add_argument
    if data:
        add("--data-dir", type=os.path.expanduser, default=os.environ.get("MLGV_DATA") or str(ROOT / "data"),
            help="where MNIST/raw and FashionMNIST/raw are or will be downloaded to (default: %(default)s)")
    if networks:
        add("--epochs", type=int, help=f"passes over the training images {default('epochs')}")
        add("--batch-size", type=int, help=f"images per step {default('batch_size')}")
        add("--lr", type=float, help=f"learning rate, in one cycle its peak {default('lr')}")
        add("--seed", type=int, nargs="+", default=[0], metavar="S", help="several: one run each, then mean ± std")
        add("--device", choices=("auto", "cpu", "cuda", "mps", "xpu"), default="auto", help="auto: the GPU, if any")
        add("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="auto: bf16 where it is native")
        add("--limit", type=int, metavar="N", help="a quick run: train on the first N images")
        add("--holdout", action="store_true", help="validate on the last 10,000 training images, train on the others")
        add("--resume", action="store_true", help="continue the newest run of the same command")
    else:
        parser.set_defaults(device="cpu", precision="fp32", seed=[0], resume=False)
    add("--log-dir", type=os.path.expanduser, default=str(ROOT / "runs"), help="for all runs (default: %(default)s)")
    add("--record", action="store_true", help="write the results into this file's trailing comments")
    return parser


def start_run(parser, data_name=None, variants=()):
    """Parse the command line and add what follows from it: command, device, precision, environment, folder, trial …

    data_name: the data set that the script reads; variants: options that choose another of the task's own networks.
    args.changed names what else was changed; only a run that changes nothing is published and recorded.
    Raises UserError if the options make no sense together or the data cannot be read.
    """
    args = parser.parse_intermixed_args()  # options and file names in any order
    for name, most in {"epochs": 999, "batch_size": 60_000, "lr": 1000, "limit": 60_000}.items():
        value = vars(args).get(name)
        require(value is None or 0 < value <= most, f"--{name.replace('_', '-')} must be above 0 and at most {most}")
    require(len(set(args.seed)) == len(args.seed) and 0 <= min(args.seed) <= max(args.seed) <= 999_999,
            "--seed needs distinct numbers from 0 to 999999")
    own = ("seed", "resume", "record", "data_dir", "log_dir", *variants)  # anything else makes it a trial run
    changed = [name for name, value in vars(args).items() if name not in own and value != parser.get_default(name)]

    args.data_name, args.started, args.command = data_name, time.perf_counter(), typed_command()
    args.device, args.precision = choose_device(args)
    args.environment = f"{device_name(args.device)}, {args.precision}, torch {torch.__version__}"
    pixels = int(load(data_name, True, args.data_dir)[0].sum()) if data_name else None
    if pixels != PUBLISHED.get(data_name):
        changed.append("data")
    text = f"{args.command}\n{args.environment}\ndata: {data_name}, sum of the training images' pixels: {pixels}\n"
    args.changed = ", ".join(changed)
    require(not (args.record and args.changed), f"--record takes a task's own results, but changed: {args.changed}")
    args.folder = run_folder(Path(args.log_dir) / Path(sys.argv[0]).stem, text, args.resume)
    if args.changed:
        print(f"trial run (changed: {args.changed}): it writes only to {display_path(args.folder)}")
    if "epochs" in args:  # it trains
        print(f'watch the curves: tensorboard --logdir "{args.folder.resolve()}" --samples_per_plugin images=100'
              " (and set smoothing to 0)\nafter an interruption, the same command with --resume goes on")
    return args


def typed_command():
    """The command as it was typed, without the options that do not change the result."""
    others = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    for option in ("--data-dir", "--log-dir"):
        others.add_argument(option)
    for option in ("--resume", "--record"):
        others.add_argument(option, action="store_true")
    _, typed = others.parse_known_args()
    return shlex.join(["python", Path(os.path.relpath(Path(sys.argv[0]).resolve(), ROOT)).as_posix(), *typed])


def run_folder(parent, text, resuming):
    """A new folder with the run's text in command.txt; with --resume, the newest one that has the same text."""
    if not resuming:
        folder = parent / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
        with replacing(folder / "command.txt") as temporary:
            temporary.write_text(text, encoding="utf-8")
        return folder
    same = [file.parent for file in parent.glob("*/command.txt") if file.read_text("utf-8", "replace") == text]
    require(same, f"no run in {parent} has this command, environment and data in its command.txt: leave out --resume")
    # one with a saved epoch before one without
    return max(same, key=lambda folder: (any(folder.glob("*/*/checkpoint.pt")), folder.name))


def choose_device(args):
    """The device and the precision that the command line asks for; raises UserError if that device does not work."""
    best = getattr(torch.accelerator.current_accelerator(check_available=True), "type", "cpu")
    device = best if args.device == "auto" else args.device
    require(device in ("cpu", best), f"no {device} device here: leave out --device or give --device cpu")
    try:
        torch.ones(1, device=device).add_(1)
    except Exception as error:  # such as a GPU that is too old for this version of torch
        cause = str(error).partition("\n")[0]
        require(args.device == "auto", f"{device} does not work here ({cause}): give --device cpu")
        print(f"computing on the CPU, because {device} does not work here ({cause})")
        device = "cpu"
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # fp32 means fp32: no TF32 in convolutions
    automatic = "bf16" if has_fast_bf16(device) else "fp32"
    return device, automatic if args.precision == "auto" else args.precision


def has_fast_bf16(device):
    """Whether a device has instructions for bfloat16, usually faster than fp32; unknown for MPS and XPU."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and any(torch.cpu.get_capabilities().get(name) for name in ("amx_bf16", "avx512_bf16"))


def device_name(device):
    """The hardware's name, and for a CPU the number of threads."""
    if device in ("cuda", "xpu"):
        return getattr(torch, device).get_device_name()
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}" if device == "cpu" else f"{device} on {name}"


def display_path(path):
    """A path as a user would type it: relative to the current folder if it lies there."""
    path = Path(path).resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def speed_up():
    """Two settings for training on a CPU, to be made before the first computation (gain: `tests/benchmark.py`).

    Denormal numbers, slow on some CPUs, become zero. Freed memory stays with the process (mallopt(3)).
    """
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        for option, value in ((-3, 2 ** 25), (-1, 2 ** 31 - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            ctypes.CDLL(None).mallopt(option, value)


def run_script(main):
    """Call a script's main; a user's mistake ends in one line and exit status 2, Ctrl-C in 130."""
    with contextlib.suppress(AttributeError):  # the output of a notebook or of IDLE has no such method
        # a console that cannot print "π" should not stop the script; a pipe or a log shows each line at once
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    speed_up()
    try:
        return main()
    except (UserError, OSError) as error:
        message, status = str(error), 2
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "allocate memory" not in str(error):
            raise  # a bug
        message, status = f"not enough memory ({error}): try a smaller --batch-size", 2
    print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
