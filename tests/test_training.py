"""The training loop and the checkpoints."""

import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import common
from common import LabelledImages, UserError


class Scale(nn.Module):
    """One weight times the mean of the image: its gradient does not depend on the weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return images.mean(dim=(1, 2, 3)) * self.weight


def small_network():
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(),
                         nn.Flatten(), nn.LazyLinear(10))


def make_small():
    network = small_network()
    network(torch.zeros(2, 1, 28, 28))  # settles the linear layer's size
    return network


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (55, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (55,), generator=generator)
    return LabelledImages(images[:35], labels[:35]), LabelledImages(images[35:], labels[35:])


def fit(options, data, make_network=make_small, seed=0, **keywords):
    return common.fit("run", make_network, data, F.cross_entropy, {"accuracy": common.accuracy}, options, seed,
                      **keywords)


def same_weights(network, other):
    return all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values()))


def test_gradients_are_fresh_in_every_step(options):
    """The template's second bug, zero_grad() missing: the gradients would grow with every step."""
    images = torch.full((30, 1, 28, 28), 255, dtype=torch.uint8)
    data = [LabelledImages(images, torch.zeros(30, dtype=torch.int64))] * 2
    gradients = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: gradients.append(optimizer.param_groups[0]["params"][0].grad.item()))
    common.fit("run", Scale, data, lambda outputs, targets: outputs.mean(), {}, options, 0)
    hook.remove()
    assert gradients == pytest.approx([1.0] * 6)


