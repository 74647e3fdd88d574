"""What all tests share."""

import signal

from hypothesis import settings

settings.register_profile("kit", deadline=None)  # no test is timed: a busy machine is not wrong
settings.load_profile("kit")

# A shell ignores Ctrl-C for what it starts in the background, and children inherit that: tests that press Ctrl-C would
# wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
