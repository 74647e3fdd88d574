"""The alpha stage: channels weighted and summed, and an encoder that stays frozen when it is said to be."""

import torch
from torch import nn

from smellkit import checkpoint as weights
from smellkit import train
from smellkit.odour.mixture import AlphaSum
from smellkit.study.odour.mixture_task import AlphaMixture, MixtureEncoder, MixtureHead, mixture_loss
from smellkit.task import Task, Tensors


def samples(n=48, seed=0):
    random = torch.Generator().manual_seed(seed)
    ratios = torch.zeros(n, 12)
    first, second = torch.randint(12, (2, n), generator=random)
    ratios[torch.arange(n), first] += 0.8
    ratios[torch.arange(n), second] += 0.2
    window = torch.randn(n, 20, 4, generator=random) + 3 * ratios[:, None, :4]
    return Tensors(window=window, ratios=ratios)


def fit(model, name):
    score = lambda outputs, batch: {"accuracy": -float(mixture_loss(outputs, batch))}  # noqa: E731
    task = Task(
        "odour-mixture", lambda: {"train": samples(), "valid": samples(seed=1)}, lambda: model, mixture_loss, score
    )
    return train.fit(task, train.Settings(epochs=2, batch=16), name=name)


def test_alpha_is_the_weighted_sum_of_the_channels():
    alpha, z = AlphaSum(50, 8), torch.randn(3, 50)
    by_hand = sum(z[:, i : i + 1] * alpha.alpha[i] for i in range(50))
    assert torch.allclose(alpha(z), by_hand, atol=1e-5)
    assert alpha.weights().shape == (50,)
    assert not alpha.weights().requires_grad


def test_the_head_gives_ratios_that_add_to_one_and_closes_the_gate_of_what_is_absent():
    head = MixtureHead(8).eval()
    with torch.no_grad():
        head.presence.weight.zero_()
        head.presence.bias.fill_(10.0)
        head.presence.bias[3] = -30.0
    out = head(torch.randn(5, 8))
    assert torch.allclose(out["beta"].sum(1), torch.ones(5), atol=1e-5)
    assert out["beta"][:, 3].max() < 1e-6
    assert torch.allclose(out["beta"].log(), out["log_beta"], atol=1e-4)


def test_a_frozen_encoder_has_the_same_hash_before_and_after_training(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path))
    encoder = nn.Sequential()
    encoder = MixtureEncoder(hidden=8)
    before = weights.fingerprint(encoder)
    model = AlphaMixture(encoder, dim=8, frozen=True)
    head = weights.fingerprint(model.head)
    fit(model, "frozen")
    assert weights.fingerprint(encoder) == before
    assert weights.fingerprint(model.head) != head


def test_fine_tuning_changes_the_encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path))
    encoder = MixtureEncoder(hidden=8)
    before = weights.fingerprint(encoder)
    fit(AlphaMixture(encoder, dim=8, frozen=False), "fine-tuned")
    assert weights.fingerprint(encoder) != before


def test_a_frozen_encoder_with_running_statistics_keeps_them_too():
    class WithNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.line = nn.BatchNorm1d(4), nn.Linear(4, 50)

        def forward(self, batch):
            return {"z": self.line(self.norm(batch["window"].mean(1)))}

    encoder = WithNorm()
    before = weights.fingerprint(encoder)
    model = AlphaMixture(encoder, dim=8).train()
    batch = samples().__getitems__(range(16))
    mixture_loss(model(batch), batch).backward()
    assert weights.fingerprint(encoder) == before
    assert all(p.grad is None for p in encoder.parameters())
    assert all(p.grad is not None for part in (model.alpha, model.head) for p in part.parameters())


def test_the_loss_is_smallest_at_the_true_ratios():
    truth = torch.tensor([[0.8, 0.2] + [0.0] * 10])
    gates = torch.where(truth > 0, 20.0, -20.0)

    def loss(beta):
        return float(mixture_loss({"log_beta": (beta + 1e-9).log(), "presence": gates}, {"ratios": truth}))

    assert loss(truth) < 1e-3 < loss(torch.full((1, 12), 1 / 12))


def test_alpha_takes_any_encoder_of_the_kit_that_gives_z():
    from smellkit.odour import encoder as models

    encoder = models.Encoder(models.BACKBONES["lstm"](steps=100, channels=4), classes=12)
    model = AlphaMixture(encoder, dim=8).train()
    before = weights.fingerprint(encoder)
    batch = samples().__getitems__(range(8)) | {"window": torch.randn(8, 100, 4)}
    mixture_loss(model(batch), batch).backward()
    assert weights.fingerprint(encoder) == before
    assert model.alpha.alpha.grad is not None
