"""How long OpenMP's threads wait for more work before they sleep, chosen before torch loads GNU OpenMP.

Threads that wait in a loop start the next piece of work at once, but they take the processor from whatever runs beside
them, loader workers included, and then have no time left when work comes. GNU OpenMP's default is a few milliseconds,
in which a training step beside one busy process takes three to six times as long. Threads that sleep at once cost a
small network half its speed. `SPIN_COUNT` is in between; `python -m benchmarks.beside_other_work` measures it.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import MutableMapping

SPIN_COUNT = 2000  # rounds of the waiting loop, of 25 ns on the processor where this was measured
# Whoever sets one of these has decided how threads wait, or where they run.
DECIDED_BY = (
    "GOMP_SPINCOUNT",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "KMP_LIBRARY",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
)


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let the threads of OpenMP sleep soon after their work, in this process and those that it starts.

    To be called before torch is imported, later it has no effect. Only GNU OpenMP, which torch brings along on Linux,
    reads the variable; on other processors than x86 a round takes another time. It does nothing where the environment
    says how threads wait or where they run.
    """
    x86_on_linux = sys.platform == "linux" and platform.machine() == "x86_64"
    if x86_on_linux and not any(name in environment for name in DECIDED_BY):
        environment["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
