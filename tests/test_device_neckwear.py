"""The driver where nothing fails, the virtual device, and the commands."""

import json
import re
import select
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import serial
from click.testing import CliRunner
from serial.rfc2217 import PortManager
from test_device_faults import World, until

from smellkit.cli.neckwear import neckwear
from smellkit.device import frames
from smellkit.device.errors import Closed, PortLost
from smellkit.device.jobs import Timing
from smellkit.device.link import Port, follow, list_ports, open_link
from smellkit.device.neckwear import NeckWear
from smellkit.device.serve import PtyServer, TcpServer
from smellkit.device.virtual import VirtualNeckWear
from smellkit.errors import OptionError
from smellkit.simulate.faulty_player import FaultyNeckWear, read_faults
from smellkit.study.device.bench import frame_seconds, parser_rate, streams
from smellkit.study.device.fake import FakeClock


def test_the_first_play_wakes_the_device_three_times_a_second_apart():
    world = World()
    world.neck.play(5, seconds=10)
    world.neck.wait()
    heard = [(round(at - 1000, 3), raw) for at, raw in world.device.received]
    assert heard == [(0, frames.wake()), (1, frames.wake()), (2, frames.wake()), (2.2, frames.play(5, 10_000))]
    assert [(air.scent, round(air.end - air.start, 3)) for air in world.device.air] == [(5, 10)]


def test_a_scent_is_in_the_air_half_a_second_after_the_wake_at_most():
    world = World()
    world.neck.wake()
    woken = world.clock.now()
    world.neck.play(5, seconds=1)
    world.neck.wait()
    assert world.device.air[0].start - woken <= 0.5


def test_a_long_play_is_renewed_without_a_gap_and_ends_in_time():
    world = World()
    world.neck.play(3, seconds=95.5)
    world.neck.wait()
    (air,) = world.device.air
    assert air.end - air.start == pytest.approx(95.5, abs=0.002)
    durations = [int.from_bytes(raw[16:20], "big") for _, raw in world.device.received if len(raw) == 26]
    assert max(durations) <= 10_000 and len(durations) == 11


def test_the_newest_play_wins_and_wait_returns_for_everybody():
    world = World()
    world.neck.play(3, seconds=60)
    world.clock.sleep(5)
    world.neck.play(4, seconds=2)
    world.neck.wait()
    assert [air.scent for air in world.device.air] == [3, 4]


def test_commands_keep_200_ms_apart_and_a_stop_does_not_wait():
    world = World()
    for _ in range(5):
        world.neck.probe()
    world.neck.play(3, seconds=5)
    world.clock.sleep(2.25)
    assert world.took(world.neck.stop) == pytest.approx(0.1)
    sent = [(entry["at"], entry["what"]) for entry in world.sent("")]
    gaps = [(b[0] - a[0], b[1]) for a, b in zip(sent, sent[1:], strict=False)]
    assert all(gap >= 0.2 - 1e-6 for gap, what in gaps if what != "stop")
    assert [round(gap, 3) for gap, what in gaps if what == "stop"] == [0.05, 0.05, 0.05]


def test_stop_from_another_thread_ends_a_wait():
    with NeckWear.open("virtual", watchdog=False) as neck:
        neck.wake()
        neck.play(3, seconds=60)
        until(lambda: neck.virtual.emitting == 3)
        threading.Timer(0.05, neck.stop).start()
        neck.wait()
        until(lambda: not neck.virtual.emitting)
        assert not neck.playing


def test_set_channel_wakes_the_device_and_matches_the_uid():
    world = World()
    world.neck.set_channel(160, world.device.uid)
    assert world.device.neck_channel == 160 and len(world.sent("wake")) == 3
    world.neck.set_handset(160)
    assert world.neck.probe().channel == 160 == world.neck.status().channel


def test_status_says_unknown_before_anything_was_heard():
    status = World().neck.status()
    assert (status.channel, status.emitting, status.battery, status.cartridges) == ("unknown",) * 4
    assert status.requested is None and status.latency.count == 0 and status.connected


def test_status_follows_what_was_asked():
    world = World()
    world.neck.play(7, seconds=20)
    assert world.neck.status().requested is None
    world.clock.sleep(5)
    status = world.neck.status()
    assert (status.requested, status.emitting) == (7, "unconfirmed") and 17 < status.left < 17.5
    world.neck.stop()
    assert world.neck.status().requested is None and world.neck.status().left == 0


