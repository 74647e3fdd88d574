"""Figures of the NeckWear's driver, each by the code that measures it.

Frames and parser are in CPU time, best of some rounds: the rest of a busy machine is not theirs. Scenarios run by the
fake clock or on a pty; everything else is real time.
"""

import logging
import math
import random
import signal
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import click

from smellkit.device import frames
from smellkit.device.clock import Clock
from smellkit.device.errors import LinkError
from smellkit.device.frames import Parser
from smellkit.device.jobs import DIALECTS
from smellkit.device.neckwear import NeckWear
from smellkit.device.serve import PtyServer, TcpServer
from smellkit.device.virtual import VirtualNeckWear
from smellkit.device.watchdog import order_stop
from smellkit.study.commands import JSON, keep
from smellkit.study.device.scenarios import run_all

CHILD = """
import sys, time
from smellkit.device.jobs import Timing
from smellkit.device.neckwear import NeckWear
neck = NeckWear.open(sys.argv[1], timing=Timing(gap=0.02, wake_gap=0.01))
neck.play(3, seconds=30)
print("watched" if neck.has_watchdog else "alone", flush=True)
time.sleep(0.5)  # the play is out before the interpreter is held
"""
WORK = {  # what the main thread is busy with when the signal comes: nothing, or native code
    "": "time.sleep(60)",
    "matrix product": "import numpy; a = numpy.ones((4000, 4000)); print('in', flush=True)\nwhile True: a @ a",
    "held interpreter": "print('in', flush=True); sum(range(10**11))",
}
KILLS = [("pty", signal.SIGKILL, ""), ("tcp", signal.SIGKILL, "")]
KILLS += [("pty", number, work) for number in (signal.SIGTERM, signal.SIGINT) for work in WORK]

TWICE = """
import sys
from smellkit.device.jobs import Timing
from smellkit.device.neckwear import NeckWear
neck = NeckWear.open(sys.argv[1], timing=Timing(gap=0.01, wake_gap=0.005))
while True:
    try:
        if not sys.stdin.readline():
            break
        try:
            neck.play(3, seconds=30)
            neck.wait()
        except KeyboardInterrupt:
            neck.stop()
    except KeyboardInterrupt:
        continue
"""


@click.command()
@JSON
@click.option("--long", is_flag=True, help="Also play a list of 300 s in real time.")
def bench(out, long):
    """Measure frames, parser, stop, watchdog and the fault scenarios of the NeckWear."""
    keep(measure(progress=click.echo, long=long), out, "smellkit bench neckwear" + " --long" * long)


def measure(*, progress: Callable[[str], None], long: bool = False) -> dict[str, Any]:
    """Return every figure by name. About two minutes; `long` adds a playlist of 300 s in real time."""
    figures: dict[str, Any] = {}
    logging.getLogger("smellkit.device").setLevel(logging.ERROR)  # full disks are part of the scenarios

    def add(name: str, value: Any) -> None:
        figures[name] = value
        progress(f"{name}: {value}")

    add("frame_microseconds", round(frame_seconds() * 1e6, 2))
    for name, stream in streams().items():
        add(f"parser_{name}_megabytes_per_second", round(parser_rate(stream) / 1e6, 1))
    add("fuzzed_bytes_without_exception", fuzz(1_000_000))
    for kind, number, work in KILLS:
        times, name = [kill_latency(kind, number, work=work) for _ in range(40)], f"{number.name.lower()}_{kind}"
        name += f"_{work}".replace(" ", "_") if work else ""
        add(f"{name}_silent_within_100_ms", f"{sum(value <= 0.1 for value in times)} of 40")
        add(f"{name}_median_ms", round(statistics.median(times) * 1000, 1))
        add(f"{name}_worst_ms", round(max(times) * 1000, 1))
    pairs = 2000 if long else 200
    add("double_signals_left_playing", f"{double_signals(pairs)} of {pairs}")
    for name, times in (("stop_to_silence", stop_latencies(20)), ("stop_order_to_silence", order_latencies(20))):
        add(f"{name}_median_ms", round(statistics.median(times) * 1000, 2))
        add(f"{name}_worst_ms", round(max(times) * 1000, 2))
    for link in DIALECTS:
        for where, count in (("fake_clock", 10_000), ("pty", 300)):
            name = where if link == "handset" else f"{where}_{link}"
            began, summary = time.monotonic(), run_all(count, pty=where == "pty", link=link)
            facts = asdict(summary) | {"broken": [seed for seed, _ in summary.broken]}
            facts["slowest_call_of_its_bound"] = round(summary.slowest_call_of_its_bound, 3)
            add(f"scenarios_{name}", facts | {"seconds": round(time.monotonic() - began, 1)})
    if long:
        drift, worst = playlist_drift()
        add("playlist_300_s_cumulative_drift_ms", round(drift * 1000, 2))
        add("playlist_300_s_latest_slot_ms", round(worst * 1000, 2))
    return figures


def frame_seconds(count: int = 20_000) -> float:
    """Seconds of CPU time to build one play frame: the best of five rounds."""
    return min(timeit.repeat(lambda: frames.play(3, 10_000), timer=time.thread_time, number=count, repeat=5)) / count


def streams() -> dict[str, bytes]:
    """About a megabyte each of short replies, long replies, both in turn, and noise."""
    short = bytes.fromhex("F5A796013D55")
    long = bytes.fromhex("F5D10018F5010001020000A256FF6A0678755356582612670004F855082755")
    return {
        "short": short * 170_000,
        "long": long * 33_000,
        "mixed": (short * 5 + long) * 17_000,
        "noise": random.Random(5).randbytes(1_000_000),
    }


