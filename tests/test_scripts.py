"""The scripts as a user runs them: on synthetic data, in processes of their own."""

import hashlib
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import common
import task_3_1_a
from child import run_script
from conftest import ROOT, assert_one_line_error
from stand_in import write_stand_in

TASKS = sorted(path.stem for path in ROOT.glob("task_3_*.py"))
EXPERIMENTS = sorted(f"report/{path.stem}" for question in ("how", "what", "why") for path in
                     ROOT.glob(f"report/{question}_*.py"))


def only(folder, pattern):
    """The one file below a folder that fits a pattern."""
    found = list(Path(folder).rglob(pattern))
    assert len(found) == 1, found
    return found[0]


def hashes(root=ROOT):
    """What is published: {path: hash} of checkpoints/ and report/."""
    return {path: hashlib.md5(path.read_bytes()).hexdigest() for folder in ("checkpoints", "report")
            for path in (root / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"}


@pytest.mark.parametrize("options", [("--seed", 7), ("--epochs", 2, "--seed", 0, 1), ("--lr", 1e-4, "--epochs", 1)])
def test_3_1_a_keeps_a_try_in_its_own_folder(script, tmp_path, options):
    before = hashes()
    options = (*options, "--epochs", 1) if "--epochs" not in options else options
    process = script("task_3_1_a", *options, "--checkpoint-dir", tmp_path / "weights")
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""  # no progress bar in a pipe, no warnings
    assert hashes() == before
    folder = only(tmp_path / "runs", "results.txt").parent
    assert f'tensorboard --logdir "{os.path.relpath(folder, tmp_path)}"' in process.stdout.splitlines()[-1]
    seed = 7 if 7 in options else 0
    assert f"weights: {os.path.relpath(folder, tmp_path)}/plain/seed{seed}/checkpoint.pt" in process.stdout
    assert (tmp_path / "weights" / "task_3_1_a.pt").exists()
    assert Image.open(folder / "figures" / "task_3_1_a.png").width > 1000
    assert re.search(r"validation accuracy after epoch \d: \d+\.\d\d( ± \d+\.\d\d)? % on 100 images", process.stdout)


def test_training_and_validation_share_their_charts(script, tmp_path):
    assert script("task_3_1_a", "--epochs", 2).returncode == 0
    tags = {}
    for kind in ("training", "validation"):
        events = EventAccumulator(str(only(tmp_path, kind))).Reload()
        tags[kind] = set(events.Tags()["scalars"])
        assert [event.step for event in events.Scalars("accuracy")] == [1, 2]
    assert tags["validation"] == {"loss", "accuracy"} and tags["training"] == {"loss", "accuracy", "learning rate"}


def test_3_1_a_trains_on_augmented_digits_as_well(script, tmp_path):
    process = script("task_3_1_a", "--epochs", 1, "--augment")
    losses = re.findall(r"training loss (\S+),", process.stdout)
    assert len(losses) == 2 and losses[0] != losses[1], process.stderr
    assert only(tmp_path, "task_3_1_a_augmented.png")


def test_3_1_b_prints_names_and_shapes(script):
    process = script("task_3_1_b")
    assert "Total params: 6,444,170" in process.stdout, process.stderr
    assert re.search(r"Conv2d-5 +\[-1, 32, 28, 28\]", process.stdout)


def test_3_1_c_and_its_checkpoints_in_3_1_d(script, tmp_path):
    process = script("task_3_1_c", "--epochs", 1, "--limit", 60, "--checkpoint-dir", tmp_path / "weights")
    assert process.returncode == 0, process.stderr
    rows = re.findall(r"^(plain|augmented|improved) +[\d,]+ +1 +\d+\.\d +(\S+) +(\S+) +(\S+)$", process.stdout, re.M)
    assert len(rows) == 3
    assert all(float(training) - float(validation) == pytest.approx(float(gap), abs=0.02)
               for _, training, validation, gap in rows)
    Image.new("L", (28, 28), 128).save(tmp_path / "grey.png")
    for name in ("task_3_1_c", "task_3_1_c_plain", "task_3_1_c_augmented"):
        predicted = script("task_3_1_d", "grey.png", "--checkpoint", tmp_path / "weights" / f"{name}.pt")
        assert "grey.png\t" in predicted.stdout, predicted.stderr


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
    lines = [re.split(r" {2,}", line) for line in process.stdout.splitlines()]
    rows = {label: [float(text) for text in texts] for label, *texts in lines
            if label in ("noisy image X", "X - 0.5", "denoiser")}
    assert rows["noisy image X"][0] == pytest.approx(0.5, abs=0.01)
    assert rows["X - 0.5"][2] == pytest.approx(1 / 12, abs=0.002)
    assert len(rows["denoiser"]) == 4
    assert only(tmp_path, "task_3_2_b*_images.png")
    for kind in ("training", "validation"):
        events = EventAccumulator(str(only(tmp_path, kind))).Reload()
        assert [len(events.Images(tag)) for tag in events.Tags()["images"]] == [1]


def test_3_2_c_compares_paired_seeds_after_the_last_epoch(script):
    process = script("task_3_2_c", "--epochs", 1, "--limit", 60, "--seed", 0, 1)
    assert process.returncode == 0, process.stderr
    maes = [float(text) for text in re.findall(r"^with.*epoch  1/1;.* MAE (\S+); \S+ s$", process.stdout, re.M)]
    mean = (maes[2] + maes[3] - maes[0] - maes[1]) / 2
    assert float(re.search(r"changes the MAE by (\S+) ±", process.stdout)[1]) == pytest.approx(mean, abs=2e-4)
    process = script("task_3_2_c", "--epochs", 3, "--limit", 60)
    assert "images after epoch 3\n" in process.stdout, process.stderr
    header, without = re.findall(r"^validation MAE after epoch +(.*)\nwithout.*  (\S+)$", process.stdout, re.M)[0]
    assert header.split() == ["1", "2", "3"]
    assert re.search(r"^without.*epoch  3/3;.* MAE (\S+); \S+ s$", process.stdout, re.M)[1].startswith(without[:5])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_run(script, project, synthetic, name):
    before = hashes()
    if name.endswith("lets_through"):  # it has no option that makes it quick
        shutil.copytree(ROOT / "checkpoints", project / "checkpoints")
        path = project / f"{name}.py"
        path.write_text(path.read_text(encoding="utf-8").replace("20  #", "2  #"), encoding="utf-8")
        process = run_script(path, "--data-dir", synthetic)
    else:
        process = script(name, "--epochs", 1, "--limit", 20)
    assert process.returncode == 0, process.stderr
    assert hashes() == before


def test_a_run_of_the_tasks_own_settings_publishes(project, synthetic):
    """In a copy of the project, with the default folder for runs."""
    run = lambda *options: run_script(project / "task_3_1_a.py", "--data-dir", synthetic, *options)  # noqa: E731
    assert "not published" in run("--limit", "9").stdout
    assert not (project / "checkpoints").exists() and not (project / "report" / "figures").exists()
    process = run("--record")
    assert process.returncode == 0 and "not published" not in process.stdout, process.stderr
    assert (project / "checkpoints" / "task_3_1_a.pt").exists()
    assert (project / "report" / "figures" / "task_3_1_a.png").exists()


def test_record_end_to_end(project, synthetic):
    """The block is what was printed; another command adds its own."""
    run = lambda *options: run_script(project / "task_3_2_b.py", "--data-dir", synthetic, "--record", *options)  # noqa: E731
    outputs = [run("--epochs", "1"), run("--loss", "l1", "--log-dir", project / "elsewhere")]
    source = (project / "task_3_2_b.py").read_text(encoding="utf-8")
    blocks = {block.split("\n")[0]: block for block in source.partition(common.MARK)[2].rstrip().split("\n\n")}
    for command, process in zip(("--epochs 1", "--loss l1"), outputs):
        block = blocks[f"# $ python task_3_2_b.py {command}"]
        assert [line[2:] for line in block.split("\n")[1:]] == [
            line.rstrip() for line in process.stdout.partition("\n\n")[2].partition("\n\n")[0].splitlines()]
    for options in (("--limit", "9"), ("--holdout",)):
        assert_one_line_error(run(*options), "--record needs the published data")
    assert (project / "task_3_2_b.py").read_text(encoding="utf-8") == source


def test_holdout_trains_on_other_images_and_never_opens_the_test_set(script, synthetic, tmp_path, make_setup):
    shutil.copytree(synthetic / "MNIST", tmp_path / "data" / "MNIST")
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / "data" / "MNIST" / "raw" / name).write_bytes(b"closed")
    process = script("task_3_1_a", "--epochs", 1, "--holdout", data_dir=tmp_path / "data")
    assert "on 50 images" in process.stdout, process.stderr
    assert_one_line_error(script("task_3_1_a", "--epochs", 1, data_dir=tmp_path / "data"), "damaged")
    setup = make_setup(digits=replace(task_3_1_a.SETTINGS, holdout=True))
    setup.args.data_dir = synthetic
    (training, _), (validation, _) = common.load_split("MNIST", setup)
    everything, _ = common.load("MNIST", True, synthetic)
    assert torch.equal(torch.cat([training, validation]), everything) and len(validation) == 50


def start(*arguments):
    """A script that hears Ctrl-C, which one started by a job in the background would ignore like that job."""
    return subprocess.Popen([sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def interrupted(command, number, epoch=1):
    """Run a script until it has printed an epoch, then send it a signal; returns (exit status, standard error)."""
    process = start(*command)
    for line in process.stdout:
        if f"epoch {epoch:2}/" in line:
            break
    process.send_signal(number)
    _, error = process.communicate()
    return process.returncode, error


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on POSIX systems")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_says_how_to_go_on(synthetic, tmp_path, number):
    command = [ROOT / "task_3_2_b.py", "--data-dir", synthetic, "--epochs", 50, "--log-dir", tmp_path]
    code, error = interrupted(command, number)
    assert code == 130 and len(error.strip().splitlines()) == 1 and "--resume" in error


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on POSIX systems")
def test_resume_finds_the_newest_unfinished_run_of_its_settings(synthetic, tmp_path):
    command = [ROOT / "task_3_2_b.py", "--data-dir", synthetic, "--seed", 0, 1, "--limit", 100, "--log-dir", tmp_path]
    first, second = [*command, "--epochs", 3], [*command, "--epochs", 3, "--loss", "l1"]
    interrupted(first, signal.SIGKILL, epoch=2)  # the state is saved after an epoch is printed
    interrupted(second, signal.SIGKILL, epoch=2)
    older, newer = sorted(path.parent for path in tmp_path.rglob("settings.json"))
    output, error = start(*first, "--resume").communicate()
    assert f"continuing {common.display_path(older)}" in output and "continuing after epoch" in output, error
    assert (older / "results.txt").exists() and not (newer / "results.txt").exists()
    for other in (first, [*second, "--lr", 0.1], [*second, "--batch-size", 9]):  # finished; other settings
        assert "starting from the beginning" in run_script(*other, "--resume").stdout
    with common.lock(newer):  # as if another process were at work there
        assert "starting from the beginning" in run_script(*second, "--resume").stdout


@pytest.mark.parametrize("arguments, text", [
    (["--epochs", "0"], "is not from 1"),
    (["--epochs", "1000"], "is not from 1"),
    (["--lr", "nan"], "is not from"),
    (["--lr", "zero"], "--lr"),
    (["--nonsense"], "--nonsense"),
    (["--epoch", "1"], "--epoch"),  # no abbreviations: they would be recorded
    (["--seed", "1", "1"], "different"),
    (["--seed", "-1"], "is not from 0"),
    (["--record"], "published"),
    (["--device", "xpu"], "no xpu device"),
    (["--template", "--augment"], "not allowed with"),
    (["--checkpoint-dir", ROOT / "checkpoints"], "give another --checkpoint-dir"),
    (["--checkpoint-dir", ROOT / "README.md"], "README.md"),
])
def test_wrong_options_are_one_line(script, arguments, text):
    assert_one_line_error(script("task_3_1_a", *arguments), text)


@pytest.mark.parametrize("name", [*TASKS, *EXPERIMENTS])
def test_help(script, name):
    process = script(name, "--help")
    assert process.returncode == 0 and "--record" in process.stdout


def test_no_data_and_no_network_is_one_line(script, synthetic, tmp_path):
    proxies = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    process = script("task_3_1_a", data_dir=tmp_path / "none", env=proxies)
    assert_one_line_error(process, "stand_in.py")
    shutil.copytree(synthetic, tmp_path / "one is missing")
    (tmp_path / "one is missing" / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    assert_one_line_error(script("task_3_1_a", data_dir=tmp_path / "one is missing", env=proxies), "stand_in.py")


def test_damaged_data_is_one_line(script, synthetic, tmp_path):
    shutil.copytree(synthetic, tmp_path / "data")
    raw = tmp_path / "data" / "MNIST" / "raw"
    content = (raw / "train-images-idx3-ubyte").read_bytes()
    (raw / "train-images-idx3-ubyte").write_bytes(content[:len(content) // 2])
    assert_one_line_error(script("task_3_1_a", data_dir=tmp_path / "data"), "damaged")
    (raw / "train-images-idx3-ubyte").write_bytes(content)
    (raw / "train-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 300) + bytes([11] * 300))
    assert_one_line_error(script("task_3_1_a", data_dir=tmp_path / "data"), "labels are not 0 to 9")


def test_too_few_images_are_one_line(script, tmp_path):
    write_stand_in(tmp_path / "data", train=100, test=10)
    assert_one_line_error(script("task_3_2_a", data_dir=tmp_path / "data"), "fewer than 200 training images")


def test_folder_that_cannot_be_written_is_one_line(script, tmp_path):
    (tmp_path / "runs").write_text("")
    assert_one_line_error(script("task_3_1_a"), "runs")


@pytest.mark.skipif(sys.platform == "win32", reason="ulimit is a POSIX command")
@pytest.mark.parametrize("kibibytes", [4, 4096])
def test_full_disk_is_one_line_and_leaves_no_half_file(synthetic, tmp_path, kibibytes):
    """A limit to each file stands for the full disk: too small for the curves, or for the training state."""
    process = subprocess.run(
        ["bash", "-c", f'ulimit -f {kibibytes}; exec "$@"', "bash", sys.executable, ROOT / "task_3_1_a.py",
         "--epochs", "1", "--data-dir", synthetic, "--log-dir", tmp_path / "runs"], capture_output=True, text=True)
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
