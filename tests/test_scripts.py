"""The scripts as a user runs them, on synthetic data: options, trial runs, records, kills, how they end."""

import importlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import common
from child import Script, run_script
from conftest import POSIX, ROOT, SETTINGS, assert_one_line_error, change, only

TASKS = sorted(path.stem for path in ROOT.glob("task_3_*.py"))
EXPERIMENTS = sorted(f"report/{path.stem}" for path in ROOT.glob("report/w*.py"))
HELP = {"task_3_1_a": ["(default: 15)", "(default: 100)", "(default: 0.001)"], "task_3_2_c": ["(default: 0.02)"],
        "task_3_1_c": ["(defaults: see NETWORKS in the script)"], "task_3_1_d": ["--checkpoint"]}
OWN = {  # command: the network and the loss of each checkpoint that it publishes
    "task_3_1_a --beyond --seed 0 3": dict.fromkeys(
        ("task_3_1_a_beyond", "task_3_1_a_beyond_seed3"), "ConvNet smoothed_cross_entropy random_digits"),
    "task_3_1_c": {
        "task_3_1_c_template": "ConvNet cross_entropy None",
        "task_3_1_c_augmented": "ConvNet smoothed_cross_entropy random_clothes",
        "task_3_1_c": "FashionNet smoothed_cross_entropy random_clothes"},
    "task_3_2_b --loss l1 --network unet": {"task_3_2_b_unet_l1": "UNet l1_loss None"},
    "task_3_2_c --seed 1": {"task_3_2_c_seed1": "SkipConnection image_l2_norm None"}}


@pytest.fixture
def start(monkeypatch, synthetic, tmp_path):
    """A function that starts a run with some options as a script does; the synthetic digits count as published."""
    def start(*options, data="MNIST"):
        folders = ["--data-dir", str(synthetic), f"--log-dir={tmp_path / 'runs'}"]
        monkeypatch.setattr(sys, "argv", [str(ROOT / "task_3_1_a.py"), *folders, *map(str, options)])
        parser = common.make_parser("Doc.", {"net": SETTINGS})
        parser.add_argument("--beyond", action="store_true")
        return common.start_run(parser, data, ["beyond"])

    monkeypatch.setitem(common.PUBLISHED, "MNIST", int(common.load("MNIST", True, synthetic)[0].sum()))
    return start


@pytest.mark.parametrize("options, data, trial", [
    ("", "MNIST", ""), ("--seed 7", "MNIST", ""), ("--seed 0 1 2 --record", "MNIST", ""), ("--beyond", "MNIST", ""),
    ("--epochs 2", "MNIST", "epochs"), ("--batch-size 9", "MNIST", "batch_size"), ("--lr 0.1", "MNIST", "lr"),
    ("--device cpu", "MNIST", "device"), ("--precision fp32", "MNIST", "precision"), ("", "FashionMNIST", "data"),
    ("--holdout --seed 1 --limit 9", "FashionMNIST", "limit, holdout, data")])
def test_what_is_typed_and_other_data_make_a_trial_run(start, capsys, options, data, trial):
    assert start(*options.split(), data=data).changed == trial
    assert (f"trial run (changed: {trial})" in capsys.readouterr().out) == bool(trial)
    if trial:
        with pytest.raises(common.UserError, match=f"--record .* changed: {trial}$"):
            start(*options.split(), "--record", data=data)


