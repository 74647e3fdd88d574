"""Downloads, against a small server on this machine: pinned, resumed, checked, and never half a file."""

import hashlib
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from smellkit import fetch, paths
from smellkit.cli.data import data as command
from smellkit.errors import DataError, OptionError, SmellkitError

REVISION = "0123abcd"
FILES = {
    "base/training/apple/a b.csv": b"NO2,CO\n" + b"1,2\n" * 50_000,
    "base/training/apple/two.csv": b"NO2,CO\n3,4\n",
    "words.json": b"{}",
}


class Server(ThreadingHTTPServer):
    """Serves FILES; `faults` maps a path to a list of what goes wrong with its first answers."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {f"/{REVISION}/data/{path}": data for path, data in FILES.items()}
        self.faults: dict[str, list] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.ranges = True
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, wanted = self.path.replace("%20", " "), self.headers.get("Range")
        self.server.asked.append((path, wanted))
        data = self.server.files.get(path)
        fault = self.server.faults.get(path) or [None]
        now = fault.pop(0)
        if data is None or isinstance(now, int):
            self.send_response(404 if data is None else now)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if now == "drop":  # half of what was promised, then the line is cut
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(data[start:] if now != "change" else b"x" * (len(data) - start))

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        yield server
        server.shutdown()


@pytest.fixture
def table(tmp_path):
    """A list of sources with one set of three files."""
    lines = [f"{hashlib.sha256(data).hexdigest()} {len(data)} {path}" for path, data in FILES.items()]
    (tmp_path / "sums.txt").write_text("# SHA-256, bytes, path\n" + "\n".join(lines) + "\n")
    (tmp_path / "sources.toml").write_text(
        f"""[tiny]
