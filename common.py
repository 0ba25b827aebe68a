"""What the tasks of exercise 3 share.

The sections *Data*, *Networks* and *Training* are the exercise; *Checkpoints*, *Results and figures* and *Command line*
are what makes its scripts comfortable and safe to use.
"""

import argparse
import contextlib
import ctypes
import hashlib
import io
import json
import math
import os
import platform
import signal
import socket
import sys
import threading
import time
import warnings
import zipfile
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent


class UserError(Exception):
    """An error that the user can fix: run_script prints its text in one line and exits with status 2."""


def require(condition, message=""):
    """Raise UserError unless a condition holds; unlike assert, for checking external input."""
    if not condition:
        raise UserError(message)


# ======================================================= Data =======================================================

FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                   "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

MD5 = {  # of the four published files, in the order of raw_files: results on any other data are never recorded
    "MNIST": "017998840fb0ba3336e2cca627621f8d", "FashionMNIST": "7fb138cd6dc7fb99e48ca6a5a22923b2"}


def raw_files(name, data_dir):
    """The paths of a data set's training images and labels, test images and labels, as torchvision has them."""
    return [Path(data_dir) / name / "raw" / f"{part}-ubyte" for part in (
        "train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")]


def load(name, train, data_dir):
    """Read "MNIST" or "FashionMNIST", downloading it first if it is not there.

    Returns images, uint8 [N, 1, 28, 28] in 0 … 255, and labels, int64 [N] in 0 … 9.
    Raises UserError if the files are missing and cannot be downloaded, or if one is damaged.
    """
    from torchvision import datasets  # imported here: the offline predictor does not need it

    socket.setdefaulttimeout(30)  # seconds: a connection that never answers counts as none
    files = raw_files(name, data_dir)
    try:
        require(not (Path(data_dir) / name / "processed").exists(), "torchvision would read its old folder processed/")
        missing = not all(file.exists() for file in files)
        shared = os.access(Path(data_dir) / ".lock", os.W_OK)  # a download was begun here, perhaps one still at work
        with lock(data_dir) if missing or shared else contextlib.nullcontext():  # so that two scripts download once
            data = getattr(datasets, name)(data_dir, train=train, download=True)
        images, labels = data.data.unsqueeze(1), data.targets
        require(len(images) == len(labels) > 0, "as many images as labels are needed")
        require(images.dtype == torch.uint8 and images.shape[1:] == (1, 28, 28), "the images are not 28x28 bytes")
        require(labels.ndim == 1 and 0 <= labels.min() and labels.max() <= 9, "labels are not 0 to 9")
        return images, labels
    except Exception as error:  # a download or a damaged file can fail in any way
        require(all(file.exists() for file in files),
                f"{name} is not in {data_dir} and cannot be downloaded: put its files into {files[0].parent},"
                " or make synthetic data with 'python tests/stand_in.py data-synthetic' and add"
                " --data-dir data-synthetic")
        if isinstance(error, (MemoryError, OSError)):  # not the file's fault
            raise
        raise UserError(f"{name} in {data_dir} is damaged ({str(error) or repr(error)}):"
                        f" delete {Path(data_dir) / name} and run again") from None


def load_split(name, setup):
    """Training and validation data as the settings ask by `limit` and `holdout`: ((images, labels), (images, labels)).

    Validation is on the 10,000 test images. With `holdout` it is on the last 10,000 of the 60,000 training images,
    which are then not trained on, and the test images are never loaded: this is how choices are made.
    """
    settings = next(iter(setup.networks.values()))  # all networks of a script have the same data
    images, labels = load(name, True, setup.args.data_dir)
    if settings.holdout:
        split = len(images) * 5 // 6
        validation = images[split:], labels[split:]
        images, labels = images[:split], labels[:split]
    else:
        validation = load(name, False, setup.args.data_dir)
    return (images[:settings.limit], labels[:settings.limit]), validation


