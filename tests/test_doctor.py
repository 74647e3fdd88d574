"""What the doctor says, on this machine and on poorer ones."""

import pytest
from click.testing import CliRunner

from smellkit import doctor
from smellkit.cli.commands import doctor as command


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SMELLKIT_DATA", str(tmp_path / "data"))
    return tmp_path


def named(what):
    (finding,) = [finding for finding in doctor.examine() if finding.what == what]
    return finding


def test_nothing_required_is_missing_here():
    result = CliRunner().invoke(command)
    assert result.exit_code == 0, result.output
    for word in ("Python", "torch", "Quarto", "Serial", "Sample", "Real data", "Disk", "[sweep]"):
        assert word in result.output


def test_a_missing_sample_exits_with_1_and_says_how_to_get_it(home, monkeypatch):
    monkeypatch.setattr(doctor.paths, "sample", lambda: home / "none")
    result = CliRunner().invoke(command)
    assert result.exit_code == 1
    assert "git checkout data/sample" in result.output
    assert "Missing: Sample" in result.output


def test_real_data_are_found_where_the_variable_says(home):
    assert "smellkit data get" in doctor.as_text([named("Real data")])
    (home / "data" / "smellnet").mkdir(parents=True)
    assert named("Real data").level == "good"


def test_little_disk_is_said(monkeypatch):
    usage = doctor.shutil.disk_usage("/")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: usage._replace(free=10**8))
    assert named("Disk").level == "missing"


def test_a_port_that_may_not_be_opened_says_why(monkeypatch, home):
    from types import SimpleNamespace

    from serial.tools import list_ports

    port = SimpleNamespace(device=str(home / "ttyUSB0"), vid=0x10C4, description="CP2102")
    monkeypatch.setattr(list_ports, "comports", lambda: [port])
    finding = named("Serial")
    assert finding.level == "optional"
    assert "dialout" in doctor.as_text([finding])
