"""Commands around the library: `python -m tools.NAME --help`."""

from util.start_up.threads import wait_briefly

wait_briefly()  # before the command imports torch
