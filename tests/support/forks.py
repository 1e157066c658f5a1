"""Work in forks of the test's process, which has everything imported."""

from __future__ import annotations

import os
import signal
import time


def in_child(work, kill_after=None):
    """Work in a fork, which ends with the code that it returns, 0 for none; kill -9 after some seconds."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = work() or 0
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
