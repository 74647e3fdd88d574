"""Another day, simulated: it moves as sessions did, keeps what was sniffed, and is the only thing that is chosen by."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from test_encoder import table

from smellkit.errors import DataError, OptionError
from smellkit.odour.recordings import GAS
from smellkit.odour.windows import Protocol, cut
from smellkit.study.odour import sessions as transfer
from smellkit.study.odour import systems


def sat_twice():
    """Recordings of which the last of each substance is from another session: half as strong, and lower."""
    found = table(3, 4).assign(Pressure=1000.0, Humidity=40.0)
    later = found["file"].str.endswith(".3.csv")
    found.loc[later, "Pressure"] += 5
    found.loc[later, list(GAS)] = 150 + 0.5 * (found.loc[later, list(GAS)] - 300)
    return found


def test_movements_are_those_between_sessions():
    moved = transfer.movements(sat_twice())
    assert len(moved) == 3
    assert np.allclose(moved["level CO"], np.log(151 / 301), atol=0.05)
    assert (moved.filter(like="gain").mean() < -0.3).all()


def test_without_a_second_session_no_day_can_be_simulated():
    with pytest.raises(DataError, match="second session"):
        transfer.movements(table().assign(Pressure=1000.0, Humidity=40.0))


def test_a_simulated_day_moves_all_its_recordings_alike_and_stays_in_range():
    moved = transfer.movements(sat_twice())
    found, again, other = (transfer.simulate(sat_twice(), moved, seed=s) for s in (1, 1, 2))
    assert found.equals(again) and not found.equals(other)
    assert found[list(GAS)].min().min() >= 0 and found[list(GAS[:4])].max().max() <= 1023
    assert (found["substance"] == sat_twice()["substance"]).all()


@pytest.mark.parametrize("change", [{}, {"augment": {"gain": 0.3}}])
def test_each_method_learns(change, tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path))
    windows = cut(table(3, 6, rows=500), Protocol())
    train, test = windows[windows.fold > 1], windows[windows.fold <= 1]
    scorer = systems.fit_network("summary-mlp", train, seed=1, name="m", system=systems.System((), **change), epochs=6)
    assert (scorer(test.values).argmax(1) == test.target).mean() > 0.7


def test_the_chosen_method_is_the_best_on_simulated_days_whatever_other_sessions_say():
    def scored(value, away):
        one = {"top1": {"value": value, "low": 0, "high": 1}, "top5": {"value": 1.0}}
        return {"simulated": one, "other_session": {"top1": {"value": away}}}

    found = {"rebuilt": scored(0.5, 0.1), "level-free": scored(0.4, 0.9)}
    assert transfer.chosen(found) == "rebuilt"


def test_an_unknown_method_is_refused():
    with pytest.raises(OptionError, match="ensemble"):
        transfer.run(methods=["coral reef"])


def test_the_command_scores_the_sample_and_keeps_other_methods(tmp_path, monkeypatch):
    from smellkit.cli import cli

    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))
    monkeypatch.setitem(transfer.METHODS, "level-free", systems.System(("lda",)))
    monkeypatch.setitem(transfer.METHODS, "rebuilt", systems.System(("lda",), systems.REBUILT))
    sat = lambda rows: rows.groupby("file").size() * 0 + np.arange(rows["file"].nunique()) % 2  # noqa: E731
    monkeypatch.setattr(transfer, "number_sessions", sat)
    out = tmp_path / "sessions.json"
    for name in ("level-free", "rebuilt"):
        command = ["bench", "smellnet-sessions", "--method", name, "--folds", "1", "--json", str(out)]
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert set(found["methods"]) == {"level-free", "rebuilt"} >= set(found["chosen"])
