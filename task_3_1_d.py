"""3.1 d) An offline predictor: which labels does the improved network give the sheet's ten images?

    python task_3_1_d.py                    the ten images of the sheet
    python task_3_1_d.py photo.jpg *.png    any others

Bag for images 0 and 1 (probability 0.9394 and 0.9188), Dress for images 2 to 9 (0.6032 for image 2, then 0.8469 or
more). Label smoothing of 0.1 trains the network towards a probability of 91 % for the correct class.

The ten images are a morph: image i is (1 - i/9) A + (i/9) B, rounded, of two Fashion-MNIST training images, A = number
20332, a bag, and B = number 31752, a dress; the sheet's files agree with this in every pixel. The network was trained
on both ends, so the labels only show where in between its decision (seed 0) flips: at a share of the dress of 0.197
(`report/where_the_label_flips.py`). Images 1 to 8 belong to no class, and the network has never learned to say so: for
images 4 and 5, about half bag and half dress, it gives Dress 0.8956 and 0.9065; for the dress itself, 0.9368.
"""

import io
import warnings
from pathlib import Path

import torch
from tqdm import tqdm

import common
from common import FASHION_CLASSES, ConvNet, FashionNet, UserError

CHECKPOINT = common.ROOT / "checkpoints" / "task_3_1_c.pt"
SAMPLES = [common.ROOT / "sample_images" / f"img{i:02}.png" for i in range(10)]
BAG, DRESS = 20332, 31752  # numbers of the two training images
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # not EPS, for which Pillow starts Ghostscript
PLOTTED = 10  # images in the picture


def make_samples(data_dir):
    """Make the sheet's ten images from the data set; raises UserError without the published one."""
    from PIL import Image

    for path, morph in zip(SAMPLES, morph_images(*bag_and_dress(data_dir), 10)):
        buffer = io.BytesIO()
        Image.fromarray(morph[0].numpy()).save(buffer, "PNG")
        common.replace_file(path, buffer.getvalue())


def bag_and_dress(data_dir):
    """The two ends of the morph, uint8 [1, 28, 28] each; raises UserError without the published data set."""
    if common.checksum("FashionMNIST", data_dir) != common.MD5["FashionMNIST"]:
        raise UserError("the sheet's ten images are made from the published Fashion-MNIST, which is not in "
                        f"{data_dir}: give another --data-dir")
    images, _ = common.load("FashionMNIST", True, data_dir)
    return images[BAG], images[DRESS]


def morph_images(first, last, count):
    """Interpolate from `first` to `last`, uint8 [1, 28, 28], both included: uint8 [count, 1, 28, 28], rounded."""
    weights = torch.linspace(0, 1, count, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return ((1 - weights) * first + weights * last).round().byte()


def read_image(path, invert=False):
    """Read an image file as uint8 [1, 28, 28], and a note of its size and mode unless they are 28x28 L (greyscale).

    Transparent pixels become black, as Fashion-MNIST's background; other sizes are scaled to fit and padded with black.
    Raises UserError if the file is missing, is not a readable image or has more than 33 million pixels.
    """
    from PIL import Image, ImageOps

    common.require(path.is_file(), f"no such file: {path}")  # a folder or a pipe is none
    try:
        with warnings.catch_warnings(action="ignore"):  # about damage that Pillow can read past
            image = Image.open(path, formats=FORMATS)
            common.require(image.width * image.height <= 2 ** 25, "it has more than 33 million pixels")
            image = ImageOps.exif_transpose(image)
            found = f"{image.width}x{image.height} {image.mode}"
            if image.mode.startswith(("I", "F")):  # 16-bit integers; floats to about 1 or to 255
                values = torch.frombuffer(bytearray(image.convert("F").tobytes()), dtype=torch.float32)
                common.require(values.isfinite().all(), "its values are not all finite")
                scale = 255 / 65535 if image.mode != "F" else 255 if values.max() <= 2 else 1
                image = image.convert("F").point(lambda value: value * scale + 0.5).convert("L")
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
            image = image.convert("L")
            image = ImageOps.invert(image) if invert else image
            image = ImageOps.pad(image, (28, 28))
    except Exception as error:  # a damaged or hostile file can fail in any way
        raise UserError(f"cannot read {path} as an image ({error})") from None
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(1, 28, 28)
    return pixels, "" if found == "28x28 L" else f"converted from {found}"


def load_classifier(checkpoint):
    """The classifier in a checkpoint of 3.1 a or c, in eval mode; raises UserError if it holds none."""
    state = common.load_checkpoint(checkpoint)
    try:
        network = {"ConvNet": ConvNet, "FashionNet": FashionNet}[state["settings"]["network"]]()
    except (KeyError, TypeError):
        raise UserError(f"{common.display_path(checkpoint)} holds no classifier") from None
    common.load_weights(network, state["weights"], checkpoint)
    return network.eval()


@torch.inference_mode()
def predict(images, network):
    """Class probabilities [N, 10], float32, of images, uint8 [N, 1, 28, 28].

    Softmax is over the classes, dim=1: over dim=0, as in the template, a single image always gets 1.0 everywhere.
    """
    return torch.cat([network(batch.float() / 255) for batch in images.split(500)]).softmax(dim=1)


def main():
    parser = common.make_parser(__doc__)
    parser.add_argument("images", nargs="*", type=Path, help="image files; without: the sheet's ten")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="the trained classifier")
    parser.add_argument("--invert", action="store_true", help="for dark clothes photographed on white")
    args = parser.parse_args()
    paths = args.images or SAMPLES
    if not args.images and not all(path.exists() for path in SAMPLES):
        make_samples(args.data_dir)

    images, notes = zip(*(read_image(path, args.invert) for path in tqdm(paths, leave=False, disable=None)))
    images, network = torch.stack(images), load_classifier(args.checkpoint)
    probabilities, classes = predict(images, network).topk(2)
    setup = common.setup(args, publishable=not (args.images or args.invert) and args.checkpoint == CHECKPOINT)

    lines, titles = ["file\tlabel\tprobability\trunner-up\tprobability\tnote"], []
    for path, note, (p1, p2), (first, second) in zip(paths, notes, probabilities.tolist(), classes.tolist()):
        label, runner_up = FASHION_CLASSES[first], FASHION_CLASSES[second]
        name = "".join(c if c.isprintable() else "?" for c in path.name)
        lines.append(f"{name}\t{label}\t{p1:.4f}\t{runner_up}\t{p2:.4f}\t{note}")
        titles.append(f"{label}\n{100 * p1:.0f} %")
    common.plot_images(setup, "task_3_1_d.png", titles[:PLOTTED], {"": (images[:PLOTTED], 0, 255)})
    common.report(setup, lines)


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python task_3_1_d.py
# file	label	probability	runner-up	probability	note
# img00.png	Bag	0.9394	T-shirt/top	0.0103
# img01.png	Bag	0.9188	Coat	0.0172
# img02.png	Dress	0.6032	Bag	0.1853
# img03.png	Dress	0.8469	Coat	0.0308
# img04.png	Dress	0.8956	Shirt	0.0154
# img05.png	Dress	0.9065	T-shirt/top	0.0161
# img06.png	Dress	0.9049	T-shirt/top	0.0165
# img07.png	Dress	0.9195	T-shirt/top	0.0135
# img08.png	Dress	0.9300	Sneaker	0.0105
# img09.png	Dress	0.9368	Sneaker	0.0105
# (AMD EPYC, 1 thread, fp32, torch 2.15.0+cu132, 0.0 minutes)