def test_a_command_is_what_was_typed_without_what_changes_no_result(start, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    args = start("--seed", 0, 1, "--record", "--beyond", "--log-dir=~/my runs")
    assert args.command == "python task_3_1_a.py --seed 0 1 --beyond"
    assert args.folder.parent == tmp_path / "home" / "my runs" / "task_3_1_a"


def test_resume_takes_the_newest_run_of_the_same_text_that_has_a_saved_epoch(start, monkeypatch, tmp_path):
    first = start("--seed", 1).folder
    assert start("--resume", "--seed", 1).folder == first
    for options, data in ((["--seed", 2], "MNIST"), (["--seed", 1], "FashionMNIST")):
        with pytest.raises(common.UserError, match="no run in .*leave out --resume"):
            start("--resume", *options, data=data)
    monkeypatch.setattr(common, "device_name", lambda device: "another CPU")
    with pytest.raises(common.UserError, match="no run in "):
        start("--resume", "--seed", 1)
    for name, text in (("20260101", "same"), ("20260102", "same"), ("20260103", "same"), ("20260104", "other")):
        (tmp_path / name / "net" / "seed0").mkdir(parents=True)
        (tmp_path / name / "command.txt").write_text(text)
    (tmp_path / "20260105").mkdir()
    assert common.run_folder(tmp_path, "same", resuming=True).name == "20260103"
    for name in ("20260101", "20260102", "20260104"):
        (tmp_path / name / "net" / "seed0" / "checkpoint.pt").touch()
    assert common.run_folder(tmp_path, "same", resuming=True).name == "20260102"


@pytest.mark.parametrize("command, text", [
    ("--epochs 0", "--epochs"), ("--epochs 1000", "999"), ("--lr nan", "--lr"), ("--lr zero", "--lr"),
    ("--batch-size -1", "--batch-size"), ("--limit 0", "--limit"), ("--seed 1 1", "--seed"), ("--seed -1", "--seed"),
    ("--seed 1000000", "999999"), ("--nonsense", "--nonsense"), ("--epoch 1", "--epoch"), ("--device xpu", "no xpu"),
    ("--record", "changed: data"), ("--resume", "leave out --resume"), ("--log-dir=file", "file"),
    ("task_3_1_d missing.png", "no such file: missing.png"), ("task_3_1_d x*.png", "no such file: x*.png"),
    ("task_3_1_d folder", "folder is a folder"), ("task_3_1_d file --record", "changed: images"),
    ("task_3_1_d file --checkpoint other.pt", "no such file: other.pt")])
def test_a_users_mistake_is_one_line(script, tmp_path, command, text):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert_one_line_error(script(*([] if "task" in command else ["task_3_1_a"]), *command.split()), text)


@pytest.mark.parametrize("name", [*TASKS, *EXPERIMENTS])
def test_help_shows_the_tasks_own_numbers(script, name):
    process = script(name, "--help")
    assert process.returncode == 0, process.stderr
    for text in ["--record", *HELP.get(name, [])]:
        assert text in " ".join(process.stdout.split())


@pytest.mark.parametrize("error, status, text", [
    (common.UserError("a mistake\nin two lines"), 2, "task.py: a mistake in two lines"),
    (OSError(28, "No space left on device"), 2, "No space left on device"), (KeyboardInterrupt(), 130, "interrupted"),
    (torch.OutOfMemoryError("CUDA out of memory."), 2, "--batch-size"), (MemoryError(), 2, "--batch-size"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "--batch-size")], ids=repr)
def test_whatever_stops_a_script_is_one_line(monkeypatch, capsys, error, status, text):
    def main():
        raise error

    monkeypatch.setattr(sys, "argv", ["folder/task.py"])
    with pytest.raises(SystemExit) as caught:
        common.run_script(main)
    errors = capsys.readouterr().err.splitlines()
    assert caught.value.code == status and len(errors) == 1 and text in errors[0]


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("a bug")], ids=repr)
def test_a_bug_keeps_its_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error), match="^a bug$"):
        common.run_script(main)