def parser_rate(stream: bytes, *, chunk: int = 4096) -> float:
    """Bytes a second through the parser: of CPU time, the best of five rounds."""

    def parse() -> None:
        parser = Parser()
        for at in range(0, len(stream), chunk):
            parser.feed(stream[at : at + chunk])

    return len(stream) / min(timeit.repeat(parse, timer=time.thread_time, number=1, repeat=5))


def fuzz(count: int) -> int:
    """Feed `count` random bytes that look like frames and return the count; any exception comes through."""
    draw, parser, fed = random.Random(5), Parser(), 0
    while fed < count:
        chunk = bytes(draw.choices(b"\xf5\x55\xa6\xa7\xd1\x00\x18\xff\x01\x96", k=draw.randrange(1, 300)))
        parser.feed(chunk)
        fed += len(chunk)
        if draw.random() < 0.2:
            parser.expire()
    return fed


@contextmanager
def playing(kind: str = "pty", work: str = "") -> Iterator[tuple[VirtualNeckWear, subprocess.Popen]]:
    """A device and a program that plays on it, over a pty or TCP, while its main thread is busy with `work`."""
    device = VirtualNeckWear()
    server = PtyServer(device) if kind == "pty" else TcpServer(device)
    command, out = [sys.executable, "-c", CHILD + WORK[work], server.port], subprocess.PIPE
    with server, subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        if child.stdout.readline() != b"watched\n":
            raise LinkError("The watchdog did not start", port=server.port)
        await_silence(device, False)
        try:
            if work:
                child.stdout.readline()
                Clock.sleep(0.3)
            yield device, child
        finally:
            child.kill()


def kill_latency(kind: str, number: int = signal.SIGKILL, *, work: str = "") -> float:
    """Seconds from the signal to a program that plays until the scent is out of the air, for good."""
    with playing(kind, work) as (device, child):
        killed = Clock.now()
        child.send_signal(number)
        await_silence(device, True)
        Clock.sleep(0.2 if work else 0.0)
        end = device.air[-1].end
        return (end or math.inf) - killed


def order_latencies(count: int) -> list[float]:
    """Seconds from a stop order of this process to the silence of another one's player."""
    times = []
    for _ in range(count):
        with playing() as (device, _):
            began = Clock.now()
            order_stop()
            await_silence(device, True)
            times.append((device.air[-1].end or math.inf) - began)
    return times


def double_signals(count: int, *, seed: int = 0) -> int:
    """Interrupt a program that plays twice, at any distance, `count` times; how often a scent was left."""
    device, draw, left = VirtualNeckWear(), random.Random(seed), 0
    with PtyServer(device) as server:
        while count > 0:  # some signals end the program itself: then another one goes on
            command = [sys.executable, "-c", TWICE, server.port]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
                while count > 0 and _plays(child, device):
                    for distance in (draw.choice([0.0, 1e-4, 1e-3, draw.uniform(0, 0.1)]), 0.0):
                        child.send_signal(signal.SIGINT)
                        Clock.sleep(distance)
                    until = Clock.now() + 0.5
                    while device.emitting and Clock.now() < until:
                        Clock.sleep(0.002)
                    Clock.sleep(0.12)  # the watchdog's burst is over, and nothing renews it
                    left += bool(device.emitting)
                    count -= 1
                child.kill()
                child.stdin = None
    return left


def _plays(child: subprocess.Popen, device: VirtualNeckWear) -> bool:
    """Have it play and wait until it does; False when it ended."""
    asked = 0.0
    while not device.emitting and child.poll() is None and child.stdin:
        if Clock.now() > asked + 2.0:  # a signal may have come while it read its order
            with suppress(BrokenPipeError):
                child.stdin.write(b"play\n")
                child.stdin.flush()
            asked = Clock.now()
        Clock.sleep(0.002)
    return child.poll() is None


def stop_latencies(count: int) -> list[float]:
    """Seconds from `stop()` to silence on a pty."""
    times = []
    with NeckWear.open("virtual") as neck:
        assert neck.virtual is not None
        for _ in range(count):
            neck.play(3, seconds=30)
            await_silence(neck.virtual, False)
            began = Clock.now()
            neck.stop()
            times.append((neck.virtual.air[-1].end or Clock.now()) - began)
    return times


def playlist_drift(seconds: float = 300.0) -> tuple[float, float]:
    """A playlist in real time: what lateness adds up to from its first ten slots to its last, and the latest slot.

    The first is the driver's (medians, seconds); the second is how long a busy machine kept one waking.
    """
    with NeckWear.open("virtual") as neck:
        assert neck.virtual is not None
        plan = neck.play_mixture([0.4, 0.3, 0.2, 0.1] + [0.0] * 8, seconds=seconds)
        neck.wait()
        air = neck.virtual.air
    late = [one.start - air[0].start - slot[0] for one, slot in zip(air, plan.slots, strict=True)]
    return abs(statistics.median(late[-10:]) - statistics.median(late[:10])), max(map(abs, late))


def await_silence(device: VirtualNeckWear, silent: bool, seconds: float = 30.0) -> None:
    """Wait until the device emits nothing, or something."""
    deadline = Clock.now() + seconds
    while bool(device.emitting) == silent:
        if Clock.now() > deadline:
            raise LinkError(f"The virtual device {'still' if silent else 'never'} plays", elapsed=seconds)
        Clock.sleep(0.002)
