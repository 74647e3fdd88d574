"""A player over Bluetooth: what bleak is to the kit, in front of the virtual player. Not tried on hardware."""

import asyncio
import os
import sys
from types import SimpleNamespace

import pytest
from test_device_faults import until

from smellkit.device import direct
from smellkit.device.errors import ArgumentError, NoReply, PortError, PortLost
from smellkit.device.jobs import Timing
from smellkit.device.neckwear import NeckWear
from smellkit.device.virtual import VirtualDirect
from smellkit.device.watchdog import order_stop

CHARACTERISTIC = "0000fff1-0000-1000-8000-00805f9b34fb"


class Bluetooth:
    """The parts of bleak 3 that are used, with one player in the air; notifications have 20 bytes, as they may."""

    def __init__(self, device, *, characteristic=CHARACTERISTIC):
        self.device, self.near, self.clients = device, True, []
        self.services = [SimpleNamespace(characteristics=[SimpleNamespace(uuid=characteristic)])]
        self.BleakScanner = SimpleNamespace(find_device_by_filter=self.find)
        self.BleakClient = lambda device, disconnected_callback: Client(self, disconnected_callback)

    async def find(self, matches, timeout):
        await asyncio.sleep(0.01)
        player = SimpleNamespace(address="C0:FF:EE:00:00:01", name=None)
        return player if self.near and matches(player, SimpleNamespace(local_name="NeckWear")) else None

    def vanish(self):
        self.near = False
        for client in self.clients:
            client.loop.call_soon_threadsafe(client.drop)


class Client:
    """One connection."""

    def __init__(self, bluetooth, on_end):
        self.air, self.on_end, self.services, self.pump = bluetooth, on_end, bluetooth.services, None

    async def connect(self):
        self.loop = asyncio.get_running_loop()
        self.air.clients.append(self)

    async def start_notify(self, char, callback):
        async def pump():
            while True:
                data = self.air.device.send()
                for at in range(0, len(data), 20):
                    callback(char, bytearray(data[at : at + 20]))
                await asyncio.sleep(0.002)

        self.pump = asyncio.create_task(pump())

    async def write_gatt_char(self, char, data):
        assert len(data) <= 20 and char.uuid == CHARACTERISTIC
        await asyncio.sleep(0.005)
        if not self.air.near:
            raise RuntimeError("BleakError: not connected")
        if not self.air.device.takes_bytes:
            await asyncio.sleep(60)
        self.air.device.receive(bytes(data))

    async def disconnect(self):
        self.drop()

    def drop(self):
        if self in self.air.clients:
            self.air.clients.remove(self)
            if self.pump:
                self.pump.cancel()
            self.on_end(self)


@pytest.fixture
def bluetooth(monkeypatch):
    air = Bluetooth(VirtualDirect())
    monkeypatch.setitem(sys.modules, "bleak", air)
    return air


@pytest.mark.parametrize("name", ["NeckWear", "C0:FF:EE:00:00:01"])
@pytest.mark.parametrize("link", ["direct", "auto"])
def test_a_player_is_found_by_name_or_address_and_confirms_its_stop(bluetooth, name, link):
    with NeckWear.open(f"ble:{name}", link=link) as neck:
        neck.probe()
        assert neck.status().cartridges == tuple(range(1, 13))  # a reply of 28 bytes, in two pieces
        neck.play(3, seconds=30)
        until(lambda: bluetooth.device.emitting == 3)
        assert neck.stop().confirmed and not bluetooth.device.emitting
    assert bluetooth.clients == []


def test_a_play_over_bluetooth_has_frames_of_two_seconds_since_no_watchdog_reaches_it(bluetooth):
    with NeckWear.open("ble:NeckWear", link="direct", timing=Timing(gap=0.02)) as neck:
        assert not neck.status().guarded
        neck.play(3, seconds=3)
        neck.wait()
        until(lambda: not bluetooth.device.emitting)
        neck.play_mixture([0.5, 0, 0.5] + [0] * 9, seconds=3)
        until(lambda: bluetooth.device.emitting)
        assert neck.status().bound <= 2.2
    plays = [raw for _, raw in bluetooth.device.received if raw[5] in (direct.PLAY, direct.MIX)]
    assert len(plays) >= 3 and all(raw[5] == direct.PLAY and int.from_bytes(raw[8:12], "big") <= 2000 for raw in plays)


def test_an_emergency_stop_reaches_it_through_the_program_that_holds_it(bluetooth):
    with NeckWear.open("ble:NeckWear", link="direct") as neck:
        neck.play(3, seconds=30)
        until(lambda: bluetooth.device.emitting)
        (reply,) = [reply for reply in order_stop() if reply["pid"] == os.getpid()]
        assert reply["sent"] == reply["confirmed"] == ["ble:NeckWear"] and not bluetooth.device.emitting


def test_a_player_that_leaves_is_one_error_and_is_stopped_first_when_it_is_back(bluetooth):
    with NeckWear.open("ble:NeckWear", link="direct") as neck:
        neck.play(3, seconds=30)
        until(lambda: bluetooth.device.emitting)
        bluetooth.vanish()
        with pytest.raises(PortLost):
            neck.wait()
        heard, bluetooth.near = len(bluetooth.device.received), True
        until(lambda: neck.status().connected)
        until(lambda: len(bluetooth.device.received) > heard)
        assert bluetooth.device.received[heard][1] == direct.stop()
        until(lambda: not bluetooth.device.emitting)


def test_a_write_that_bluetooth_holds_up_is_bounded(bluetooth):
    with pytest.raises((NoReply, PortLost)), NeckWear.open("ble:NeckWear", link="direct") as neck:
        bluetooth.device.takes_bytes = False
        neck.probe()


def test_what_keeps_a_player_from_being_opened_is_said(bluetooth, monkeypatch):
    with pytest.raises(ArgumentError, match="No handset"):
        NeckWear.open("ble:NeckWear")
    with pytest.raises(PortError, match="nobody of that name"):
        NeckWear.open("ble:Somebody", link="direct")
    bluetooth.services[0].characteristics[0].uuid = "00002a00-0000-1000-8000-00805f9b34fb"
    with pytest.raises(PortError, match="no characteristic fff1, but 00002a00"):
        NeckWear.open("ble:NeckWear", link="direct")
    monkeypatch.setitem(sys.modules, "bleak", None)
    with pytest.raises(PortError, match="pip install 'smellkit\\[ble\\]'"):
        NeckWear.open("ble:NeckWear", link="direct")
