"""3.1 d) An offline predictor: which labels does the improved network give the sheet's ten images?

    python task_3_1_d.py [photo.jpg *.png …]    without names: the ten images of the sheet

Bag for images 0 and 1, Dress for images 2 to 9 (seed 0), with a probability of 0.4918 for image 2 and 0.8519 or more
for the others. Label smoothing of 0.1 trains the network towards a probability of 91 % for the correct class.

The ten images are a morph: image i is (1 - i/9) A + (i/9) B, rounded, of two Fashion-MNIST training images, a bag and
a dress. The labels only show where the decision flips: for all three seeds just before image 2
(`report/where_the_label_flips.py`). Images 1 to 8 belong to no class, which the network was never trained to say: it
gives Dress 0.9249 and 0.9294 for images 4 and 5, half bag and half dress.
"""

import glob
import os
import warnings
from pathlib import Path

import torch
from tqdm import tqdm

import common
import task_3_1_a
import task_3_1_c
from common import FASHION_CLASSES, UserError

CHECKPOINT = common.ROOT / "checkpoints" / "task_3_1_c.pt"
SAMPLES = [common.ROOT / "sample_images" / f"img{i:02}.png" for i in range(10)]
BAG, DRESS = 20332, 31752  # the two training images; the sheet's ten files agree with the morph in every pixel
CLASSES = {"MNIST": tuple("0123456789"), "FashionMNIST": FASHION_CLASSES}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # not EPS, for which Pillow starts Ghostscript


def bag_and_dress(data_dir):
    """The two ends of the morph, uint8 [1, 28, 28] each; raises UserError without the published data set."""
    try:
        images, _ = common.load("FashionMNIST", True, data_dir)
        common.require(images.sum() == common.PUBLISHED["FashionMNIST"], f"{data_dir} holds another Fashion-MNIST")
    except UserError as error:  # the cause, without the advice to make synthetic data, which do not help here
        raise UserError(f"{str(error).split(': put ')[0]}: put the published files into {data_dir}/FashionMNIST/raw or,"
                        f" for 3.1 d, the sheet's images into {SAMPLES[0].parent} as img00.png to img09.png") from None
    return images[BAG], images[DRESS]


