"""The bench of sensors that age: readers of both forms of the files, and each of the three ways."""

import numpy as np
import pytest

from smellkit.errors import DataError
from smellkit.study.odour import drift
from smellkit.study.odour.drift import GASES, Batch


def aged(seed: int, *, rows: int = 20, gain: float = 0.0, shares=(1, 1, 1, 1, 1, 1)) -> Batch:
    """Rows of six gases on sixteen sensors of four makes, whose logarithms have moved by `gain` on one make."""
    pattern = np.random.default_rng(0).normal(0, 1, (len(GASES), 4, 8))
    random = np.random.default_rng(seed)
    target = np.repeat(np.arange(len(GASES)), [rows * share for share in shares])
    log = 3 + pattern[target] + random.normal(0, 0.15, (len(target), 4, 8)) + random.normal(0, 0.3, (len(target), 1, 1))
    log[:, 0] += gain
    values = np.empty((len(target), 16, 8))
    for make, members in enumerate(drift.TYPES):
        values[:, members] = np.exp(log[:, make])[:, None]
    return Batch(values.reshape(len(target), -1), target)


def write(batch: Batch, path, *, sparse: bool):
    """A file as UCI has it, or with commas and the names of gases."""
    lines = []
    for row, gas in zip(batch.values, batch.target, strict=True):
        numbers = [f"{place}:{value:.6f}" if sparse else f"{value:.6f}" for place, value in enumerate(row, start=1)]
        lines.append(
            f"{gas + 1};10.000000 {' '.join(numbers)}" if sparse else ",".join([GASES[gas].title(), "10.0", *numbers])
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_both_forms_of_the_files_read_alike_and_in_order_of_their_numbers(tmp_path):
    for number in (10, 2):
        write(aged(number), tmp_path / f"batch{number}.dat", sparse=number == 2)
    batches = drift.read(tmp_path)
    assert list(batches) == [2, 10]
    for number, batch in batches.items():
        assert np.allclose(batch.values, aged(number).values, atol=1e-5)
        assert (batch.target == aged(number).target).all()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line[:200],
        lambda line: line + " 129:1.0",
        lambda line: "x" + line,
        lambda line: line.replace(" 1:", " 0:").replace(" 2:", " 1:").replace(" 0:", " 2:"),
    ],
)
def test_a_row_of_another_length_or_gas_is_refused_with_its_line(spoil, tmp_path):
    write(aged(1), tmp_path / "batch1.dat", sparse=True)
    write(aged(2), tmp_path / "batch2.dat", sparse=True)
    lines = (tmp_path / "batch2.dat").read_text(encoding="utf-8").splitlines()
    lines[6] = spoil(lines[6])
    (tmp_path / "batch2.dat").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"batch2\.dat, line 7"):
        drift.read(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xe9thanol,1"])
def test_a_file_without_rows_or_in_another_encoding_is_refused_by_name(data, tmp_path):
    write(aged(1), tmp_path / "batch1.dat", sparse=True)
    (tmp_path / "batch2.dat").write_bytes(data)
    with pytest.raises(DataError, match=r"batch2\.dat"):
        drift.read(tmp_path)


def test_alignment_takes_a_gain_and_other_shares_of_the_gases_away():
    first, later = aged(1), aged(2, gain=1.5, shares=(4, 1, 0, 2, 1, 1))
    right = {
        rounds: (
            drift.aligned([first], later.values, views=["logs", "ratios"], names=drift.LOGISTIC, rounds=rounds).argmax(
                1
            )
            == later.target
        ).mean()
        for rounds in (1, 8)
    }
    assert right[8] > 0.95 and right[8] >= right[1]


def test_few_references_repair_what_the_yardstick_needs_many_for():
    old, today = [aged(1), aged(2)], aged(3, gain=2.5)
    chosen = drift.references(today.target, 3, seed=1)
    rest = np.setdiff1d(np.arange(len(today.target)), chosen)
    references = Batch(today.values[chosen], today.target[chosen])
    scores = drift.ensemble(old, today.values[rest], references=references)
    assert (scores.argmax(1) == today.target[rest]).mean() > 0.95


def test_references_are_at_most_half_of_a_gas_and_never_tested():
    target = np.array([0] * 5 + [1] * 40)
    chosen = drift.references(target, 10, seed=0)
    assert (np.bincount(target[chosen]) == [2, 10]).all()
    batches = {number: aged(number, rows=4) for number in (1, 2, 6)}
    result = drift.tested(batches, drift.plain, 1, numbers=[6], after=6, count=2)
    assert len(result["batch 6"].groups) == 6 * 2


def test_a_simulated_day_keeps_the_signs_and_moves_one_half_only():
    first = aged(1)
    here, there = drift.simulated_day(first, seed=0)
    rows = {row.tobytes() for row in first.values}
    assert all(row.tobytes() in rows for row in here.values)
    assert not any(row.tobytes() in rows for row in there.values)
    assert (np.sign(there.values) == 1).all()
