"""Mixtures: the published metric by hand, windows and groups, look-up and plausibility, and the predict command."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from smellkit import checkpoint as weights
from smellkit import paths
from smellkit.cli import cli
from smellkit.errors import DataError, OptionError, SmellkitError, WeightsError
from smellkit.odour.mixture import Neighbours, dynamic_top_k, mixture_conductance, shared_prior, within_tolerance
from smellkit.odour.predict import COLUMNS, mixture
from smellkit.odour.recordings import cut_mixtures
from smellkit.odour.scents import ODORANTS
from smellkit.odour.smell import load_hybrid
from smellkit.study.odour import mixtures as mixture_bench
from smellkit.study.odour.hybrid import fit_hybrid, grow_forest, save_hybrid
from smellkit.study.odour.mixture_data import groups, held_out, label, read_windows
from smellkit.study.odour.mixture_task import divergence, load_encoder, mix_windows, mixture_scores, presence_f1, task

REAL = Path(os.environ.get("SMELLKIT_DATA", "nowhere")) / "smellnet"


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Windows of the sample and a hybrid fitted on them, made once."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SMELLKIT_WORK", str(tmp_path_factory.mktemp("work")))
    train, test = read_windows(None, "training_new"), read_windows(None, "test_seen")
    patch.undo()
    return train, test, fit_hybrid(train, trees=20)


def ratios(**parts):
    row = np.zeros((1, 12))
    for name, value in parts.items():
        row[0, ODORANTS.index(name)] = value
    return row


def test_top1_is_the_share_of_present_components_within_a_tenth():
    truth = ratios(almond=0.8, clove=0.2)
    assert within_tolerance(truth, truth) == [1.0]
    assert within_tolerance(ratios(almond=0.7, clove=0.3), truth) == [1.0]  # 0.3 - 0.2 is within 0.1, rounding or not
    assert within_tolerance(ratios(almond=0.69, clove=0.31), truth) == [0.0]
    assert within_tolerance(ratios(almond=0.8), truth) == [0.5]
    assert within_tolerance(ratios(almond=0.6, clove=0.4), truth, tolerance=0.2) == [1.0]
    assert within_tolerance(ratios(almond=0.8, clove=0.2, peach=5.0), truth) == [1.0]  # false positives cost nothing


def test_a_constant_half_scores_in_the_metric_and_not_in_its_companions():
    truth = np.concatenate([ratios(almond=0.5, clove=0.5), ratios(peach=1.0)])
    half = np.full((2, 12), 0.5)
    assert within_tolerance(half, truth).mean() == 0.5
    assert mixture_scores(half, truth)["mae"] > 0.4
    assert presence_f1(half, truth) < 0.25


def test_dynamic_top_k_counts_the_components_among_as_many_largest():
    truth = ratios(almond=0.8, clove=0.2)
    assert dynamic_top_k(ratios(almond=0.1, clove=0.05), truth) == [1.0]
    assert dynamic_top_k(ratios(almond=0.1, peach=0.9), truth) == [0.5]
    assert dynamic_top_k(ratios(peach=0.5, apple=0.5), truth) == [0.0]


def test_error_and_divergence_by_hand():
    truth = ratios(almond=0.5, clove=0.5)
    assert mixture_scores(ratios(almond=1.0), truth)["mae"] == pytest.approx(1 / 12)
    assert divergence(truth, truth) == pytest.approx([0.0], abs=2e-3)
    assert np.isfinite(divergence(ratios(peach=1.0), truth)).all()
    assert presence_f1(ratios(almond=0.9, clove=0.1), truth) == 1.0
    with pytest.raises(ValueError, match="both must be"):
        mixture_scores(np.zeros((2, 12)), np.zeros((3, 12)))


def test_log_conductance_is_the_log_of_the_voltage_divider_and_never_infinite():
    assert mixture_conductance(np.array([511.5])) == pytest.approx([0.0])
    assert mixture_conductance(np.array([682.0])) == pytest.approx([np.log(2)], rel=1e-5)
    assert np.isfinite(mixture_conductance(np.array([0.0, 1023.0]))).all()


def test_mixing_adds_conductances_and_ratios_in_the_same_proportion():
    import torch

    torch.manual_seed(0)
    batch = {"window": torch.randn(64, 20, 4), "ratios": torch.eye(12)[torch.arange(64) % 12]}
    mixed = mix_windows(batch, probability=1.0, drift=0.0)
    assert torch.allclose(mixed["ratios"].sum(1), torch.ones(64), atol=1e-5)
    assert mixed["window"].max() <= batch["window"].max() + 1e-4
    same = mix_windows(batch, probability=0.0, drift=0.0)
    assert torch.allclose(same["window"], batch["window"], atol=1e-4)
    assert torch.allclose(same["ratios"], batch["ratios"], atol=1e-4)


def test_windows_are_100_rows_every_50_of_the_first_600():
    index = pd.DataFrame({name: [0.5, 0.5] for name in ODORANTS})
    windows = cut_mixtures([np.zeros((900, 4)), np.zeros((130, 4))], index)
    assert windows.counts.shape == (12, 100, 4)
    assert windows.start.tolist() == [*range(0, 501, 50), 0]
    assert windows.recording.tolist() == [0] * 11 + [1]
    with pytest.raises(DataError, match="whole window"):
        cut_mixtures([np.zeros((99, 4))], index[:1])


def test_files_made_from_one_recording_are_held_out_together():
    files = [
        "a/clove.60hs7npt.x_1.csv",
        "a/clove.60hs7npt.x_5.csv",
        "a/clove.60hs7npt.x (1).csv",
        "a/clove.60kkkkkk.x.csv",
    ]
    index = pd.DataFrame({"file": files}).assign(**dict.fromkeys(ODORANTS, 0.0)).assign(clove=1.0)
    assert len(set(groups(index, "recording"))) == 2
    out = held_out(index, share=0.5)
    assert out[:3].all() or not out[:3].any()
    assert set(groups(index, "combination")) == {"clove"}
    with pytest.raises(OptionError, match="weather"):
        groups(index, "weather")


def test_synthetic_files_go_with_the_day_of_their_mixture(sample):
    index = sample[0].index
    days = groups(index, "day")
    assert "unknown" not in days
    assert label(index[list(ODORANTS)].to_numpy()[0])


def test_a_window_among_its_own_kind_is_looked_up():
    random = np.random.default_rng(0)
    truth = np.repeat(np.concatenate([ratios(almond=0.8, clove=0.2), ratios(peach=1.0)]), 20, axis=0)
    features = np.repeat([[0.0] * 4, [5.0] * 4], 20, axis=0) + random.normal(size=(40, 4))
    table = Neighbours.fit(features, truth, metric=np.eye(4, dtype=np.float32))
    asked = np.array([[0.0] * 4, [5.0] * 4, [500.0] * 4])
    _, far = table.votes(asked)
    assert np.allclose(table.predict(asked[:2]), truth[[0, 20]], atol=1e-6)
    assert far[2] > 100 * far[0]


def test_the_arrays_of_a_forest_answer_as_the_trees_of_scikit_learn_do():
    from sklearn.ensemble import ExtraTreesClassifier

    random = np.random.default_rng(0)
    features = random.normal(size=(300, 8)).astype(np.float32)
    mixtures = np.concatenate([ratios(almond=0.8, clove=0.2), ratios(peach=1.0), ratios(garlic=0.5, cumin=0.5)])
    of = features[:, 0].round().clip(-1, 1).astype(int) + 1
    forest = grow_forest(features, mixtures[of], trees=7, leaf=3, seed=1)
    known, which = np.unique(mixtures[of], axis=0, return_inverse=True)
    trees = ExtraTreesClassifier(7, min_samples_leaf=3, max_features=None, random_state=1).fit(features, which.ravel())
    assert np.allclose(forest.predict(features), trees.predict_proba(features) @ known, atol=2e-3)


def test_recordings_that_are_predicted_together_share_what_they_know_of_the_session():
    assert shared_prior(np.array([3.0]))[0] > 0.9
    assert shared_prior(np.array([-3.0]))[0] < 0.1
    mostly_new = np.array([-3.0] * 18 + [0.5, 3.0])
    assert (shared_prior(mostly_new) < 0.5).all()  # a small minority is a coincidence
    half = shared_prior(np.array([-4.0] * 10 + [4.0] * 10))
    assert (half[:10] < 0.5).all() and (half[10:] > 0.5).all()


def test_the_hybrid_looks_up_what_it_knows_and_survives_its_own_file(sample, tmp_path):
    train, test, model = sample
    answer = model.explain(test.counts, recording=test.recording)
    assert np.allclose(answer["ratios"].sum(1), 1, atol=0.02)
    assert dynamic_top_k(answer["ratios"], test.ratios).mean() > 0.8
    assert (answer["p_known_session"] > 0.5).mean() > 0.8
    again = load_hybrid(save_hybrid(model, tmp_path / "weights"))
    assert np.array_equal(again.explain(test.counts, recording=test.recording)["ratios"], answer["ratios"])


def test_the_hybrid_says_when_a_session_is_new(sample):
    _, test, model = sample
    drifted = np.clip(test.counts * 0.5 + 120, 0, 1023)
    answer = model.explain(drifted, recording=test.recording)
    assert (answer["p_known_session"] < 0.5).mean() > 0.8
    assert np.array_equal(
        answer["ratios"][answer["p_known_session"] < 0.5], answer["posterior_mean"][answer["p_known_session"] < 0.5]
    )


def test_the_shipped_weights_are_small_safetensors_with_an_encoder():
    folder = paths.weights() / "mixture"
    assert load_hybrid(folder).forest.value.shape[1] == 12
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000
    assert load_encoder(folder).logits.out_features == 12
    assert weights.manifest(folder)["trained_on"] == "mixture/training_new"


def test_predict_writes_a_row_a_window_and_one_a_recording(tmp_path):
    out = tmp_path / "predictions.csv"
    done = CliRunner().invoke(
        cli, ["predict", str(paths.sample() / "smellnet/mixture/test_seen"), "--weights", "mixture", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    assert list(table.columns) == COLUMNS
    for _, rows in table.groupby("file"):
        assert rows["window"].tolist() == [*range(11), -1]
        assert rows["start"].tolist() == [*range(0, 501, 50), 0]
        assert np.allclose(rows[COLUMNS[3:]].iloc[-1], rows[COLUMNS[3:]].iloc[:-1].mean(), atol=1e-5)


def good_csv(path, rows=150, **changes):
    table = pd.DataFrame({"NO2": 500.0, "C2H5CH": 600.0, "VOC": 550.0, "CO": 300.0}, index=range(rows)).assign(
        **changes
    )
    table.to_csv(path, index=False)


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("empty.csv", lambda path: path.write_bytes(b""), "empty"),
        ("short.csv", lambda path: good_csv(path, rows=60), "60 rows"),
        ("lost.csv", lambda path: pd.DataFrame({"NO2": [1.0] * 150}).to_csv(path, index=False), "VOC"),
        ("text.csv", lambda path: good_csv(path, VOC="much"), "VOC"),
        ("high.csv", lambda path: good_csv(path, CO=4000.0), "CO"),
        ("binary.csv", lambda path: path.write_bytes(bytes(range(256)) * 9), "binary.csv"),
    ],
)
def test_a_bad_recording_is_refused_with_its_reason_or_left_out_when_asked(tmp_path, name, write, reason):
    folder = tmp_path / "today"
    folder.mkdir()
    good_csv(folder / "good.csv")
    write(folder / name)
    with pytest.raises(SmellkitError, match=reason) as refused:
        mixture(folder, weights=paths.weights() / "mixture", out=tmp_path / "out.csv")
    assert name in str(refused.value)
    assert not (tmp_path / "out.csv").exists()
    summary = mixture(folder, weights=paths.weights() / "mixture", out=tmp_path / "out.csv", skip=True)
    assert name in summary
    assert pd.read_csv(tmp_path / "out.csv")["file"].unique().tolist() == ["good.csv"]


def test_an_index_of_labels_among_the_recordings_is_no_recording(tmp_path):
    good_csv(tmp_path / "good.csv")
    (tmp_path / "index.csv").write_text("filepath,label_peach\ngood.csv,1\n")
    for _ in range(2):  # the second time, the first one's predictions lie there too
        summary = mixture(tmp_path, weights=paths.weights() / "mixture", out=tmp_path / "p.csv")
        assert "index" in summary
    assert pd.read_csv(tmp_path / "p.csv")["file"].unique().tolist() == ["good.csv"]


def test_one_recording_alone_is_predicted_too(tmp_path):
    file = min((paths.sample() / "smellnet" / "mixture" / "test_seen").rglob("*.csv"))
    mixture(file, weights=paths.weights() / "mixture", out=tmp_path / "out.csv")
    assert set(pd.read_csv(tmp_path / "out.csv")["file"]) == {file.name}


def test_an_empty_folder_and_other_weights_are_refused(tmp_path):
    with pytest.raises(DataError, match="No recordings"):
        mixture(tmp_path, weights=paths.weights() / "mixture", out=tmp_path / "out.csv")
    weights.save(tmp_path / "other", {}, {"kind": "odour"})
    with pytest.raises(WeightsError, match="odour"):
        load_hybrid(tmp_path / "other")


def test_a_stage_without_its_encoder_is_refused_with_the_command_that_makes_it():
    with pytest.raises(OptionError, match="needs a trained encoder"):
        task(stage="frozen")
    with pytest.raises(WeightsError, match="smellkit train odour-mixture"):
        task(stage="frozen", encoder="nobody").build()


def test_the_task_learns_on_the_sample():
    from smellkit import train

    run = train.fit(task(hidden=16, dim=16), train.Settings(epochs=2, batch=64, learning_rate=5e-3), name="m")
    assert run.metrics()["loss"].iloc[-1] < run.metrics()["loss"].iloc[0]
    assert {"valid", "test"} <= set(run.scores)


def test_the_bench_counts_what_is_wrong_with_the_files_and_keeps_earlier_parts(tmp_path):
    other = {"about": "another", "rows": {"validation/x": {}}}
    result = mixture_bench.run("", parts=["official"], seeds=1, earlier=other)
    assert "validation/x" not in result["rows"]
    row = result["rows"]["official/k-NN, whitened"]
    assert row["seen"]["dynamic_top_k"]["value"] > 80 and row["seen"]["top1_at_0.1"]["low"] is not None
    assert sum(row[f"seen, {kind}"]["windows"] for kind in ("real", "synthetic") if f"seen, {kind}" in row) > 0
    said = []
    rows = result["rows"] | {"validation/x": {}}
    kept = mixture_bench.run("", parts=["official"], seeds=1, earlier=result | {"rows": rows}, progress=said.append)
    assert kept["rows"] == rows and all("measured before" in line for line in said)
    with pytest.raises(OptionError, match="officiel"):
        mixture_bench.run("", parts=["officiel"])


@pytest.mark.skipif(not REAL.is_dir(), reason="SMELLKIT_DATA is not set: no real recordings here")
def test_copies_and_misnamed_folders_of_the_real_data_are_counted():
    result = mixture_bench.describe(REAL, splits=["test_unseen"])["test_unseen"]
    assert result["copies"] == 16
    assert result["in a folder of another name"] == 16  # garlic50_banan50, and cumin80_peach20 with other recordings
    assert result["synthetic"] == 0


def test_a_day_and_its_combinations_are_left_out_together():
    ratios = np.eye(12)[np.tile([0, 1, 2, 3], 6)]
    index = pd.DataFrame(ratios, columns=list(ODORANTS)).assign(
        recorded_at=pd.to_datetime(np.repeat(["2025-08-04", "2025-08-05", "2025-08-06"], 8)), file="a.csv"
    )
    days, combinations = groups(index, "day"), groups(index, "combination")
    folds = mixture_bench.left_out(index, "day and combination", np.ones(len(index), bool))
    assert np.array_equal(sum(asked.astype(int) for _, asked in folds), np.ones(len(index)))  # each is asked once
    for known, asked in folds:
        assert known.any() and not set(days[known]) & set(days[asked])
        assert not set(combinations[known]) & set(combinations[asked])