def checksum(name, data_dir):
    """The MD5 of a data set's four files, which are downloaded first if they are not there."""
    load(name, True, data_dir)
    return hashlib.md5(b"".join(file.read_bytes() for file in raw_files(name, data_dir))).hexdigest()


class LabelledImages(Dataset):
    """Images, float32 in [0, 1], and labels, int64 in 0 … 9; to be indexed by a slice or a list, a whole batch at once.

    images: uint8 [N, 1, 28, 28]; labels: int64 [N]; augment: a function of a float32 batch, or None.
    """

    def __init__(self, images, labels, augment=None):
        self.images, self.labels, self.augment = images, labels, augment

    def __len__(self):
        return len(self.images)

    def __getitem__(self, indices):
        images = self.images[indices].float() / 255
        return self.augment(images) if self.augment else images, self.labels[indices]

    __getitems__ = __getitem__  # a DataLoader calls it with the indices of a batch


def batches(dataset, batch_size, shuffle=False):
    """A DataLoader over a data set whose __getitems__ returns whole batches."""
    return DataLoader(dataset, batch_size, shuffle, collate_fn=lambda batch: batch)


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


class FashionNet(nn.Module):
    """The improved classifier (3.1 c): images [B, 1, 28, 28] to logits [B, 10].

    Groups of convolutions, with 2x2 max-pooling after the first of each; then global max-pooling and one linear layer.
    The arguments are what `report/what_each_change_brings.py` varies.
    """

    def __init__(self, widths=(80, 160, 320), convolutions=2, batch_norm=True, activation="GELU"):
        super().__init__()
        layers, channels = [], 1
        for width in widths:
            for position in range(convolutions):
                layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=not batch_norm))
                if position == 0:
                    layers.append(nn.MaxPool2d(2))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(getattr(nn, activation)())
                channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, images):
        return self.classifier(self.features(images).amax(dim=(2, 3)))


class EncoderDecoder(nn.Module):
    """The sheet's denoiser (3.2 b): noisy images [B, 1, 28, 28] to denoised images [B, 1, 28, 28].

    As listed, except in two places where the listed layers would not return an image of the input's shape:
    `output_padding=1` lets the transposed convolutions double the size (7 -> 14 -> 28; without it 7 -> 13 -> 25), and
    the last layer has the image's one channel instead of 16, which would silently broadcast against the target's one.
    """

    def __init__(self, channels=16):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=1, padding=1), nn.ReLU())
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
            nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
            nn.Conv2d(channels, 1, 3, stride=1, padding=1))

    def forward(self, images):
        return self.decoder(self.encoder(images))


def parameter_count(network):
    """The number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


# ===================================================== Training =====================================================

@dataclass(frozen=True)
class Settings:
    """How a network is trained; --resume continues only a run whose settings are identical, field by field."""

    network: Callable  # the network's class
    loss: Callable  # (outputs, targets) to the batch's mean
    epochs: int  # passes over the training images
    batch_size: int  # images per step
    lr: float  # learning rate; with a one-cycle schedule its peak
    options: dict = field(default_factory=dict)  # the network's keyword arguments
    optimizer: Callable = torch.optim.AdamW
    weight_decay: float = 0.0
    schedule: str = "one-cycle"  # or "constant"
    momentum: tuple = (0.95, 0.85)  # Adam's first beta: at the lowest learning rate (and if constant), at the highest
    warm_up: float = 0.3  # the share of the steps in which a one-cycle schedule raises the learning rate
    augment: Callable | None = None  # changes a batch of training images at random
    noise: float = 0.0  # the amplitude of a denoiser's noise
    limit: int | None = None  # train on only this many images, the first ones
    holdout: bool = False  # validate on the last sixth of the training images, and do not train on them

    def as_dict(self):
        """The settings as numbers, strings and lists; functions and classes by their names."""
        return json.loads(json.dumps(vars(self), default=lambda value: value.__name__))


@dataclass(frozen=True)
class Setup:
    """Where and how a script computes, decided once by `setup`."""

    device: torch.device
    precision: str  # "fp32" or "bf16"
    networks: dict  # name: Settings, as the command line changed them
    folder: Path  # everything this run writes: curves, states, weights, pictures, results
    publishes: bool  # whether checkpoints/ and report/figures/ get the weights and pictures too
    args: argparse.Namespace
    lock: FileLock | None = None  # held until this process ends: no other one continues in this folder


# network: in eval mode after the last epoch; outputs: for the validation images, float32, on the CPU;
# history: for each epoch {"training": {"loss": …, metrics}, "validation": the same, "seconds": …}; checkpoint: its path
Run = namedtuple("Run", "network outputs history checkpoint")


def accuracy(logits, labels):
    """The percentage of images whose largest logit is the label's: [B, 10] and [B] to a scalar in [0, 100]."""
    return 100 * (logits.argmax(dim=1) == labels).float().mean()