def test_after_close_everything_says_so():
    world = World()
    world.neck.close()
    world.neck.close()
    for act in (world.neck.probe, world.neck.stop, lambda: world.neck.play(1, seconds=1)):
        with pytest.raises(Closed):
            act()


def test_a_play_that_failed_and_nobody_waited_for_is_raised_on_leaving():
    world = World()
    with pytest.raises(Exception, match="went away"), world.neck:
        world.neck.play(3, seconds=20)
        world.clock.sleep(3)
        world.device.unplug()
        world.clock.sleep(0.5)


def test_a_stop_that_could_not_leave_is_raised_on_leaving_and_the_bound_holds():
    world = World(blocked=4.0)
    with pytest.raises(PortLost, match="ends by its own timer"), world.neck:
        world.neck.play(3, seconds=60)
        world.clock.sleep(4.5)
        bound = world.neck.status().bound
    assert world.device.emitting == 3
    world.clock.sleep(bound)
    assert not world.device.emitting


def test_latencies_are_counted():
    world = World(late=1.0, seed=1)
    for _ in range(20):
        try:
            world.neck.probe()
        except Exception:
            continue
    latency = world.neck.status().latency
    assert latency.count > 0 and latency.median <= latency.p95 <= latency.worst


def test_the_device_sleeps_after_five_minutes_and_hears_nothing_then():
    clock = FakeClock()
    device = VirtualNeckWear(now=clock.now)
    device.receive(frames.play(1, 1000))
    assert device.air == []  # asleep at power-on
    device.receive(frames.wake())
    device.receive(frames.play(1, 1000))
    clock.sleep(299)
    device.receive(frames.play(2, 1000))
    clock.sleep(301)
    device.receive(frames.play(3, 1000))
    assert [air.scent for air in device.air] == [1, 2]


def test_a_device_with_another_address_stays_silent():
    device = VirtualNeckWear(now=FakeClock().now, address=30012)
    device.receive(frames.wake() + frames.play(1, 1000, device=30011))
    assert device.air == []
    device.receive(frames.play(2, 1000, device=30012))
    assert device.emitting == 2


def test_a_cartridge_runs_empty_for_good():
    clock = FakeClock()
    device = FaultyNeckWear(now=clock.now, faults={"empty": 1.5})
    device.receive(frames.wake())
    for _ in range(3):
        device.receive(frames.play(3, 1000))
        clock.sleep(1.2)
    assert [round(air.end - air.start, 3) for air in device.air] == [1.0, 0.5]


def test_faults_are_read_from_text_and_a_wrong_one_is_named():
    assert read_faults(["late", "radio_loss=0.5", "unplug=3"]) == {"late": 1.0, "radio_loss": 0.5, "unplug": 3.0}
    for wrong in ("lat", "late=2", "late=x", "unplug=-1", "unplug=nan"):
        with pytest.raises(OptionError):
            read_faults([wrong])


def test_the_tcp_device_listens_on_this_machine_only_and_takes_the_next_client():
    device = VirtualNeckWear()
    with TcpServer(device) as served:
        assert served.port.startswith("socket://127.0.0.1:")
        for _ in range(2):
            with NeckWear.open(served.port, watchdog=False) as neck:
                assert neck.probe().channel == 150


def test_a_client_that_leaves_as_the_next_one_comes_does_not_take_it_along():
    device = VirtualNeckWear()
    with TcpServer(device) as served:
        address = ("127.0.0.1", int(served.port.rpartition(":")[2]))
        for _ in range(20):
            first = socket.create_connection(address)
            first.close()
            with socket.create_connection(address, timeout=5) as second:
                second.sendall(frames.read_channel())
                assert second.recv(64)[1] == 0xA7


def test_an_rfc2217_link_knows_that_ff_is_doubled_there():
    link = open_link("loop://")
    assert not link.telnet and link.fileno() is None and not link.wakes
    link.close()


class NoModem(serial.Serial):
    """A pty has no modem lines, and a telnet server asks for them."""

    cts = dsr = ri = cd = False

    def _update_dtr_state(self):
        pass

    def _update_rts_state(self):
        pass