def test_a_device_that_does_not_work_is_not_taken(start, monkeypatch, capsys):
    broken = torch.device("cuda" if sys.platform == "darwin" else "mps")  # nowhere to be had
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: broken)
    assert start().device == "cpu"
    said = [line for line in capsys.readouterr().out.splitlines() if "CPU" in line]
    assert len(said) == 1 and said[0].startswith(f"computing on the CPU, because {broken} does not work here (")
    with pytest.raises(common.UserError, match=rf"^{broken} does not work here \(.*\): give --device cpu$"):
        start("--device", broken)
    assert start("--device", "cpu").device == "cpu" and "because" not in capsys.readouterr().out


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_recorded_command_of_an_experiment_is_no_trial_run(name, monkeypatch, synthetic, tmp_path):
    """It is stopped where its training would start; the synthetic data count as published."""
    def start_run(*arguments, **keywords):
        started.append(real(*arguments, **keywords))  # an error with --record, if it were one
        raise KeyboardInterrupt

    experiment, started, real = importlib.import_module(Path(name).name), [], common.start_run
    seeds = ["--seed", "0", "1", "2"] if hasattr(experiment, "NETWORKS") else []
    monkeypatch.setattr(sys, "argv", [
        str(ROOT / f"{name}.py"), *seeds, "--record", f"--data-dir={synthetic}", f"--log-dir={tmp_path}"])
    monkeypatch.setattr(common, "start_run", start_run)
    for data in common.PUBLISHED:
        monkeypatch.setitem(common.PUBLISHED, data, int(common.load(data, True, synthetic)[0].sum()))
    with pytest.raises(KeyboardInterrupt):
        experiment.main()
    assert started[0].changed == "" and started[0].command == " ".join(["python", f"{name}.py", *seeds])


@pytest.mark.parametrize("output", [io.StringIO(), io.TextIOWrapper(io.BytesIO(), encoding="ascii"), None])
def test_any_standard_output_will_do(monkeypatch, output):
    monkeypatch.setattr(sys, "stdout", output)
    assert common.run_script(lambda: print("π") or 7) == 7


def test_a_pipe_shows_each_line_at_once(synthetic, tmp_path):
    """The script is killed at its first line. With a buffer, that would be there only together with the last."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, ROOT / "task_3_2_b.py", "--data-dir", synthetic, "--log-dir", tmp_path, "--limit", "20",
         "--epochs", "2"], env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    first = process.stdout.readline()
    process.kill()
    rest, _ = process.communicate()
    assert first.startswith("trial run") and "minutes)" not in rest


def contents(folder):
    """All files below a folder but those of its runs: {path: bytes}."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and not {"runs", "__pycache__"} & set(path.parts)}


def test_3_1_a_shows_its_curves_where_it_says(script, tmp_path):
    process = script("task_3_1_a", "--epochs", 2, "--seed", 0, 1)
    assert process.returncode == 0 and process.stderr == ""  # no progress bar in a pipe, no warnings
    folder = only(tmp_path / "runs", "results.txt").parent
    before = process.stdout.partition("epoch  1/2")[0]
    assert f'tensorboard --logdir "{folder}" --samples_per_plugin images=100' in before
    assert "after an interruption, the same command with --resume goes on" in before
    for kind, own in (("training", {"learning rate"}), ("validation", set())):
        events = EventAccumulator(str(folder / "template" / "seed1" / kind)).Reload()
        assert set(events.Tags()["scalars"]) == {"loss", "accuracy"} | own
        assert [event.step for event in events.Scalars("accuracy")] == [1, 2]
    assert Image.open(folder / "task_3_1_a.png").width > 1000
    assert re.search(r"epoch 2: \S+ ± \S+ % on 60 images\n  each seed: \S+, \S+; their ensemble: \S+\n", process.stdout)


def test_3_1_c_ends_with_the_command_that_predicts_with_its_network(script, tmp_path):
    process = script("task_3_1_c", "--epochs", 1, "--limit", 50, "--seed", 1, "--log-dir", tmp_path / "my runs")
    rows = re.findall(r"^(template|augmented|improved) +[\d,]+ +1 +\d+\.\d +(\S+) +(\S+) +(\S+)$", process.stdout, re.M)
    assert len(rows) == 3, process.stderr
    for _, training, validation, gap in rows:
        assert float(training) - float(validation) == pytest.approx(float(gap), abs=0.02)
        assert float(training) % 2 == 0  # of 50 images
    python, name, *options = shlex.split(process.stdout.splitlines()[-1].removeprefix("predict with it: "))
    Image.new("L", (28, 28), 90).save(tmp_path / "grey.png")
    predicted = script(name.removesuffix(".py"), *options, "grey.png")
    assert python == "python" and "grey.png\t" in predicted.stdout, predicted.stderr
    assert f"FashionNet trained on FashionMNIST, validation accuracy {rows[2][2]} % after epoch 1" in predicted.stdout
    assert "by `python task_3_1_c.py --epochs 1 --limit 50 --seed 1` (seed 1) on 2" in predicted.stdout