def memory_format(device):
    """The layout of images in memory: channels last, except where batch norm gets it wrong (MPS, pytorch#175189)."""
    return torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format


def forward(network, images, setup):
    """The network's outputs for images [B, 1, 28, 28], float32 on setup.device, computed in setup.precision."""
    images = images.to(setup.device, memory_format=memory_format(setup.device), non_blocking=True)
    with torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.precision == "bf16"):
        return network(images).float()


@torch.inference_mode()
def evaluate(network, dataset, setup):
    """Outputs (float32) and targets of a whole data set in its order, on the CPU; leaves the network in eval mode."""
    network.eval()
    pairs = [(forward(network, images, setup).cpu(), targets) for images, targets in batches(dataset, 250)]
    outputs, targets = zip(*pairs)
    return torch.cat(outputs), torch.cat(targets)


def make_optimizer(network, settings, steps_per_epoch):
    """The optimizer, and the scheduler of its learning rate and, in one cycle, of its momentum (Smith & Topin 2018)."""
    high, low = settings.momentum
    optimizer = settings.optimizer(network.parameters(), settings.lr, betas=(high, 0.999),
                                   weight_decay=settings.weight_decay, fused=True)
    if settings.schedule == "constant":
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=settings.epochs * steps_per_epoch, pct_start=settings.warm_up,
        max_momentum=high, base_momentum=low)


def train_epoch(network, loader, functions, optimizer, scheduler, setup):
    """One pass over the training images; returns the functions' means over all images, while the weights change.

    functions: {"loss": …, name of a metric: …}, each of (outputs, targets), giving a batch's mean.
    """
    network.train()
    totals, count = dict.fromkeys(functions, 0.0), 0
    for images, targets in loader:
        targets = targets.to(setup.device, non_blocking=True)
        optimizer.zero_grad()  # the template forgets this: bug 2
        outputs = forward(network, images, setup)
        loss = functions["loss"](outputs, targets)
        loss.backward()
        optimizer.step()
        scheduler.step()
        count += len(images)
        for name, function in functions.items():
            value = loss if name == "loss" else function(outputs.detach(), targets)
            totals[name] += value.detach() * len(images)  # stays on the device: .item() would wait for it
    return {name: float(total) / count for name, total in totals.items()}


