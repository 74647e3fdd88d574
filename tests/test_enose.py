"""Rows from the sensor board: every byte stream is survived, every lost line is counted, every thread ends."""

import itertools
import random
import socket
import threading
import time
from dataclasses import replace

import pandas as pd
import pytest
from faulty_board import BOARD_FAULTS, FaultyBoard
from hypothesis import given, settings
from hypothesis import strategies as st

from smellkit import noses
from smellkit.device.board import Board
from smellkit.device.enose import KEPT, LONGEST, Lines, Nose, record
from smellkit.device.errors import Closed, LinkError, NoReply, PortError, PortLost
from smellkit.device.serve import TcpServer
from smellkit.errors import DataError, OptionError
from smellkit.sensors import SENSORS

LINE = b"40,62,83,733,2,10,0,33.59,688.6,100.0,0.0,3170.54\r\n"
VALUES = (40, 62, 83, 733, 2, 10, 0, 33.59, 688.6, 100.0, 0.0, 3170.54)
RECORDING = [f"{n},62,83,733,2,10,4294967295,33.5,688.6,100.0,0.0,3170.5" for n in range(1000)]


def started():
    lines = Lines()
    lines.feed(b"3,733\r\n")
    return lines


def plugged(board, tries=100):
    """A reader of a board that may be away at this very moment: to open it then is an error."""
    for _ in range(tries):
        try:
            return Nose(board.port)
        except PortError:
            time.sleep(0.01)
    raise AssertionError("the board stays away")


def test_a_line_becomes_twelve_numbers():
    assert started().feed(LINE) == [VALUES]


def test_the_first_line_is_never_believed():
    lines = Lines()
    assert lines.feed(LINE[1:]) == []  # twelve numbers all the same: 0 where the board said 40
    assert lines.dropped == {"first": 1}
    assert lines.feed(LINE) == [VALUES]


def test_a_header_gives_the_order_of_the_columns():
    lines = Lines()
    assert lines.feed(b"time," + ",".join(reversed(SENSORS)).encode() + b"\n") == []
    assert lines.feed(b"9," + b",".join(reversed(LINE.strip().split(b","))) + b"\n") == [VALUES]
    assert not lines.dropped


def test_a_link_that_comes_back_keeps_the_order_that_a_header_gave():
    lines = Lines()
    lines.feed(",".join(reversed(SENSORS)).encode() + b"\n")
    lines.restart()  # a board that did not restart with it says no header again
    row = b",".join(reversed(LINE.strip().split(b",")))
    assert lines.feed(b"3\n" + row + b"\n") == [VALUES]


def test_a_board_that_says_no_end_of_itself_breaks_nothing():
    lines = started()
    assert lines.feed(b"INFO,a,b," + b"9" * 4400 + b"\n" + LINE) == [VALUES]
    assert lines.dropped["too long"] == 1


@given(st.lists(st.integers(1, 200), max_size=40))
def test_any_chunking_gives_the_same_rows(sizes):
    stream = b"3,733\r\n" + LINE * 5 + b"garbage\n" + LINE
    lines, rows = Lines(), []
    for size in [*sizes, len(stream)]:
        rows += lines.feed(stream[:size])
        stream = stream[size:]
    assert rows == [VALUES] * 6
    assert lines.dropped == {"first": 1, "columns": 1}


@given(st.binary(max_size=3000))
@settings(deadline=None)
def test_no_bytes_break_the_reader_and_the_next_good_line_is_found(noise):
    lines = started()
    lines.feed(noise + b"\n")
    assert lines.feed(LINE)[-1] == VALUES
    assert len(lines._line) <= LONGEST + 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"40,62,83\n", "columns"),
        (LINE.replace(b"733", b"nan"), "not a number"),
        (LINE.replace(b"733", b"inf"), "not a number"),
        (LINE.replace(b"733", b"ovf"), "not a number"),
        (LINE.replace(b"733", b"1_0"), "not a number"),
        (LINE.replace(b"733", b"1e999"), "not a number"),
        (LINE.replace(b"733", b""), "not a number"),
        (LINE.replace(b"733", b"7\xff3"), "garbage"),
        (LINE.replace(b"733", b"7\x003"), "garbage"),
        (b"1," * 5000 + b"1\n", "too long"),
        (LINE[:20] + LINE, "columns"),
    ],
)
def test_a_line_that_is_no_row_is_dropped_by_reason(line, reason):
    lines = started()
    assert lines.feed(line) == []
    assert lines.dropped == {"first": 1, reason: 1}
    assert lines.feed(LINE) == [VALUES]


