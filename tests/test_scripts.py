"""The scripts as a user runs them: on drawn data, in processes of their own."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import ROOT
from task_3_1_c import ABLATION


def assert_one_line_error(process, text):
    """Exit status 2, one line on standard error that holds `text`, no traceback."""
    assert process.returncode == 2, process.stderr
    assert len(process.stderr.strip().splitlines()) == 1, process.stderr
    assert text in process.stderr


def only(folder, pattern):
    """The one file below a folder that fits a pattern."""
    found = list(Path(folder).rglob(pattern))
    assert len(found) == 1, found
    return found[0]


def scalars(folder, tag):
    """A TensorBoard curve as [(step, value)]."""
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_3_1_a_trains_plots_logs_and_keeps_a_quick_try_apart(script, tmp_path):
    process = script("task_3_1_a", "--epochs", 2, "--seed", 0, 1)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""  # no progress bar in a pipe, no warnings
    assert re.search(r"validation accuracy after epoch 2: \d+\.\d\d ± \d+\.\d\d % on 100 images", process.stdout)
    assert process.stdout.strip().endswith(f"tensorboard --logdir {os.path.relpath(tmp_path / 'runs', tmp_path)}")
    runs = tmp_path / "runs" / "task_3_1_a"
    assert Image.open(only(runs, "task_3_1_a.png")).width > 500
    last = scalars(only(runs, "task_3_1_a-seed1"), "accuracy/validation")
    assert [step for step, _ in last] == [1, 2]
    events = EventAccumulator(str(only(runs, "task_3_1_a-seed0"))).Reload()
    assert set(events.Tags()["scalars"]) == {
        "loss/training", "loss/validation", "accuracy/training", "accuracy/validation", "learning rate"}
    assert events.Tags()["graph"]
    assert only(runs, "task_3_1_a.pt") and not list(runs.rglob("*.partial.pt"))


def test_3_1_a_with_augmentation_is_a_run_of_its_own(script, tmp_path):
    plain = script("task_3_1_a", "--epochs", 1)
    augmented = script("task_3_1_a", "--epochs", 1, "--augment")
    assert plain.returncode == augmented.returncode == 0, augmented.stderr
    loss = r"training loss (\S+)"
    assert re.search(loss, plain.stdout)[1] != re.search(loss, augmented.stdout)[1]
    assert only(tmp_path, "task_3_1_a.pt") and only(tmp_path, "task_3_1_a_augmented.pt")


def test_3_1_b_prints_table_and_names(script):
    process = script("task_3_1_b")
    assert process.returncode == 0, process.stderr
    assert "Total params: 6,444,170" in process.stdout
    assert re.search(r"features\.4 +Conv2d +\[1, 32, 28, 28\]", process.stdout)


def test_3_1_c_and_its_checkpoint_in_3_1_d(script, tmp_path):
    process = script("task_3_1_c", "--epochs", 1, "--checkpoint-dir", tmp_path / "weights")
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("validation accuracy") >= 4
    assert only(tmp_path, "task_3_1_c_confusion.png")
    for name in ("task_3_1_c", "task_3_1_c_base", "task_3_1_c_base_augmented"):
        image = tmp_path / "grey.png"
        Image.new("L", (28, 28), 128).save(image)
        predicted = script("task_3_1_d", image, "--checkpoint", tmp_path / "weights" / f"{name}.pt")
        assert predicted.returncode == 0, predicted.stderr
        assert "grey.png\t" in predicted.stdout


def test_3_1_c_ablation_trains_all_rows_on_held_out_images(script):
    process = script("task_3_1_c", "--ablation", "--epochs", 1, "--limit", 60)
    assert process.returncode == 0, process.stderr
    table = process.stdout.split("validation\n")[-1]
    assert len(re.findall(r"^(?:the sheet's|\+ ).* [\d,]+ +\d+\.\d +\d+\.\d\d +\d+\.\d\d$", table, re.M)) == len(ABLATION)
    assert "6,444,170" in table


def test_3_1_d_table_and_conversions(script, tmp_path):
    Image.new("L", (28, 28), 200).save(tmp_path / "plain.png")
    Image.new("RGBA", (60, 40), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    process = script("task_3_1_d", "plain.png", "clear.png")
    assert process.returncode == 0, process.stderr
    rows = [line.split("\t") for line in process.stdout.splitlines() if "\t" in line]
    assert rows[0] == ["file", "label", "probability", "runner-up", "probability", "note"]
    assert rows[1][0] == "plain.png" and rows[1][5] == ""
    assert rows[2][0] == "clear.png" and rows[2][5] == "converted from 60x40 RGBA"
    assert all(float(row[2]) >= float(row[4]) > 0 for row in rows[1:])
    assert only(tmp_path, "task_3_1_d.png")


def test_3_2_a_writes_a_jpeg(script, tmp_path):
    process = script("task_3_2_a")
    assert process.returncode == 0, process.stderr
    assert Image.open(only(tmp_path, "task_3_2_a.jpg")).format == "JPEG"


@pytest.mark.parametrize("options", [(), ("--loss", "l1", "--network", "unet")])
def test_3_2_b_scores_and_pictures(script, tmp_path, options):
    process = script("task_3_2_b", "--epochs", 1, *options)
    assert process.returncode == 0, process.stderr
    rows = {line[:24].strip(): [float(text) for text in line[24:].split()]
            for line in process.stdout.splitlines() if re.match(r"(noisy|X|clamp|denoiser).* \d\.\d{4} ", line)}
    assert rows["noisy image X"][0] == pytest.approx(0.5, abs=0.01)
    assert rows["X - 0.5"][0] == pytest.approx(0.25, abs=0.01)
    assert rows["X - 0.5"][2] == pytest.approx(1 / 12, abs=0.002)
    assert len(rows["denoiser"]) == 4
    assert only(tmp_path, "*_best_worst.png")
    events = EventAccumulator(str(only(tmp_path, "task_3_2_b*-seed0"))).Reload()
    assert [len(events.Images(tag)) for tag in events.Tags()["images"]] == [1, 1]


def test_3_2_c_compares_and_sweeps(script, tmp_path):
    process = script("task_3_2_c", "--epochs", 1)
    assert process.returncode == 0, process.stderr
    assert "without skip" in process.stdout and "with skip" in process.stdout
    process = script("task_3_2_c", "--epochs", 1, "--limit", 30, "--sweep")
    assert process.returncode == 0, process.stderr
    assert len(re.findall(r"^amplitude ", process.stdout, re.M)) == 6
    assert only(tmp_path, "task_3_2_c_sweep.png")


def start(*arguments):
    """A script that hears Ctrl-C, which one started by a job in the background would ignore like that job."""
    return subprocess.Popen([sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def test_killed_training_resumes_to_identical_weights_and_whole_curves(drawn, tmp_path):
    """SIGKILL in the second and in the fourth epoch, Ctrl-C in the fifth; then on to the end."""
    command = [ROOT / "task_3_1_a.py", "--data-dir", drawn, "--epochs", 6, "--batch-size", 20]
    undisturbed = [*command, "--log-dir", tmp_path / "a", "--checkpoint-dir", tmp_path / "a"]
    disturbed = [*command, "--log-dir", tmp_path / "b", "--checkpoint-dir", tmp_path / "b"]
    assert start(*undisturbed).wait() == 0
    for resume, epoch, number in (([], 1, signal.SIGKILL), (["--resume"], 3, signal.SIGKILL),
                                  (["--resume"], 4, signal.SIGINT)):
        process = start(*disturbed, *resume)
        for line in process.stdout:
            if f"epoch {epoch:2}/6" in line:
                break
        time.sleep(0.2)
        process.send_signal(number)
        _, error = process.communicate()
        assert process.returncode == (130 if number == signal.SIGINT else -number), error
        if number == signal.SIGINT:
            assert len(error.strip().splitlines()) == 1 and "--resume" in error
    process = start(*disturbed, "--resume")
    output, error = process.communicate()
    assert process.returncode == 0 and "goes up to epoch" in output, error

    weights = [torch.load(tmp_path / folder / "task_3_1_a.pt", weights_only=True)["weights"] for folder in "ab"]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    for tag in ("loss/training", "accuracy/validation"):
        whole, mended = (scalars(only(tmp_path / folder, "task_3_1_a-seed0"), tag) for folder in "ab")
        assert [step for step, _ in whole] == list(range(1, 7)) and whole == mended

    process = start(*disturbed, "--resume")
    assert "goes up to epoch 6" in process.communicate()[0] and process.returncode == 0
    process = start(*command, "--lr", 0.5, "--resume", "--log-dir", tmp_path / "b", "--checkpoint-dir", tmp_path / "b")
    _, error = process.communicate()
    assert process.returncode == 2 and "another learning rate" in error


def test_resume_of_a_quick_try_finds_it(script):
    assert "nothing saved" in script("task_3_1_a", "--epochs", 1, "--resume").stdout
    assert "goes up to epoch 1" in script("task_3_1_a", "--epochs", 1, "--resume").stdout


@pytest.mark.parametrize("arguments, text", [
    (["--epochs", "0"], "not above zero"),
    (["--lr", "nan"], "not above zero"),
    (["--nonsense"], "--nonsense"),
    (["--seed", "1", "1"], "different"),
    (["--seed", "-1"], "from 0 on"),
    (["--record"], "published"),
    (["--device", "xpu"], "no xpu device"),
])
def test_wrong_options_are_one_line(script, arguments, text):
    assert_one_line_error(script("task_3_1_a", *arguments), text)


@pytest.mark.parametrize("name", ["task_3_1_a", "task_3_1_b", "task_3_1_c", "task_3_1_d",
                                  "task_3_2_a", "task_3_2_b", "task_3_2_c"])
def test_help(script, name):
    process = script(name, "--help")
    assert process.returncode == 0 and "--record" in process.stdout


def test_no_data_and_no_network_is_one_line(script, tmp_path):
    proxies = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    process = script("task_3_1_a", data_dir=tmp_path / "none", env=os.environ | proxies)
    assert_one_line_error(process, "stand_in.py")


def test_damaged_data_is_one_line(script, drawn, tmp_path):
    import shutil
    shutil.copytree(drawn, tmp_path / "data")
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        file = tmp_path / "data" / "MNIST" / "raw" / name
        content = file.read_bytes()
        file.write_bytes(content[:len(content) // 2])
        assert_one_line_error(script("task_3_1_a", data_dir=tmp_path / "data"), "damaged")
        file.write_bytes(content)


def test_folder_that_cannot_be_written_is_one_line(script, tmp_path):
    (tmp_path / "file").write_text("")
    assert_one_line_error(script("task_3_1_a", "--checkpoint-dir", tmp_path / "file" / "x"), "file")


@pytest.mark.parametrize("kibibytes", [4, 4096])
def test_full_disk_is_one_line_and_leaves_no_half_file(drawn, tmp_path, kibibytes):
    """A limit to each file stands for the full disk: too small for the curves, or for the 77 MB of training state."""
    process = subprocess.run(
        ["bash", "-c", f'ulimit -f {kibibytes}; exec "$@"', "bash", sys.executable, ROOT / "task_3_1_a.py",
         "--epochs", "1", "--data-dir", drawn, "--log-dir", tmp_path / "runs"], capture_output=True, text=True)
    assert_one_line_error(process, "too large")
    assert not list(tmp_path.rglob("*.pt")) and not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("content, text", [
    (b"not an image", "cannot read"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot read"),
    (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x01\x86\xa0\x00\x01\x86\xa0\x08\x02\x00\x00\x00\xbcJ\xb6S", "cannot read"),
    (None, "no such file"),
])
def test_bad_image_is_one_line(script, tmp_path, content, text):
    if content is not None:
        (tmp_path / "image.png").write_bytes(content)
    process = script("task_3_1_d", "image.png")
    assert_one_line_error(process, text)
    assert process.stdout == ""


def test_checkpoint_of_another_network_is_one_line(script, tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "image.png")
    torch.save({"settings": {"network": "EncoderDecoder"}, "weights": {}, "history": []}, tmp_path / "other.pt")
    assert_one_line_error(script("task_3_1_d", "image.png", "--checkpoint", "other.pt"), "no classifier")
    torch.save({"settings": {"network": "ConvNet"}, "weights": {}, "history": []}, tmp_path / "empty.pt")
    assert_one_line_error(script("task_3_1_d", "image.png", "--checkpoint", "empty.pt"), "do not fit")