def fit(name, data, metrics, setup, seed, on_epoch_end=None):
    """Train the network `name` of setup.networks with one seed; an interrupted one continues with --resume.

    data: (training set, validation set), both returning whole batches of (inputs, targets).
    metrics: named functions of (outputs, targets), giving a batch's mean, besides the settings' loss.
    on_epoch_end: called with (settings, TensorBoard writers, network, epoch), for pictures.
    Returns a Run. Raises UserError if its checkpoint is damaged or cannot be written.
    """
    settings, folder = setup.networks[name], setup.folder / name / f"seed{seed}"
    functions = {"loss": settings.loss} | metrics
    train_set, validation_set = data
    torch.manual_seed(1000 * seed)  # the initial weights
    network = settings.network(**settings.options).to(setup.device, memory_format=memory_format(setup.device))
    loader = batches(train_set, settings.batch_size, shuffle=True)
    optimizer, scheduler = make_optimizer(network, settings, len(loader))
    history = resume(folder / "checkpoint.pt", settings, seed, network, optimizer, scheduler)
    writers = open_writers(folder, network, train_set[:1][0], len(history), setup)
    outputs = None
    for epoch in range(len(history) + 1, settings.epochs + 1):
        start = time.perf_counter()
        torch.manual_seed(1000 * seed + epoch)  # each epoch of each seed has random numbers of its own
        label = f"{name}, seed {seed}, epoch {epoch:2}/{settings.epochs}"
        training = train_epoch(network, tqdm(loader, label, leave=False, disable=None), functions, optimizer,
                               scheduler, setup)
        outputs, targets = evaluate(network, validation_set, setup)
        validation = {key: float(function(outputs, targets)) for key, function in functions.items()}
        require(math.isfinite(training["loss"] + validation["loss"]), f"{label}: the loss is no longer a finite number:"
                " try a smaller --lr")
        history.append({"training": training, "validation": validation, "seconds": time.perf_counter() - start})
        if on_epoch_end:
            on_epoch_end(settings, writers, network, epoch)
        log_epoch(writers, history, scheduler, label)
        state = {"settings": settings.as_dict(), "seed": seed, "weights": network.state_dict(), "history": history}
        if epoch < settings.epochs:
            state |= {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        save_checkpoint(folder / "checkpoint.pt", state)
    for writer in writers.values():
        writer.close()
    if outputs is None:  # --resume of a finished training: no epoch has run
        outputs, _ = evaluate(network, validation_set, setup)
    return Run(network, outputs, history, folder / "checkpoint.pt")


def open_writers(folder, network, images, epochs_done, setup):
    """TensorBoard writers for training and validation, whose equal tags share a chart; the first has the graph too."""
    from torch.utils.tensorboard import SummaryWriter  # imported here: it is slow

    writers = {kind: SummaryWriter(folder / kind, purge_step=epochs_done + 1)  # drops what was logged but not saved
               for kind in ("training", "validation")}
    if epochs_done == 0:
        with warnings.catch_warnings(action="ignore"):  # tensorboard calls a deprecated tracing function
            writers["training"].add_graph(network.eval(), images.to(setup.device))
    return writers


def log_epoch(writers, history, scheduler, label):
    """Write an epoch's values to TensorBoard and print them in one line."""
    texts = []
    writers["training"].add_scalar("learning rate", scheduler.get_last_lr()[0], len(history))
    for kind, writer in writers.items():
        for name, value in history[-1][kind].items():
            writer.add_scalar(name, value, len(history))
        texts.append(f"{kind} " + ", ".join(f"{name} {value:.4g}" for name, value in history[-1][kind].items()))
        writer.flush()  # before the state is saved: an interrupted run repeats an epoch rather than lose its point
    print(label, *texts, f"{history[-1]['seconds']:.1f} s", sep="; ", flush=True)


def resume(checkpoint, settings, seed, network, optimizer, scheduler):
    """Restore the saved state of an interrupted run, if there is one; returns its history, else []."""
    if not checkpoint.exists():
        return []
    state = load_checkpoint(checkpoint)
    load_weights(network, state["weights"], checkpoint)
    try:
        require(state["settings"] == settings.as_dict() and state["seed"] == seed)
        if len(state["history"]) < settings.epochs:
            optimizer.load_state_dict(state["optimizer"])
            scheduler.load_state_dict(state["scheduler"])
    except Exception:  # a damaged file can fail in any way
        raise UserError(f"{display_path(checkpoint)} is damaged or of another training:"
                        " delete it and run again") from None
    print(f"{display_path(checkpoint)}: continuing after epoch {len(state['history'])}")
    return state["history"]


def fit_all(make_data, metrics, setup, on_epoch_end=None):
    """Train each network with each seed, on the data sets of make_data(settings); returns {name: [Run per seed]}."""
    try:
        return {name: [fit(name, make_data(settings), metrics, setup, seed, on_epoch_end) for seed in setup.args.seed]
                for name, settings in setup.networks.items()}
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command with --resume continues after the last finished epoch") from None


# =================================================== Checkpoints ====================================================

def lock(folder):
    """A lock that one process at a time can hold; it is free again when that process ends, in whatever way."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return FileLock(Path(folder) / ".lock")


def replace_file(path, content):
    """Write bytes to a file that at every moment holds all of the old or all of the new; UserError if that fails."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # two processes may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {display_path(path)}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def save_checkpoint(path, state):
    """Save a dict of tensors, strings and numbers."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    replace_file(path, buffer.getvalue())


def load_checkpoint(path):
    """Read what save_checkpoint has written; no code from the file is ever run. UserError if it is anything else."""
    require(Path(path).is_file(), f"no such file: {display_path(path)}")
    content = Path(path).read_bytes()
    try:
        require(zipfile.ZipFile(io.BytesIO(content)).testzip() is None)  # torch.load does not check the checksums
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        require(isinstance(state["settings"], dict) and isinstance(state["weights"], dict))
        require(isinstance(state["history"], list))
        return state
    except Exception:  # a damaged or hostile file can fail in any way
        raise UserError(f"{display_path(path)} is damaged or not a checkpoint of this project") from None


def load_weights(network, weights, path):
    """Put the weights of a checkpoint into a network; UserError if they are another network's or not finite."""
    try:
        require(all(weights[key].dtype == value.dtype for key, value in network.state_dict().items()))
        network.load_state_dict(weights)
    except Exception:
        raise UserError(f"the weights in {display_path(path)} do not fit a {type(network).__name__}") from None
    require(all(values.isfinite().all() for values in network.state_dict().values()),
            f"the weights in {display_path(path)} are not all finite numbers")


# ================================================ Results and figures ===============================================

def mean_std(values, digits=2):
    """Mean and, for several values, standard deviation as text, such as "99.21 ± 0.04"."""
    values = torch.tensor(values, dtype=torch.float64)
    text = f"{values.mean():.{digits}f}"
    return f"{text} ± {values.std():.{digits}f}" if len(values) > 1 else text


def table(*rows):
    """The lines of a table of texts: columns as wide as needed, the first left-aligned, the others right-aligned."""
    first, *others = [max(map(len, column)) + 2 for column in zip(*rows)]
    return [label.ljust(first) + "".join(map(str.rjust, texts, others)) for label, *texts in rows]


def final(runs, metric, kind="validation"):
    """The values of one metric after the last epoch, one per run."""
    return [run.history[-1][kind][metric] for run in runs]


def minutes(runs):
    """The time that training and validation of some runs took, interruptions not counted."""
    return sum(row["seconds"] for run in runs for row in run.history) / 60


def make_figure(width, height, **options):
    """A matplotlib figure of this size in inches, as on the page, and its axes; options: as for `subplots`."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()  # a user's own settings are not to change published pictures
    matplotlib.rcParams.update({
        "font.size": 8, "axes.titlesize": 8, "axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False,
        "axes.spines.right": False, "legend.frameon": False, "image.cmap": "gray", "lines.markersize": 3,
        # Okabe & Ito 2008: distinct for colour-blind readers too; the markers, in black and white
        "axes.prop_cycle": matplotlib.cycler(
            color=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9"), marker=list("os^Dvx"))})
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**options)


def save_figure(setup, figure, name):
    """Write a figure into the run's folder and, if the run publishes, into report/figures/."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=name.rpartition(".")[2], dpi=200)
    folders = [setup.folder / "figures"] + ([ROOT / "report" / "figures"] if setup.publishes else [])
    for folder in folders:
        replace_file(folder / name, buffer.getvalue())
    print(f"wrote {display_path(folders[-1] / name)}")


def plot_curves(setup, name, trained, metric, label, transform=lambda value: value, **options):
    """Draw a metric after each epoch, training beside validation: the mean over the seeds and their range.

    trained: {legend entry: [Run per seed]}; transform: of each value; label: of the y axis; options: as for `Axes.set`.
    """
    figure, panels = make_figure(6.3, 2.8, ncols=2, sharex=True, sharey=True)
    for axes, kind in zip(panels, ("training", "validation")):
        for entry, runs in trained.items():
            values = torch.tensor([[transform(row[kind][metric]) for row in run.history] for run in runs])
            epochs = range(1, values.shape[1] + 1)
            line, = axes.plot(epochs, values.mean(dim=0), label=entry)
            axes.fill_between(epochs, values.amin(dim=0), values.amax(dim=0), color=line.get_color(), alpha=0.2,
                              linewidth=0)
        axes.set(title=kind, xlabel="epoch", **options)
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_ylabel(label)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)  # hides no curve
    save_figure(setup, figure, name)


