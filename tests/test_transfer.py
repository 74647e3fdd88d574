"""Another day, simulated: it moves as sessions did, keeps what was sniffed, and is the only thing that is chosen by."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from test_encoder import table

from smellkit.errors import DataError, OptionError
from smellkit.odour.recordings import GAS
from smellkit.odour.windows import Protocol, cut
from smellkit.study.odour import sessions, systems


def sat_twice():
    """Recordings of which the last of each substance is from another session: half as strong, and lower."""
    result = table(3, 4).assign(Pressure=1000.0, Humidity=40.0)
    later = result["file"].str.endswith(".3.csv")
    result.loc[later, "Pressure"] += 5
    result.loc[later, list(GAS)] = 150 + 0.5 * (result.loc[later, list(GAS)] - 300)
    return result


def test_movements_are_those_between_sessions():
    moved = sessions.movements(sat_twice())
    assert len(moved) == 3
    assert np.allclose(moved["level CO"], np.log(151 / 301), atol=0.05)
    assert (moved.filter(like="gain").mean() < -0.3).all()


def test_without_a_second_session_no_day_can_be_simulated():
    with pytest.raises(DataError, match="second session"):
        sessions.movements(table().assign(Pressure=1000.0, Humidity=40.0))


def test_a_day_moves_all_its_recordings_alike_and_stays_in_range():
    moved = sessions.movements(sat_twice()).to_numpy()[0]
    there, back = (sessions.another_day(sat_twice(), sign * moved) for sign in (1, -1))
    assert not there.equals(back) and sessions.another_day(sat_twice(), 0 * moved)[list(GAS)].equals(
        sat_twice()[list(GAS)].round().astype(np.float32)
    )
    for result in (there, back, sessions.another_day(sat_twice(), 9 + 0 * moved)):
        assert result[list(GAS)].min().min() >= 0 and result[list(GAS[:4])].max().max() <= 1023
        assert (result["substance"] == sat_twice()["substance"]).all()


def test_a_window_is_learnt_as_it_was_recorded_and_on_days_of_its_own():
    protocol, moved = Protocol("curve-and-level"), sessions.movements(sat_twice())
    recorded = cut(sat_twice(), protocol, stride=sessions.STRIDE)
    known, again, other = (sessions.moving_windows(sat_twice(), protocol, moved, seed=seed) for seed in (1, 1, 2))
    assert len(known) == (1 + sessions.COPIES) * len(recorded) and np.array_equal(known.values, again.values)
    assert np.array_equal(known.values[: len(recorded)], recorded.values) and not np.array_equal(
        known.values, other.values
    )
    gains = np.ptp(known.values[:, :, 0], axis=1).reshape(1 + sessions.COPIES, -1)
    assert np.std(gains[1] / gains[0]) > 0.05  # each window is moved by itself
    assert np.array_equal(known.target.reshape(1 + sessions.COPIES, -1)[1], recorded.target)


def test_who_learns_from_days_is_judged_by_a_pair_of_sessions_that_was_left_out(monkeypatch):
    training = sat_twice()
    moved = sessions.movements(training)
    learnt = []
    monkeypatch.setattr(sessions, "fit", lambda system, table, days, **_: learnt.append((table, days)))
    fits = sessions.held_out(systems.named("lda"), training, moved, folds=3, name="x")
    for number, (_, held, pair) in enumerate(fits):
        known, days = learnt[number]
        assert moved.index[number] not in days.index and len(days) == 2
        assert np.array_equal(pair, moved.to_numpy()[number])
        assert held.groupby("substance")["file"].nunique().tolist() == [1, 1, 1]
        assert not set(held["file"]) & set(known["file"])


@pytest.mark.parametrize("change", [{}, {"augment": {"gain": 0.3}}])
def test_each_method_learns(change, tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path))
    windows = cut(table(3, 6, rows=500), Protocol())
    train, test = windows[windows.fold > 1], windows[windows.fold <= 1]
    network = systems.trained("summary-mlp", train, seed=1, name="m", system=systems.System((), **change), epochs=6)
    assert (systems.network_scores(network, test.values).argmax(1) == test.target).mean() > 0.7


def test_the_chosen_method_is_the_best_on_simulated_days_whatever_other_sessions_say():
    def scored(value, away):
        one = {"top1": {"value": value, "low": 0, "high": 1}, "top5": {"value": 1.0}}
        return {"simulated": one, "other_session": {"top1": {"value": away}}}

    result = {"rebuilt": scored(0.5, 0.1), "level-free": scored(0.4, 0.9)}
    assert sessions.chosen(result) == "rebuilt"


def test_an_unknown_method_is_refused():
    with pytest.raises(OptionError, match="ensemble"):
        sessions.run(methods=["coral reef"])


def test_the_command_scores_the_sample_and_keeps_other_methods(tmp_path, monkeypatch):
    from smellkit.cli import cli

    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))
    monkeypatch.setitem(sessions.METHODS, "level-free", systems.System(("lda",)))
    monkeypatch.setitem(sessions.METHODS, "conductance", systems.System(("lda",), Protocol("conductance"), days=True))
    sat = lambda rows: rows.groupby("file").size() * 0 + np.arange(rows["file"].nunique()) % 2  # noqa: E731
    monkeypatch.setattr(sessions, "number_sessions", sat)
    out = tmp_path / "sessions.json"
    for name in ("level-free", "conductance"):
        command = ["bench", "smellnet-sessions", "--method", name, "--folds", "2", "--json", str(out)]
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    assert set(result["rows"]) == {"level-free", "conductance"} >= {result["chosen"]}
    assert {"simulated", "as recorded"} <= set(result["rows"]["conductance"]) - {"other_session"}