def test_a_board_that_starts_again_inside_a_line_loses_only_that_line():
    lines = started()
    lines.feed(LINE[:20])
    lines.expire()
    assert lines.feed(LINE) == [VALUES]
    assert lines.dropped["unfinished"] == 1


def test_rows_come_from_a_virtual_board_in_order_and_in_time():
    with Board(RECORDING, rate=200) as board, Nose(board.port) as nose:
        rows = [nose.read() for _ in range(100)]
    first = [row.values[0] for row in rows]
    assert first == [first[0] + n for n in range(100)]
    assert all(a.time <= b.time for a, b in zip(rows, rows[1:], strict=False))
    assert rows[-1].time - rows[0].time == pytest.approx(0.495, abs=0.4)


def test_a_recording_is_replayed_byte_for_byte(tmp_path):
    path = tmp_path / "smell.csv"
    path.write_text(",".join(SENSORS) + "\n" + "\n".join(RECORDING[:5]) + "\n")
    with Board(path, rate=200) as board, Nose(board.port) as nose:
        assert nose.read().values[7:] == (33.5, 688.6, 100.0, 0.0, 3170.5)
    assert board.printed[0][1] == RECORDING[0]


def test_a_table_is_replayed_and_changed():
    table = pd.DataFrame([VALUES] * 3, columns=SENSORS)
    with Board(table, rate=200) as board, Nose(board.port) as nose:
        assert nose.read().values == VALUES
        board.change(table.assign(NO2=41))
        wait(lambda: nose.read().values[0] == 41)


@pytest.mark.parametrize("fault", BOARD_FAULTS)
def test_every_fault_is_survived_and_no_wrong_row_comes_through(fault):
    with FaultyBoard(RECORDING, rate=400, faults=fault, seed=3) as board, plugged(board) as nose:
        rows = [nose.read() for _ in range(60)]
        status = nose.status()
    assert all(row.values[1:] == (62, 83, 733, 2, 10, 65535, 33.5, 688.6, 100.0, 0.0, 3170.5) for row in rows)
    assert status["connections"] >= (2 if fault == "unplug" else 1)
    if fault in ("garbage", "partial", "long", "nan", "reset"):
        assert sum(status["dropped"].values()) >= 3


def test_a_silent_board_begins_another_run_as_a_gap_cuts_a_file():
    with FaultyBoard(RECORDING, faults="silence", rate=10) as board, Nose(board.port, nose="smellnet") as nose:
        nose.description = replace(nose.description, rate=10.0)  # a gap is two seconds then
        rows = [nose.read(timeout=9) for _ in range(14)]
    gaps = [(before, row) for before, row in itertools.pairwise(rows) if row.time - before.time > 2]
    assert len(gaps) == 1
    assert all((row.run == before.run) == ((before, row) not in gaps) for before, row in itertools.pairwise(rows))


def test_a_recording_says_where_rows_are_missing(tmp_path, caplog):
    with Board(RECORDING[:30], rate=200) as board, Nose(board.port) as nose:
        rows = record(nose, tmp_path / "air.csv", seconds=0.4)  # the recording begins again within
    assert rows == len((tmp_path / "air.csv").read_text().splitlines()) - 1
    assert "Rows are missing before row" in caplog.text and str(tmp_path / "air.csv") in caplog.text


def test_a_recording_of_nothing_is_an_error(tmp_path):
    with Board(RECORDING, rate=0.01) as board, Nose(board.port) as nose:
        with pytest.raises(NoReply, match="is silent"):
            record(nose, tmp_path / "air.csv", seconds=0.2)
        for wrong in (0, -1, float("nan")):
            with pytest.raises(OptionError, match="seconds is"):
                record(nose, tmp_path / "none.csv", seconds=wrong)
    assert not (tmp_path / "none.csv").exists()


def test_a_gap_in_the_series_begins_another_run():
    with Board(RECORDING[:30], rate=200) as board, Nose(board.port) as nose:
        rows = [nose.read() for _ in range(60)]  # the recording begins again within
        board.unplug()
        board.plug()
        last = nose.read(timeout=5)
        wait(lambda: nose.read(timeout=5).run > rows[-1].run)
    for before, row in zip(rows, rows[1:], strict=False):
        assert (row.run == before.run) == (row.values[0] == before.values[0] + 1)
    assert last.run >= rows[-1].run > rows[0].run


