"""The task "odour-encoder": no leak between recordings, and augmentations that do what they say."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from smellkit.errors import DataError, OptionError
from smellkit.odour import recordings
from smellkit.odour.features import describe
from smellkit.odour.windows import Protocol, conductance, cut, log_conductance
from smellkit.study.odour.encoder_task import (
    EncoderConfig,
    augment,
    hold_out,
    over_windows,
    read_splits,
    samples,
    score,
    task,
)
from smellkit.train import Settings, fit


def table(substances=3, files=4, rows=200, seed=0, strength=30.0):
    """Recordings whose substances differ in which sensors rise."""
    random = np.random.default_rng(seed)
    parts = []
    for s in range(substances):
        for f in range(files):
            rise = np.linspace(0, 1, rows)[:, None] * strength * np.eye(6)[s % 6]
            values = pd.DataFrame(300 + rise + random.normal(size=(rows, 6)), columns=recordings.GAS)
            name = f"base/training/s{s}/s{s}.{f}.csv"
            parts.append(values.assign(substance=f"s{s}", recording=f"s{s}.{f}", file=name, step=range(rows)))
    return pd.concat(parts, ignore_index=True)


def splits(windows, fold=0):
    train, valid = hold_out(windows, fold)
    return lambda: {"train": train, "valid": valid}


def test_the_strict_protocol_has_the_published_number_of_windows():
    windows = cut(table(1, 1, rows=600), Protocol())
    assert windows.values.shape == (10, 100, 6)  # (600 - 125) // 50 + 1
    assert windows.start.tolist() == list(range(0, 500, 50))


def test_differences_and_level_free_windows_do_not_see_the_level():
    low = table(1, 1)
    high = low.assign(**{name: low[name] + 250 for name in recordings.GAS})
    for kind in ("fotd", "level-free"):
        first, second = (cut(t, Protocol(kind)).values for t in (low, high))
        assert np.allclose(first, second, atol=1e-3)


def test_conductance_forgets_the_level_of_drifting_sensors_alone():
    seen = conductance(np.full((1, 6, 5), 300.0), recordings.GAS)
    assert (seen[:, :4] != 0).all()
    assert (seen[:, 4:] == 0).all()
    assert np.allclose(log_conductance(np.array([0.0, 341, 1023]), offset=0, least=1)[[0, 2]], [-6.9295, 6.9295])
    assert log_conductance(341.0, offset=0) == pytest.approx(np.log(0.5))
    assert np.isfinite(conductance(np.array([[[0.0], [1023], [65535], [0], [0], [65535]]]), recordings.GAS)).all()


def test_validation_holds_out_whole_recordings():
    windows = cut(table(), Protocol())
    train, valid = hold_out(windows, 1)
    assert not set(train.recording) & set(valid.recording)
    assert set(valid.target) == {0, 1, 2}


def test_scaling_is_taken_from_training_windows_only():
    windows = cut(table(), Protocol())
    held = windows.fold == 0
    spoilt = cut(table(), Protocol())
    spoilt.values[held] *= 1000
    for model in ("lstm", "summary-mlp"):
        torch.manual_seed(0)
        clean = over_windows(splits(windows), EncoderConfig(model=model)).build().state_dict()
        torch.manual_seed(0)
        dirty = over_windows(splits(spoilt), EncoderConfig(model=model)).build().state_dict()
        assert all(torch.equal(clean[name], dirty[name]) for name in clean)


def test_shuffled_labels_give_chance(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path))
    windows = cut(table(4, 6, seed=1), Protocol())
    whole = np.random.default_rng(0).permutation(24) % 4  # a label for each recording, not for each window
    for labels, least, most in ((windows.target, 0.9, 1.0), (whole[windows.recording], 0.0, 0.7)):
        windows.target[:] = labels
        train, valid = windows[windows.fold > 1], windows[windows.fold <= 1]
        config = EncoderConfig(model="summary-mlp", fold=-1)
        made = over_windows(lambda train=train, valid=valid: {"train": train, "valid": valid}, config)
        run = fit(made, Settings(epochs=8, batch=16, learning_rate=3e-3), name="shuffle")
        assert least <= run.scores["valid"]["accuracy"] <= most


def test_a_recording_missing_in_one_substance_is_said():
    uneven = table()
    uneven = uneven[~uneven["file"].str.endswith("s1.3.csv")]
    with pytest.raises(DataError, match="recording number 3"):
        hold_out(cut(uneven, Protocol()), 3)


def test_a_recording_without_a_window_counts_in_no_fold():
    rows = table(substances=1)
    rows = rows[(rows["recording"] != "s0.1") | (rows["step"] < 100)]
    assert set(cut(rows, Protocol()).fold) == {0, 1, 2}


def test_a_damaged_recording_to_test_on_is_refused_and_the_test_is_not_left_out(tmp_path):
    for split in ("training", "testing"):
        for name in ("apple", "mint"):
            shutil.copytree(recordings.find() / "base" / split / name, tmp_path / "base" / split / name)
    asked = EncoderConfig(data=str(tmp_path))
    assert "test" in read_splits(asked)
    min((tmp_path / "base" / "testing" / "mint").iterdir()).write_text("nothing")
    with pytest.raises(DataError, match="mint"):
        read_splits(asked)
    shutil.rmtree(tmp_path / "base" / "testing")
    assert "test" not in read_splits(asked)


def test_recordings_shorter_than_a_window_are_counted_or_refused():
    some = pd.concat([table(2, 2), table(1, 1, rows=60).assign(file="short.csv")])
    assert cut(some, Protocol()).short == ("short.csv",)
    with pytest.raises(DataError, match="shorter than 125 rows"):
        cut(table(rows=60), Protocol())


@pytest.mark.parametrize("options", [{"jitter": 0.1}, {"scale": 0.3}, {"gain": 0.3}, {"sensor_dropout": 0.5}])
def test_each_augmentation_changes_windows_and_keeps_targets(options):
    batch = {"window": torch.randn(16, 50, 6).cumsum(1), "target": torch.arange(16) % 3}
    result = augment(batch, EncoderConfig(representation="absolute", **options), 3)
    assert result["window"].shape == (16, 50, 6)
    assert not torch.equal(result["window"], batch["window"])
    assert torch.equal(result["target"], batch["target"])
    assert torch.equal(augment(batch, EncoderConfig(), 3)["window"], batch["window"])


def test_mixup_mixes_targets_in_the_same_shares():
    batch = {"window": torch.ones(8, 5, 2) * torch.arange(8).reshape(8, 1, 1), "target": torch.arange(8)}
    result = augment(batch, EncoderConfig(mixup=1.0), 8)
    assert torch.allclose(result["target"].sum(1), torch.ones(8))
    assert torch.allclose((result["target"] * torch.arange(8)).sum(1), result["window"][:, 0, 0], atol=1e-4)


def test_pooling_averages_the_windows_of_a_recording():
    logits = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 0.0]])  # the second window alone is wrong
    result = score({"logits": logits}, {"target": torch.tensor([0, 0, 0]), "recording": torch.tensor([4, 4, 9])})
    assert result["recording"] == 1 and result["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "lstn"}, "lstm"),
        ({"sensors": "CO,VOCs"}, "VOC"),
        ({"representation": "levels"}, "level-free"),
        ({"stride": 0}, "stride is 0"),
        ({"train_stride": 0}, "stride is 0"),
        ({"length": -5}, "length is -5"),
        ({"lag": 0}, "lag is 0"),
        ({"lag": -5, "representation": "absolute"}, "lag is -5"),
    ],
)
def test_wrong_options_are_refused_with_the_nearest(options, says):
    with pytest.raises(OptionError, match=says):
        task(**options)


def test_the_lstm_learns_the_sample(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))
    run = fit(task(model="lstm"), Settings(epochs=10, batch=16, learning_rate=1e-2), name="sample")
    assert set(run.scores["test"]) == {"accuracy", "top5", "macro_f1", "recording", "likelihood"}
    assert run.scores["test"]["accuracy"] > 0.2  # chance is 1 in 14


def test_a_rebuilt_window_has_exactly_the_strict_differences_and_sees_nothing_else():
    low = table(1, 1)
    drift = low[list(recordings.GAS)].to_numpy() + 250 + 9 * np.sin(np.arange(200) % 25)[:, None]  # no difference shows
    first, second = (Protocol("rebuilt").windows(v) for v in (low[list(recordings.GAS)].to_numpy(), drift))
    strict = Protocol().windows(drift)
    assert np.allclose(first, second, atol=1e-2)
    assert np.allclose(first[:, 25:] - first[:, :-25], strict, atol=1e-2)
    assert (first[:, 0] == 0).all()


def test_slow_curves_come_back_from_their_differences():
    time = np.linspace(0, 1, 125)[None, :, None]
    curve = 300 + 80 * time**2 + 20 * np.sin(4 * time)
    result = Protocol("rebuilt", ("CO",)).represent(curve)
    assert np.abs(result - (curve - curve[:, :1])).max() < 0.5


def test_changed_windows_keep_their_targets_and_change_every_time():
    windows = cut(table(), Protocol())
    copies = samples(windows, change=lambda batch: augment(batch, EncoderConfig(gain=0.5), 3), features=describe)
    rows = list(range(len(windows)))
    first, second = copies.__getitems__(rows), copies.__getitems__(rows)
    assert torch.equal(first["target"], torch.from_numpy(windows.target))
    assert not torch.equal(first["window"], second["window"])
    assert torch.allclose(first["summary"], describe(first["window"].numpy()), atol=1e-2, rtol=1e-3)
