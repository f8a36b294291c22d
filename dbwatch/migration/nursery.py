"""Where the processes that run Alembic come from: `python -P -m dbwatch.migration.nursery SOCKET_FD`.

To import Alembic takes half a second, and a window needs a dozen such processes. This one has imported it, and forks.
It runs nobody's code, opens no connection and has one thread, so that a fork of it is as good as a new process.

Each request is one byte with four descriptors: the child's standard input, its output, the pipe for its answers, and
one on which a minder, forked in between, writes the child's process id and, when it has ended, its exit code, a line
each. What the child reads first is its environment. The end of the socket means that the parent is gone: we go too, and
the children see to themselves (leash.py).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence

from dbwatch.migration import child
from dbwatch.migration.request import ONE_MORE

DESCRIPTORS = 4


def main(fd: int) -> int:
    """Forks as it is asked, until the socket ends; in a child it does a child's work. The exit code."""
    channel = socket.socket(fileno=fd)
    gc.freeze()  # what is there stays: no child need look at it, nor copy it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps the minders
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, len(ONE_MORE), DESCRIPTORS)
        if not request:
            return 0
        if os.fork() == 0:
            channel.close()
            return _mind(*descriptors)
        _close(descriptors)


def _mind(*descriptors: int) -> int:
    """In a minder: forks the child, tells of it, and reaps it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *its, status = descriptors
    pid = os.fork()
    if pid == 0:
        os.close(status)
        return _be_born(*its)
    _close((*its, 0, 1, 2))
    _tell(status, pid)
    _, ended = os.waitpid(pid, 0)
    _tell(status, os.waitstatus_to_exitcode(ended))
    os._exit(0)


def _be_born(stdin: int, output: int, answers: int) -> int:
    """In a child: a session of its own, its own streams, its parent's environment."""
    os.setsid()
    os.dup2(stdin, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _close((stdin, output))
    environment = bytearray()
    while not environment.endswith(b"\n"):
        octet = os.read(0, 1)  # what comes after the line is not ours to read
        if not octet:
            return 1
        environment += octet
    os.environ.clear()
    os.environ.update(json.loads(environment))
    return child.main(answers)


def _tell(status: int, number: int) -> None:
    """A line to the parent; where it is gone, nobody wants to know."""
    with contextlib.suppress(BrokenPipeError):
        os.write(status, b"%d\n" % number)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
