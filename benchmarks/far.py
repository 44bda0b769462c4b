"""A server that is far away: what comes at one port goes to another one some milliseconds later, and back as late.

    python benchmarks/far.py PORT TO_PORT MILLISECONDS

Only bytes are late: the kernel answers for a new connection at once, so that TCP's own handshake costs nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait_s: float) -> None:
    """Pass on what comes, later, and the end, too."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 18):
            loop.call_later(wait_s, writer.write, data)
    loop.call_later(wait_s, writer.close)


async def main() -> None:
    """Serve until somebody ends it."""
    port, to_port, wait_ms = map(int, sys.argv[1:])

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = await asyncio.open_connection("127.0.0.1", to_port)
        await asyncio.gather(pump(reader, far[1], wait_ms / 1000), pump(far[0], writer, wait_ms / 1000))

    async with await asyncio.start_server(connected, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
