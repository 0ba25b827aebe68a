"""Everything that two tasks of exercise 3 share: data, networks, training, checkpoints, command line.

The sections stand in the order in which a run passes through them; a task file needs nothing else.
"""

import argparse
import ctypes
import hashlib
import io
import math
import os
import platform
import sys
import threading
import time
import warnings
from collections import namedtuple
from datetime import datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

# Adam's second moments of weights that hardly ever get a gradient decay into denormal numbers, on
# which a CPU is slow. Must come before the first parallel operation: later it reaches one thread only.
torch.set_flush_denormal(True)

# glibc gives freed blocks back to the system and gets them anew page by page, in every step: those up
# to 32 MB, the most that it allows, are to stay with the process.
if platform.libc_ver()[0] == "glibc":
    for option, value in ((-3, 2 ** 25), (-1, 2 ** 31 - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        ctypes.CDLL(None).mallopt(option, value)

HERE = Path(__file__).parent


class UserError(Exception):
    """What a user can put right: its text is the one line on standard error, exit status 2."""


# ======================================================= Data =======================================================

FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                   "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

# The published files, uncompressed: results on any other data are never recorded.
MD5 = {
    "MNIST/raw/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "MNIST/raw/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "MNIST/raw/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "MNIST/raw/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    "FashionMNIST/raw/train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "FashionMNIST/raw/train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "FashionMNIST/raw/t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "FashionMNIST/raw/t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965"}


def load(name, train, data_dir):
    """Read "MNIST" or "FashionMNIST" once, downloading it if it is not there.

    Returns images, uint8 [N, 1, 28, 28] in 0 … 255, and labels, int64 [N] in 0 … 9.
    Raises UserError if there are neither files nor a network, or if a file is damaged.
    """
    from torchvision import datasets  # here, because the offline predictor does without it

    try:
        data = getattr(datasets, name)(data_dir, train=train, download=True)
        assert 0 < len(data.data) == len(data.targets) and data.data.shape[1:] == (28, 28), "sizes do not fit"
    except Exception as error:  # a download or a damaged file can fail in any way
        if (Path(data_dir) / name / "raw" / "train-images-idx3-ubyte").exists():
            raise UserError(f"{name} in {data_dir} is damaged ({error}): delete {data_dir}/{name}"
                            " and run again") from None
        raise UserError(f"{name} is not in {data_dir} and cannot be downloaded: put its files into"
                        f" {data_dir}/{name}/raw, or draw a stand-in with"
                        " 'python tests/stand_in.py data-drawn' and add --data-dir data-drawn") from None
    return data.data.unsqueeze(1), data.targets


def load_split(name, args):
    """Training and validation data, as --limit and --holdout ask: ((images, labels), (images, labels)).

    Validation is on the 10,000 test images; with --holdout on the last 10,000 of the 60,000 training
    images, and the test set stays closed: for comparing choices.
    """
    images, labels = load(name, True, args.data_dir)
    if args.holdout:
        split = len(images) * 5 // 6
        validation = images[split:], labels[split:]
        images, labels = images[:split], labels[:split]
    else:
        validation = load(name, False, args.data_dir)
    return (images[:args.limit], labels[:args.limit]), validation


def is_published(name, data_dir):
    """Whether all four files of a data set are, byte for byte, the published ones."""
    files = {Path(data_dir) / file: md5 for file, md5 in MD5.items() if file.startswith(f"{name}/")}
    return all(file.is_file() and hashlib.md5(file.read_bytes()).hexdigest() == md5 for file, md5 in files.items())


class LabelledImages(Dataset):
    """(image, label) pairs: float32 [1, 28, 28] in [0, 1] and int64 in 0 … 9.

    images: uint8 [N, 1, 28, 28]; labels: int64 [N]; augment: a function of a float32 batch, or None.
    """

    def __init__(self, images, labels, augment=None):
        self.images, self.labels, self.augment = images, labels, augment

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices):
        """A whole batch at once, as a DataLoader asks for it: [B, 1, 28, 28] and [B]."""
        images = self.images[indices].float() / 255
        if self.augment:
            images = self.augment(images)
        return images, self.labels[indices]


def batches(dataset, batch_size, shuffle=False):
    """A DataLoader over a data set that fetches whole batches by itself (__getitems__)."""
    return DataLoader(dataset, batch_size, shuffle, collate_fn=lambda batch: batch)


def random_affine(images, shift=0, degrees=0, scale=0, flip=False):
    """Shift, turn and scale each image by random amounts of its own and, with `flip`, mirror every second one.

    shift: at most so many pixels, whole ones, along x and y; degrees: at most so far, either way;
    scale: by a factor of 1 ± at most so much. What comes in from outside is zero.
    images: float32 [B, 1, H, W], any range; returns the same.
    """
    count, size = len(images), images.shape[-1]
    angle = torch.deg2rad(degrees * (2 * torch.rand(count) - 1))
    factor = 1 + scale * (2 * torch.rand(count) - 1)
    mirror = 1 - 2 * torch.randint(0, 2, (count,)) * flip  # -1 mirrors x
    offset = torch.randint(-shift, shift + 1, (2, count)) * (2 / size)  # [-1, 1] spans the image
    cos, sin = factor * angle.cos(), factor * angle.sin()
    transform = torch.stack([mirror * cos, -sin, offset[0], mirror * sin, cos, offset[1]], dim=1)
    grid = F.affine_grid(transform.reshape(count, 2, 3), images.shape, align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


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

    Groups of convolutions, the first of each followed by a 2x2 max-pooling; the maximum over the
    remaining pixels feeds one linear layer. The arguments are what the ablation takes away again.
    """

    def __init__(self, widths=(80, 160, 320), convolutions=2, batch_norm=True, activation=nn.GELU):
        super().__init__()
        layers, channels = [], 1
        for width in widths:
            for position in range(convolutions):
                layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=not batch_norm))
                if position == 0:
                    layers.append(nn.MaxPool2d(2))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(activation())
                channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, images):
        return self.classifier(self.features(images).amax(dim=(2, 3)))


class EncoderDecoder(nn.Module):
    """The sheet's denoiser (3.2 b): noisy images [B, 1, 28, 28] to denoised images [B, 1, 28, 28].

    As listed, but for two places where the list does not give an image of the input's shape:
    `output_padding=1` makes the transposed convolutions exact inverses in size (7 -> 14 -> 28; without
    it 7 -> 13 -> 25), and the last layer has the image's one channel instead of 16 filters.
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

# network: in eval mode, after the last epoch; history: for each epoch a dict of floats such as
# "training loss", "validation accuracy" and "seconds"
Run = namedtuple("Run", "network history")


def accuracy(logits, labels):
    """The share of images whose largest logit is the label's: [B, 10] and [B] to a scalar in [0, 1]."""
    return (logits.argmax(dim=1) == labels).float().mean()


def mean_absolute_error(outputs, targets):
    """MAE over all pixels of all images, in grey values of [0, 1]: the outputs are not clamped."""
    return (outputs - targets).abs().mean()


def forward(network, images, args):
    """The network's outputs, float32, computed on args.device in args.precision."""
    images = images.to(args.device, memory_format=torch.channels_last, non_blocking=True)
    with torch.autocast(args.device.type, torch.bfloat16, enabled=args.precision == "bf16"):
        return network(images).float()


@torch.inference_mode()
def infer(network, dataset, args):
    """Outputs and targets of a whole data set in its order, on the CPU; the network is put in eval mode."""
    network.eval()
    pairs = [(forward(network, images, args).cpu(), targets) for images, targets in batches(dataset, 500)]
    outputs, targets = zip(*pairs)
    return torch.cat(outputs), torch.cat(targets)


def orthogonalise(matrix):
    """Roughly U·Vᵀ of a matrix U·S·Vᵀ: five Newton-Schulz steps bring its singular values to about 1.

    Jordan's polynomial (2024) lifts small ones fast and leaves none exact. matrix: float32 or bfloat16 [M, N].
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=-4.775, alpha=2.0315), wide, beta=3.4445)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonalised (Jordan et al. 2024), for the filters of convolutions.

    Each step changes what a layer does to all patterns of its input alike, not only to the strongest; AdamW's
    learning rates fit (Liu et al. 2025). The same as torch.optim.Muon, which takes matrices only, and is slow on a
    CPU without bfloat16. filters: weights [out, in, height, width]; dtype: what the steps are computed in.
    """

    def __init__(self, filters, lr, weight_decay, dtype):
        super().__init__(filters, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})
        self.dtype = dtype

    @torch.no_grad()
    def step(self):
        """Change the weights by their gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight not in self.state:
                    self.state[weight]["mean"] = torch.zeros_like(weight)
                mean = self.state[weight]["mean"].lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(mean, group["momentum"])  # Nesterov: looks ahead along the mean
                update = update.permute(0, 2, 3, 1)  # as it lies in memory
                matrix = orthogonalise(update.flatten(1).to(self.dtype))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(matrix.reshape(update.shape).permute(0, 3, 1, 2),
                            alpha=-group["lr"] * (0.2 * math.sqrt(max(matrix.shape))))


def train_epoch(network, loader, functions, optimizers, schedules, args):
    """One pass over the training images; `functions` are the loss and the metrics, of (outputs, targets).

    Returns the mean of each over all images, taken while the weights change.
    """
    network.train()
    totals, count = dict.fromkeys(functions, 0.0), 0
    for images, targets in loader:
        targets = targets.to(args.device, non_blocking=True)
        outputs = forward(network, images, args)
        values = {key: function(outputs, targets) for key, function in functions.items()}
        network.zero_grad()  # the template forgets this: bug 2
        values["loss"].backward()
        for each in (*optimizers, *schedules):
            each.step()
        count += len(images)
        for key, value in values.items():
            totals[key] += value.detach() * len(images)  # stays on the device: reading it would wait
    return {key: float(total) / count for key, total in totals.items()}


def fit(name, make_network, data, loss, metrics, args, seed, weight_decay=0.0, one_cycle=True, muon=False,
        after_epoch=None):
    """Train a network for args.epochs epochs with AdamW, its learning rate args.lr the peak of one cycle.

    The cycle rises for 30 % of the steps, then falls to zero (Smith & Topin 2018); without, the rate is constant.
    muon: the filters of convolutions between hidden layers are Muon's, at the same learning rate.
    data: (training set, validation set), both fetching whole batches of (inputs, targets).
    loss, metrics: a function, and a dict of functions, of (outputs, targets), giving a batch's mean.
    after_epoch: called with (TensorBoard writer, network, epoch), for pictures.
    Every epoch is saved: a run that is killed goes on with --resume to bit-identical weights.
    Returns a Run; its weights are in args.checkpoint_dir/NAME.pt (of several seeds the first one's).
    Raises UserError if --resume finds a state that was saved under other settings.
    """
    from torch.utils.tensorboard import SummaryWriter  # here, because importing it takes a second
    from tqdm import tqdm

    torch.manual_seed(seed)
    network = make_network().to(args.device, memory_format=torch.channels_last)
    train_set, validation_set = data
    loader = batches(train_set, args.batch_size, shuffle=True)
    filters = [layer.weight for layer in network.modules()
               if muon and isinstance(layer, nn.Conv2d) and min(layer.in_channels, layer.out_channels) > 1]
    others = [weight for weight in network.parameters() if weight not in set(filters)]
    optimizers = [torch.optim.AdamW(others, args.lr, weight_decay=weight_decay, fused=True)]
    if filters:
        dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
        optimizers.append(Muon(filters, args.lr, weight_decay, dtype))
    schedules = [torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.epochs * len(loader))
                 if one_cycle else torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1) for optimizer in optimizers]
    functions = {"loss": loss, **metrics}
    settings = {"network": type(network).__name__, "parameters": parameter_count(network),
                "training images": len(train_set), "validation images": len(validation_set),
                "holdout": args.holdout, "epochs": args.epochs, "batch size": args.batch_size,
                "learning rate": args.lr, "one cycle": one_cycle, "muon": muon, "weight decay": weight_decay,
                "seed": seed, "device": args.device.type, "precision": args.precision}
    history, log_dir = [], str(args.run_dir / f"{name}-seed{seed}")

    stem = name if seed == args.seed[0] else f"{name}.seed{seed}"
    finished, unfinished = (args.checkpoint_dir / f"{stem}{end}" for end in (".pt", ".partial.pt"))
    if args.resume and (unfinished.exists() or finished.exists()):
        path = unfinished if unfinished.exists() else finished
        state = load_checkpoint(path, settings)
        load_weights(network, state, path)
        history = state["history"]
        print(f"{name}, seed {seed}: {shown(path)} goes up to epoch {len(history)}")
        if path == finished:
            return Run(network.eval(), history)
        for each, saved in zip((*optimizers, *schedules), state["optimizers and schedules"]):
            each.load_state_dict(saved)
        log_dir = state["log_dir"]
    elif args.resume:
        print(f"{name}, seed {seed}: nothing saved, starting from the beginning")

    writer = SummaryWriter(log_dir, purge_step=len(history) + 1)  # drops points of an epoch that was not saved
    if not history:
        with warnings.catch_warnings(action="ignore"):  # tensorboard traces by a deprecated function
            writer.add_graph(network, train_set[0][0][None].to(args.device))
    for epoch in range(len(history) + 1, args.epochs + 1):
        start = time.perf_counter()
        torch.manual_seed(seed << 32 | epoch)  # each epoch has its own randomness: nothing of it to save
        bar = tqdm(loader, f"{name} {epoch}/{args.epochs}", leave=False, disable=None)
        row = {f"training {key}": value for key, value in
               train_epoch(network, bar, functions, optimizers, schedules, args).items()}
        outputs, targets = infer(network, validation_set, args)
        row |= {f"validation {key}": float(function(outputs, targets)) for key, function in functions.items()}
        history.append(row | {"seconds": time.perf_counter() - start})

        for key in row:
            kind, metric = key.split(" ", 1)
            writer.add_scalar(f"{metric}/{kind}", row[key], epoch)
        writer.add_scalar("learning rate", schedules[0].get_last_lr()[0], epoch)
        if after_epoch:
            after_epoch(writer, network, epoch)
        writer.flush()  # before the state is saved: a killed run repeats an epoch rather than lose its point
        save_checkpoint(unfinished, {
            "settings": settings, "weights": network.state_dict(), "history": history, "log_dir": log_dir,
            "optimizers and schedules": [each.state_dict() for each in (*optimizers, *schedules)]})
        print(f"{name}  seed {seed}  epoch {epoch:2}/{args.epochs}",
              *(f"{key} {value:.4f}" for key, value in row.items()),
              f"{history[-1]['seconds']:.1f} s", sep="  ", flush=True)
    writer.close()
    save_checkpoint(finished, {"settings": settings, "weights": network.state_dict(), "history": history})
    unfinished.unlink(missing_ok=True)
    return Run(network.eval(), history)


# =================================================== Checkpoints ====================================================

def replace_file(path, content):
    """Write bytes to a file so that at every moment it holds either all of the old or all of the new.

    Raises UserError if the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {shown(path)}: {error.strerror}") from None
    finally:
        if temporary.exists():
            temporary.unlink()


def save_checkpoint(path, state):
    """Save a dict of tensors, strings and numbers."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    replace_file(path, buffer.getvalue())


def load_checkpoint(path, settings=None):
    """Read what save_checkpoint has written: data only, no code from the file is ever run.

    Raises UserError if the file is not such a checkpoint, or was saved under other settings than given.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {shown(path)}: {error.strerror}") from None
    try:
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        assert isinstance(state["settings"], dict) and isinstance(state["history"], list) and "weights" in state
    except Exception:  # a damaged or hostile file can fail in any way
        raise UserError(f"{shown(path)} is not a checkpoint of this project (damaged, or from elsewhere)") from None
    for key, value in (settings or {}).items():
        if state["settings"].get(key) != value:
            raise UserError(f"{shown(path)} was saved under another {key} ({state['settings'].get(key)}, not {value}):"
                            " go on with the same settings, or start anew without --resume")
    return state


def load_weights(network, state, path):
    """Put a checkpoint's weights into a network; raises UserError if they are another network's."""
    try:
        network.load_state_dict(state["weights"])
    except Exception:
        raise UserError(f"the weights in {shown(path)} do not fit the network {type(network).__name__}") from None


# ============================================= Command line and results =============================================

class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def positive(kind):
    """An argparse type: an int or float above zero."""
    def convert(text):
        value = kind(text)
        if not (value > 0 and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return value
    convert.__name__ = f"positive {kind.__name__}"
    return convert


def parser(doc, *groups, **defaults):
    """The shared command line: `groups` out of "data", "device", "training"; `defaults` of a task."""
    result = Parser(description=doc.split("\n\n")[0].replace("%", "%%"))
    add = result.add_argument
    if "data" in groups:
        add("--data-dir", type=Path, default=Path(os.environ.get("MLGV_DATA") or HERE / "data"),
            help="where MNIST/raw and FashionMNIST/raw are, or are downloaded to (default: %(default)s)")
        add("--log-dir", type=Path, default=HERE / "runs", help="TensorBoard logs (default: %(default)s)")
    if "device" in groups:
        add("--device", choices=("auto", "cpu", "cuda", "mps", "xpu"), default="auto",
            help="auto (the default): the accelerator if there is one")
        add("--precision", choices=("auto", "fp32", "bf16"), default="auto",
            help="auto (the default): bf16 where the hardware computes it")
    if "training" in groups:
        own = "each network's own"
        add("--epochs", type=positive(int), help="passes over the training images (default: %(default)s)")
        add("--batch-size", type=positive(int), help=f"images in a step (default: {defaults.get('batch_size', own)})")
        add("--lr", type=positive(float), help=f"peak learning rate (default: {defaults.get('lr', own)})")
        add("--seed", type=int, nargs="+", default=[0], metavar="S", help="several: one run each (default: 0)")
        add("--checkpoint-dir", type=Path, help="weights (default: checkpoints, or the log folder of a quick try)")
        add("--limit", type=positive(int), metavar="N", help="quick try: train on the first N images")
        add("--holdout", action="store_true",
            help="train on 50,000 training images, validate on the last 10,000, never open the test set")
        add("--resume", action="store_true", help="go on where a stopped run was")
    add("--record", action="store_true", help="write the results into this file's trailing comments")
    result.set_defaults(limit=None, holdout=False, resume=False, checkpoint_dir=None)
    result.set_defaults(**defaults)
    return result


def start(args, *data):
    """Settle device, precision and folders before the first computation; `data`: the data sets of the task.

    Sets args.device, args.precision, args.run_dir, args.checkpoint_dir and args.figure_dir. Logs go to a
    new folder. Quick tries (--limit, --holdout, unpublished data) keep everything in that folder.
    Raises UserError for a device that is not there, and for --record on a quick try.
    """
    if "device" in args:
        best = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        args.device = best if args.device == "auto" else torch.device(args.device)
        if args.device.type not in ("cpu", best.type):
            raise UserError(f"no {args.device.type} device here: leave out --device, or give --device cpu")
        if args.precision == "auto":
            args.precision = "bf16" if has_bf16(args.device) else "fp32"
        torch.backends.cudnn.deterministic = True
    if "seed" in args and (len(set(args.seed)) < len(args.seed) or min(args.seed) < 0):
        raise UserError("--seed takes different numbers from 0 on")
    if "data_dir" in args:
        for name in data:
            load(name, True, args.data_dir)  # download or complain now, not in the middle of the task
        quick = args.limit or args.holdout or not all(is_published(name, args.data_dir) for name in data)
        if quick and args.record:
            raise UserError("--record takes full runs on the published data only: leave out --limit and --holdout")
        runs = args.log_dir / Path(sys.argv[0]).stem
        earlier = sorted(runs.glob("quick-*" if quick else "[0-9]*"))
        stamp = ("quick-" if quick else "") + datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        args.run_dir = earlier[-1] if args.resume and earlier else runs / stamp
        args.checkpoint_dir = args.checkpoint_dir or (args.run_dir if quick else HERE) / "checkpoints"
        args.figure_dir = args.run_dir / "figures" if quick else HERE / "report" / "figures"
        for folder in (args.run_dir, args.checkpoint_dir, args.figure_dir) if "epochs" in args else ():
            folder.mkdir(parents=True, exist_ok=True)  # complain now, not after minutes of training
            if not os.access(folder, os.W_OK):
                raise UserError(f"cannot write to {shown(folder)}")
    args.started = time.perf_counter()
    return args


def changed(args, **values):
    """A copy of the options with some values changed."""
    return argparse.Namespace(**{**vars(args), **values})


def has_bf16(device):
    """Whether a device has instructions for bfloat16, so that bf16 autocast is faster than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))


def mean_std(values, scale=1.0, digits=2):
    """Mean and, of several seeds, standard deviation of final values as text, such as "99.21 ± 0.04"."""
    values = scale * torch.tensor(values, dtype=torch.float64)
    text = f"{values.mean():.{digits}f}"
    return f"{text} ± {values.std():.{digits}f}" if len(values) > 1 else text


def final(runs, key):
    """The values of one metric after the last epoch, one of each run."""
    return [run.history[-1][key] for run in runs]


def minutes(runs):
    """The time that training and validation of some runs took, resumed or not."""
    return sum(row["seconds"] for run in runs for row in run.history) / 60


def save_figure(figure, path):
    """Write a matplotlib figure and say so."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=150, bbox_inches="tight")
    replace_file(path, buffer.getvalue())
    print(f"wrote {shown(path)}")


def plot_curves(curves, label, path):
    """Draw metrics against epochs: `curves` maps a legend entry to one list of values per seed.

    Entries such as "improved, training" and "improved, validation" share a color, training is dotted.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4))
    axes = figure.subplots()
    colors = {}
    for name, seeds in curves.items():
        network, _, kind = name.rpartition(", ")
        color = colors.setdefault(network, f"C{len(colors)}")
        for values in seeds:
            axes.plot(range(1, len(values) + 1), values, ":" if kind == "training" else ".-", color=color, alpha=0.8,
                      label=name if values is seeds[0] else None)
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def shown(path):
    """A path as a user would type it: relative to the current folder where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def report(args, lines, runs=()):
    """Print a task's results and, with --record, put them into the trailing comments of its file."""
    spent = minutes(runs) or (time.perf_counter() - args.started) / 60
    device = args.device.type if "device" in args else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else torch.cpu.get_capabilities().get("cpu_name")
    lines = [*lines, f"({name}, {torch.get_num_threads()} threads, {getattr(args, 'precision', 'fp32')}, "
                     f"torch {torch.__version__}, {spent:.1f} minutes)"]
    print("", *lines, "", sep="\n")
    if args.record:
        record(Path(sys.argv[0]), sys.argv[1:], lines)
        print(f"recorded in {shown(sys.argv[0])}")
    if "epochs" in args:
        print(f"look at the curves: tensorboard --logdir {shown(args.log_dir)}")


MARK = "\n\n# Results, each block printed by the command above it\n\n"


def record(script, arguments, lines):
    """Put a command and its output at the end of a script, in place of what the same command left there.

    Options that do not change the result (folders, --resume, --record) are left out of the command.
    """
    words = iter(arguments)
    kept = []
    for word in words:
        if word.endswith("-dir"):
            next(words)
        elif word not in ("--record", "--resume") and "-dir=" not in word:
            kept.append(word)
    lines = ["# " + line for line in [f"$ python {' '.join([os.path.relpath(script, HERE), *kept])}", *lines]]
    source, _, results = script.read_text(encoding="utf-8").partition(MARK)
    blocks = {block.split("\n")[0]: block for block in results.rstrip("\n").split("\n\n") if block}
    blocks[lines[0]] = "\n".join(line.rstrip() for line in lines)
    replace_file(script, (source.rstrip("\n") + "\n" + MARK + "\n\n".join(blocks.values()) + "\n").encode())


def run(main):
    """Call a script's main; what a user can put right ends in one line, exit status 2, Ctrl-C in 130."""
    sys.stdout.reconfigure(errors="replace")  # a console without "π" is no reason to stop
    threading.excepthook = lambda error: None  # TensorBoard's writer thread: its error comes again in flush()
    try:
        main()
    except UserError as error:
        message, status = str(error), 2
    except OSError as error:  # full disk, folder not writable, …
        message, status = f"{error.strerror or error}" + f": {error.filename}" * bool(error.filename), 2
    except KeyboardInterrupt:
        message, status = "stopped; training goes on after its last finished epoch with --resume", 130
    else:
        return
    print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
