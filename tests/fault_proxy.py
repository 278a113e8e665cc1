"""An HTTP proxy that breaks things on purpose, between synthfer and a real S3 server. Seeded; standard library only.

The faults are those that lose data in the field, the worst among them: the PUT is executed and its answer is lost, and
a request that its sender gave up long ago is delivered late.
"""

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

FAULTS = (
    "reset_before",  # the connection breaks before the server sees the request
    "reset_mid_body",  # half of the request reaches the server
    "error_500",
    "slow_down_503",
    "slow_body",  # the answer trickles
    "truncated_answer",  # half of the answer comes
    "lost_answer",  # the server does it, the client never hears
    "late_delivery",  # the client hears nothing, and the server does it a while later
)
_LATE_S, _SLOW_S = 1.0, 0.3
_XML = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"


@dataclass
class Request:
    """A request as it came: the method, the path with its query, and the raw bytes."""

    method: str
    path: str
    head: bytes
    body: bytes


class FaultProxy:
    """`with FaultProxy(endpoint, {"lost_answer": 0.3}, seed=1) as proxy:` and point the client at `proxy.endpoint`.

    `faults`: share of requests per fault. `script(request)` overrides the dice with the name of a fault, or None for
    none. `spy(moment, request)` is called "before" a request is forwarded and "after" the server has answered it, while
    the client still waits: the place to kill a client at an exact point. `counts` tells what was injected.
    """

    def __init__(
        self,
        upstream: str,
        faults: Mapping[str, float] | None = None,
        seed: int = 0,
        script: Callable[[Request], str | None] | None = None,
        spy: Callable[[str, Request], None] | None = None,
    ) -> None:
        self.faults = dict(faults or {})
        assert set(self.faults) <= set(FAULTS)
        self.counts: Counter[str] = Counter()
        self._upstream = urlsplit(upstream)
        self._dice, self._script, self._spy = random.Random(seed), script, spy
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        self._server = self._on_loop(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)  # the loop's own thread counts its connections
        self.wait_idle()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_idle(self) -> None:
        """Until every request is through, those delivered late included."""
        self._on_loop(self._idle())

    def _on_loop(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _idle(self) -> None:
        while busy := asyncio.all_tasks() - {asyncio.current_task()}:
            _, hanging = await asyncio.wait(busy, timeout=_LATE_S + 1)
            for task in hanging:  # a connection that was opened and never used
                task.cancel()

    def _choose(self, request: Request) -> str | None:
        if self._script:
            return self._script(request)
        point = self._dice.random()
        for fault, share in self.faults.items():
            point -= share
            if point < 0:
                return fault
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request per connection: every answer says `Connection: close`."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            request = await self._read(reader, writer)
            if request is not None:
                fault = self._choose(request)
                self.counts[fault or "none"] += 1
                await self._act(fault, request, writer)
        with contextlib.suppress(OSError):
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *fields = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        if "expect" in headers:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        kept = [field for field in fields if not field.lower().startswith(("expect:", "connection:"))]
        return Request(method, path, "\r\n".join([first, "Connection: close", *kept]).encode("latin-1"), body)

    async def _act(self, fault: str | None, request: Request, writer: asyncio.StreamWriter) -> None:
        if fault in ("error_500", "slow_down_503"):
            status, code = ("500 Internal Server Error", "InternalError"), ("503 Slow Down", "SlowDown")
            chosen = status if fault == "error_500" else code
            body = "" if request.method == "HEAD" else _XML.format(code=chosen[1])
            text = f"HTTP/1.1 {chosen[0]}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
            writer.write(text.encode())
            await writer.drain()
        elif fault == "reset_before":
            writer.transport.abort()
        elif fault == "reset_mid_body":
            await self._forward(request, len(request.body) // 2)
            writer.transport.abort()
        elif fault == "late_delivery":
            writer.transport.abort()
            await asyncio.sleep(_LATE_S)
            await self._forward(request)
        else:
            await self._answer(fault, request, writer)

    async def _answer(self, fault: str | None, request: Request, writer: asyncio.StreamWriter) -> None:
        self._call_spy("before", request)
        answer = await self._forward(request)
        self._call_spy("after", request)
        if fault == "lost_answer":
            writer.transport.abort()
            return
        start = answer.index(b"\r\n\r\n") + 4
        middle = start + (len(answer) - start) // 2
        writer.write(answer[:middle])
        await writer.drain()
        if fault == "slow_body":
            await asyncio.sleep(_SLOW_S)
        if fault != "truncated_answer":
            writer.write(answer[middle:])
            await writer.drain()

    def _call_spy(self, moment: str, request: Request) -> None:
        if self._spy:
            self._spy(moment, request)

    async def _forward(self, request: Request, length: int | None = None) -> bytes:
        """The server's whole answer; with `length` only so much of the body is sent, and nothing is awaited."""
        reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        try:
            writer.write(request.head + request.body[:length])
            await writer.drain()
            return await reader.read() if length is None else b""
        finally:
            writer.close()