def test_validation_covers_all_images_in_eval_mode(options, data):
    run = fit(options, data)
    images, labels = data[1].__getitems__(range(20))
    run.network.eval()
    with torch.no_grad():
        logits = run.network(images)
    assert run.history[-1]["validation loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert run.history[-1]["validation accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_training_loss_is_the_mean_over_all_images(options, data):
    """35 images in batches of 10: the last batch of 5 counts half."""
    options.lr, options.epochs = 1e-12, 1  # weights as at the start
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    run = fit(options, data, lambda: network)
    images, labels = data[0].__getitems__(range(35))
    with torch.no_grad():
        expected = F.cross_entropy(network(images), labels).item()
    assert run.history[0]["training loss"] == pytest.approx(expected, rel=1e-5)


def test_same_seed_same_weights_whatever_is_validated(options, data):
    first = fit(options, data).network
    assert same_weights(first, fit(options, (data[0], data[0])).network)
    assert not same_weights(first, fit(common.changed(options, seed=[1]), data, seed=1).network)


def test_training_learns(options, data):
    history = fit(common.changed(options, epochs=30, lr=1e-2), data).history
    assert history[-1]["training loss"] < 0.5 * history[0]["training loss"]


def test_learning_rate_ends_at_zero(options, data):
    rates = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    fit(options, data)
    fit(options, data, one_cycle=False)
    hook.remove()
    assert rates[7] < 1e-3 * max(rates[:8]) and max(rates[:8]) == pytest.approx(options.lr, rel=0.3)
    assert rates[8:] == [options.lr] * 8


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_muon_turns_a_gradient_into_an_orthogonal_step(dtype):
    """Jordan et al. 2024: all singular values of the step are about equal, however unequal the gradient's."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last))
    before = weight.detach().clone()
    optimizer = common.Muon([weight], lr=0.1, weight_decay=0.0, dtype=dtype)
    weight.grad = torch.randn(8, 4, 3, 3) * 10.0 ** torch.arange(0, -8, -1).reshape(8, 1, 1, 1).clamp(min=-2)
    optimizer.step()
    step = (before - weight.detach()).flatten(1)
    values = torch.linalg.svdvals(step) / (0.1 * 0.2 * 36 ** 0.5)
    assert values.min() > 0.3 and values.max() < 1.3
    assert (step * weight.grad.flatten(1)).sum(dim=1).min() > 0  # downhill for every filter


@pytest.mark.parametrize("shape", ((6, 40), (40, 6)))
def test_muon_does_with_1x1_filters_what_the_library_does_with_matrices(shape):
    torch.manual_seed(0)
    matrix = nn.Parameter(torch.randn(shape))
    filters = nn.Parameter(matrix.detach().clone()[:, :, None, None])
    optimizers = (torch.optim.Muon([matrix], lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw"),
                  common.Muon([filters], lr=0.1, weight_decay=0.2, dtype=torch.bfloat16))
    for _ in range(5):
        matrix.grad = torch.randn(shape)
        filters.grad = matrix.grad[:, :, None, None]
        for each in optimizers:
            each.step()
    assert torch.equal(matrix, filters[:, :, 0, 0])


def test_muon_takes_the_filters_between_hidden_layers_and_adamw_all_other_weights(options, data):
    sizes = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: sizes.append(
        (type(optimizer).__name__, sum(weight.numel() for weight in optimizer.param_groups[0]["params"]))))
    network = fit(options, data, muon=True).network
    hook.remove()
    filters = 6 * 4 * 3 * 3
    assert set(sizes) == {("Muon", filters), ("AdamW", common.parameter_count(network) - filters)}


class Stop(Exception):
    pass


def stop_after(epoch):
    def after_epoch(writer, network, now):
        if now > epoch:
            raise Stop
    return after_epoch


@pytest.mark.parametrize("muon", (False, True))
def test_resumed_run_is_bit_identical(options, data, muon):
    train = partial(fit, muon=muon)
    undisturbed = train(common.changed(options, epochs=4), data)
    options = common.changed(options, epochs=4, checkpoint_dir=options.checkpoint_dir / "resumed", resume=True)
    for epoch in (1, 3):
        with pytest.raises(Stop):
            train(options, data, after_epoch=stop_after(epoch))
    resumed = train(options, data)
    assert same_weights(undisturbed.network, resumed.network)
    drop_time = lambda history: [{**row, "seconds": 0} for row in history]  # noqa: E731
    assert drop_time(undisturbed.history) == drop_time(resumed.history)
    assert [path.name for path in options.checkpoint_dir.iterdir()] == ["run.pt"]


def test_resume_under_other_settings_is_refused(options, data):
    fit(options, data)
    with pytest.raises(UserError, match="another epochs"):
        fit(common.changed(options, epochs=3, resume=True), data)


def test_resume_of_a_finished_run_trains_nothing(options, data):
    finished = fit(options, data)
    again = fit(common.changed(options, resume=True), data, after_epoch=stop_after(0))
    assert again.history == finished.history and same_weights(again.network, finished.network)


def test_file_is_whole_or_old(tmp_path, monkeypatch):
    path = tmp_path / "file"
    common.replace_file(path, b"old")
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space left"):
        common.replace_file(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


class Hostile:
    """A pickle that creates a file when it is loaded as code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_checkpoint_is_data_not_code(tmp_path):
    trace = tmp_path / "trace"
    for name, write in (("torch", lambda file: torch.save(Hostile(trace), file)),
                        ("pickle", lambda file: pickle.dump(Hostile(trace), file)),
                        ("text", lambda file: file.write(b"not a checkpoint")),
                        ("empty", lambda file: None),
                        ("list", lambda file: torch.save([1, 2], file))):
        with open(tmp_path / name, "wb") as file:
            write(file)
        with pytest.raises(UserError, match="not a checkpoint"):
            common.load_checkpoint(tmp_path / name)
    assert not trace.exists()


def test_truncated_checkpoint(options, data, tmp_path):
    fit(options, data)
    content = (tmp_path / "run.pt").read_bytes()
    (tmp_path / "run.pt").write_bytes(content[:len(content) // 2])
    with pytest.raises(UserError, match="not a checkpoint"):
        common.load_checkpoint(tmp_path / "run.pt")


def test_record_replaces_the_same_command_and_keeps_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "HERE", tmp_path)
    script = tmp_path / "task.py"
    script.write_text('"""Doc."""\n\nprint()\n')
    common.record(script, ["--seed", "0", "1", "--record"], ["first", "", "end"])
    common.record(script, ["--loss", "l1", "--data-dir", "/elsewhere"], ["other"])
    common.record(script, ["--record", "--seed", "0", "1", "--resume"], ["second", "", "end"])
    assert script.read_text() == (
        '"""Doc."""\n\nprint()\n' + common.MARK +
        "# $ python task.py --seed 0 1\n# second\n#\n# end\n\n# $ python task.py --loss l1\n# other\n")


def test_mean_and_standard_deviation():
    assert common.mean_std([0.99, 0.98, 1.0], 100) == "99.00 ± 1.00"  # n - 1 in the denominator
    assert common.mean_std([0.5]) == "0.50"
