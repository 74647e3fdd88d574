"""The command line: every row of its tables leads somewhere, and a mistake is one message, never a traceback."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from smellkit import cli, options
from smellkit.cli import commands


@pytest.fixture
def smellkit(tmp_path, monkeypatch, capsys):
    """The command line in an empty folder: its exit code, and what it said on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["smellkit", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_says_what_it_does(name):
    result = CliRunner().invoke(cli.cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert len(result.output.splitlines()) > 3


@pytest.mark.parametrize("name", cli.BENCHES)
def test_every_bench_says_what_it_measures(name):
    result = CliRunner().invoke(cli.cli, ["bench", name, "--help"])
    assert result.exit_code == 0 and "--json" in result.output


@pytest.mark.parametrize("table", [commands.TASKS, commands.PREDICTORS, commands.EXPORTERS, commands.CALIBRATORS])
def test_every_row_of_the_tables_is_a_function(table):
    assert all(callable(options.resolve(address)) for address in table.values())


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        ("--help", {"torch", "pandas"}),
        ("predict --help", {"torch", "pandas"}),
        ("bench --help", {"torch"}),
        ("neckwear play 5 --seconds 0.1", {"torch", "pandas"}),
        ("neckwear ports", {"torch", "pandas"}),
    ],
)
def test_who_asks_for_help_or_plays_a_scent_waits_for_no_torch(words, absent):
    code = f"import sys\nfrom smellkit.cli import cli\ncli({words.split()}, standalone_mode=False)\n"
    code += f"assert not {absent} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_kit_itself_loads_nothing_and_its_names_are_there():
    code = "import sys, smellkit\nassert not {'torch', 'numpy', 'pandas', 'serial', 'click'} & set(sys.modules)\n"
    code += "from smellkit import NeckWear, Nose\nassert 'torch' not in sys.modules\n"
    code += "assert {'Nose', 'NeckWear', 'Pipeline'} <= set(dir(smellkit))"
    subprocess.run([sys.executable, "-c", code], check=True)
    from smellkit import Pipeline

    assert callable(Pipeline)
    with pytest.raises(ImportError, match="Nosé"):
        from smellkit import Nosé  # noqa: F401


@pytest.mark.parametrize(
    "words, says",
    [
        (["train", "odor-encoder"], "odour-encoder"),
        (["train", "odour-encoder", "--set", "epohcs=1"], "epochs"),
        (["train", "odour-encoder", "--set", "epochs=many"], "epochs='many' is not int"),
        (["train", "odour-encoder", "--set", "data=nowhere"], "nowhere"),
        (["sweep", "nowhere.yaml"], "nowhere.yaml"),
        (["predict", ".", "--weights", "nothing", "--out", "x.csv"], "odour"),
        (["predict", "nowhere", "--weights", "odour", "--out", "x.csv"], "nowhere"),
        (["export", "nothing", "--onnx", "x.onnx"], "odour"),
        (["bench", "drift", "--data", ".", "--seeds", "0"], "0 is not in the range x>=1"),
        (["bench", "drift", "--data", ".", "--json", "."], "Can't write .: Is a directory"),
        (["predicd"], "predict"),
    ],
)
def test_a_mistake_is_one_message_with_a_way_out(words, says, smellkit, tmp_path):
    code, said = smellkit(*words)
    assert code != 0 and says in said
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_no_traceback_in_a_shell(tmp_path):
    command = [sys.executable, "-m", "smellkit", "sweep", "nowhere.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("Error: nowhere.yaml") and "Traceback" not in done.stderr


def test_a_folder_that_is_called_like_the_weights_is_not_taken_for_them(smellkit, tmp_path):
    (tmp_path / "odour").mkdir()
    assert smellkit("export", "odour", "--onnx", "odour.onnx") == (0, "")
    assert (tmp_path / "odour.onnx").exists()
