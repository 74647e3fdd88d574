"""Fuzz the parser for as long as you like: `pip install atheris`, then `python tests/fuzz_frames.py -runs=1000000`.

Holds: no exception, the same frames in any chunking, every byte either in a frame or dropped or in a sound forward
frame around something else. pytest does not collect this file.
"""

import sys


def check(data: bytes) -> None:
    """Raise AssertionError when one of the promises breaks on `data`; its first byte picks the chunk size."""
    from smellkit.device.frames import Parser

    size, stream = (data[0] % 37 + 1, data[1:]) if data else (1, b"")
    whole, cut = Parser(), Parser()
    one = whole.feed(stream) + whole.expire()
    other = [frame for at in range(0, len(stream), size) for frame in cut.feed(stream[at : at + size])] + cut.expire()
    assert one == other and whole.dropped == cut.dropped and whole.errors == cut.errors
    assert whole.waiting == 0
    hollow = sum(7 + len(fault.raw) for fault in whole.errors if fault.startswith("inner_"))
    if len(whole.errors) < 1000:
        assert len(stream) == sum(len(frame.raw) for frame in one) + whole.dropped + hollow


if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports():
        import smellkit.device.frames  # noqa: F401
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
