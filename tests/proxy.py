"""A TCP proxy that does to a connection what networks do: delays it, stalls it, loses an answer, cuts it."""

from __future__ import annotations

import asyncio
import contextlib

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class FaultProxy:
    """Stands before one server; `dsn` leads through it. Faults act on connections that exist and on new ones."""

    def __init__(self, dsn: str) -> None:
        self._behind = conninfo_to_dict(dsn)
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._links: set[_Link] = set()
        self.delay_s = 0.0
        """How long each piece of an answer is held back."""
        self.accepted = 0
        """Connections so far."""
        self.refusing = False
        """Whether a new connection is closed as soon as it is made: a server that does not come back."""
        self._swallow_answers = False
        self._awaited = b""
        self._stalls_at = b""
        self.stalled = asyncio.Event()
        """Set once `stall_at` has met its words."""
        self._pieces_left: int | None = None
        self._last_arrives = False

    async def start(self) -> None:
        """Listens on a free port of the loopback."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def close(self) -> None:
        """Cuts everything and stops listening."""
        if self._server:
            self._server.close()
        self.cut()
        self._flowing.set()
        await asyncio.gather(*(link.ended for link in list(self._links)), return_exceptions=True)

    @property
    def dsn(self) -> str:
        """The server's connection string, by way of this proxy."""
        assert self._server is not None
        _, port = self._server.sockets[0].getsockname()
        return make_conninfo(**{**self._behind, "host": "127.0.0.1", "port": port})

    def lead_to(self, dsn: str) -> None:
        """New connections go to the server of *dsn* from now on: a failover."""
        self._behind = conninfo_to_dict(dsn)

    def stall(self) -> None:
        """Nothing passes any more, in either direction, and nobody is told: a network gone dark."""
        self._flowing.clear()

    def stall_at(self, words: bytes) -> None:
        """As `stall`, once a client sends something that has *words* in it: the server does not get it yet."""
        self.stalled.clear()
        self._stalls_at = words

    def resume(self) -> None:
        """Everything held back passes on."""
        self._flowing.set()

    def cut(self) -> None:
        """Resets every connection that exists; new ones are let through."""
        for link in list(self._links):
            link.cut()

    def drop_next_answer(self) -> None:
        """The next thing a client sends reaches the server; the answer does not come back, the connection ends.

        So a COMMIT takes effect and its client cannot know.
        """
        self._swallow_answers = True

    def drop_answer_to(self, words: bytes) -> None:
        """As `drop_next_answer`, once a client sends something that has *words* in it: `COMMIT`."""
        self._awaited = words

    def die_at(self, piece: int, *, arrives: bool) -> None:
        """The connection ends at the client's *piece*-th piece from now on, 1 the next one.

        With *arrives* the server still gets that piece, and its answer is lost.
        """
        self._pieces_left, self._last_arrives = piece, arrives

    def _dies_now(self) -> bool:
        if self._pieces_left is None:
            return False
        self._pieces_left -= 1
        if self._pieces_left:
            return False
        self._pieces_left = None
        self._swallow_answers = self._last_arrives
        return not self._last_arrives

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            writer.close()
            return
        with contextlib.suppress(OSError):
            await self._flowing.wait()
            host, port = str(self._behind["host"]), int(str(self._behind["port"]))
            far_reader, far_writer = await asyncio.open_connection(host, port)
            link = _Link(writer, far_writer)
            self._links.add(link)
            try:
                await asyncio.wait(
                    {
                        asyncio.create_task(self._to_server(reader, far_writer)),
                        asyncio.create_task(self._to_client(far_reader, writer)),
                    }
                )
            finally:
                link.cut()
                self._links.discard(link)
                link.ended.set_result(None)
        writer.close()

    async def _to_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                if self._stalls_at and self._stalls_at in piece:
                    self._stalls_at = b""
                    self.stall()
                    self.stalled.set()
                await self._flowing.wait()
                if self._awaited and self._awaited in piece:
                    self._awaited, self._swallow_answers = b"", True
                if self._dies_now():
                    break
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def _to_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                await self._flowing.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self._swallow_answers:
                    self._swallow_answers = False
                    break
                writer.write(piece)
                await writer.drain()
        writer.close()

    class Factory:
        """Makes proxies for one test; all of them are closed after it."""

        def __init__(self) -> None:
            self._proxies: list[FaultProxy] = []

        async def __call__(self, dsn: str) -> FaultProxy:
            """A proxy before the server of *dsn*."""
            proxy = FaultProxy(dsn)
            await proxy.start()
            self._proxies.append(proxy)
            return proxy

        async def close(self) -> None:
            for proxy in self._proxies:
                await proxy.close()


class _Link:
    """The two sockets of one connection."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
