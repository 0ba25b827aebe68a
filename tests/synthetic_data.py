"""Make synthetic data in place of MNIST and Fashion-MNIST, in the same files: to try the scripts without a network.

    python tests/synthetic_data.py synthetic
    python task_3_1_a.py --data-dir synthetic

Ten digits and ten garments, each shifted, dimmed and sprinkled at random. No result on them is ever recorded.
"""

import argparse
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Outlines on a 28 x 28 canvas, in the order of Fashion-MNIST's classes
GARMENTS = (
    [(4, 6), (11, 4), (17, 4), (24, 6), (24, 12), (20, 12), (20, 25), (8, 25), (8, 12), (4, 12)],  # T-shirt/top
    [(9, 3), (19, 3), (20, 25), (15, 25), (14, 9), (13, 25), (8, 25)],  # Trouser
    [(2, 22), (7, 4), (21, 4), (26, 22), (22, 23), (20, 12), (20, 25), (8, 25), (8, 12), (6, 23)],  # Pullover
    [(11, 2), (17, 2), (17, 10), (21, 26), (7, 26), (11, 10)],  # Dress
    [(3, 25), (7, 3), (13, 3), (14, 25), (15, 3), (21, 3), (25, 25)],  # Coat
    [(3, 20), (9, 14), (12, 18), (18, 12), (25, 18), (25, 21), (3, 21)],  # Sandal
    [(5, 8), (11, 3), (14, 7), (17, 3), (23, 8), (20, 13), (20, 26), (8, 26), (8, 13)],  # Shirt
    [(2, 15), (9, 12), (14, 16), (26, 18), (26, 21), (2, 21)],  # Sneaker
    [(4, 12), (10, 12), (10, 6), (18, 6), (18, 12), (24, 12), (24, 24), (4, 24)],  # Bag
    [(6, 4), (14, 4), (15, 15), (25, 18), (25, 24), (6, 24)],  # Ankle boot
)


def draw_class(name, label):
    """The image of a class, uint8 [28, 28]."""
    image = Image.new("L", (28, 28))
    if name == "MNIST":
        ImageDraw.Draw(image).text((14, 14), str(label), fill=255, font=ImageFont.load_default(24), anchor="mm")
    else:
        ImageDraw.Draw(image).polygon(GARMENTS[label], fill=220)
    return np.asarray(image)


def draw_images(name, count, rng):
    """Images, uint8 [count, 28, 28], and labels, uint8 [count]."""
    labels = rng.integers(0, 10, count, dtype=np.uint8)
    classes = np.stack([draw_class(name, label) for label in range(10)])
    images = classes[labels] * rng.uniform(0.5, 1, (count, 1, 1)) + rng.uniform(0, 30, (count, 28, 28))
    shifts = rng.integers(-3, 4, (count, 2))
    return np.stack([np.roll(image, shift, (0, 1)) for image, shift in zip(images, shifts)]).astype(np.uint8), labels


def write_synthetic(folder, train, test):
    """Write both synthetic data sets into a folder, in torchvision's layout."""
    rng = np.random.default_rng(0)
    for name in ("MNIST", "FashionMNIST"):
        raw = Path(folder) / name / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        for split, count in (("train", train), ("t10k", test)):
            images, labels = draw_images(name, count, rng)
            # IDX: 0, 0, type 8 (bytes), number of dimensions, then each dimension as a big-endian int
            (raw / f"{split}-images-idx3-ubyte").write_bytes(
                struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes())
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(
                struct.pack(">4BI", 0, 0, 8, 1, count) + labels.tobytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--test", type=int, default=1000)
    args = parser.parse_args()
    if args.folder.exists():
        parser.error(f"{args.folder} exists already")
    write_synthetic(args.folder, args.train, args.test)
    print(f"wrote {args.folder}: give --data-dir {args.folder} to a script")