def test_the_noise_is_drawn_in_one_place_and_all_that_is_printed_about_it_is_measured(project, run_project):
    """Gaussian noise of variance 0.09: one edited line."""
    change(project / "task_3_2_a.py", ("return torch.rand(", "return 0.3 * torch.randn("))
    pairs, denoiser = run_project("task_3_2_a").stdout, run_project("task_3_2_b", "--epochs", 1, "--limit", 50).stdout
    mean, variance = map(float, re.search(r"noise of the 80 pairs: mean (\S+), variance (\S+)", pairs).groups())
    assert mean == pytest.approx(0, abs=0.01) and variance == pytest.approx(0.09, abs=0.003)
    assert float(re.search(r"noisy in \[(\S+),", pairs)[1]) < -0.5
    for row in ("noisy image X", "X - mean noise"):
        mae, *_, mse, _ = map(float, re.search(rf"^{row} +(.*)$", denoiser, re.M)[1].split())
        assert mse == pytest.approx(0.09, abs=0.003) and mae == pytest.approx(0.3 * (2 / torch.pi) ** 0.5, abs=0.01)
    assert "uniform" not in pairs + denoiser


@pytest.mark.parametrize("name", ["task_3_1_b", *(name for name in EXPERIMENTS if "flips" not in name)])
def test_the_summary_and_the_experiments(script, tmp_path, name):
    process = script(name, *([] if name == "task_3_1_b" else ["--epochs", 1, "--limit", 10]))
    assert process.returncode == 0, process.stderr
    results = only(tmp_path / "runs", "results.txt").read_text(encoding="utf-8")
    assert name != "task_3_1_b" or "Total params: 6,444,170" in results and "--logdir" not in process.stdout


@pytest.mark.parametrize("command", OWN)
def test_a_task_publishes_its_own_networks(project, run_project, command):
    before, (name, *options) = contents(project), command.split()
    process = run_project(name, *options)
    assert process.returncode == 0 and "trial run" not in process.stdout, process.stderr
    assert set(contents(project)) - set(before) == {f"checkpoints/{stem}.pt" for stem in OWN[command]}
    for stem, settings in OWN[command].items():
        state = common.load_checkpoint(project / "checkpoints" / f"{stem}.pt")
        assert " ".join(state["settings"][key] for key in ("network", "loss", "augment")) == settings
        assert state["command"] == " ".join(["python", f"{name}.py", *options]) and len(state["history"]) == 2
        assert state["seed"] == (int(stem[-1]) if "seed" in stem else 0)
    if name == "task_3_1_c":  # the predictor finds what has just been trained
        Image.new("L", (28, 28), 90).save(project / "grey.png")
        assert "by `python task_3_1_c.py` (seed 0)" in run_project("task_3_1_d", "grey.png").stdout