def plot_images(setup, name, columns, rows):
    """Draw images; columns: their titles; rows: {label: ([N, 1, 28, 28], lowest, highest value)}, N = len(columns)."""
    figure, axes = make_figure(0.85 * len(columns) + 1.2, 0.86 * len(rows) + 0.3, nrows=len(rows), ncols=len(columns),
                               squeeze=False)
    for line, (label, (images, low, high)) in zip(axes, rows.items()):
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for axis, image in zip(line, images):
            axis.imshow(image[0].numpy(), vmin=low, vmax=high)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], columns):
        axis.set_title(title, fontsize=7)
    save_figure(setup, figure, name)


def publish(setup, run, name):
    """Copy a run's weights to checkpoints/NAME, where other scripts find them, and to --checkpoint-dir if given."""
    for folder in (setup.args.checkpoint_dir, ROOT / "checkpoints" if setup.publishes else None):
        if folder:
            replace_file(folder / name, run.checkpoint.read_bytes())
            print(f"wrote {display_path(folder / name)}")
    if not setup.publishes:
        print(f"weights: {display_path(run.checkpoint)}"
              " (not published: the settings, seeds, precision, data or folders are not the task's own)")


STARTED = time.perf_counter()


def report(setup, lines, trained=None):
    """Print a task's results and, with --record, put them into the trailing comments of its file.

    trained: {name: [Run per seed]}; the printed time is that of their training or, without them, of the script.
    """
    spent = minutes(sum(trained.values(), [])) if trained else (time.perf_counter() - STARTED) / 60
    hardware = device_name(setup.device)
    lines = [*lines, f"({hardware}, {setup.precision}, torch {torch.__version__}, {spent:.1f} minutes)"]
    print("", *lines, "", sep="\n")
    if setup.args.record:
        record(Path(sys.argv[0]).resolve(), sys.argv[1:], lines)
        print(f"recorded in {display_path(sys.argv[0])}")
    if trained:
        print(f'look at the curves: tensorboard --logdir "{display_path(setup.folder)}"')
    replace_file(setup.folder / "results.txt", "\n".join(lines).encode())  # from now on, the run is finished


