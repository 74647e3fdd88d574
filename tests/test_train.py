"""The training loop, on a task small enough to know the answer."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from smellkit import checkpoint as weights
from smellkit import paths, runs, train
from smellkit.errors import DataError, OptionError, WeightsError
from smellkit.task import Task, Tensors
from smellkit.train import Settings, fit
from tests.test_sweep import line

SHORT = Settings(epochs=6, batch=16, learning_rate=0.05)


@pytest.fixture(autouse=True)
def own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path))


class Line(nn.Module):
    def __init__(self, stop_at: int = -1):
        super().__init__()
        self.layer, self.dropout = nn.Linear(3, 2), nn.Dropout(0.1)
        self.calls, self.stop_at = 0, stop_at

    def forward(self, batch):
        self.calls += self.training
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return {"logits": self.layer(self.dropout(batch["x"]))}


def line_task(*, stop_at: int = -1, rows: int = 64) -> Task:
    def load():
        torch.manual_seed(0)
        x = torch.randn(rows, 3)
        y = (x[:, 0] > 0).long()
        return {"train": Tensors(x=x, y=y), "valid": Tensors(x=x[:32], y=y[:32]), "test": Tensors(x=x[32:], y=y[32:])}

    return Task(
        name="line",
        load=load,
        build=lambda: Line(stop_at),
        loss=lambda out, batch: nn.functional.cross_entropy(out["logits"], batch["y"]),
        score=lambda out, batch: {"accuracy": (out["logits"].argmax(1) == batch["y"]).float().mean().item()},
    )


def test_no_batch_has_one_sample_alone_which_could_not_be_normalised():
    sizes = []

    def loss(out, batch):
        sizes.append(len(batch["y"]))
        return nn.functional.cross_entropy(out["logits"], batch["y"])

    for rows in (65, 66):
        fit(replace(line_task(rows=rows), loss=loss), replace(SHORT, epochs=1))
    assert sizes == [16] * 4 + [16] * 4 + [2]


def test_a_run_learns_and_leaves_everything_that_a_reader_needs():
    run = fit(line_task(), SHORT, params={"rows": 64})
    assert run.scores["test"]["accuracy"] > 0.8
    assert run.params["rows"] == 64 and run.params["epochs"] == 6
    assert list(run.metrics()["epoch"]) == list(range(6))
    assert run.stamp["versions"]["torch"].startswith("2.")
    assert {path.name for path in run.folder.iterdir() if path.is_file()} == {
        "params.json", "metrics.jsonl", "weights.safetensors", "manifest.json", "scores.json", "stamp.json",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not():
    tensors = [weights.load(fit(line_task(), Settings(epochs=2, seed=seed)).folder)[0] for seed in (1, 1, 2)]
    assert torch.equal(tensors[0]["layer.weight"], tensors[1]["layer.weight"])
    assert not torch.equal(tensors[0]["layer.weight"], tensors[2]["layer.weight"])


def test_the_weights_are_those_of_the_best_epoch():
    run = fit(line_task(), Settings(epochs=5, batch=16, learning_rate=0.05))
    metrics = run.metrics()
    assert run.scores["best_epoch"] == metrics["accuracy"].idxmax()
    model = weights.fill(Line(), weights.load(run.folder)[0])
    task = line_task()
    assert train.evaluate(model, task.load()["valid"], task=task)["accuracy"] == metrics["accuracy"].max()


def test_an_interrupted_run_resumes_to_the_same_weights():
    whole = weights.load(fit(line_task(), SHORT, name="whole").folder)[0]
    with pytest.raises(KeyboardInterrupt):
        fit(line_task(stop_at=10), SHORT, name="broken")  # in the third epoch
    assert not (runs.paths.runs() / "broken" / "scores.json").exists()
    run = fit(line_task(), SHORT, name="broken", resume=True)
    assert list(run.metrics()["epoch"]) == list(range(6))
    assert torch.equal(weights.load(run.folder)[0]["layer.weight"], whole["layer.weight"])


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_run_that_dies_while_its_state_is_written_resumes_to_the_same_weights(monkeypatch, epoch):
    whole = weights.load(fit(line_task(), SHORT, name="whole").folder)[0]
    save, calls = torch.optim.AdamW.state_dict, []

    def dies(optimiser):
        calls.append(1)
        if len(calls) == epoch:
            raise KeyboardInterrupt  # the model is written, the optimiser is not
        return save(optimiser)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.optim.AdamW, "state_dict", dies)
        fit(line_task(), SHORT, name="broken")
    run = fit(line_task(), SHORT, name="broken", resume=True)
    assert list(run.metrics()["epoch"]) == list(range(6))
    assert torch.equal(weights.load(run.folder)[0]["layer.weight"], whole["layer.weight"])


@pytest.mark.parametrize("given", [{"epochs": 0}, {"batch": 0}, {"seed": -1}, {"averaging": 1.0}, {"precision": "fp8"}])
def test_settings_that_can_train_nothing_are_refused_by_name(given):
    with pytest.raises(OptionError, match=next(iter(given))):
        Settings(**given)


def test_a_run_with_other_parameters_is_not_resumed():
    fit(line_task(), SHORT)
    with pytest.raises(OptionError, match="epochs: 6 then, 5 now"):
        fit(line_task(), Settings(epochs=5, batch=16, learning_rate=0.05), resume=True)


def test_early_stop_waits_for_its_patience():
    run = fit(line_task(), Settings(epochs=50, batch=64, learning_rate=0.3, patience=2))
    assert len(run.metrics()) == run.scores["best_epoch"] + 3


def test_a_loss_that_is_no_number_stops_with_a_reason():
    with pytest.raises(OptionError, match="smaller learning_rate"):
        fit(line_task(), Settings(epochs=2, learning_rate=float("inf"), clip=0))


def test_an_average_of_the_weights_is_what_is_saved():
    plain, averaged = (
        fit(line_task(), Settings(epochs=3, batch=16, averaging=decay), name=str(decay)) for decay in (0.0, 0.9)
    )
    one, other = (weights.load(run.folder)[0]["layer.weight"] for run in (plain, averaged))
    assert one.shape == other.shape and not torch.equal(one, other)


def test_scores_do_not_depend_on_the_size_of_a_batch():
    task = line_task()
    model, data = task.build(), task.load()["test"]
    assert train.evaluate(model, data, task=task, batch=5) == train.evaluate(model, data, task=task, batch=64)


def test_the_tracker_is_one_option(tmp_path):
    pytest.importorskip("tensorboard")
    run = fit(line_task(), Settings(epochs=1, tracker="tensorboard"))
    assert list((run.folder / "trackers").rglob("events.out.*"))


def test_the_learning_rate_rises_then_falls_to_zero():
    rates = [train.cosine(step, steps=100, warmup=0.1) for step in range(101)]
    assert rates.index(max(rates)) == 10 and rates[-1] == pytest.approx(0) and min(rates[:-1]) > 0


def test_weights_of_another_shape_are_refused_with_the_first_five_tensors(tmp_path):
    weights.save(tmp_path, nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)]).state_dict(), {})
    with pytest.raises(WeightsError, match=r"\(4, 4\) in the file, \(3, 4\) in the model") as error:
        weights.fill(
            nn.Sequential(*[nn.Linear(4, 3) for _ in range(4)]), weights.load(tmp_path)[0], where="old weights"
        )
    assert "and 3 more" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"\x10\0\0\0\0\0\0\0{}", b"x" * 100])
def test_a_damaged_checkpoint_is_one_error_that_names_the_folder(tmp_path, content):
    weights.save(tmp_path, nn.Linear(2, 2).state_dict(), {})
    (tmp_path / weights.FILE).write_bytes(content)
    with pytest.raises(WeightsError, match=tmp_path.name):
        weights.load(tmp_path)


def test_weights_and_manifest_of_two_runs_are_not_mixed(tmp_path):
    weights.save(tmp_path / "a", nn.Linear(2, 2).state_dict(), {})
    weights.save(tmp_path / "b", nn.Linear(2, 2).state_dict(), {})
    (tmp_path / "a" / weights.FILE).write_bytes((tmp_path / "b" / weights.FILE).read_bytes())
    with pytest.raises(WeightsError, match="sha256 differs"):
        weights.load(tmp_path / "a")


def test_a_manifest_is_plain_json(tmp_path):
    weights.save(tmp_path, {"a": torch.ones(2)}, {"task": "line"})
    assert json.loads((tmp_path / weights.MANIFEST).read_text())["task"] == "line"


def test_frozen_means_that_the_fingerprint_stays():
    model = nn.Linear(3, 3)
    before = weights.fingerprint(model)
    assert weights.fingerprint(model) == before
    with torch.no_grad():
        model.weight[0, 0] += 1e-6
    assert weights.fingerprint(model) != before


def test_a_fault_of_the_data_leaves_the_finished_run_of_that_name_alone():
    finished = fit(line_task(), replace(SHORT, epochs=1), name="kept")

    def broken():
        raise DataError("the file is gone")

    with pytest.raises(DataError):
        fit(replace(line_task(), load=broken), replace(SHORT, epochs=2), name="kept")
    assert finished.finished and finished.params["epochs"] == 1


TOGETHER = """
import sys
from dataclasses import replace
from smellkit.errors import OptionError
from smellkit.train import Settings, fit
from tests.test_sweep import line