title = "three files"
home = "https://example.org"
licence = "MIT"
folder = "tiny"
checksums = "sums.txt"
[[tiny.from]]
address = "https://example.org/raw"
revision = "{REVISION}"
[tiny.from.files]
"base/" = "data/base/"
"words.json" = "data/words.json"
"""
    )
    return tmp_path / "sources.toml"


@pytest.fixture
def get(server, table, tmp_path):
    def get(**options):
        options = {"folder": tmp_path / "raw", "pause": 0.01, "progress": False, **options}
        return fetch.get("tiny", mirror=server.address, table=table, **options)

    return get


def there(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


LARGE = f"/{REVISION}/data/base/training/apple/a b.csv"


def test_all_files_arrive_with_their_bytes(get, server):
    folder, new = get()
    assert there(folder) == FILES
    assert new == 3
    assert {path for path, _ in server.asked} == set(server.files)


def test_what_is_there_is_not_fetched_again(get, server):
    folder, _ = get()
    server.asked.clear()
    (folder / "words.json").write_bytes(b"[]")  # changed by someone: fetched anew
    assert get() == (folder, 1)
    assert [path for path, _ in server.asked] == [f"/{REVISION}/data/words.json"]
    assert there(folder) == FILES


def test_an_interrupted_file_is_resumed_where_it_stopped(get, server):
    server.faults[LARGE] = ["drop", "drop"]
    folder, _ = get()
    assert there(folder) == FILES
    first, *resumed = [wanted for path, wanted in server.asked if path == LARGE]
    starts = [int(wanted.removeprefix("bytes=").rstrip("-")) for wanted in resumed]
    half = len(FILES["base/training/apple/a b.csv"]) // 2
    assert first is None
    assert half - fetch.CHUNK < starts[0] <= half < starts[1]


def test_a_part_that_an_earlier_run_left_is_resumed(get, server, tmp_path):
    part = tmp_path / "raw/tiny/base/training/apple/a b.csv.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(FILES["base/training/apple/a b.csv"][:1000])
    folder, _ = get()
    assert there(folder) == FILES
    assert (LARGE, "bytes=1000-") in server.asked


def test_a_part_that_does_not_fit_is_fetched_anew(get, server, tmp_path):
    for wrong in (b"y" * 1000, b"y" * 500_000):
        part = tmp_path / "raw/tiny/base/training/apple/a b.csv.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(wrong)
        folder, _ = get()
        assert there(folder) == FILES
        shutil.rmtree(folder)


def test_a_server_that_can_not_resume_sends_all_again(get, server):
    server.ranges, server.faults[LARGE] = False, ["drop"]
    folder, _ = get()
    assert there(folder) == FILES


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_passing_fault_of_the_server_is_tried_again(get, server, status):
    server.faults[LARGE] = [status, status]
    assert there(get()[0]) == FILES


def test_a_lasting_fault_of_the_server_ends_in_one_error(get, server, tmp_path):
    server.faults[LARGE] = [500] * 99
    with pytest.raises(DataError, match=r"a b\.csv.*500"):
        get(pause=0.001)
    assert len([path for path, _ in server.asked if path == LARGE]) == fetch.ATTEMPTS
    assert "base/training/apple/a b.csv" not in there(tmp_path / "raw/tiny")


def test_a_file_that_is_gone_is_not_asked_for_again(get, server, tmp_path):
    del server.files[LARGE]
    with pytest.raises(DataError, match="404"):
        get()
    assert [path for path, _ in server.asked].count(LARGE) == 1
    assert not list((tmp_path / "raw").rglob("*.part"))


def test_other_bytes_than_promised_are_refused_and_nothing_is_left(get, server, tmp_path):
    server.faults[LARGE] = ["change"] * 99
    with pytest.raises(DataError, match="expected SHA-256"):
        get()
    assert not list((tmp_path / "raw").rglob("a b*"))


def test_no_network_is_one_error(table, tmp_path):
    with Server() as server:
        address = server.address
        server.shutdown()
    with pytest.raises(DataError, match="Could not fetch"):
        fetch.get("tiny", mirror=address, table=table, folder=tmp_path / "raw", pause=0.001, progress=False)
    assert not there(tmp_path / "raw")


def test_a_full_disk_is_said_before_anything_is_fetched(get, server, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(DataError, match="don't fit"):
        get()
    assert not server.asked


@pytest.mark.parametrize("path", ["../out.csv", "/etc/out.csv", "base/../../out.csv", "c:\\out.csv", "a\\..\\b.csv"])
def test_a_path_that_leads_out_is_refused(get, table, server, path, tmp_path):
    table.write_text(table.read_text() + '"" = ""\n"/" = "/"\n"../" = "x/"\n')
    sums = table.with_name("sums.txt")
    sums.write_text(f"{'0' * 64} 1 {path}\n")
    with pytest.raises(SmellkitError):
        get()
    assert not server.asked


def test_a_link_that_leads_out_is_refused(get, server, tmp_path):
    (tmp_path / "raw/tiny").mkdir(parents=True)
    (tmp_path / "raw/tiny/base").symlink_to(tmp_path)
    with pytest.raises(DataError, match="leads out"):
        get()
    assert not server.asked


def test_an_address_without_encryption_is_refused(table):
    with pytest.raises(OptionError, match="https"):
        fetch.sources(table, mirror="http://example.org")


def test_a_misspelled_name_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(OptionError, match="smellnet"):
        fetch.get("smelnet", folder=tmp_path)


def test_a_broken_list_of_sources_is_one_error(table):
    for text in ("[tiny", "[tiny]\ntitle = 1\n"):
        table.write_text(text)
        with pytest.raises(DataError, match=r"sources\.toml"):
            fetch.sources(table)


def test_every_source_of_the_kit_is_pinned_by_revision_and_checksum():
    sources = fetch.sources()
    assert {"smellnet", "gcode"} <= set(sources)
    assert "huggingface.co/datasets/DeweiFeng/SmellNet" in sources["smellnet"].home
    for source in sources.values():
        assert source.licence
        for file in source.files:
            assert len(file.sha256) == 64 and file.size > 0, file
            assert file.url.split("/")[5].isalnum() and len(file.url.split("/")[5]) == 40, file
    splits = [file.path.rsplit("/", 2)[0] for file in sources["smellnet"].files]
    assert splits.count("base/training") == 250


def test_the_checksums_are_those_of_the_real_files():
    import os
    from pathlib import Path

    real = Path(os.environ.get("SMELLKIT_DATA", "")) / "smellnet"
    if not (real / "base").is_dir():
        pytest.skip("set SMELLKIT_DATA to the folder that holds smellnet/ to compare checksums")
    for name in ("smellnet", "smellnet-scents"):
        for file in fetch.sources()[name].files[::37]:
            assert fetch._sha256(real / file.path) == file.sha256


def test_a_set_that_nobody_has_checksums_of_is_not_fetched_but_says_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"(?s)no.*checksums.*dataset/309"):
        fetch.get("uci-turbulent", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_lists_what_there_is():
    result = CliRunner().invoke(command, ["get"])
    assert result.exit_code == 0
    assert "smellnet " in result.output
    assert "MIT" in result.output


def test_the_command_checks_the_sample(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path))
    result = CliRunner().invoke(command, ["check", str(paths.sample())])
    assert result.exit_code == 0, result.output
    assert "0 skipped" in result.output
