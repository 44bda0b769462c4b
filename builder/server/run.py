"""Starting a server, and stopping it so that nobody notices: what runs is finished first."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import resource
import signal
import socket
from typing import TYPE_CHECKING

from builder.errors import HostError, UsageError
from builder.server import incoming, pool
from builder.server.connection import Server
from builder.server.dispatch import handler
from builder.server.listening import listen
from builder.server.notify import notify
from builder.server.site import Site

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from builder.server.listening import Listening
    from builder.server.settings import Settings

__all__ = ["is_loopback", "serve"]


def is_loopback(bind: str) -> bool:
    """Whether an address to bind is only seen by this machine."""
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"


def serve(
    settings: Settings, *, clock: Callable[[], float], announce: Callable[[str], None], notify_socket: str = ""
) -> int:
    """Serve until SIGTERM (returns 0) or SIGINT (returns 130); a second signal ends it at once. SIGHUP opens logs again.

    `announce` gets the URL when the server listens. Raises HostError ``port-busy``, ``port-refused``, ``tls-unreadable``;
    UsageError ``bind``; and what opening the wheelhouse and the token file raise.
    """
    context = _tls(settings)
    with asyncio.Runner() as runner:
        return runner.run(_serve(settings, clock, announce, notify_socket, context))


async def _serve(
    settings: Settings,
    clock: Callable[[], float],
    announce: Callable[[str], None],
    notify_socket: str,
    context: ssl.SSLContext | None,
) -> int:
    loop = asyncio.get_running_loop()
    _allow_files()
    site = Site(settings, clock)
    try:
        await site.thread(incoming.sweep, settings.root)
        server = Server(handler(site), site)
        listener = await _listen(settings, server, context)
        stopped: asyncio.Future[int] = loop.create_future()
        _on_signals(site, stopped, context)
        announce(_url(settings, listener.port))
        notify(notify_socket, "READY=1")
        signum = await stopped
        notify(notify_socket, "STOPPING=1")
        site.stopping.set()
        listener.close()
        server.pre_shutdown()
        await server.shutdown(settings.grace_s)
    finally:
        await pool.close(site)
        site.close()
    return 0 if signum == signal.SIGTERM else 128 + signum


def _on_signals(site: Site, stopped: asyncio.Future[int], context: ssl.SSLContext | None) -> None:
    loop = site.loop

    def stop(signum: int) -> None:
        if stopped.done():
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
            return
        site.complain("stopping: what runs is finished first; a second signal ends it at once")
        stopped.set_result(signum)

    def reopen() -> None:
        with contextlib.suppress(OSError):
            if site.log is not None:
                site.log.reopen()
        if context is not None:
            try:
                _load(context, site.settings)
            except HostError as error:
                site.complain(f"the certificate stays as it was: {error.summary}: {error.cause}")

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum)
    loop.add_signal_handler(signal.SIGHUP, reopen)


async def _listen(settings: Settings, server: Server, context: ssl.SSLContext | None) -> Listening:
    place = f"{settings.bind}:{settings.port}"
    try:
        return await listen(server, settings.bind, settings.port, context)
    except socket.gaierror as error:
        raise UsageError(
            "bind", f"{settings.bind} isn't an address of this machine", cause=str(error), run=("ip -brief address",)
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise HostError(
                "port-busy",
                f"another program listens on {place}",
                help="stop it, or take another port; 0 takes one that is free",
                run=(f"ss -ltnp 'sport = :{settings.port}'", "spark-build index serve --port 0"),
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise HostError(
                "port-refused",
                f"the system doesn't let this user listen on {place}",
                help="ports below 1024 are for root: take a higher one, and a proxy or a systemd socket before it",
                run=("spark-build index serve --port 8443",),
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(
                "bind", f"{settings.bind} isn't an address of this machine", run=("ip -brief address",)
            ) from error
        raise


def _url(settings: Settings, port: int) -> str:
    host = settings.bind
    if host in {"0.0.0.0", "::"}:  # noqa: S104  # all addresses: the name is what others can use
        host = socket.gethostname()
    return f"{settings.scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    import ssl  # noqa: PLC0415  # aiohttp has it loaded; the type is all that is needed without TLS

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, settings)
    return context


def _load(context: ssl.SSLContext, settings: Settings) -> None:
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None:
        return
    try:
        context.load_cert_chain(cert, key, password=lambda: "")  # a key with a password would ask the terminal
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise HostError(
            "tls-unreadable",
            f"the certificate {cert} can't be used",
            cause=f"{key or cert}: {error.strerror if isinstance(error, OSError) and error.strerror else error}",
            help="wanted: PEM files, the certificate with its chain, and its key without a password",
            run=(f"openssl x509 -in {cert} -noout -subject -dates", f"ls -l {cert} {key or ''}".rstrip()),
        ) from error


def _allow_files() -> None:
    """Let the process have as many open files as its hard limit says: one is needed for each client."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