def test_a_trial_run_changes_no_file_but_its_own_and_record_its_block_alone(project, run_project):
    """The block is what was printed and what results.txt holds; figures change with --record alone."""
    before, path = contents(project), project / "task_3_2_b.py"
    process = run_project("task_3_2_b", "--limit", 20)
    assert "trial run (changed: limit): it writes only to runs" in process.stdout, process.stderr
    assert_one_line_error(run_project("task_3_2_b", "--limit", 20, "--record"), "changed: limit")
    assert contents(project) == before and only(project / "runs", "task_3_2_b_images.png")
    shutil.rmtree(project / "runs")
    assert run_project("task_3_2_b").returncode == 0
    assert contents(project) == before | {"checkpoints/task_3_2_b.pt": only(project, "checkpoint.pt").read_bytes()}
    process = run_project("task_3_2_b", "--resume", "--record")
    assert process.returncode == 0 and "epoch  2/2" not in process.stdout, process.stderr
    results = only(project, "results.txt").read_text(encoding="utf-8")
    assert results.startswith("$ python task_3_2_b.py\n") and results.endswith(" minutes)\n")
    block = "".join(f"# {line}".rstrip() + "\n" for line in results.splitlines())
    assert block in path.read_text(encoding="utf-8") and results.partition("\n")[2] in process.stdout
    assert set(contents(project)) - set(before) == {
        "checkpoints/task_3_2_b.pt", "report/figures/task_3_2_b.png", "report/figures/task_3_2_b_images.png"}
    change(path, ("lr=2e-2)", "lr=1e-2)"))
    assert_one_line_error(run_project("task_3_2_b", "--resume"), "other settings (lr 0.02 -> 0.01)")


@POSIX
def test_ctrl_c_and_a_full_disk_keep_the_last_state(synthetic, tmp_path):
    """A limit to each file stands for the full disk: large enough for the curves, too small for the training state."""
    command = [ROOT / "task_3_2_b.py", "--data-dir", synthetic, "--limit", 100, "--epochs", 30, "--log-dir", tmp_path]
    running = Script(*command)
    while running.process.is_alive() and "epoch  3/30" not in running.files[0].read_text(encoding="utf-8"):
        time.sleep(0.01)
    process = running.finish(signal.SIGINT)
    assert process.returncode == 130 and len(process.stderr.strip().splitlines()) == 1, process.stderr
    assert "interrupted" in process.stderr
    checkpoint = only(tmp_path, "checkpoint.pt")
    before = checkpoint.read_bytes()
    assert len(common.load_checkpoint(checkpoint)["history"]) >= 2
    process = Script(*command, "--resume", file_size=len(before) - 1000).finish()
    assert_one_line_error(process, "File too large")
    assert checkpoint.read_bytes() == before and not list(checkpoint.parent.glob("*.tmp.*"))
    assert run_script(*command, "--resume").returncode == 0


@POSIX
@pytest.mark.parametrize("name, options", [
    ("task_3_2_b", ["--seed", 0, 1, "--limit", 100]), ("task_3_1_a", ["--beyond", "--limit", 50])])
def test_killed_at_random_moments_and_resumed(synthetic, tmp_path, name, options):
    """After each SIGKILL the training continues; in the end, weights and curves are those of an undisturbed one."""
    command = [ROOT / f"{name}.py", "--data-dir", synthetic, "--epochs", 3, *options, "--log-dir"]
    start, random, kills = time.perf_counter(), Random(name), 0
    assert run_script(*command, tmp_path / "whole").returncode == 0
    seconds = time.perf_counter() - start
    for _ in range(30):
        resume = ["--resume"] * any((tmp_path / "killed").rglob("command.txt"))
        running = Script(*command, tmp_path / "killed", *resume)
        running.process.join(random.uniform(0.3, 0.9) * seconds)
        if running.process.is_alive():
            running.finish(signal.SIGKILL)
            kills += 1
            if kills == 4:
                break
        else:
            shutil.rmtree(tmp_path / "killed")  # it came to its end: once more from the beginning, and killed earlier
            seconds *= 0.8
    assert kills == 4
    assert run_script(*command, tmp_path / "killed", "--resume").returncode == 0
    whole, killed = (only(tmp_path / run, "results.txt").parent for run in ("whole", "killed"))
    for path in whole.rglob("checkpoint.pt"):
        folders = [path.parent, killed / path.parent.relative_to(whole)]
        first, second = (common.load_checkpoint(folder / "checkpoint.pt")["weights"] for folder in folders)
        assert all(torch.equal(first[key], second[key]) for key in first)
        events = [EventAccumulator(str(folder / "validation")).Reload().Scalars("loss") for folder in folders]
        first, second = ([(event.step, event.value) for event in part] for part in events)
        assert first == second and [step for step, _ in first] == [1, 2, 3]
