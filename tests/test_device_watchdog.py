"""However a program ends, the device falls silent: asserted on the scent in the air of a virtual device elsewhere."""

import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from smellkit.device import frames
from smellkit.device.guard import Guard
from smellkit.device.jobs import DIALECTS
from smellkit.device.neckwear import NeckWear
from smellkit.device.serve import PtyServer, TcpServer
from smellkit.device.virtual import VirtualNeckWear
from smellkit.study.device.bench import await_silence, kill_latency

START = """
import os, signal, sys, time
from smellkit.device.jobs import Timing
from smellkit.device.neckwear import NeckWear

def begin():
    neck = NeckWear.open(sys.argv[1], timing=Timing(gap=0.02, wake_gap=0.01))
    neck.play(3, seconds=30)
    print(neck._guard.pid, flush=True)
    return neck
"""
ENDS = {  # how a program ends, and the signals that it gets for it
    "the normal end": ("neck = begin(); time.sleep(0.5)", []),
    "an exception": ("neck = begin(); time.sleep(0.5); raise ValueError", []),
    "with and Ctrl-C": ("with begin() as neck: neck.wait()", [signal.SIGINT]),
    "with and Ctrl-C twice": ("with begin() as neck: neck.wait()", [signal.SIGINT, signal.SIGINT]),
    "Ctrl-C without with": ("neck = begin(); neck.wait()", [signal.SIGINT]),
    "SIGTERM": ("neck = begin(); time.sleep(60)", [signal.SIGTERM]),
    "SIGKILL": ("neck = begin(); time.sleep(60)", [signal.SIGKILL]),
    "Ctrl-C, then SIGKILL, as a notebook runner does": (
        "neck = begin(); time.sleep(60)",
        [signal.SIGINT, signal.SIGKILL],
    ),
    "os._exit": ("neck = begin(); time.sleep(0.5); os._exit(1)", []),
    "exec": ("neck = begin(); time.sleep(0.5); os.execv('/bin/sleep', ['sleep', '0.5'])", []),
}


def end(kind, program, signals):
    """Run a program that plays, end it, and return the device and when the end began."""
    device = VirtualNeckWear()
    server = PtyServer(device) if kind == "pty" else TcpServer(device)
    command = [sys.executable, "-c", START + program, server.port]
    with (
        server,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child,
    ):
        watchdog = int(child.stdout.readline())
        await_silence(device, False)
        for number in signals:
            if child.poll() is None:
                child.send_signal(number)
            time.sleep(0.02)
        await_silence(device, True, 8.0)  # a play frame lasts 10 s: this silence was sent
        child.wait(20)
        gone(watchdog)
    return device


def gone(pid, seconds=10.0):
    """Wait until a process that is not our child has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} lives on")


@pytest.mark.parametrize("how", ENDS)
def test_d12_however_the_program_ends_the_device_falls_silent(how):
    device = end("pty", *ENDS[how])
    assert [air.scent for air in device.air] == [3]
    assert device.received[-1][1] == frames.stop()


@pytest.mark.parametrize("how", ["SIGKILL", "os._exit", "SIGTERM"])
def test_d12_over_tcp_too(how):
    assert end("tcp", *ENDS[how]).received[-1][1] == frames.stop()


def test_d12_a_killed_program_is_silenced_fast():
    times = sorted(kill_latency("pty", signal.SIGKILL) for _ in range(5))
    assert times[2] < 0.1  # the median: the 40 of 40 are `smellkit bench neckwear`, where nothing else runs
    assert times[-1] < 2.0


def test_d12_a_program_with_a_virtual_device_of_its_own_leaves_no_process_behind():
    program = START + "neck = begin(); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, "virtual"], stdout=subprocess.PIPE) as child:
        watchdog = int(child.stdout.readline())
        child.kill()
        child.wait()
        gone(watchdog)


def test_d12_a_restarted_kernel_leaves_silence():
    manager = pytest.importorskip("jupyter_client.manager")
    device = VirtualNeckWear()
    with PtyServer(device) as server:
        kernel, client = manager.start_new_kernel(kernel_name="python3")
        try:
            code = f"import sys; sys.argv = ['', {server.port!r}]\n{START}\nneck = begin()"
            client.execute_interactive(code, timeout=60, output_hook=lambda message: None)
            await_silence(device, False)
            kernel.restart_kernel(now=True)
            await_silence(device, True, 8.0)
        finally:
            client.stop_channels()
            kernel.shutdown_kernel(now=True)
    assert device.received[-1][1] == frames.stop()


def test_the_watchdog_goes_with_a_goodbye_and_sends_nothing():
    device = VirtualNeckWear()
    with PtyServer(device) as server:
        neck = NeckWear.open(server.port)
        pid = neck._guard.pid
        began = time.monotonic()
        neck.close()
        assert time.monotonic() - began < 1.5  # it was not waited for in vain
        assert not os.path.exists(f"/proc/{pid}")  # noqa: PTH110
        time.sleep(0.3)
        assert [raw for _, raw in device.received] == [frames.stop()] * 3  # the driver's own
        with NeckWear.open(server.port, watchdog=False) as again:  # and the port is free
            assert again.probe().channel == 150


class Alone:
    """A player without a driver, so that nothing but the watchdog can send."""

    name, key, watched, link, dialect = "", 0, True, None, DIALECTS["handset"]

    def order(self, why, then):
        pass

    def guard_changed(self, why):
        pass


def test_the_watchdog_follows_the_port_to_another_descriptor_and_lets_go_of_a_lost_one():
    ours, device = socket.socketpair()
    other, second = socket.socketpair()
    guard, player = Guard(), Alone()
    guard.enter(player)
    for end, telnet in ((ours, False), (other, True)):
        player.link = SimpleNamespace(name="", fileno=end.fileno, telnet=telnet, alone=False)
        guard.follow(player)
    ours.close()
    device.settimeout(5)
    assert device.recv(100) == b""  # the first one is closed on the watchdog's side too
    other.close()
    guard.leave(player, silent=False)  # as if its driver had died
    second.settimeout(5)
    heard = b""
    while part := second.recv(1000):
        heard += part
    assert heard == frames.stop().replace(b"\xff", b"\xff\xff") * 3
    guard.end()
    device.close()
    second.close()


def test_the_watchdog_imports_nothing_heavy():
    heavy = ("torch", "numpy", "pandas", "serial")
    code = f"import smellkit.device.guard, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_sigterm_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with NeckWear.open("virtual", watchdog=False):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