def serve_telnet(listener, path):
    """One client of a serial port over telnet, until it leaves."""
    client, _ = listener.accept()
    with client, NoModem(path, timeout=0) as port:
        manager = PortManager(port, SimpleNamespace(write=client.sendall))
        while True:
            ready, _, _ = select.select([client, port], [], [], 20)
            if client in ready:
                data = client.recv(1024)
                if not data:
                    return
                port.write(b"".join(manager.filter(data)))
            if port in ready:
                client.sendall(b"".join(manager.escape(port.read(1024))))


def test_an_rfc2217_port_plays_and_stops():
    device = VirtualNeckWear()
    with PtyServer(device) as served, socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve_telnet, args=(listener, served.port), daemon=True).start()
        address = f"rfc2217://127.0.0.1:{listener.getsockname()[1]}"
        with NeckWear.open(address, watchdog=False, timing=Timing(gap=0.02, wake_gap=0.01)) as neck:
            assert neck.probe().channel == 150
            neck.play(3, seconds=20)
            until(lambda: device.emitting == 3)
            neck.stop()
            until(lambda: not device.emitting)


def test_a_port_is_followed_by_its_own_number_when_its_path_changes(monkeypatch):
    def port(device, number):
        return Port(device, "CP2102", number, 0x10C4, 0xEA60, "1-1", True)

    monkeypatch.setattr("smellkit.device.link.list_ports", lambda: [port("COM3", "A"), port("COM4", "B")])
    now_at = follow("COM3")
    assert now_at() == "COM3"
    monkeypatch.setattr("smellkit.device.link.list_ports", lambda: [port("COM4", "B"), port("COM9", "A")])
    assert now_at() == "COM9"
    monkeypatch.setattr("smellkit.device.link.list_ports", lambda: [])
    assert now_at() == "COM3"


def test_ports_are_listed():
    assert all(port.device for port in list_ports())


def test_commands_play_mix_stop_and_probe():
    run = CliRunner().invoke
    assert "radio channel 150" in run(neckwear, ["probe"]).output
    assert "holds a player" in str(run(neckwear, ["stop"]).exception)  # and none is made to be stopped
    said = run(neckwear, ["play", "3", "--seconds", "0.2"]).output
    assert said.startswith("Waking the player ...\nPlaying scent 3") and "unconfirmed" in said
    mixed = run(neckwear, ["mix", "1=0.5", "4=0.5", "--seconds", "2.5", "--slot", "1"]).output
    assert "2 slots: 1 4" in mixed and re.search(r"scent 4 (49|50)\.\d%", mixed)


def test_commands_know_scents_by_name_and_list_what_is_there():
    run = CliRunner().invoke
    assert "Cartridges 1, 3" in run(neckwear, ["checklist", "3", "1"]).output
    assert "radio_loss" in run(neckwear, ["virtual", "--list-faults"]).output
    assert run(neckwear, ["ports"]).exit_code == 0
    assert all(run(neckwear, ["virtual", "--seconds", bad]).exit_code == 2 for bad in ("-1", "nan", "inf"))
    assert "There is no scent '13'" in str(run(neckwear, ["play", "13"]).exception)
    assert "did you mean banana" in str(run(neckwear, ["play", "bananna"]).exception)
    assert "Playing scent orange" in run(neckwear, ["play", "orange", "--seconds", "0.2"]).output
    assert " 2  mandarin_orange" in run(neckwear, ["scents"]).output


def test_the_virtual_command_serves_any_client_and_logs_what_was_emitted(tmp_path):
    log = tmp_path / "air.jsonl"
    command = [
        sys.executable,
        "-m",
        "smellkit",
        "neckwear",
        "virtual",
        "--tcp",
        "0",
        "--seconds",
        "60",
        "--log",
        str(log),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        address = served.stdout.readline().split()[-1]
        with NeckWear.open(address, watchdog=False) as neck:
            neck.play(3, seconds=0.3)
            neck.wait()
        until(lambda: "air off" in log.read_text())
        served.terminate()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(event["event"], event["scent"]) for event in events] == [("air on", 3), ("air off", 3)]


def test_building_a_frame_and_parsing_are_fast():
    assert frame_seconds(2000) < 100e-6  # 20 on a quiet machine: `smellkit bench neckwear`
    assert parser_rate(streams()["mixed"][:200_000]) > 1e6  # 5e6 there


def test_the_device_package_loads_no_torch_and_no_pandas():
    code = "import smellkit.device.neckwear, sys; print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