def device_name(device):
    """The hardware's name, and for a CPU the number of threads."""
    if device.type in ("cuda", "xpu"):
        return getattr(torch, device.type).get_device_name()
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}" if device.type == "cpu" else f"{device.type} on {name}"


MARK = "\n\n# Results, each block printed by the command above it\n\n"


def record(script, arguments, lines):
    """Put a command and its output at the end of a script, in place of what the same command left there."""
    left_out = argparse.ArgumentParser(allow_abbrev=False, add_help=False)  # options that do not change the result
    for option in ("--data-dir", "--log-dir", "--checkpoint-dir"):
        left_out.add_argument(option)
    for option in ("--record", "--resume"):
        left_out.add_argument(option, action="store_true")
    _, kept = left_out.parse_known_args(arguments)
    command = " ".join(f"$ python {script.relative_to(ROOT).as_posix()} {' '.join(kept)}".split())
    block = "\n".join(f"# {line}".rstrip() for line in [command, *lines])
    with lock(ROOT):  # two scripts may record at once
        source, _, results = script.read_text(encoding="utf-8").partition(MARK)
        blocks = {old.split("\n")[0]: old for old in results.rstrip("\n").split("\n\n") if old}
        blocks[f"# {command}"] = block
        replace_file(script, (source.rstrip("\n") + "\n" + MARK + "\n\n".join(blocks.values()) + "\n").encode())


