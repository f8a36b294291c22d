"""A real terminal for tests: a command in a pty of a given size, keys in, raw bytes and a screen out."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import pyte

KEYS = {
    "enter": "\r", "escape": "\x1b", "tab": "\t", "backspace": "\x7f", "up": "\x1b[A", "down": "\x1b[B",
    "right": "\x1b[C", "left": "\x1b[D", "home": "\x1b[H", "end": "\x1b[F", "pageup": "\x1b[5~",
    "pagedown": "\x1b[6~", "ctrl+c": "\x03", "ctrl+p": "\x10", "space": " ", "f2": "\x1bOQ", "f3": "\x1bOR",
}  # fmt: skip

_ESCAPE = re.compile(
    r"\x1b\[(?P<private>[<-?]*)(?P<params>[0-?]*)(?P<between>[ -/]*)(?P<final>[@-~])"
    r"|\x1b(?P<string>[\]PX^_])(?P<body>[^\x07\x1b]*)(?:\x07|\x1b\\)?"
    r"|\x1b(?P<short>[ -/]*[0-~])"
    r"|(?P<control>[\x00-\x1f\x7f-\x9f])",
    re.DOTALL,
)


def controls(stream: str) -> set[str]:
    """Every kind of control in *stream*: `CSI ? h 1049`, `CSI m`, `OSC 0`, `ESC 7`, `0x0a`.

    Parameters that vary by nature (colours, positions) are left out; those of set and reset mode are kept.
    """
    kinds = set()
    for match in _ESCAPE.finditer(stream):
        if match["final"]:
            mode = match["params"] if match["final"] in "hlJKrsutqnc" else ""
            shape = [match["private"], match["between"], match["final"], mode]
            kinds.add(" ".join(["CSI", *(part for part in shape if part)]))
        elif match["string"]:
            kinds.add(f"{match['string']} {match['body'].split(';')[0]}")
        elif match["short"]:
            kinds.add(f"ESC {match['short']}")
        else:
            kinds.add(f"0x{ord(match['control']):02x}")
    return kinds


def printed(stream: str) -> str:
    """The text of *stream* without its control sequences."""
    return _ESCAPE.sub("", stream)


class Terminal:
    """A command that runs in a pty. Everything that it writes is kept, and drawn on a screen."""

    def __init__(self, process: asyncio.subprocess.Process, master: int, columns: int, rows: int) -> None:
        self._process = process
        self._master = master
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._wrote = asyncio.Event()
        self._open = True
        self.raw = bytearray()
        """Every byte that the command wrote."""
        os.set_blocking(master, False)
        asyncio.get_running_loop().add_reader(master, self._read)

    # What it shows

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lines(self) -> list[str]:
        """The screen, line by line."""
        rows = (self._screen.buffer[y] for y in range(self._screen.lines))
        return ["".join(row[x].data for x in range(self._screen.columns)).rstrip() for row in rows]

    @property
    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.lines)

    @property
    def stream(self) -> str:
        """All that it wrote, decoded; a byte that is no UTF-8 becomes a lone surrogate."""
        return self.raw.decode("utf-8", "surrogateescape")

    async def until(self, shown: str | Callable[[Terminal], bool], within: float = 20.0) -> None:
        """Waits until the text *shown* is on the screen, or until *shown* holds. Fails with the screen in hand."""
        holds = (lambda t: shown in t.text) if isinstance(shown, str) else shown
        try:
            async with asyncio.timeout(within):
                while not holds(self):
                    if not self._open and self._process.returncode is not None:
                        raise AssertionError(f"it ended with {self._process.returncode} first:\n{self.text}")
                    self._wrote.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._wrote.wait(), 0.2)
        except TimeoutError:
            raise AssertionError(f"not within {within} s: {shown!r}; the screen:\n{self.text}") from None

    async def quiet(self, seconds: float = 0.3) -> None:
        """Waits until nothing was written for *seconds*."""
        while True:
            self._wrote.clear()
            try:
                await asyncio.wait_for(self._wrote.wait(), seconds)
            except TimeoutError:
                return

    # What a person does

    def press(self, *keys: str) -> None:
        """Presses keys: names as in KEYS, anything else as it is. Wait 0.1 s after `escape`: it is not Alt then."""
        for key in keys:
            os.write(self._master, KEYS.get(key, key).encode())

    def resize(self, columns: int, rows: int) -> None:
        """Makes the terminal so large, as a window manager would."""
        _set_size(self._master, columns, rows)
        self._screen.resize(rows, columns)
        self.signal(signal.SIGWINCH)

    def hang_up(self) -> None:
        """Closes the terminal under the command, as a lost SSH line does."""
        self._close()

    def signal(self, number: signal.Signals) -> None:
        """Sends the command a signal. Not by the process object: it would first reap a dead one, and lose its code."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    async def ended(self, within: float = 10.0) -> int:
        """Waits for the command's end; its exit code, negative for the signal that killed it."""
        try:
            code = await asyncio.wait_for(self._process.wait(), within)
        except TimeoutError:
            raise AssertionError(f"still running after {within} s; the screen:\n{self.text}") from None
        self._read()
        return code

    # Behind it

    def _read(self) -> None:
        while self._open:
            try:
                data = os.read(self._master, 65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close()
                return
            self.raw += data
            self._stream.feed(_for_pyte(data))
            self._wrote.set()

    def _close(self) -> None:
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._master)
            self._wrote.set()

    async def stop(self) -> None:
        """Ends the command, kindly at first, and everything that is left of its session."""
        self._close()
        if self._process.returncode is None:
            self._process.terminate()
            with suppress(AssertionError):
                await self.ended(5.0)
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


def _for_pyte(data: bytes) -> bytes:
    """*data* without the private sequences that pyte would print as text (`CSI > 1 u`, `CSI ? 2026 $ p`)."""
    return re.sub(rb"\x1b\[[<-?][0-9;]*\$?[pu]", b"", data)


def _set_size(fd: int, columns: int, rows: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@asynccontextmanager
async def terminal(
    command: Sequence[str],
    *,
    columns: int = 120,
    rows: int = 40,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> AsyncIterator[Terminal]:
    """Runs *command* in a terminal of its own; it is stopped at the end, however that comes.

    *env* is added to this process's environment; TERM is xterm-256color and the language C.UTF-8 unless told.
    """
    master, slave = pty.openpty()
    _set_size(slave, columns, rows)
    whole = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "TEXTUAL_ANIMATIONS": "none", **(env or {})}
    for name in ("COLORTERM", "COLUMNS", "LINES"):  # of the terminal that the tests themselves run in
        whole.pop(name, None)
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env=whole, cwd=cwd, preexec_fn=lambda: os.login_tty(slave)
        )
    finally:
        os.close(slave)
    running = Terminal(process, master, columns, rows)
    try:
        yield running
    finally:
        await running.stop()