task, sizes = line(width=2), []
seen = replace(task, loss=lambda out, batch: sizes.append(len(batch["x"])) or task.loss(out, batch))
try:
    fit(seen, Settings(epochs=3, batch=15, learning_rate=0.05), name="odd")
except OptionError as why:
    sys.stdout.write(f"refused: {why}\\n")
run = fit(seen, Settings(epochs=3, batch=64, learning_rate=0.05), name="even")
sys.stdout.write(f"finished {run.finished} after steps of {sizes}\\n")
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Two real processes that torchrun starts train twice, once with an odd batch: their runs, and all they said."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "together.py").write_text(TOGETHER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command = [*launch, "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", str(folder / "together.py")]
    own = {"PYTHONPATH": str(paths.HOME), "CUDA_VISIBLE_DEVICES": "", "SMELLKIT_RUNS": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | own, timeout=300)
    return {name: runs.Run(name, folder / name) for name in ("odd", "even")}, done


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_and_the_first_alone_writes_and_shows(together):
    two, said = together[0]["even"], together[1]
    assert said.returncode == 0, said.stderr[-2000:]
    assert said.stdout.count("finished True after steps of [32, 32, 32]") == 2
    assert said.stderr.count("?epoch/s]") == 1  # one bar
    assert len(two.metrics()) == 3 and two.stamp["seconds"] > 0 and not (two.folder / paths.LOCK).exists()
    one = fit(line(width=2), Settings(epochs=3, batch=64, learning_rate=0.05), name="one")
    assert np.allclose(one.metrics()["loss"], two.metrics()["loss"], atol=1e-5)
    first, second = (weights.load(run.folder)[0] for run in (one, two))
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_processes_that_can_not_share_a_batch_are_told_what_they_can(together):
    odd, said = together[0]["odd"], together[1].stdout
    assert said.count("refused: ") == 2 and said.count("--set batch=14") == 2
    assert not odd.finished and not (odd.folder / paths.LOCK).exists()