# =================================================== Command line ===================================================

def number(kind, low, high):
    """An argparse type: an int or float from low to high."""
    def convert(text):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low} to {high}")
        return value
    convert.__name__ = kind.__name__  # argparse says it in "invalid int value"
    return convert


def make_parser(doc, data=True, training=False):
    """The shared command line; doc: the script's docstring; data: whether it reads data; training: whether it trains."""
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0], allow_abbrev=False)
    parser.error = lambda message: require(False, f"{message} (--help lists the options)")
    add = parser.add_argument
    if data:
        add("--data-dir", type=Path, default=Path(os.environ.get("MLGV_DATA") or ROOT / "data"),
            help="where MNIST/raw and FashionMNIST/raw are, or are downloaded to (default: %(default)s)")
    if training:
        add("--device", choices=("auto", "cpu", "cuda", "mps", "xpu"), default="auto",
            help="auto (the default): the accelerator if there is one")
        add("--precision", choices=("auto", "fp32", "bf16"), default="auto",
            help="auto (the default): bf16 on CPUs and CUDA devices with native support, else fp32")
        add("--epochs", type=number(int, 1, 999), help="passes over the training images (default: the task's)")
        add("--batch-size", type=number(int, 1, 60_000), help="images per step (default: the task's)")
        add("--lr", type=number(float, 1e-9, 1000), help="peak learning rate (default: the task's)")
        add("--seed", type=number(int, 0, 999_999), nargs="+", default=[0], metavar="S",
            help="several: one run each, mean ± standard deviation at the end (default: 0)")
        add("--checkpoint-dir", type=Path, help="put the weights into this folder too")
        add("--limit", type=number(int, 1, 60_000), metavar="N", help="a quick run: train on the first N images")
        add("--holdout", action="store_true",
            help="train on the first 50,000 training images, validate on the last 10,000, never open the test set")
        add("--resume", action="store_true", help="continue the newest interrupted run of these settings")
    else:
        parser.set_defaults(device="cpu", precision="fp32", seed=[0], resume=False, checkpoint_dir=None)
    add("--log-dir", type=Path, default=ROOT / "runs", help="where each run gets a folder (default: %(default)s)")
    add("--record", action="store_true", help="write the results into this file's trailing comments")
    return parser


def setup(args, networks=None, data=None, publishable=True):
    """Decide device, precision, settings and the run's folder before training.

    networks: {name: Settings}, as the task has them; the command line replaces some of their fields.
    data: the data set that the task reads; publishable: False if one of the script's own options asks for anything but
    the task's result. Which runs publish: see the README. Raises UserError if the data cannot be read or the options
    make no sense here or together.
    """
    device, precision = choose_device(args)
    require(len(set(args.seed)) == len(args.seed), "the numbers of --seed must all be different")
    if args.checkpoint_dir:
        require(os.path.realpath(args.checkpoint_dir) != os.path.realpath(ROOT / "checkpoints"),
                "checkpoints/ is for published weights: give another --checkpoint-dir")
        args.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    given = {key: value for key, value in vars(args).items()
             if key in ("epochs", "batch_size", "lr", "limit", "holdout") and value}
    changed = {name: replace(settings, **given) for name, settings in (networks or {}).items()}
    data_checksum = checksum(data, args.data_dir) if data else None
    tasks_own = publishable and data_checksum == MD5.get(data)  # without data, both are None
    require(not args.record or (tasks_own and "limit" not in given and "holdout" not in given),
            "--record needs the published data and the task's own inputs, without --limit and --holdout")
    description = json.dumps({
        "networks": {name: settings.as_dict() for name, settings in changed.items()}, "seeds": args.seed,
        "device": device.type, "precision": precision, "threads": torch.get_num_threads(), "data": data_checksum},
        indent=1)
    folder, held = run_folder(args.log_dir / Path(sys.argv[0]).stem, description, args.resume)
    publishes = (tasks_own and changed == (networks or {}) and args.seed in ([0], [0, 1, 2])
                 and args.log_dir == ROOT / "runs" and (args.precision == "auto" or not networks))
    return Setup(device, precision, changed, folder, publishes, args, held)


