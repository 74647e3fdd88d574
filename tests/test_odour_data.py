"""Recordings, mixtures and scents: from folders to tables, on the sample, on broken copies, and on the real data."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smellkit import cache, paths
from smellkit.checks import Report
from smellkit.errors import DataError, SmellkitError
from smellkit.odour import recordings, scents
from smellkit.study.odour import mixture_data, survey

SAMPLE = paths.sample() / "smellnet"
REAL = Path(os.environ.get("SMELLKIT_DATA", "")) / "smellnet"
real = pytest.mark.skipif(
    not (REAL / "base").is_dir(), reason="set SMELLKIT_DATA to the folder that holds smellnet/ to test on real data"
)


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


@pytest.fixture
def small(tmp_path):
    """A copy of two substances and one mixture that a test may break."""
    for part in ("base/training/banana", "base/training/garlic", "base/testing/banana", "mixture/test_seen"):
        shutil.copytree(SAMPLE / part, tmp_path / "smellnet" / part)
    return tmp_path / "smellnet"


def test_the_sample_is_read_as_one_tidy_table():
    table = recordings.read_recordings()
    assert list(table.columns) == ["substance", "recording", "step", "file", *recordings.SENSORS]
    assert table["substance"].nunique() == 14
    assert (table.groupby("file")["step"].max() == 299).all()
    assert table["file"].iloc[0].startswith("base/training/almond/almond.")
    assert not table.isna().any().any()
    one = pd.read_csv(SAMPLE / table["file"].iloc[0])
    np.testing.assert_array_equal(
        table.loc[table["file"] == table["file"].iloc[0], list(recordings.GAS)], one[list(recordings.GAS)]
    )
    recordings.schema().validate(table)


def test_the_twelve_scent_layout_is_read_into_the_same_table():
    table = recordings.read_recordings(paths.sample() / "scents")
    assert list(table.columns) == ["substance", "recording", "step", "file", *recordings.SENSORS]
    assert set(table["substance"]) == set(scents.SCENTS)


def test_the_data_folder_is_found_by_its_content(tmp_path):
    assert recordings.find() == recordings.find("") == SAMPLE
    assert recordings.find(SAMPLE) == recordings.find(paths.sample()) == SAMPLE
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="smellkit data get smellnet"):
            recordings.find(folder)


def test_a_misnamed_split_is_refused_with_the_nearest(small):
    with pytest.raises(DataError, match="splits here: training"):
        recordings.read_recordings(small, "trainin")
    with pytest.raises(DataError, match="splits here: test_seen"):
        mixture_data.read_mixtures(small, "test_sen")


def test_a_broken_recording_stops_the_reading_unless_skipping_was_asked_for(small):
    bad = sorted((small / "base/training/banana").glob("*.csv"))[1]
    bad.write_text(bad.read_text().replace("NO2", "N02", 1))
    with pytest.raises(DataError, match=r"N02"):
        recordings.read_recordings(small)
    for _ in range(2):  # the second time from the cache, which tells the same
        report = Report()
        table = recordings.read_recordings(small, skip=True, report=report)
        assert table.groupby("substance")["file"].nunique().to_dict() == {"banana": 2, "garlic": 3}
        assert (report.files, list(report.skipped)) == (5, [str(bad)])


def test_a_misnamed_recording_is_refused(small):
    lost = sorted((small / "base/training/banana").glob("*.csv"))[0]
    lost.rename(lost.with_suffix(".csv.txt"))
    with pytest.raises(DataError, match=r"\.csv\.txt"):
        recordings.read_recordings(small)
    report = Report()
    assert recordings.read_recordings(small, skip=True, report=report)["file"].nunique() == 5
    assert len(report.skipped) == 1


def test_a_truncated_first_row_goes_before_any_baseline_is_taken(small):
    path = sorted((small / "base/training/banana").glob("*.csv"))[0]
    header, _, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, ",,,,12,3.1", *rows]) + "\n")
    report = Report()
    table = recordings.read_recordings(small, report=report)
    mine = table[table["recording"] == path.stem]
    assert mine["step"].tolist() == list(range(len(rows)))
    assert mine["NO2"].iloc[0] == float(rows[0].split(",")[0])
    assert report.counts["truncated first row dropped"] == 1


def test_overflow_and_a_stuck_environment_sensor_are_counted():
    report = Report()
    table = recordings.read_recordings(report=report)
    assert report.counts["environment sensor stuck at 688.6 hPa, 100 %"] == 3
    stuck = survey.stuck(table)
    assert {file.split("/")[2] for file in stuck[stuck].index} == {"apple"}
    assert table["Benzene"].max() == 65535
    overflows = sum(
        (pd.read_csv(path)["Benzene"] == 2**32 - 1).sum() for path in (SAMPLE / "base/training").glob("*/*.csv")
    )
    assert report.counts["Benzene: overflow 4294967295 taken as 65535"] == overflows > 0


def test_a_substance_missing_from_a_split_is_said(small, caplog):
    report = Report()
    recordings.read_recordings(small, "testing", report=report)
    assert report.counts["substance only in training"] == 1
    assert "garlic" in caplog.text


@pytest.mark.parametrize("settled", [cache.SETTLED, -1e18])
def test_a_cached_table_is_the_same_and_a_changed_file_is_seen(small, monkeypatch, settled):
    monkeypatch.setattr(cache, "SETTLED", settled)  # with the second, hashes are remembered at once
    first = recordings.read_recordings(small)
    pd.testing.assert_frame_equal(recordings.read_recordings(small), first)
    path = sorted((small / "base/training/banana").glob("*.csv"))[0]
    stamp = path.stat()
    text = path.read_text()
    changed = text.replace("\n", "\n9", 1) if text.split("\n")[1][0] != "9" else text.replace("\n9", "\n1", 1)
    path.write_text(changed[: len(text)] if len(changed) == len(text) else changed)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # content counts, not dates
    assert recordings.read_recordings(small)["NO2"].iloc[0] != first["NO2"].iloc[0]


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"", lambda b: b[:50] + bytes([b[50] ^ 1]) + b[51:]])
def test_a_damaged_cache_is_rebuilt(small, work, damage, caplog):
    first = recordings.read_recordings(small)
    (kept,) = (work / "tables").glob("recordings-*")
    kept.write_bytes(damage(kept.read_bytes()))
    pd.testing.assert_frame_equal(recordings.read_recordings(small), first)
    assert "damaged" in caplog.text
    caplog.clear()
    pd.testing.assert_frame_equal(recordings.read_recordings(small), first)
    assert "damaged" not in caplog.text


def test_a_cache_that_can_not_be_written_costs_time_only(small, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "file"))
    assert len(recordings.read_recordings(small))


LABELS = {
    "almond.61vr8pj9.ingestion-864f766795-kgdtm.csv": {"almond": 1.0},
    "Almond20_Orange80.60hs7npt.ingestion-b48bfb8b7-qq4f9_3.csv": {"almond": 0.2, "orange": 0.8},
    "almond_50_clove_50.qe3rzsj4.ingestion-balanced.csv": {"almond": 0.5, "clove": 0.5},
    "almond80_clove20.60hnsqdh (1).csv": {"almond": 0.8, "clove": 0.2},
    "almond20_clove80.synth600_2.r23gdppq.ingestion-balanced.csv": {"almond": 0.2, "clove": 0.8},
    "strawberry33_clove33_coriander33.61vc28dn.x.csv": {"strawberry": 0.33, "clove": 0.33, "coriander": 0.33},
    "banana80_mango20.banana80_peach20.61nov657.x.csv": {"banana": 0.8, "mango": 0.2},
    "mixture/test_unseen/garlic50_banan50/garlic_50_banana_50.62co38pn.x.csv": {"garlic": 0.5, "banana": 0.5},
    "mandarin_orange50_cloves50.csv": {"orange": 0.5, "clove": 0.5},
    "mandarin_orange.csv": {"orange": 1.0},
    "apple100.csv": {"apple": 1.0},
    "pear50_apple50 (2).csv": {"pear": 0.5, "apple": 0.5},
}


@pytest.mark.parametrize("name", LABELS)
def test_a_label_is_read_from_the_file_name(name):
    assert mixture_data.parse_label(name) == LABELS[name]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("garlic50_banan50.csv", "did you mean banana"),
        ("kiwi.csv", "one of "),
        ("apple50_pear40.csv", "90 %"),
        ("apple80_pear80.csv", "160 %"),
        ("apple50_apple50.csv", "each odorant once"),
        ("apple0_pear100.csv", "above 0"),
        ("apple50pear50.csv", "percentages"),
        ("apple50_50.csv", "percentages"),
        ("50_apple50.csv", "percentages"),
        ("apple50_pear.csv", "percentages"),
        ("apple-50_pear150.csv", "percentages"),
        ("6281ujl4.csv", "percentages"),
        (".csv", "names"),
        ("", "names"),
    ],
)
def test_a_name_that_is_no_label_is_refused(name, why):
    with pytest.raises(DataError) as error:
        mixture_data.parse_label(name)
    assert why in str(error.value)


@given(
    parts=st.lists(
        st.tuples(st.sampled_from(scents.ODORANTS), st.integers(1, 9)), min_size=2, max_size=3, unique_by=lambda p: p[0]
    ),
    between=st.sampled_from(["", "_"]),
    change=st.sampled_from([str, str.title, str.upper]),
    tail=st.sampled_from([".csv", ".61vr8pj9.ingestion-864f766795-kgdtm_3.csv", " (2).csv", ""]),
)
def test_every_way_to_write_a_mixture_is_read(parts, between, change, tail):
    shares = [10 * share for _, share in parts]
    shares[-1] += 100 - sum(shares)
    name = change("_".join(f"{name}{between}{share}" for (name, _), share in zip(parts, shares, strict=True))) + tail
    if min(shares) > 0:
        expected = {name: share / 100 for (name, _), share in zip(parts, shares, strict=True)}
        assert mixture_data.parse_label(name) == expected
    else:
        with pytest.raises(DataError):
            mixture_data.parse_label(name)


@given(st.text(max_size=30))
def test_any_name_is_a_label_or_refused(name):
    try:
        assert abs(sum(mixture_data.parse_label(name).values()) - 1) < 0.02
    except DataError as why:
        assert "Try: " in str(why)


def test_mixtures_of_the_sample_are_read_with_their_labels():
    values, index = mixture_data.read_mixtures(None, "training_seen")
    assert values.shape == (len(index), 600, 4)
    assert values.dtype == np.float32
    np.testing.assert_allclose(index[list(scents.ODORANTS)].sum(axis=1), 1, atol=0.011)
    assert index["kind"].value_counts().to_dict() == {"real": 34, "synthetic": 3}
    assert set(index.loc[index["kind"] == "synthetic", "origin"]) == {"bootstrap"}
    assert set(index["recorded_at"].dt.date.astype(str)) == {"2025-07-21", "2025-07-22"}
    first = pd.read_csv(SAMPLE / index["file"][0])
    np.testing.assert_array_equal(values[0], first[["NO2", "C2H5CH", "VOC", "CO"]].iloc[:600])


def test_a_copy_is_traced_to_its_original():
    _, index = mixture_data.read_mixtures(None, "test_unseen")
    (copy,) = index[index["duplicate_of"] != ""].itertuples()
    assert copy.file.replace(" (1)", "") == copy.duplicate_of


def test_a_mistyped_mixture_is_refused_or_skipped(small):
    shutil.copy(next((small / "mixture/test_seen").glob("banana.*")), small / "mixture/test_seen/garlic50_banan50.csv")
    with pytest.raises(DataError, match="banana"):
        mixture_data.read_mixtures(small, "test_seen")
    report = Report()
    values, index = mixture_data.read_mixtures(small, "test_seen", skip=True, report=report)
    assert len(values) == len(index) == report.files == 17
    assert len(report.skipped) == 1


def test_recordings_of_other_lengths_and_without_labels_are_read(small):
    files = sorted((small / "mixture/test_seen").glob("*.csv"))[:2]
    nameless = files[0].with_name("monday.csv")
    nameless.write_text("".join(files[0].read_text().splitlines(keepends=True)[:201]))
    values, index = recordings.read_mixture_files([nameless, files[1]], root=small)
    assert [value.shape for value in values] == [(200, 4), (600, 4)]
    assert np.isnan(recordings.cut_mixtures(values, index).ratios).all()


def test_scents_are_in_the_order_of_the_device():
    listed = scents.read_scents()
    assert [scent.name for scent in listed] == list(scents.SCENTS)
    assert [scent.id for scent in listed] == list(range(1, 13))
    assert all(scent.long_description for scent in listed)


def test_ratios_go_to_the_channels_of_the_device():
    ratios = np.eye(12)
    beta = scents.to_channels(ratios)
    for row, odorant in zip(beta, scents.ODORANTS, strict=True):
        assert scents.SCENTS[row.argmax()] == scents.substance(odorant)
        assert scents.odorant(scents.SCENTS[row.argmax()]) == odorant
    assert scents.to_channels(np.zeros((3, 5, 12))).shape == (3, 5, 12)


def test_an_unknown_odorant_is_refused_with_the_nearest():
    with pytest.raises(SmellkitError, match="banana"):
        scents.odorant("banan")


def test_pictures_are_listed_by_scent(tmp_path):
    table = scents.list_pictures()
    assert set(table["scent"]) == set(scents.SCENTS)
    assert all(Path(file).is_file() for file in table["file"])
    with pytest.raises(DataError, match="images/"):
        scents.list_pictures(tmp_path)


def test_ids_of_scents_without_a_gap_are_demanded(tmp_path):
    gaps = [{"id": n, "name": f"n{n}", "long_description": "smells"} for n in (1, 3)]
    (tmp_path / "smell_descriptions.json").write_text(json.dumps({"odors": gaps}))
    with pytest.raises(DataError, match="without a gap"):
        scents.read_scents(tmp_path)


def test_a_survey_counts_what_is_there_and_lists_every_fault(small):
    (small / "images/banana").mkdir(parents=True)
    (small / "images/banana/a.jpg").write_bytes(b"no picture")
    (small / "smell_descriptions.json").write_text('{"odors": NaN}')
    report = survey.survey(small)
    assert report.files == 24
    assert len(report.skipped) == 2


@real
def test_the_real_recordings_are_all_read():
    report = Report()
    tables = {split: recordings.read_recordings(REAL, split, report=report) for split in ("training", "testing")}
    assert {split: (table["file"].nunique(), len(table)) for split, table in tables.items()} == {
        "training": (250, 150_711),
        "testing": (50, 30_007),
    }
    assert report.counts["environment sensor stuck at 688.6 hPa, 100 %"] == 59
    assert tables["training"]["substance"].nunique() == 50


@real
@pytest.mark.slow
@pytest.mark.parametrize("third", [0, 1, 2])
@pytest.mark.parametrize("split", ["training_new", "test_seen", "test_unseen"])  # training_seen is part of the first
def test_labels_kinds_times_and_duplicates_of_the_real_mixtures_agree_with_their_list(split, third, tmp_path):
    known = pd.read_csv(REAL / "mixture/recordings.csv", keep_default_na=False).query("split == @split")
    original = known["duplicate_of"].where(known["duplicate_of"] != "", known["path"])  # copies stay with it
    known = known[pd.factorize(original)[0] % 3 == third]
    for path in known["path"]:
        (tmp_path / "mixture" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mixture" / path).symlink_to(REAL / "mixture" / path)
    values, index = mixture_data.read_mixtures(tmp_path, split)
    index = index.set_index(index["file"].str.removeprefix("mixture/")).loc[known["path"]]
    assert len(values) == len(known) == len(index)
    for odorant in scents.ODORANTS:
        np.testing.assert_allclose(index[odorant], known[f"label_{odorant}"], atol=1e-6)
    kinds = {"synthetic_bootstrap": "bootstrap", "synthetic_balanced": "balanced", "recording": "recording"}
    same = known["kind"].isin(kinds).to_numpy()  # a numbered copy is of the kind of its original
    assert (index["origin"].to_numpy() == known["kind"].map(kinds).to_numpy())[same].all()
    assert (
        index["recorded_at"].dt.strftime("%Y-%m-%dT%H:%M:%S").fillna("").tolist()
        == known["recorded_at_decoded"].tolist()
    )
    assert index["duplicate_of"].str.removeprefix("mixture/").tolist() == known["duplicate_of"].tolist()
    assert index["rows"].tolist() == known["rows"].tolist()