def morph_images(first, last, count):
    """Interpolate from `first` to `last`, uint8 [1, 28, 28], both included: uint8 [count, 1, 28, 28], rounded."""
    weights = torch.linspace(0, 1, count, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return ((1 - weights) * first + weights * last).round().byte()


def make_samples(data_dir):
    """Make the sheet's ten images from the data set; raises UserError without the published one."""
    from PIL import Image

    for path, morph in zip(SAMPLES, morph_images(*bag_and_dress(data_dir), 10)):
        with common.replacing(path) as temporary:
            Image.fromarray(morph[0].numpy()).save(temporary)


def expand(names):
    """File names, patterns such as *.png replaced by what they match, which not every shell does."""
    found = []
    for name in names:
        found += [name] if Path(name).exists() else sorted(glob.glob(name)) or [name]
    return found


def printable(text):
    """A text without control characters, which a file's name or a stranger's checkpoint may hold."""
    return "".join(c if c.isprintable() else "?" for c in text)


def read_image(path, invert=False, crop=True):
    """Read an image file as uint8 [1, 28, 28], and a note on what is unusual about it.

    Transparent pixels become black, inverted or not. Other sizes than 28x28 are stretched to 0 … 255, with `crop` cut
    to the pixels above 40, scaled to fit and padded with black. UserError: no image, or more than 67 million pixels.
    """
    from PIL import Image, ImageOps
    common.require(not Path(path).is_dir(), f"{path} is a folder: name the images in it, such as {path}/*.png")
    common.require(Path(path).is_file(), f"no such file: {path}")  # a pipe is none
    try:
        warnings.simplefilter("ignore")  # about damage that Pillow can read past
        image = Image.open(path, formats=FORMATS)
        common.require(image.width * image.height <= 2 ** 26, "it has more than 67 million pixels")
        image = ImageOps.exif_transpose(image)
        note = f"converted from {image.width}x{image.height} {image.mode}"
        if image.mode.startswith(("I", "F")):  # 16-bit integers; floats to about 1 or to 255
            values = torch.frombuffer(bytearray(image.convert("F").tobytes()), dtype=torch.float32)
            common.require(values.isfinite().all(), "its values are not all finite")
            scale = 255 / 65535 if image.mode != "F" else 255 if values.max() <= 2 else 1
            image = image.convert("F").point(lambda value: value * scale + 0.5).convert("L")
        opaque = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        image = ImageOps.invert(image.convert("L")) if invert else image.convert("L")
        image = Image.composite(image, Image.new("L", image.size), opaque) if opaque else image
        photo = image.size != (28, 28)  # cropped, as Fashion-MNIST's were (Xiao et al. 2017, arXiv:1708.07747)
        image.thumbnail((112, 112))  # averages noise
        image = ImageOps.autocontrast(image) if photo else image  # 0 … 255: a grey background becomes black
        whole = image.resize((28, 28))
        border = (sum(whole.tobytes()) - sum(whole.crop((1, 1, 27, 27)).tobytes())) / 108  # the mean of its 108 pixels
        garment = image.point(lambda value: 255 * (value > 40)).getbbox() if photo and crop else None  # None: all of it
        image = ImageOps.pad(image.crop(garment), (28, 28))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(1, 28, 28)
    except Exception as error:  # a damaged or hostile file can fail in any way
        raise UserError(f"cannot read {path} as an image ({error}); formats: {', '.join(FORMATS)}") from None
    notes = [note] * (note != "converted from 28x28 L")
    if border > 127:  # that of no Fashion-MNIST test image is
        notes.append(f"bright background: try it {'without' if invert else 'with'} --invert")
    return pixels, "; ".join(notes)


def load_classifier(path):
    """A checkpoint's classifier, in eval mode, its classes, and a line on its origin; UserError if it holds none."""
    networks = {}  # by their names in checkpoints
    for variants in (task_3_1_a.NETWORKS, task_3_1_a.BEYOND, task_3_1_c.NETWORKS, task_3_1_c.BEYOND):
        networks |= {common.name_of(settings.network): settings.network for settings in variants.values()}
    state = common.load_checkpoint(path)
    try:
        name, classes = state["settings"]["network"], CLASSES[state["data"]]
        common.require(name in networks, printable(
            f"{path} holds a network {name}, which is none in NETWORKS or BEYOND of task_3_1_a.py or task_3_1_c.py"))
        origin = (f"{name} trained on {state['data']}, validation accuracy"
                  f" {state['history'][-1]['validation']['accuracy']:.2f} % after epoch {len(state['history'])}, by"
                  f" `{state['command']}` (seed {state['seed']}) on {state['date']}")
    except (KeyError, IndexError, TypeError, ValueError):
        raise UserError(f"{path} holds no classifier of MNIST or Fashion-MNIST") from None
    network = networks[name]()
    common.require(state["settings"].get("layers") in (None, str(network)),  # None: trained by an older version
                   f"{path} was trained with other layers than {name} has now")
    common.load_weights(network, state["weights"], path)
    return network.eval(), classes, f"weights: {common.display_path(path)}, {origin}"


@torch.inference_mode()
def predict(images, network):
    """Class probabilities [N, 10], float32, of images, uint8 [N, 1, 28, 28].

    Softmax is over the classes, dim=1: over dim=0, the template's third bug, a single image gets 1.0 for every class.
    """
    return torch.cat([network(batch.float() / 255) for batch in images.split(500)]).softmax(dim=1)


def main():
    parser = common.make_parser(__doc__)
    parser.add_argument("images", nargs="*", default=[], help="image files; without: the sheet's ten")
    parser.add_argument("--checkpoint", type=os.path.expanduser, default=CHECKPOINT, help="the trained classifier")
    parser.add_argument("--invert", action="store_true", help="for dark clothes photographed on a bright background")
    args = common.start_run(parser)
    network, classes, origin = load_classifier(args.checkpoint)
    crop = classes == FASHION_CLASSES  # MNIST's digits have a margin
    if not args.images and not all(path.exists() for path in SAMPLES):
        make_samples(args.data_dir)
    readable, unreadable = [], []
    for name in tqdm(expand(args.images) or SAMPLES, leave=False, disable=None):
        try:
            readable.append((printable(name if args.images else name.name), *read_image(name, args.invert, crop)))
        except UserError as error:
            unreadable.append(str(error))
    common.require(readable, "; ".join(unreadable))
    names, images, notes = zip(*readable)
    probabilities, labels = predict(torch.stack(images), network).topk(2)

    lines, titles = [printable(origin), "file\tlabel\tprobability\trunner-up\tprobability\tnote"], []
    for name, note, (p1, p2), (first, second) in zip(names, notes, probabilities.tolist(), labels.tolist()):
        lines.append(f"{name}\t{classes[first]}\t{p1:.4f}\t{classes[second]}\t{p2:.4f}\t{note}")
        titles.append(f"{classes[first]}\n{100 * p1:.0f} %")
    common.plot_images(args, "task_3_1_d.png", {"": (torch.stack(images[:10]), 0, 255)}, titles[:10])
    common.print_results(args, lines)
    common.require(not unreadable, "; ".join(unreadable))


if __name__ == "__main__":
    common.run_script(main)


# Results, each block printed by the command above it

# $ python task_3_1_d.py
# weights: checkpoints/task_3_1_c.pt, FashionNet trained on FashionMNIST, validation accuracy 94.74 % after epoch 15, by `python task_3_1_c.py --seed 0 1 2` (seed 0) on 2026-11-27
# file	label	probability	runner-up	probability	note
# img00.png	Bag	0.9341	T-shirt/top	0.0101
# img01.png	Bag	0.8519	Dress	0.0309
# img02.png	Dress	0.4918	Bag	0.1882
# img03.png	Dress	0.8825	Shirt	0.0255
# img04.png	Dress	0.9249	T-shirt/top	0.0133
# img05.png	Dress	0.9294	T-shirt/top	0.0117
# img06.png	Dress	0.9310	T-shirt/top	0.0116
# img07.png	Dress	0.9320	T-shirt/top	0.0141
# img08.png	Dress	0.9331	T-shirt/top	0.0164
# img09.png	Dress	0.9363	T-shirt/top	0.0175
# (Intel Xeon, 2 threads, fp32, torch 2.15.0+cu132, 0.0 minutes)
