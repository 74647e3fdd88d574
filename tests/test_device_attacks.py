"""What was found by attacking the driver: a scent that nobody asked for, or one left in the air."""

import contextlib
import gc
import json
import operator
import os
import random
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_device_faults import World, until
from test_device_watchdog import START

from smellkit.cli.neckwear import neckwear
from smellkit.device import engine, frames, guard
from smellkit.device.clock import Clock
from smellkit.device.enose import Lines
from smellkit.device.errors import Closed, LinkError, PortError
from smellkit.device.jobs import Request, Timing
from smellkit.device.link import connector
from smellkit.device.log import Log
from smellkit.device.neckwear import NeckWear
from smellkit.device.serve import PtyServer, TcpServer
from smellkit.device.virtual import VirtualNeckWear
from smellkit.device.watchdog import SILENT, Watch, order_stop, private_folders
from smellkit.simulate.faulty_player import FaultyDirect, FaultyNeckWear
from smellkit.study.device.bench import await_silence, double_signals

QUICK = Timing(gap=0.02, wake_gap=0.01)
NATIVE = {  # what the main thread does, and whether the interpreter is held meanwhile
    "a matrix product": "import numpy; a = numpy.ones((6000, 6000)); print('in', flush=True)\nwhile True: a @ a",
    "a sum that holds the interpreter": "print('in', flush=True); sum(range(10**11))",
}


@contextlib.contextmanager
def playing(program, start=START):
    """A program that plays on a virtual device of ours, and that device."""
    device = VirtualNeckWear()
    with (
        PtyServer(device) as server,
        subprocess.Popen([sys.executable, "-c", start + program, server.port], stdout=-1, stderr=-3) as child,
    ):
        try:
            device.watchdog = int(child.stdout.readline())
            await_silence(device, False)
            yield device, child
        finally:
            child.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("work", NATIVE)
def test_a_signal_reaches_the_device_while_the_main_thread_is_in_native_code(work, number):
    with playing(f"neck = begin(); time.sleep(0.5)\n{NATIVE[work]}") as (device, child):
        assert child.stdout.readline() == b"in\n"
        time.sleep(0.5)
        sent = Clock.now()
        child.send_signal(number)
        await_silence(device, True, 5.0)
        assert device.air[-1].end - sent < SILENT
        time.sleep(1.0)
        assert not device.emitting  # and nothing renews it


