"""The training loop, its randomness, the checkpoints, the records."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import common
from conftest import SETTINGS, same_weights
from task_3_1_a import LabelledImages, accuracy, random_digits, train_classifiers
from task_3_1_c import random_clothes
from task_3_2_a import NoisyFashionMNIST
from task_3_2_b import LISTED, EncoderDecoder, train_denoisers
from why_the_skip_hurts import write_identity

LONGER = replace(SETTINGS, epochs=4)


def watched(seen):
    """A function that makes the network of SETTINGS, which appends (whether in training mode, images) to a list."""
    def make():
        network = SETTINGS.network()
        network.register_forward_pre_hook(lambda network, inputs: seen.append((network.training, inputs[0])))
        return network
    return make


def test_validation_is_in_eval_mode_and_covers_all_its_batches(fit, data, images):
    """601 images: `evaluate` takes 250 at a time."""
    seen, labels, images = [], torch.arange(601) % 10, images.repeat(16, 1, 1, 1)[:601]
    run = fit(replace(SETTINGS, network=watched(seen)), data=(data[0], LabelledImages(images, labels)))
    assert [training for training, _ in seen] == [True, True, True, False, False, False] * 2
    with torch.no_grad():
        logits = run.network(images / 255)
    last = run.history[-1]["validation"]
    assert last["loss"] == pytest.approx(SETTINGS.loss(logits, labels).item(), rel=1e-5)
    assert last["accuracy"] == pytest.approx(accuracy(logits, labels).item())


@pytest.mark.parametrize("kind", ["order", "digits", "clothes", "noise"])
def test_all_that_is_random_differs_between_seeds_and_epochs_only(make_args, data, images, kind):
    same, labels, streams, networks = images[:1].repeat(40, 1, 1, 1), torch.arange(40) % 10, [], []
    training = {"order": LabelledImages(images, labels), "digits": LabelledImages(same, labels, random_digits),
                "clothes": LabelledImages(same, labels, random_clothes), "noise": NoisyFashionMNIST(same)}[kind]
    for number, seed in enumerate((0, 1, 0)):
        seen = []
        settings = replace(  # it ends with its initial weights
            SETTINGS, network=watched(seen), loss=lambda outputs, _: outputs.mean(), lr=1e-12)
        networks.append(common.fit("net", settings, training, data[1], {}, make_args(str(number)), seed).network)
        streams.append([inputs for in_training, inputs in seen if in_training])
    assert all(map(torch.equal, streams[0], streams[2])) and same_weights(networks[0], networks[2])
    assert not torch.allclose(networks[0][0].weight, networks[1][0].weight, atol=1e-3)
    pairs = list(itertools.combinations([*streams[0], *streams[1]], 2))  # of the four batches of each of two epochs
    assert len(pairs) == 120 and not any(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("one_cycle", [True, False])
def test_the_rate_of_every_step(fit, one_cycle):
    """One cycle rises for 30 % of the steps and ends at zero; a constant rate has a constant momentum."""
    groups = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: groups.append(dict(optimizer.param_groups[0])))
    fit(replace(SETTINGS, epochs=10, one_cycle=one_cycle, weight_decay=0.1))
    hook.remove()
    rates, momenta = [group["lr"] for group in groups], [group["betas"][0] for group in groups]
    assert len(groups) == 30 and {group["weight_decay"] for group in groups} == {0.1}
    if one_cycle:
        assert rates[:9] == sorted(set(rates[:9])) and rates[8:] == sorted(set(rates[8:]), reverse=True)
        assert rates[8] == pytest.approx(1e-3) and rates[-1] < 1e-8 and momenta[8] == pytest.approx(0.85)
    else:
        assert set(rates) == {1e-3} and set(momenta) == {0.9}


def test_options_change_the_settings_and_only_training_images_are_augmented(make_args, data, tmp_path):
    seen, split = [], [(part.images, part.labels) for part in data]
    counted = replace(SETTINGS, augment=lambda images: seen.append(len(images)) or images)
    args = make_args(seed=[3, 5], epochs=3, batch_size=7, lr=0.5)
    trained = train_classifiers({"a": SETTINGS, "b": counted}, *split, args)
    assert {name: [len(run.history) for run in runs] for name, runs in trained.items()} == {"a": [3, 3], "b": [3, 3]}
    assert sum(seen) == 2 * 3 * 25 and max(seen) == 7
    state = common.load_checkpoint(tmp_path / "run" / "b" / "seed5" / "checkpoint.pt")
    assert state["seed"] == 5 and {"epochs": "3", "batch_size": "7", "lr": "0.5"}.items() <= state["settings"].items()


def test_denoisers_see_the_noise_of_their_settings(make_args, tmp_path):
    """Of black images and a network that returns its input, the MAE is half of the amplitude."""
    def unchanged():
        network = EncoderDecoder()
        write_identity(network, factor=1)
        return network

    black = torch.zeros(50, 1, 28, 28, dtype=torch.uint8)
    settings = replace(LISTED, network=unchanged, noise=0.2, epochs=2, lr=1e-12)
    history = train_denoisers({"net": settings}, black, black, make_args())["net"][0].history
    for kind in ("training", "validation"):
        assert [row[kind]["MAE"] for row in history] == pytest.approx([0.1, 0.1], abs=0.002)
        events = EventAccumulator(str(tmp_path / "run" / "net" / "seed0" / kind)).Reload()
        assert [event.step for event in events.Images("noisy, output, clean")] == [1, 2]
    assert history[0]["validation"]["MAE"] == pytest.approx(history[1]["validation"]["MAE"], abs=1e-7)  # one fixed draw
    assert abs(history[0]["training"]["MAE"] - history[1]["training"]["MAE"]) > 1e-6  # fresh draws


@pytest.fixture
def stop(fit, monkeypatch, tmp_path):
    """A function that stops a training between logging an epoch and saving it; returns the path of its checkpoint."""
    def stop(epoch, **changes):
        def save(path, state):
            if len(state["history"]) == epoch:
                raise KeyboardInterrupt
            real(path, state)

        real = common.save_checkpoint
        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            context.setattr(common, "save_checkpoint", save)
            fit(LONGER, folder="run", **changes)
        return tmp_path / "run" / "net" / "seed0" / "checkpoint.pt"
    return stop


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_training_is_bit_identical_and_has_each_step_once(fit, stop, precision):
    undisturbed = fit(LONGER, precision=precision)
    path = [stop(epoch, precision=precision) for epoch in (1, 3, 4)][0]
    resumed = fit(LONGER, folder="run", precision=precision)
    assert same_weights(undisturbed.network, resumed.network)
    histories = [[{**row, "seconds": 0} for row in run.history] for run in (undisturbed, resumed)]
    assert histories[0] == histories[1] and len(histories[0]) == 4
    for kind in ("training", "validation"):
        events = EventAccumulator(str(path.parent / kind)).Reload().Scalars("loss")
        assert [event.step for event in events] == [1, 2, 3, 4]
        assert [event.value for event in events] == pytest.approx([row[kind]["loss"] for row in undisturbed.history])


def test_what_is_saved_of_a_training_and_of_a_finished_one(fit, stop, monkeypatch):
    path = stop(3)
    state = common.load_checkpoint(path)
    assert {"optimizer", "scheduler"} <= set(state)
    with pytest.raises(common.UserError, match=r"other settings \(lr 0.001 -> 0.5\): leave out --resume"):
        fit(replace(LONGER, lr=0.5), folder="run")
    common.save_checkpoint(path, state | {"weights": {}})
    with pytest.raises(common.UserError, match="do not fit"):
        fit(LONGER, folder="run")
    common.save_checkpoint(path, state)
    finished = fit(LONGER, folder="run")
    assert set(common.load_checkpoint(path)) == {"settings", "data", "seed", "command", "date", "history", "weights"}
    monkeypatch.setattr(common, "train_epoch", lambda *_: pytest.fail("trains again"))
    again = fit(LONGER, folder="run")
    assert again.history == finished.history and same_weights(again.network, finished.network)


def test_edited_layers_are_refused_and_what_a_killed_process_left_is_removed(fit, stop):
    def small():  # the name of the network that was saved
        network = SETTINGS.network()
        network[2] = nn.ELU()
        return network

    path = stop(3)
    leftovers = [path.with_name("123.tmp.checkpoint.pt"), path.with_name("4.tmp.checkpoint.pt")]
    for leftover in leftovers:
        leftover.touch()
    with pytest.raises(common.UserError, match=r"other settings \(the layers were edited\): leave out --resume"):
        fit(replace(LONGER, network=small), folder="run")
    assert len(fit(LONGER, folder="run").history) == 4 and not any(map(Path.exists, leftovers))


def test_bf16_computes_in_bf16_and_gives_float32(make_args, images):
    """The outputs of the listed network differ from those of fp32 by more than fp32's rounding, but not by much."""
    torch.manual_seed(0)
    network, inputs = EncoderDecoder(), images / 255
    fp32, bf16 = (common.forward(network, inputs, make_args(precision=precision)) for precision in ("fp32", "bf16"))
    assert fp32.dtype == bf16.dtype == torch.float32 and torch.equal(fp32, network(inputs))
    assert 1e-5 < (fp32 - bf16).abs().max() < 0.05 * fp32.abs().max()


