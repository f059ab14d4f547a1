"""`python -m lab`."""

import signal

_handler = signal.getsignal(signal.SIGINT)
if _handler is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends it without a traceback

from lab.cli import app  # noqa: E402

signal.signal(signal.SIGINT, _handler)
app()