AGAIN = """
neck = None
while True:
    try:
        neck = neck or begin()
        with neck:
            neck.wait()
            time.sleep(60)
    except KeyboardInterrupt:
        print("stopped", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("seed", range(12))
def test_two_signals_at_any_distance_leave_silence_in_a_program_that_lives_on(seed):
    draw = random.Random(seed)
    program = AGAIN if seed % 2 else AGAIN.replace("time.sleep(60)\n    except", "pass\n    except")
    with playing(program) as (device, child):
        for _ in range(2):
            child.send_signal(signal.SIGINT)
            time.sleep(draw.choice([0, 1e-4, 1e-3, draw.uniform(0, 0.2)]))
        await_silence(device, True, 3.0)
        time.sleep(1.5)
        assert not device.emitting


def test_a_dead_watchdog_is_noticed_within_a_second_and_started_again():
    with NeckWear.open("virtual", timing=QUICK) as neck:
        neck.play(3, seconds=60)
        until(lambda: neck.virtual.emitting)
        before = neck._guard.pid
        os.kill(before, signal.SIGKILL)
        until(lambda: not neck.status().guarded, 1.0)
        until(lambda: any("no watchdog" in entry["what"] for entry in neck.log.entries))
        until(lambda: neck.status().guarded, 10.0)
        assert neck._guard.pid != before and neck.virtual.emitting == 3


def test_a_program_killed_with_its_watchdog_leaves_two_seconds_of_scent_once_that_was_noticed():
    program = "neck = begin(); guard._start = lambda: None\nimport os; os.kill(neck._guard.pid, 9); time.sleep(60)"
    with playing("from smellkit.device.guard import guard\n" + program) as (device, child):
        time.sleep(1.2)
        assert device.emitting == 3
        killed = Clock.now()
        child.kill()
        await_silence(device, True, 5.0)
        assert device.air[-1].end - killed <= 2.1


def test_a_file_in_the_working_folder_does_not_keep_the_watchdog_from_starting(tmp_path):
    for name in ("json", "socket", "select"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit")
    code = "import os, sys; sys.path.remove(''); from smellkit.device.neckwear import NeckWear\n"
    code += "os.environ['PYTHONPATH'] = os.getcwd()\n"
    code += "with NeckWear.open() as neck: print(neck.has_watchdog)"
    environment = os.environ | {"PYTHONPATH": str(Path(frames.__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.stdout == "True\n", run.stderr


@pytest.mark.parametrize("change", ["handset", "neckwear"])
def test_a_change_of_channel_stops_what_plays_before(change):
    world = World()
    world.neck.play(3, seconds=60)
    world.clock.sleep(4)
    if change == "handset":
        world.neck.set_handset(160)
    else:
        world.neck.set_channel(160, world.device.uid)
    assert not world.neck.playing
    world.clock.sleep(0.1)
    assert not world.device.emitting
    assert [entry["what"] for entry in world.sent("")][-4].startswith("stop")
    world.clock.sleep(30)
    assert len(world.device.air) == 1


def test_a_play_that_comes_while_the_channel_changes_waits_for_that():
    world = World()
    world.neck.wake()
    obey = world.device._obey

    def obey_late(frame, now):  # the change is not answered, and meanwhile somebody wants a scent
        if frame.command != 0x26:
            obey(frame, now)
        elif not world.neck.playing:
            world.neck.play(3, seconds=5)

    world.device._obey = obey_late
    with pytest.raises(LinkError, match="No reply"):
        world.neck.set_handset(160)
    assert world.sent("set handset") and not world.sent("play 3")
    world.clock.sleep(1)
    assert world.device.emitting == 3


def test_a_play_between_the_stop_and_the_change_of_channel_waits_where_a_stop_still_reaches_it():
    world = World()
    world.neck.play(3, seconds=30)
    world.clock.sleep(5)
    change = Request("set handset channel 160", frames.set_handset(160), (0xA6, 0), retunes=True)
    world.neck._engine._exchange.current = change  # as another thread that waits for it
    world.clock.sleep(0.06)
    world.neck.play(5, seconds=30)
    world.clock.sleep(2)
    assert change.done and world.neck.stop().sent == 3
    assert not world.device.emitting


def test_a_change_of_channel_that_nobody_answers_has_stopped_what_played_too():
    world = World(silence=1.0)
    world.neck.play(3, seconds=60)
    world.clock.sleep(4)
    with pytest.raises(LinkError):
        world.neck.set_handset(160)
    assert not world.device.emitting


@pytest.mark.parametrize("asleep", [15.0, 120.0, 4000.0])
def test_a_machine_that_slept_renews_nothing_and_says_so(asleep):
    world = World()
    world.neck.play(3, seconds=3000)
    world.clock.sleep(5)
    world.clock.advance(asleep)
    with pytest.raises(LinkError, match="interrupted: nothing ran for"):
        world.neck.wait()
    world.clock.sleep(60)
    assert [air.scent for air in world.device.air] == [3] and not world.device.emitting
    assert world.device.air[0].end - world.device.air[0].start <= 13


def test_a_machine_that_slept_wakes_the_device_before_it_plays():
    world = World()
    world.neck.play(3, seconds=1)
    world.neck.wait()
    world.clock.advance(3600)
    world.neck.play(4, seconds=1)
    world.neck.wait()
    assert [air.scent for air in world.device.air] == [3, 4]


@pytest.mark.parametrize("asleep", [15.0, 4000.0])
def test_a_machine_that_slept_before_a_scent_began_does_not_play_it_when_it_wakes(asleep):
    world = World()
    world.neck.play(3, seconds=5)
    world.clock.sleep(0.5)  # the player is being woken
    world.clock.advance(asleep)
    with pytest.raises(LinkError, match="interrupted: nothing ran for"):
        world.neck.wait()
    world.clock.sleep(60)
    assert world.device.air == []


def test_a_stop_while_the_device_is_woken_leaves_the_next_play_to_wake_it_again():
    world = World()
    world.neck.play(3, seconds=5)
    world.clock.sleep(0.5)
    world.neck.stop()
    before = len(world.device.received)
    world.neck.play(4, seconds=1)
    world.neck.wait()
    assert [raw for _, raw in world.device.received[before:]] == [*[frames.wake()] * 3, frames.play(4, 1000)]


def test_a_stopped_program_does_not_go_on_when_it_is_continued():
    shorter = START.replace("timing=Timing(", "timing=Timing(frame=5.0, ")  # than the 10 s that pass until it is silent
    with playing("neck = begin(); time.sleep(60)", shorter) as (device, child):
        child.send_signal(signal.SIGSTOP)
        await_silence(device, True, 15.0)
        child.send_signal(signal.SIGCONT)
        time.sleep(2.0)
        assert len(device.air) == 1 and not device.emitting


def test_a_play_older_than_the_last_stop_is_dropped():
    world = World()
    asked = world.clock.now()
    world.clock.sleep(0.01)
    world.neck.stop()
    world.neck._asked = lambda: asked  # as a thread that was held up between the click and the driver
    world.neck.play(3, seconds=10)
    world.neck.wait()
    world.clock.sleep(5)
    assert world.device.air == []
    assert world.neck.ended == "stopped" and world.noted("not begun, a stop came after it: scent 3")
    del world.neck._asked
    world.neck.play(3, seconds=1)
    world.neck.wait()
    assert len(world.device.air) == 1


def test_a_lost_object_ends_its_scent_and_frees_its_port():
    device = VirtualNeckWear()
    with PtyServer(device) as served:
        neck = NeckWear.open(served.port, timing=QUICK)
        neck.play(3, seconds=60)
        await_silence(device, False)
        del neck
        gc.collect()
        await_silence(device, True, 2.0)
        until(lambda: free(served.port))


def free(port):
    try:
        NeckWear.open(port, watchdog=False).close()
    except PortError:
        return False
    return True


def test_a_forked_child_holds_nothing_and_plays_nothing():
    device = VirtualNeckWear()
    with PtyServer(device) as served:
        neck = NeckWear.open(served.port, timing=QUICK)
        assert neck.probe().channel == 150
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover
            try:
                neck.play(3, seconds=30)
                said = b"played"
            except Closed:
                said = b"closed"
            os.write(writing, said)
            time.sleep(30)
            os._exit(0)
        try:
            assert os.read(reading, 10) == b"closed"
            assert neck.probe().channel == 150  # the parent's goes on
            neck.close()
            with NeckWear.open(served.port, watchdog=False) as again:  # though the child lives on
                assert again.probe().channel == 150
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert device.air == []


def test_a_signal_to_a_forked_child_is_not_the_parents():
    with NeckWear.open("virtual", timing=QUICK) as neck:
        neck.play(3, seconds=600)
        until(lambda: neck.virtual.emitting)
        for _ in range(30):
            child = os.fork()
            if child == 0:  # pragma: no cover
                time.sleep(30)
                os._exit(0)
            os.kill(child, signal.SIGTERM)  # perhaps before it has let go of what is the parent's
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM  # ended at once, not after its sleep
        time.sleep(0.5)
        assert neck.virtual.emitting == 3


def test_a_forked_child_ends_by_a_signal_as_any_program_does():
    with NeckWear.open("virtual", timing=QUICK):
        child = os.fork()
        if child == 0:  # pragma: no cover
            os._exit(0 if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else 1)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("lock", ["_lock", "_asking", "_runner._pipe", "_runner._changed"])
def test_a_forked_child_waits_for_no_lock_that_a_thread_of_its_parent_holds(lock):
    holds, goes_on = threading.Event(), threading.Event()

    def hold(neck):
        with operator.attrgetter(lock)(neck._engine):
            holds.set()
            goes_on.wait(20)

    with NeckWear.open("virtual", timing=QUICK, watchdog=False) as neck:
        thread = threading.Thread(target=hold, args=[neck])
        thread.start()
        assert holds.wait(10)
        child = os.fork()
        if child == 0:  # pragma: no cover
            with contextlib.suppress(Closed):
                neck.play(3, seconds=1)
                os._exit(1)
            os._exit(0)
        goes_on.set()
        thread.join()
        assert _ended(child) == 0


def _ended(child):
    """The status with which a child ends within ten seconds; it is killed then, and the status is that."""
    end = time.monotonic() + 10
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.01)
    if not done[0]:
        os.kill(child, signal.SIGKILL)
        done = os.waitpid(child, 0)
    return done[1]


@pytest.mark.parametrize("port", ["a\0b", "/dev/" + "x" * 300, "x" * 5000, "spy:///dev/null", "hwgrep://x", "alt://x"])
def test_a_port_name_that_is_none_is_one_error(port):
    with pytest.raises(PortError) as caught:
        NeckWear.open(port, watchdog=False)
    assert caught.value.remedy


def test_more_open_files_than_a_port_can_have_is_an_error_that_says_so():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1300:
        pytest.skip("this machine allows too few files")
    device, files = VirtualNeckWear(), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        with PtyServer(device) as served:
            files = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
            with pytest.raises(PortError, match="1,023"):
                NeckWear.open(served.port, watchdog=False)
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_two_drivers_never_share_an_address():
    device = VirtualNeckWear()
    with TcpServer(device) as served, NeckWear.open(served.port, watchdog=False) as first:
        for address in (served.port, served.port.replace("127.0.0.1", "localhost")):
            with pytest.raises(PortError, match="another program uses it"):
                NeckWear.open(address, watchdog=False)
        assert first.probe().channel == 150
        first.close()
        with NeckWear.open(served.port, watchdog=False) as second:
            assert second.probe().channel == 150


def test_the_link_of_a_virtual_device_replaces_nothing(tmp_path):
    file = tmp_path / "thesis.txt"
    file.write_text("years of work")
    for name in (file, tmp_path):
        with pytest.raises(PortError, match="Could not make the link"):
            PtyServer(VirtualNeckWear(), link=name)
    part = tmp_path / "neck.part"
    part.write_text("also mine")
    device = VirtualNeckWear()
    with PtyServer(device, link=tmp_path / "neck") as served:
        Path(served.port).unlink()
        Path(served.port).write_text("put here meanwhile")
    assert file.read_text() == "years of work" and part.read_text() == "also mine"
    assert (tmp_path / "neck").read_text() == "put here meanwhile"


def test_a_log_that_blocks_holds_nobody_up(tmp_path):
    os.mkfifo(tmp_path / "log")
    reading = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)  # and nobody ever reads
    began = time.monotonic()
    with NeckWear.open("virtual", log=tmp_path / "log", watchdog=False, timing=QUICK) as neck:
        neck.play(3, seconds=30)
        until(lambda: neck.virtual.emitting)
        for _ in range(2000):
            neck.log.note("x" * 100)
        neck.stop()
        device = neck.virtual
    assert time.monotonic() - began < 10 and not device.emitting and "log" in neck.log.warning
    os.close(reading)
    with NeckWear.open("virtual", log=tmp_path / "log", watchdog=False) as neck:  # nobody at the other end at all
        assert "log" in neck.log.warning


def test_a_log_of_garbage_has_an_end_keeps_what_was_sent_and_says_once_that_it_is_full(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("smellkit.device.log.LineFile.__init__.__kwdefaults__", {"limit": 20_000})
    log = Log(tmp_path / "log", now=time.monotonic)
    for _ in range(500):
        log.got(b"\xff" * 200, "skipped")
    log.sent(frames.stop(), "stop", latency=0.0)
    log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert (tmp_path / "log").stat().st_size < 21_000 and json.loads(lines[-1])["what"] == "stop"
    assert "is full" in log.warning and caplog.text.count("is full") == 1


def test_the_virtual_device_forgets_in_time(monkeypatch):
    monkeypatch.setattr("smellkit.device.virtual.KEPT", 100)
    device = FaultyNeckWear(now=lambda: 0.0, faults={"echo": 1.0})
    for _ in range(1000):
        device.receive(frames.read_channel())
    assert len(device.received) <= 200 and len(device._out) <= 100


@pytest.mark.parametrize("cell", [b"9" * 330, b"1e99", b"-5", b"1e39"])
def test_a_row_that_no_sensor_can_say_is_dropped_and_counted(cell):
    lines = Lines()
    line = b"40,62,83,733,2,10,0,33.59,688.6,100.0,0.0,3170.54\r\n"
    lines.feed(line)
    assert lines.feed(line.replace(b"733", cell)) == []
    assert sum(lines.dropped.values()) == 2
    assert len(lines.feed(line)) == 1


# emergency stop


def doors():
    return {path for folder in private_folders() for path in folder.glob("*.sock")}


def test_a_stop_order_comes_in_through_a_socket_that_is_the_users_alone():
    with NeckWear.open("virtual", timing=QUICK) as neck:
        neck.play(3, seconds=60)
        until(lambda: neck.virtual.emitting)
        (door,) = [path for path in doors() if path.stem == str(os.getpid())]
        assert stat.S_IMODE(door.stat().st_mode) == 0o600 and stat.S_IMODE(door.parent.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(door))
            client.sendall(b"stop\n")
            reply = json.loads(client.recv(4096))
        assert reply["pid"] == os.getpid() and reply["sent"] == reply["ports"] == ["virtual"]
        until(lambda: not neck.virtual.emitting, 1.0)
        until(lambda: not neck.playing)
        time.sleep(0.3)  # the watchdog leaves the rest to the program: its own is one, two on a busy machine
        assert 3 < [raw for _, raw in neck.virtual.received].count(frames.stop()) < 6
        neck.play(4, seconds=60)  # who plays afterwards is not held back
        until(lambda: neck.virtual.emitting == 4)
    assert not door.exists()


def test_noise_at_the_door_stops_nothing_and_breaks_nothing():
    with NeckWear.open("virtual", timing=QUICK) as neck:
        neck.play(3, seconds=60)
        until(lambda: neck.virtual.emitting)
        (door,) = [path for path in doors() if path.stem == str(os.getpid())]
        for noise in (b"", b"hello", b"\xff" * 5000, b"{}\n"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(door))
                client.sendall(noise)
        idle = socket.socket(socket.AF_UNIX)
        idle.connect(str(door))  # and says nothing
        busy = cpu_seconds(neck._guard.pid)
        time.sleep(0.5)
        assert cpu_seconds(neck._guard.pid) - busy < 0.2  # it waits, it does not spin
        assert neck.status().guarded and neck.virtual.emitting == 3
        idle.close()


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# every layer of the stop policy, with those above it broken


def test_layer_last_resort_a_worker_that_dies_sends_stop_from_its_own_end():
    with contextlib.suppress(Exception):
        world = World()
        world.neck.play(3, seconds=60)
        world.clock.sleep(5)
        world.neck._engine._do_schedule = lambda: 1 / 0
        world.clock.sleep(1)
    assert world.device.received[-1][1] == frames.stop() and not world.device.emitting
    with pytest.raises(LinkError, match="failed"):
        world.neck.wait()


def test_layer_last_resort_a_worker_that_hangs_is_gone_past(monkeypatch):
    device = VirtualNeckWear()
    with PtyServer(device) as served:
        neck = NeckWear.open(served.port, watchdog=False, timing=replace(QUICK, unguarded=10.0))
        neck.play(3, seconds=60)
        await_silence(device, False)
        held = threading.Event()
        neck._engine._do_request = lambda: held.wait(20) or 1e9
        time.sleep(0.1)
        neck._engine._runner.kick()
        time.sleep(0.1)
        with pytest.raises(LinkError, match="keeps its worker"):
            neck.stop()
        await_silence(device, True, 1.0)
        held.set()
        neck.close()


def test_layer_watchdog_sends_stop_when_the_worker_died_without_one(monkeypatch):
    monkeypatch.setattr(engine.Engine, "last_resort", lambda self: None)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    device = VirtualNeckWear()
    with PtyServer(device) as served:
        neck = NeckWear.open(served.port, timing=QUICK)
        neck.play(3, seconds=60)
        await_silence(device, False)
        neck._engine._do_schedule = lambda: 1 / 0
        neck._engine._runner.kick()
        await_silence(device, True, 2.0)
        neck.close()


def test_layer_own_timer_a_program_killed_with_all_that_guards_it_is_silent_by_the_bound():
    world = World()
    world.neck.play(3, seconds=60)
    world.clock.sleep(5)
    bound = world.neck.status().bound
    world.clock.advance(bound)
    assert not world.device.emitting


def test_a_program_without_a_parent_process_handle_is_watched_by_its_line_alone():
    code = "import os; del os.pidfd_open\nimport runpy, sys; sys.argv = ['x']\n"
    code += f"runpy.run_path({guard.watchdog.__file__!r}, run_name='__main__')"
    ours, theirs = socket.socketpair()
    port, heard = socket.socketpair()
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdin=theirs) as child:
        theirs.close()
        assert b"pong" in ours.recv(100)
        message = {"do": "follow", "key": 1, "stop": frames.stop().hex(), "url": "", "name": "", "fd": True}
        socket.send_fds(ours, [json.dumps(message | {"telnet": False, "baud": 0}).encode() + b"\n"], [port.fileno()])
        port.close()
        time.sleep(0.1)
        ours.close()
        heard.settimeout(5)
        said = b""
        while part := heard.recv(1000):
            said += part
        assert said == frames.stop() * 3
        assert child.wait(5) == 0
    heard.close()


def test_a_program_without_a_private_folder_is_watched_all_the_same():
    code = f"import runpy; main = runpy.run_path({guard.watchdog.__file__!r})['main']\n"
    code += "main.__globals__['private_folders'] = lambda: iter(()); main()"
    ours, theirs = socket.socketpair()
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdin=theirs) as child:
        theirs.close()
        assert b"pong" in ours.recv(100)
        ours.close()
        assert child.wait(5) == 0


def test_a_private_folder_whose_name_is_too_long_for_a_socket_is_passed_by(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 100)))
    (tmp_path / ("x" * 100)).mkdir()
    with playing("neck = begin(); time.sleep(60)") as (device, child):
        assert child.pid in [reply["pid"] for reply in order_stop()]
        await_silence(device, True, 2.0)


def test_the_stop_command_reaches_the_player_of_another_program_and_names_it():
    with playing("neck = begin(); time.sleep(60)") as (device, child):
        began = Clock.now()
        replies = [reply for reply in order_stop() if reply["pid"] == child.pid]  # whatever else plays here
        await_silence(device, True, 2.0)
        assert device.air[-1].end - began < 0.2 and len(replies) == 1
        shown = CliRunner().invoke(neckwear, ["stop"]).output
        assert f"held by process {child.pid}" in shown and replies[0]["ports"][0] in shown
        assert order_stop("/dev/another") == []


@pytest.mark.parametrize("silence", [0.0, 1.0])
def test_an_emergency_stop_over_the_link_that_answers_says_whether_it_was_confirmed(silence):
    device = FaultyDirect(faults={})
    code = START.replace("timing=", "link='direct', timing=") + "neck = begin(); time.sleep(60)"
    with (
        PtyServer(device) as server,
        subprocess.Popen([sys.executable, "-c", code, server.port], stdout=-1, stderr=-3) as child,
    ):
        child.stdout.readline()
        await_silence(device, False)
        device.faults["silence"] = silence
        began = Clock.now()
        run = CliRunner().invoke(neckwear, ["stop"])
        await_silence(device, True, 1.0)
        assert device.air[-1].end - began < 0.2
        said = [line for line in run.output.splitlines() if f"held by process {child.pid}" in line][0]
        end = "Nothing confirms that." if silence else "It confirmed that."
        assert said.startswith(f"Stop was sent to {server.port}") and run.output.count(end) >= 1
        child.kill()


@contextlib.contextmanager
def commanded(device, *words):
    """A command of the kit on a player, and what it says."""
    command = [sys.executable, "-u", "-m", "smellkit", "neckwear", *words]
    with (
        PtyServer(device) as server,
        subprocess.Popen([*command, "--port", server.port], stdout=-1, stderr=-2, text=True) as child,
    ):
        try:
            yield server, child
        finally:
            child.kill()


def block(device, port):
    """Let the port take no byte any more, as a handset that hangs."""
    device.takes_bytes = False
    time.sleep(0.1)  # its thread may be about to read
    full = os.open(port, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    while select.select([], [full], [], 0.2)[1]:  # the kernel moves on what it took, and takes more
        with contextlib.suppress(BlockingIOError):
            os.write(full, b"\0" * 100)
    os.close(full)


@pytest.mark.parametrize("words", [["play", "3"], ["mix", "1=0.5", "2=0.5"]])
def test_a_stop_order_while_a_command_wakes_the_player_ends_the_command_and_nothing_plays(words):
    device = VirtualNeckWear()
    with commanded(device, *words, "--seconds", "5") as (server, child):
        until(lambda: device.awake)
        assert [reply["sent"] for reply in order_stop(server.port)] == [[server.port]]
        said = child.communicate(timeout=20)[0]
    assert "It was stopped." in said and "Sent:" not in said
    assert device.air == []


def test_a_stop_order_that_cannot_be_sent_says_so_and_who_holds_the_player():
    device = VirtualNeckWear()
    with commanded(device, "play", "3", "--seconds", "30") as (server, child):
        await_silence(device, False)
        block(device, server.port)
        run = CliRunner().invoke(neckwear, ["stop", "--port", server.port])
    assert run.exit_code and f"No stop could be sent to {server.port}, held by process {child.pid}" in str(
        run.exception
    )


def test_a_stop_order_by_another_name_of_the_port_reaches_its_player(tmp_path):
    device = VirtualNeckWear()
    with PtyServer(device, link=tmp_path / "neck") as server, NeckWear.open(server.port, timing=QUICK) as neck:
        neck.play(3, seconds=30)
        await_silence(device, False)
        (reply,) = order_stop(os.path.realpath(server.port))
        await_silence(device, True, 2.0)
        assert reply["sent"] == [server.port]


def test_ctrl_c_that_no_stop_can_follow_is_an_error_and_no_promise():
    device = VirtualNeckWear()
    with commanded(device, "play", "3", "--seconds", "30") as (server, child):
        await_silence(device, False)
        block(device, server.port)
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=20)[0]
    assert "Stop was sent" not in said and "takes no bytes" in said
    assert child.returncode == 1


def test_the_stop_command_opens_a_port_that_nobody_holds():
    device = VirtualNeckWear()
    with PtyServer(device) as served:
        device.receive(frames.wake() + frames.play(3, 60_000))
        assert "Stop was sent 3 times" in CliRunner().invoke(neckwear, ["stop", "--port", served.port]).output
        await_silence(device, True, 1.0)


@pytest.mark.parametrize("blind", [False, True])
def test_a_port_where_nothing_answers_is_no_success_unless_played_blind(blind):
    device = FaultyNeckWear(faults={"silence": 1.0})
    with PtyServer(device) as served:
        asked = ["play", "3", "--seconds", "0.2", "--port", served.port, *["--blind"] * blind]
        done = CliRunner().invoke(neckwear, asked)
    if blind:
        assert "Nothing answered" in done.output and "going on blind" in done.output
    else:
        assert done.exit_code == 1 and "--blind" in str(done.exception)
    assert [air.scent for air in device.air] == [3] * blind


def test_an_idle_kernel_that_is_interrupted_falls_silent_and_lives_on():
    manager = pytest.importorskip("jupyter_client.manager")
    device = VirtualNeckWear()
    with PtyServer(device) as server:
        kernel, client = manager.start_new_kernel(kernel_name="python3")
        try:
            code = f"import sys; sys.argv = ['', {server.port!r}]\n{START}\nneck = begin()"
            client.execute_interactive(code, timeout=60, output_hook=lambda message: None)
            await_silence(device, False)
            time.sleep(0.6)
            kernel.interrupt_kernel()
            await_silence(device, True, 2.0)
            time.sleep(0.5)  # the program hears of a stop after its player does, and drops what was asked before
            client.execute_interactive("neck.play(4, seconds=20)", timeout=60, output_hook=lambda message: None)
            await_silence(device, False)
        finally:
            client.stop_channels()
            kernel.shutdown_kernel(now=True)


def test_what_nobody_keeps_alive_ends_and_what_is_kept_goes_on():
    world = World()
    world.neck.play(3, seconds=60)
    world.clock.sleep(3)
    for _ in range(5):
        world.neck.keep(4)
        world.clock.sleep(3)
    assert world.device.emitting == 3
    world.clock.sleep(1.2)
    assert not world.device.emitting
    world.neck.play(4, seconds=60)  # whoever asks has to be there
    world.clock.sleep(5)
    assert len(world.device.air) == 1


@pytest.mark.parametrize("opened", [True, False])
def test_a_player_without_a_watchdog_has_frames_of_two_seconds(opened):
    device = VirtualNeckWear()
    with PtyServer(device) as server:
        connect = connector(server.port)
        unwatched = (
            NeckWear.open(server.port, watchdog=False, timing=QUICK) if opened else NeckWear(connect, timing=QUICK)
        )
        with unwatched as neck:
            neck.play(3, seconds=5)
            neck.wait()
        durations = [int.from_bytes(raw[16:20], "big") for _, raw in device.received if len(raw) == 26]
        assert max(durations) <= 2000 and len(durations) >= 4
        until(lambda: len(device.air) == 1)


def test_a_private_folder_is_made_private_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "smellkit").mkdir(mode=0o777)
    folder = next(private_folders())
    assert folder == tmp_path / "smellkit" and stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_child_that_the_interpreter_knows_nothing_of_does_not_keep_a_killed_parents_scent_alive():
    fork = "import ctypes\nc = ctypes.CDLL(None)\nif c.fork() == 0: c.sleep(8); c._exit(0)\nprint('in', flush=True)"
    with playing(f"neck = begin(); time.sleep(0.5)\n{fork}\ntime.sleep(60)") as (device, child):
        assert child.stdout.readline() == b"in\n"
        child.kill()
        await_silence(device, True, 2.0)


def test_a_virtual_device_on_tcp_hears_this_machine_alone():
    with TcpServer(VirtualNeckWear()) as served, pytest.raises(OSError):
        # another address of the loopback: who listens everywhere would hear it
        socket.create_connection(("127.0.0.2", int(served.port.rpartition(":")[2])), timeout=2).close()


def test_the_watchdog_leaves_the_stops_to_a_program_that_sends_them_itself():
    orders, (ours, device) = [], socket.socketpair()
    watch = Watch(orders.append)
    follow = {"do": "follow", "key": 1, "stop": frames.stop().hex(), "url": "", "name": "neck", "fd": True}
    watch.take(json.dumps(follow | {"telnet": False, "baud": 0}).encode(), [os.dup(ours.fileno())])
    assert watch.order("because", lambda port: port.called("another")) == [] and orders == []
    ordered = threading.Thread(target=watch.order, args=("because",))
    ordered.start()
    until(lambda: watch.ports[1].took)
    assert orders == [{"stop": "because", "keys": [1]}]
    watch.take(b'{"do": "taken"}', [])
    ordered.join()
    assert device.recv(1000) == frames.stop()  # one of three: the program sends the others
    watch.take(b'{"do": "release", "key": 1}', [])
    assert not watch.ports
    ours.close()
    assert device.recv(1000) == b""
    device.close()


def test_a_whole_group_of_processes_that_is_killed_leaves_the_watchdog():
    device = VirtualNeckWear()
    command = [sys.executable, "-c", START + "neck = begin(); time.sleep(60)"]
    with (
        PtyServer(device) as server,
        subprocess.Popen([*command, server.port], stdout=subprocess.PIPE, start_new_session=True) as child,
    ):
        child.stdout.readline()
        await_silence(device, False)
        os.killpg(child.pid, signal.SIGKILL)  # as a notebook's server does to a kernel
        await_silence(device, True, 2.0)


def test_an_address_of_another_kind_is_refused_even_where_it_would_open():
    with PtyServer(VirtualNeckWear()) as served, pytest.raises(PortError, match="no such kind"):
        NeckWear.open(f"spy://{served.port}", watchdog=False)


def test_twenty_double_signals_leave_no_scent():
    assert double_signals(20, seed=3) == 0
