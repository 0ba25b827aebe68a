"""3.1 d) An offline predictor: which labels does the improved network give the sheet's ten images?

    python task_3_1_d.py                    the ten images of the sheet
    python task_3_1_d.py photo.jpg *.png    any others

Bag for images 0 and 1 (probability 0.9235 and 0.8845), Dress for images 2 to 9 (0.5791 for image 2, then 0.7526 or
more). Trained with label smoothing of 0.1, the network aims at about nine tenths for an image that it is sure of.

The ten images are a morph: image i is (1 - i/9) A + (i/9) B, rounded, of two Fashion-MNIST training images,
A = number 20332, a bag, and B = number 31752, a dress. So the labels tell where between bag and dress the
decision flips: between one and two ninths of dress. Images 1 to 8 belong to no class, and the network has never
learnt to say so: in the middle of the morph it is nearly as sure of a dress as at its end.
"""

import io
import sys
import warnings
from pathlib import Path

import torch

import common
from common import FASHION_CLASSES, ConvNet, FashionNet, UserError

CHECKPOINT = common.HERE / "checkpoints" / "task_3_1_c.pt"
SAMPLES = [common.HERE / "sample_images" / f"img{i:02}.png" for i in range(10)]
BAG, DRESS = 20332, 31752  # numbers of the two training images
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # some others run a program to be read
PLOTTED = 30  # images in the picture


def make_samples(data_dir):
    """Make the sheet's ten images from the data set; raises UserError without the published one."""
    from PIL import Image

    try:
        images, _ = common.load("FashionMNIST", True, data_dir)
    except UserError:
        pass
    if not common.is_published("FashionMNIST", data_dir):
        raise UserError("the sheet's ten images are made from the published Fashion-MNIST, which is not in "
                        f"{data_dir} and could not be downloaded: put its files into {data_dir}/FashionMNIST/raw, "
                        "or give image files of your own")
    bag, dress = images[BAG, 0].double(), images[DRESS, 0].double()
    for i, path in enumerate(SAMPLES):
        morph = ((1 - i / 9) * bag + i / 9 * dress).round().byte()
        buffer = io.BytesIO()
        Image.fromarray(morph.numpy()).save(buffer, "PNG")
        common.replace_file(path, buffer.getvalue())


def read_image(path, invert=False):
    """Read an image file as uint8 [1, 28, 28] and say what had to be converted ("" if nothing).

    Transparent pixels become black, as Fashion-MNIST's background; other shapes are padded with black.
    Raises UserError if the file is not an image.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = ImageOps.exif_transpose(Image.open(path, formats=FORMATS))
            found = f"{image.width}x{image.height} {image.mode}"
            if image.mode.startswith(("I", "F")):  # 16 bits a pixel: convert() would cut off at 255
                image = image.convert("I").point(lambda value: value / 257).convert("L")
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
            image = image.convert("L")
            image = ImageOps.invert(image) if invert else image
            image = ImageOps.pad(image, (28, 28))
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except Exception as error:  # a damaged or hostile file can fail in any way
        raise UserError(f"cannot read {path} as an image ({error})") from None
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(1, 28, 28)
    return pixels, "" if found == "28x28 L" else f"converted from {found}"


def load_classifier(checkpoint):
    """The classifier in a checkpoint of 3.1 a or c, in eval mode; raises UserError if it holds none."""
    state = common.load_checkpoint(checkpoint)
    kind = {"ConvNet": ConvNet, "FashionNet": FashionNet}.get(state["settings"].get("network"))
    if kind is None:
        raise UserError(f"{common.shown(checkpoint)} holds no classifier but a {state['settings'].get('network')}")
    network = kind()
    common.load_weights(network, state, checkpoint)
    return network.eval()


@torch.inference_mode()
def predict(images, checkpoint=CHECKPOINT):
    """Class probabilities [N, 10], float32, of images, uint8 [N, 1, 28, 28], by the network in a checkpoint.

    Softmax is over the classes, dim=1: over dim=0, as in the template, one image always gets 1.0 everywhere.
    Raises UserError if the checkpoint cannot be read or holds no classifier.
    """
    network = load_classifier(checkpoint)
    logits = [network(batch.float() / 255) for batch in images.split(500)]
    return torch.cat(logits).softmax(dim=1)


def plot_predictions(names, images, probabilities, path):
    """Draw the images, each over its class probabilities."""
    from matplotlib.figure import Figure

    columns = min(len(images), 10)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.5 * columns + 1, 3.4 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, sharey="row")
    for number in range(rows * columns):
        top, bottom = axes[number // columns * 2: number // columns * 2 + 2, number % columns]
        top.axis("off")
        if number >= len(images):
            bottom.axis("off")
            continue
        top.imshow(images[number, 0], cmap="gray", vmin=0, vmax=255)
        top.set_title(names[number][-16:], fontsize=8)
        bottom.barh(FASHION_CLASSES, 100 * probabilities[number])
        bottom.set(xlim=(0, 100), ylim=(9.6, -0.6), xlabel="%")
    common.save_figure(figure, path)


def table(rows):
    """Rows of texts as lines: tabs between the columns, and on a terminal blanks that align them."""
    if not sys.stdout.isatty():
        return ["\t".join(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["\t".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]


def main():
    parser = common.parser(__doc__, "data")
    parser.add_argument("images", nargs="*", type=Path, help="image files; without: the sheet's ten")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="the trained classifier")
    parser.add_argument("--invert", action="store_true", help="for dark clothes photographed on white")
    args = common.start(parser.parse_args())
    paths = args.images or SAMPLES
    if args.images and args.record:
        raise UserError("--record takes the sheet's ten images only")
    if not args.images and not all(path.exists() for path in SAMPLES):
        make_samples(args.data_dir)

    from tqdm import tqdm
    images, notes = zip(*(read_image(path, args.invert) for path in tqdm(paths, leave=False, disable=None)))
    images = torch.stack(images)
    probabilities = predict(images, args.checkpoint)

    names = ["".join(c if c.isprintable() else "?" for c in path.name) for path in paths]
    rows = [("file", "label", "probability", "runner-up", "probability", "note")]
    for name, note, values, classes in zip(names, notes, *(t.tolist() for t in probabilities.topk(2))):
        first, second = (FASHION_CLASSES[index] for index in classes)
        rows.append((name, first, f"{values[0]:.4f}", second, f"{values[1]:.4f}", note))
    common.report(args, table(rows))
    folder = args.run_dir / "figures" if args.images else args.figure_dir
    plot_predictions(names[:PLOTTED], images[:PLOTTED], probabilities[:PLOTTED], folder / "task_3_1_d.png")


if __name__ == "__main__":
    common.run(main)


# Results, each block printed by the command above it

# $ python task_3_1_d.py
# file	label	probability	runner-up	probability	note
# img00.png	Bag	0.9235	T-shirt/top	0.0124
# img01.png	Bag	0.8845	Dress	0.0320
# img02.png	Dress	0.5791	Bag	0.1844
# img03.png	Dress	0.7526	Bag	0.0530
# img04.png	Dress	0.7944	Coat	0.0369
# img05.png	Dress	0.7971	Coat	0.0364
# img06.png	Dress	0.8349	Coat	0.0272
# img07.png	Dress	0.8597	Coat	0.0213
# img08.png	Dress	0.8761	Sandal	0.0181
# img09.png	Dress	0.8977	Sandal	0.0166
# (AMD EPYC, 2 threads, fp32, torch 2.15.0+cu132, 0.0 minutes)