def test_a_training_on_the_accelerator_is_resumed(fit, stop, make_args):
    device, precision = common.choose_device(make_args(device="auto", precision="auto"))
    if device == "cpu":
        pytest.skip("no accelerator that works here")
    undisturbed, _ = fit(LONGER, device=device, precision=precision), stop(3, device=device, precision=precision)
    resumed = fit(LONGER, folder="run", device=device, precision=precision)
    assert len(resumed.history) == 4 and next(resumed.network.parameters()).device.type == device
    assert all(map(torch.allclose, resumed.network.parameters(), undisturbed.network.parameters()))


def test_a_training_that_diverges_stops_and_keeps_what_was_saved(fit, tmp_path):
    def loss(outputs, targets):
        calls.append(1)
        return F.cross_entropy(outputs, targets) * (float("nan") if len(calls) == 10 else 1)

    calls = []  # an epoch has three steps, each with its loss for the totals, and its validation: seven
    with pytest.raises(common.UserError, match="epoch  2/2: the loss diverges"):
        fit(replace(SETTINGS, loss=loss), folder="run")
    assert len(common.load_checkpoint(tmp_path / "run" / "net" / "seed0" / "checkpoint.pt")["history"]) == 1


BEFORE = '"""Doc."""\n\nprint("π")\n\n\n# Results, each block printed by the command above it\n'
BLOCK = "# $ python task.py --seed 0 1\n# 12.3\n#\n# end\n# (CPU, 1 thread, fp32, torch 2.15.0, 0.1 minutes)\n"
OTHER = BLOCK.replace(" --seed 0 1", "").replace("12.3", "45.6")
OF_READERS = "\n\ndef mine():\n    return 1\n# (a comment)\n\n"
NEW = [r"new \1 \g<0>", "", "end", "(CPU, 2 threads, bf16, torch 2.16.0, 9.9 minutes)"]
NEW_BLOCK = "# $ python task.py --seed 0 1\n" + "".join(f"# {line}".rstrip() + "\n" for line in NEW)


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("above, block, below", [
    ("\n", BLOCK, "\n" + OTHER), ("", BLOCK, ""), ("\n" + OTHER + "\n", BLOCK, OF_READERS),
    (OTHER, BLOCK, OTHER.replace("task", "other")), ("\n" + OTHER + OF_READERS, "", "")],
    ids=["usual", "no blank line", "functions below", "no blank lines", "new command"])
def test_record_replaces_its_own_block_and_no_other_byte(tmp_path, newline, above, block, below):
    script = tmp_path / "task.py"
    script.write_text(BEFORE + above + block + below, encoding="utf-8", newline=newline)
    common.record(script, "python task.py --seed 0 1", NEW)
    expected = BEFORE + above + "\n" * (not block) + NEW_BLOCK + below  # a blank line before a new one
    assert script.read_bytes() == expected.replace("\n", newline).encode()
    assert list(tmp_path.iterdir()) == [script]
