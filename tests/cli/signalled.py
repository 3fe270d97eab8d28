"""Runs `lmanet` in processes forked after the imports, sends them signals, and says how they ended.

Reads on stdin a JSON list of jobs a line: `folder`, `arguments`, `signals` as [seconds after the one before, number],
and `prepare`, Python that is run first. Writes a JSON list a line: `status`, `seconds`, `sent` (signals that found the
process running) and `stderr`. A process that does not end within 20 s is killed, and its status is -9.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from typing import Any

import rich.progress
import rich.table  # noqa: F401
import torch._dynamo  # noqa: F401 (what trying a network out imports)

import lmanet.cli.labelling
import lmanet.cli.main
import lmanet.labelling.live
import lmanet.video.view

LONGEST_S = 20


def child(job: dict[str, Any], stderr: int) -> None:
    os.dup2(stderr, 1)
    os.dup2(stderr, 2)
    status = 70
    # As a terminal starts it: shells let what runs in the background ignore signals, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        os.chdir(job["folder"])
        sys.path.insert(0, job["folder"])
        exec(job.get("prepare", ""), {})
        sys.argv = ["lmanet", *job["arguments"]]
        status = lmanet.cli.main.main()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(pid: int, until_s: float) -> int | None:
    while time.monotonic() < until_s:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def run(job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as said:
        began_s = time.monotonic()
        pid = os.fork()
        if not pid:
            child(job, said.fileno())
        status, sent = None, 0
        for delay_s, number in job.get("signals", []):
            status = ended(pid, time.monotonic() + delay_s)
            if status is not None:
                break
            os.kill(pid, number)
            sent += 1
        if status is None:
            status = ended(pid, time.monotonic() + LONGEST_S)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        seconds = time.monotonic() - began_s
        said.seek(0)
        # What a shell would say of a process that a signal ended.
        status = 128 - status if status < 0 and status != -signal.SIGKILL else status
        return {"status": status, "seconds": seconds, "sent": sent, "stderr": said.read().decode()}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps([run(job) for job in json.loads(line)]), flush=True)