def test_a_pulled_cable_is_an_error_and_a_replugged_board_is_found_again():
    with Board(RECORDING, rate=200) as board, Nose(board.port) as nose:
        nose.read()
        board.unplug()
        wait(lambda: nose.status()["lost"])
        nose.rows()
        with pytest.raises(PortLost, match="is gone"):
            nose.read(timeout=0.05)
        board.plug()
        assert nose.read(timeout=5).values[1] == 62
        assert nose.status()["connections"] == 2


def test_silence_is_an_error_that_names_the_port_and_the_remedy():
    with Board(RECORDING, rate=0.01) as board, Nose(board.port) as nose:
        began = time.monotonic()
        with pytest.raises(NoReply, match=r"silent \(port .*board; .*0.200 s\)(.|\n)*9600 baud"):
            nose.read(timeout=0.2)
        assert time.monotonic() - began < 1


def test_a_second_reader_is_refused():
    with (
        Board(RECORDING) as board,
        Nose(board.port),
        pytest.raises(PortError, match="another program uses it"),
    ):
        Nose(board.port)


@pytest.mark.parametrize("port", ["/dev/nonesuch", "/tmp", "", "nonesuch://x", "/etc/hostname"])
def test_a_port_that_is_none_is_refused_with_its_name(port):
    with pytest.raises(PortError, match=port or "port is ''"):
        Nose.open(port)


@pytest.mark.parametrize("name", ["opensmell", "mq-array"])
def test_a_virtual_board_of_any_nose_is_read_over_tcp(name):
    with Board(nose=name, rate=100) as board, TcpServer(board) as server, Nose(server.port, nose=name) as nose:
        assert len([nose.read() for _ in range(20)]) == 20
        assert name != "opensmell" or nose.status()["info"]["sensors"] == "6"


def test_rows_come_over_tcp_too():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with server.accept()[0] as line:
                while not done.wait(0.05):  # what comes before the reader is ready is thrown away by pyserial
                    line.sendall(LINE)

        done = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        with Nose(f"socket://127.0.0.1:{server.getsockname()[1]}") as nose:
            rows = [nose.read().values for _ in range(3)]
            done.set()
        thread.join()
    assert rows == [VALUES] * 3


def test_rows_that_nobody_reads_are_dropped_and_counted_and_a_new_run_begins():
    with Board(RECORDING, rate=1000) as board, Nose(board.port) as nose:
        first = nose.read().run
        wait(lambda: nose.overrun, seconds=10)
        assert nose.read().run == first + 1
    assert nose.status()["dropped"]["overrun"] == KEPT
    assert len(nose.rows()) < KEPT


def test_the_status_tells_how_far_a_slow_reader_lags_behind():
    with Board(RECORDING, rate=100) as board, Nose(board.port) as nose:
        nose.read()
        wait(lambda: nose.status()["waiting"] >= 30, seconds=10)
        assert nose.status()["lag"] > 0.1
        nose.rows()
        assert nose.status()["lag"] < 0.1


def test_closing_ends_every_thread_and_file_soon(open_files):
    threads, files = threading.active_count(), open_files()
    for seed in range(3):
        with FaultyBoard(RECORDING, rate=100, faults=BOARD_FAULTS, seed=seed) as board, plugged(board) as nose:
            nose.read()
            began = time.monotonic()
            nose.close()
            assert time.monotonic() - began < 2  # 0.1 s, on an idle machine
        nose.close()
    assert threading.active_count() <= threads and open_files() <= files  # fewer: those of an earlier test ended


def test_a_reader_on_another_thread_wakes_up_when_the_board_is_closed():
    with Board(RECORDING, rate=0.01) as board:
        nose = Nose(board.port)
        threading.Timer(0.1, nose.close).start()
        with pytest.raises(Closed, match="closed"):
            nose.read(timeout=10)


def test_wrong_boards_are_refused(tmp_path):
    with pytest.raises(OptionError, match="No fault smoke"):
        FaultyBoard(RECORDING, faults=["smoke"])
    with pytest.raises(OptionError, match="rate"):
        Board(RECORDING, rate=0)
    with pytest.raises(DataError, match="no rows"):
        Board([])
    with pytest.raises(DataError, match="no column LPG"):
        Board(pd.DataFrame([VALUES], columns=SENSORS).drop(columns="LPG"))
    with pytest.raises(DataError, match=r"none\.csv"):
        Board(tmp_path / "none.csv")


