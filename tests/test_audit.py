"""The audit: it finds a confound that is there, none where there is none, and says so in words."""

import numpy as np
import pandas as pd
import pytest

from smellkit.sensors import SENSORS
from smellkit.study import published
from smellkit.study.odour import audit
from smellkit.study.odour.survey import number_sessions


def room(substances=4, files=3, confounded=True, seed=0, rows=140):
    """Recordings whose weather belongs to the substance, or to nothing."""
    random = np.random.default_rng(seed)
    parts = []
    for s in range(substances):
        for f in range(files):
            values = pd.DataFrame(random.integers(40, 60, (rows, 12)).astype(float), columns=SENSORS)
            values["Pressure"] = 1000 + (3.0 * s if confounded else 12 * random.random()) + 0.01 * f
            values["Humidity"], values["Temperature"], values["Altitude"] = 40.0, 25.0, 10.0
            name = f"base/training/s{s}/{f}.csv"
            parts.append(values.assign(substance=f"s{s}", recording=f"{f}", step=range(rows), file=name))
    return pd.concat(parts, ignore_index=True)


def test_a_session_ends_where_the_weather_jumps():
    table = room(1, 4)
    table.loc[table["file"].str.endswith(("2.csv", "3.csv")), "Pressure"] += 5
    assert number_sessions(table).tolist() == [0, 0, 1, 1]
    assert number_sessions(room(3)).max() == 0


@pytest.mark.parametrize(("confounded", "least", "most"), [(True, 0.9, 1.0), (False, 0.0, 0.75)])
def test_the_weather_alone_names_substances_only_where_it_is_confounded(confounded, least, most):
    first, second = room(confounded=confounded), room(confounded=confounded, seed=1)
    result = audit._first_row(first, second, ("Pressure",), 20, 0)["first row"]
    assert least <= np.mean(result.measures["top1"]) <= most


def test_the_sample_is_audited_and_the_verdict_has_its_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path))
    result = audit.run(trees=20)
    climate = result["rows"][audit.CLIMATE]["first row"]["top1"]["value"]
    moved = result["rows"][audit.ABSOLUTE]["other_session"]["top1"]["value"]
    assert f"{climate:.0%}" in result["verdict"] and f"{moved:.0%}" in result["verdict"]
    assert "session" in result["verdict"]
    assert "Windows of another session" in published.text("audit", result)


def test_the_verdict_follows_the_numbers():
    flat = {"value": 0.1, "low": 0.0, "high": 0.2}
    first = {name: {"first row": {"top1": flat}} for name in (audit.CLIMATE, "six gas channels")}
    splits = {"windows": {"top1": {"value": 0.9}}, "other_session": {"top1": {"value": 0.85}}}
    result = {"about": {"chance_level": 0.1}, "rows": first | dict.fromkeys((audit.ABSOLUTE, audit.STRICT), splits)}
    assert "say little" in audit.verdict(result) and "survives" in audit.verdict(result)
    del splits["other_session"]
    assert "nothing is known about another day" in audit.verdict(result)