def choose_device(args):
    """The device and the precision that the command line asks for; raises UserError if there is no such device."""
    best = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    device = best if args.device == "auto" else torch.device(args.device)
    require(device.type in ("cpu", best.type), f"no {device.type} device here: leave out --device or give --device cpu")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # fp32 means fp32: no TF32 in convolutions
    precision = "bf16" if has_fast_bf16(device) else "fp32"
    return device, precision if args.precision == "auto" else args.precision


def has_fast_bf16(device):
    """Whether a device has instructions for bfloat16, usually faster than fp32; unknown for MPS and XPU."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("amx_bf16", "avx512_bf16")
    return device.type == "cpu" and any(torch.cpu.get_capabilities().get(name) for name in names)


def run_folder(parent, description, resuming):
    """The folder of a run and its lock: with --resume the newest unfinished one of this description, else a new one."""
    described = parent.glob("[0-9]*/settings.json") if resuming else []
    for file in sorted(described, reverse=True):
        folder = file.parent
        if file.read_bytes() == description.encode() and not (folder / "results.txt").exists():
            with contextlib.suppress(Timeout):  # another process is at work there
                held = lock(folder)
                held.acquire(blocking=False)
                for stray in folder.rglob("*.tmp"):
                    stray.unlink()
                print(f"continuing {display_path(folder)}")
                return folder, held
    if resuming:
        print("no interrupted run of these settings: starting from the beginning")
    with lock(parent):  # several may start in the same second
        folder = parent / f"{datetime.now():%Y%m%d-%H%M%S}"
        while folder.exists():
            folder = folder.with_name(folder.name + "a")
        held = lock(folder)
        held.acquire()
    replace_file(folder / "settings.json", description.encode())
    return folder, held


def display_path(path):
    """A path as a user would type it: relative to the current folder if it lies there."""
    path = Path(os.path.realpath(path))
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def speed_up():
    """Two settings for training on a CPU: 3.1 a is 1.75 times as fast in bf16 with them (`tests/benchmark.py`).

    To be called before the first computation. Freed memory stays with the process: glibc keeps blocks of up to 32 MB, the
    most it allows (mallopt(3)). Denormal numbers, slow on some CPUs and common in Adam's first moments, become zero.
    """
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        for option, value in ((-3, 2 ** 25), (-1, 2 ** 31 - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            ctypes.CDLL(None).mallopt(option, value)


def thread_failed(error):
    """Ignore errors of TensorBoard's writer thread on a full disk: flush() raises them again."""
    if not issubclass(error.exc_type, OSError):
        threading.__excepthook__(error)


def run_script(main):
    """Call a script's main; a user's mistake ends in one line and exit status 2, Ctrl-C and SIGTERM in 130."""
    sys.stdout.reconfigure(errors="replace")  # a console that cannot print "π" is no reason to stop
    threading.excepthook = thread_failed
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a script as Ctrl-C does
    speed_up()
    try:
        return main()
    except UserError as error:
        message, status = str(error), 2
    except OSError as error:  # full disk, folder not writable, …
        message, status = ": ".join(str(part) for part in (error.strerror or error, error.filename) if part), 2
    except (MemoryError, RuntimeError) as error:
        out_of_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
        if not out_of_memory:
            raise
        message, status = "not enough memory: give a smaller --batch-size", 2
    except KeyboardInterrupt as stop:
        message, status = "; ".join(["interrupted", *stop.args]), 130
    print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