def test_four_channels_at_ten_hertz_are_read_as_well():
    recording = [f"{100 * n},40,62,83,733" for n in range(100)]
    with Board(recording, rate=100, nose="smellnet-mixture") as board:
        board._header = b"timestamp_ms,NO2,C2H5CH,VOC,CO\r\n"
        with Nose(board.port, nose="smellnet-mixture") as nose:
            assert all(nose.read().values == (40, 62, 83, 733) for _ in range(150))


TWELVE_BITS = [f"{n},{4 * n},{1200 + n},2900,2,10,0,24.5,1013.2,40.0,200.0,12.5" for n in range(100)]


def test_a_board_of_another_converter_is_an_error_with_the_factor_and_no_row_comes_after_it():
    with Board(TWELVE_BITS, rate=200) as board, Nose(board.port) as nose:
        with pytest.raises(LinkError, match=r"VOC says 12\d\d, smellnet allows 0 to 1023(.|\n)*12-bit(.|\n)*nose list"):
            while True:
                nose.read()
        assert "12-bit" in nose.status()["outside"]


def test_a_single_reading_beyond_its_span_is_dropped_and_nothing_else_happens():
    lines = started()
    assert lines.feed(LINE.replace(b"733", b"7330") + LINE) == [VALUES]
    assert lines.dropped["out of range"] == 1 and not lines.outside


def test_live_rows_mean_what_files_mean_overflow_is_the_top_of_the_span():
    assert started().feed(LINE.replace(b",2,10,0,", b",4294967295,10,0,"))[0][4] == 65535


@pytest.mark.parametrize("wire", ["csv", "bare", "osm"])
@pytest.mark.parametrize("name", ["opensmell", "mq-array", "bme688"])
def test_every_nose_is_read_on_every_wire(name, wire):
    with Board(nose=name, rate=200, wire=wire) as board, Nose(board.port, nose=name) as nose:
        rows = [nose.read() for _ in range(30)]
        assert nose.description.name == name and len(rows[0].values) == len(nose.columns)
        assert len({row.values for row in rows}) > 5
        if wire == "osm":
            wait(lambda: nose.status()["info"].get("rate") == 200)
    assert "columns" not in nose.status()["dropped"]


def test_what_an_opensmell_board_says_of_itself_is_kept():
    lines = Lines("opensmell")
    lines.feed(b"INFO,rig-7,1.2.0,6,interval_ms=500\nOSM,1,2,3,4,5,6\nCAL,2,10.5\nERR,3,heater off\nPING\n")
    assert lines.feed(b"OSM,1,2,3,4,5,6\n") == [(1, 2, 3, 4, 5, 6)]
    assert (lines.info["device"], lines.info["rate"], lines.info["r0"]) == ("rig-7", 2.0, {"2": "10.5"})
    assert lines.info["error"] == "3 heater off" and lines.dropped == {"error of the board": 1}


def test_a_board_that_says_it_has_another_number_of_sensors_is_refused():
    lines = Lines("opensmell")
    lines.feed(b"INFO,rig-7,1.2.0,4\n")
    assert "a board of 4 sensors, and the nose opensmell has 6" in lines.outside


def test_other_separators_and_a_clock_in_front_are_read_too():
    lines = Lines("smellnet-mixture")
    lines.feed(b"40;62\n")
    assert lines.feed(b"40;62;83;733\n100 40 62 83 733\n200\t40\t62\t83\t733\n") == [(40, 62, 83, 733)] * 3


def test_a_reading_that_means_none_is_no_row(tmp_path):
    (tmp_path / "nose.toml").write_text('[columns.A]\nrole = "gas"\nunit = "adc"\nspan = [0, 1023]\nfault = [-1]\n')
    lines = Lines(noses.load(tmp_path))
    assert lines.feed(b"0\n5\n-1\n6\n") == [(5,), (6,)] and lines.dropped["no reading"] == 1


def test_a_million_bytes_of_noise_raise_nothing():
    dice = random.Random(1)
    lines = Lines()
    for _ in range(100):
        lines.feed(dice.randbytes(10_000))
    lines.feed(b"\n")
    assert lines.feed(LINE) == [VALUES]


def wait(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def open_files():
    from pathlib import Path

    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("counting open files needs /proc")
    return lambda: len(list(folder.iterdir()))
