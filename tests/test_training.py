"""The training loop, its randomness, the checkpoints, the records."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import common
import task_3_1_a
import task_3_1_c
from common import LabelledImages, Settings, UserError
from conftest import SETTINGS, Scale, mean_output, observed
from task_3_2_a import NoisyFashionMNIST
from what_each_bug_does import NeverZeroed


def same_weights(network, other):
    return all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values()))


def test_bug_2_adds_up_all_gradients(fit):
    """The mean image is the gradient of Scale's weight, in each of the two epochs anew."""
    image = torch.full((1, 1, 28, 28), 51, dtype=torch.uint8)
    data = LabelledImages(image, torch.zeros(1)), LabelledImages(image, torch.zeros(1))
    settings = Settings(network=Scale, loss=mean_output, epochs=2, batch_size=1, lr=1e-3)
    for optimizer, total in ((NeverZeroed, 0.4), (torch.optim.Adam, 0.2)):
        run = fit(replace(settings, optimizer=optimizer), data=data)
        assert run.network.weight.grad.item() == pytest.approx(total)


def test_training_loss_is_the_mean_over_all_images(fit, data):
    """35 images in batches of 10: the last batch of 5 counts half."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    run = fit(replace(SETTINGS, network=lambda: network, lr=1e-12, epochs=1))
    images, labels = data[0].__getitems__(range(35))
    with torch.no_grad():
        expected = F.cross_entropy(network(images), labels).item()
    assert run.history[0]["training"]["loss"] == pytest.approx(expected, rel=1e-5)


class Recorded(LabelledImages):
    """Labelled images that remember the batches that were asked for."""

    def __init__(self, dataset, augment=None):
        super().__init__(dataset.images, dataset.labels, augment)
        self.seen = []

    def __getitems__(self, indices):
        images, labels = super().__getitems__(indices)
        self.seen.append((list(indices), images))
        return images, labels


def seen_by(fit, data, seed, epochs=1, augment=None):
    """The batches that a training sees."""
    recorded = Recorded(data[0], augment)
    fit(replace(SETTINGS, epochs=epochs), seed, data=(recorded, data[1]))
    return recorded.seen


def test_batch_order_differs_between_seeds_and_epochs_only(fit, data):
    orders = [[indices for indices, _ in seen_by(fit, data, seed, epochs=2)] for seed in (0, 1, 0)]
    assert orders[0] == orders[2] and orders[0] != orders[1]
    assert orders[0][:4] != orders[0][4:]
    assert orders[0][:4] != orders[1][:4] and orders[0][4:] != orders[1][:4]


@pytest.mark.parametrize("augment", (task_3_1_a.random_digits, task_3_1_c.random_clothes))
def test_augmentation_differs_between_seeds_and_epochs_only(fit, data, augment):
    same = torch.full((40, 1, 28, 28), 200, dtype=torch.uint8)
    data = LabelledImages(same, torch.zeros(40, dtype=torch.int64)), data[1]  # so that the order does not matter
    images = [[images for _, images in seen_by(fit, data, seed, epochs=2, augment=augment)] for seed in (0, 1, 0)]
    assert all(map(torch.equal, images[0], images[2]))
    assert not any(map(torch.equal, images[0], images[1]))
    assert not any(map(torch.equal, images[0][:4], images[0][4:]))


def test_noise_differs_between_seeds_and_epochs_only(fit):
    class Remembering(NoisyFashionMNIST):
        def __getitems__(self, indices):
            seen.append(super().__getitems__(indices)[0])
            return seen[-1], torch.zeros(len(indices), dtype=torch.int64)

    black, noise = torch.zeros(20, 1, 28, 28, dtype=torch.uint8), []
    for seed in (0, 1, 0):
        seen = []
        fit(seed=seed, data=(Remembering(black), Remembering(black, noise_seed=1)))
        noise.append([batch for batch in seen if len(batch) == 10])  # two training batches in each of two epochs
    assert len(noise[0]) == 4 and all(map(torch.equal, noise[0], noise[2]))
    assert not any(map(torch.equal, noise[0], noise[1]))
    assert not any(map(torch.equal, noise[0][:2], noise[0][2:]))


def test_initial_weights_differ_between_seeds_only(fit):
    first, second, again = (fit(replace(SETTINGS, lr=1e-12), seed).network for seed in (0, 1, 0))
    assert same_weights(first, again)
    assert not torch.allclose(first[0].weight, second[0].weight, atol=1e-3)


def test_weights_do_not_depend_on_what_is_validated(fit, data):
    assert same_weights(fit().network, fit(data=(data[0], data[0])).network)


def test_training_learns(fit):
    history = fit(replace(SETTINGS, epochs=30, lr=1e-2)).history
    assert history[-1]["training"]["loss"] < 0.5 * history[0]["training"]["loss"]


def test_one_cycle_raises_the_rate_for_the_warm_up_and_ends_at_zero(fit):
    steps = []
    hook = observed(steps)
    fit(replace(SETTINGS, epochs=10, warm_up=0.5))
    hook.remove()
    rates, momenta = zip(*steps)
    assert len(rates) == 40 and rates.index(max(rates)) in (19, 20) and max(rates) == pytest.approx(1e-3)
    assert rates[-1] < 1e-5 * max(rates)
    assert momenta[0] == 0.95 and min(momenta) == pytest.approx(0.85) and momenta.index(min(momenta)) in (19, 20)


def test_a_constant_schedule_is_constant(fit):
    steps = []
    hook = observed(steps)
    fit(replace(SETTINGS, schedule="constant", momentum=(0.8, 0.7)))
    hook.remove()
    assert set(steps) == {(1e-3, 0.8)}


def test_bf16_rounds_but_computes_the_same(fit, data, make_setup):
    run = fit()
    exact, rounded = (common.evaluate(run.network, data[1], make_setup(precision=precision))[0]
                      for precision in ("fp32", "bf16"))
    assert exact.dtype == rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded) and torch.allclose(exact, rounded, atol=0.05)
    assert fit(precision="bf16").history[-1]["training"]["loss"] == pytest.approx(
        run.history[-1]["training"]["loss"], rel=0.02)


def test_channels_last_is_left_out_where_it_is_wrong():
    assert common.memory_format(torch.device("cpu")) == torch.channels_last
    assert common.memory_format(torch.device("mps")) == torch.contiguous_format


class Stop(Exception):
    pass


def stop_after(epoch):
    def on_epoch_end(settings, writers, network, now):
        if now > epoch:
            raise Stop
    return on_epoch_end


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, NeverZeroed])
def test_resumed_training_is_bit_identical(fit, tmp_path, optimizer):
    settings = replace(SETTINGS, epochs=4, optimizer=optimizer)
    undisturbed = fit(settings)
    for epoch in (1, 3):
        with pytest.raises(Stop):
            fit(settings, folder="resumed", on_epoch_end=stop_after(epoch))
    resumed = fit(settings, folder="resumed")
    assert same_weights(undisturbed.network, resumed.network) and torch.equal(undisturbed.outputs, resumed.outputs)
    drop_time = lambda history: [{**row, "seconds": 0} for row in history]  # noqa: E731
    assert drop_time(undisturbed.history) == drop_time(resumed.history)
    folder = tmp_path / "resumed" / "net" / "seed0"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.pt", "training", "validation"]


def test_resume_of_a_finished_training_trains_nothing(fit):
    finished = fit(folder="once")
    again = fit(folder="once", on_epoch_end=stop_after(0))
    assert again.history == finished.history and same_weights(again.network, finished.network)
    assert torch.equal(again.outputs, finished.outputs)


def test_settings_are_saved_by_name():
    saved = replace(task_3_1_c.IMPROVED, limit=7).as_dict()
    assert saved["network"] == "FashionNet" and saved["augment"] == "random_clothes" and saved["limit"] == 7
    assert json.loads(json.dumps(saved)) == saved
    assert all(replace(SETTINGS, **change).as_dict() != SETTINGS.as_dict() for change in (
        {"loss": mean_output}, {"augment": task_3_1_c.random_clothes}, {"noise": 0.5}, {"options": {"a": 1}},
        {"warm_up": 0.1}, {"momentum": (0.9, 0.9)}, {"optimizer": torch.optim.Adam}, {"holdout": True}))


def test_file_is_whole_or_old(tmp_path, monkeypatch):
    path = tmp_path / "file"
    common.replace_file(path, b"old")
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space left"):
        common.replace_file(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_file_is_put_in_place_by_a_rename(tmp_path, monkeypatch):
    path = tmp_path / "file"
    common.replace_file(path, b"old")
    seen = []
    monkeypatch.setattr("os.replace", lambda source, target: seen.append((source.read_bytes(), target.read_bytes())))
    common.replace_file(path, b"new")
    assert seen == [(b"new", b"old")]


@pytest.mark.parametrize("write", (
    lambda path: path.write_bytes(b"not a checkpoint"), lambda path: path.write_bytes(b""),
    lambda path: torch.save([1, 2], path), lambda path: path.mkdir(), lambda path: None))
def test_what_is_no_checkpoint_is_refused(tmp_path, write):
    write(tmp_path / "net.pt")
    with pytest.raises(UserError, match="not a checkpoint|no such file"):
        common.load_checkpoint(tmp_path / "net.pt")


def test_truncated_checkpoint_is_refused(fit):
    path = fit().checkpoint
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="not a checkpoint"):
        common.load_checkpoint(path)


def test_record_replaces_the_same_command_and_keeps_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "ROOT", tmp_path)
    script = tmp_path / "task.py"
    script.write_text('"""Doc."""\n\nprint()\n')
    common.record(script, ["--seed", "0", "1", "--record"], ["first", "", "end"])
    common.record(script, ["--loss", "l1", "--data-dir", "/elsewhere"], ["other"])
    common.record(script, ["--record", "--seed", "0", "1", "--resume", "--log-dir=x"], ["second", "", "end"])
    assert script.read_text() == (
        '"""Doc."""\n\nprint()\n' + common.MARK +
        "# $ python task.py --seed 0 1\n# second\n#\n# end\n\n# $ python task.py --loss l1\n# other\n")


def test_mean_and_standard_deviation():
    assert common.mean_std([99.0, 98.0, 100.0]) == "99.00 ± 1.00"  # n - 1 in the denominator
    assert common.mean_std([0.5]) == "0.50"


def test_a_path_is_displayed_relative_to_the_current_folder_if_it_lies_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert str(common.display_path(tmp_path / "runs" / "x")) == os.path.join("runs", "x")
    assert str(common.display_path(tmp_path.parent)) == str(tmp_path.parent.resolve())


@pytest.mark.parametrize("advice", [[], ["--resume"]])
def test_an_interruption_advises_resume_only_while_training(monkeypatch, capsys, advice):
    def main():
        raise KeyboardInterrupt(*advice)
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as exit:
        common.run_script(main)
    error = capsys.readouterr().err
    assert exit.value.code == 130
    assert error == "; ".join([f"{Path(sys.argv[0]).name}: interrupted", *advice]) + "\n"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_batch_too_large_for_the_memory_is_one_line(monkeypatch, capsys, error):
    def main():
        raise error
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as exit:
        common.run_script(main)
    assert exit.value.code == 2 and "--batch-size" in capsys.readouterr().err


def test_another_runtime_error_is_not_taken_for_a_users_mistake(monkeypatch):
    def main():
        raise RuntimeError("a bug")
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(RuntimeError, match="a bug"):
        common.run_script(main)


def test_a_training_that_diverges_stops_and_saves_nothing(fit, tmp_path):
    with pytest.raises(UserError, match="no longer a finite number"):
        fit(replace(SETTINGS, loss=lambda outputs, targets: outputs.mean() * float("nan")))
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_a_damaged_optimizer_state_is_one_line(fit, tmp_path):
    with pytest.raises(Stop):
        fit(folder="run", on_epoch_end=stop_after(1))
    path, = tmp_path.rglob("checkpoint.pt")
    common.save_checkpoint(path, common.load_checkpoint(path) | {"optimizer": {}})
    with pytest.raises(UserError, match="damaged"):
        fit(folder="run")


def test_the_state_of_another_seed_or_settings_is_refused(fit, tmp_path):
    with pytest.raises(Stop):
        fit(folder="run", on_epoch_end=stop_after(1))
    with pytest.raises(UserError, match="of another training"):
        fit(replace(SETTINGS, lr=0.5), folder="run")
    (tmp_path / "run" / "net" / "seed0").rename(tmp_path / "run" / "net" / "seed1")
    with pytest.raises(UserError, match="of another training"):
        fit(seed=1, folder="run")


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_noticed(fit):
    run = fit()
    content = run.checkpoint.read_bytes()
    for part in (b"accuracy", next(iter(run.network.state_dict().values())).numpy().tobytes()):  # history, weights
        damaged = bytearray(content)
        damaged[content.index(part)] ^= 1
        run.checkpoint.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            common.load_checkpoint(run.checkpoint)


def test_an_error_in_another_thread_is_not_hidden(monkeypatch):
    seen = []
    monkeypatch.setattr("threading.__excepthook__", seen.append)
    disk, bug = (type("Failure", (), {"exc_type": kind}) for kind in (OSError, RuntimeError))
    common.thread_failed(disk)
    common.thread_failed(bug)
    assert seen == [bug]
