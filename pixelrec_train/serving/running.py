"""The process that listens: it takes an address, and ends without losing a request."""

import asyncio
import contextlib
import signal
import socket
import time

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pixelrec_train.errors import InputError

LINGER_SECONDS = 0.5  # told to end, it goes on to answer who is connected, and says that it closes
STOPS = (signal.SIGINT, signal.SIGTERM)


def bound(host, port):
    """A socket at this address, at which nobody is answered yet.

    Raises:
        InputError: the address is none of this machine, or somebody has it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InputError(f"--host {host} is no address that can be looked up ({error.strerror}).") from None
    # By the protocol asyncio knows TCP, and lets no answer wait 40 ms for the other side to confirm its head.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InputError(
            f"--host {host} --port {port} cannot be had ({error.strerror}). Stop what listens there, or name "
            f"another --port (0 = any that is free)."
        ) from None
    return listener


def url_of(listener):
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def server_of(app, seconds):
    """A server that has not begun.

    Args:
        app: guard.Guard.
        seconds: in which the head of a request must have come.
    """
    return Server(
        uvicorn.Config(
            app, http=impatient(seconds), ws="none", log_level="warning", access_log=False,
            server_header=False, proxy_headers=False, timeout_graceful_shutdown=int(seconds) + 5,
        )
    )  # fmt: skip


def serve(server, listener, ready):
    """Answer until a signal says to end; `ready` is called once everybody is answered.

    Raises:
        KeyboardInterrupt: it was Ctrl-C.
    """
    server.ready = ready
    server.run(sockets=[listener])
    if server.stopped_by == signal.SIGINT:
        raise KeyboardInterrupt


class Server(uvicorn.Server):
    stopped_by = None

    def ready(self):
        """Called once everybody is answered."""

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.ready()

    def handle_exit(self, number, frame):
        self.stopped_by = number
        super().handle_exit(number, frame)

    async def shutdown(self, sockets=None):
        """Nobody new; who is connected hears with the next answer that the connection closes."""
        self.config.app.stopping = True
        await self.close_door(sockets)
        until = time.monotonic() + LINGER_SECONDS
        while self.server_state.connections and time.monotonic() < until:
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)

    async def close_door(self, listeners):
        """Take no more connections, but those that the system has taken for us: closing would reset them."""
        loop, waiting = asyncio.get_running_loop(), []
        for listener in listeners:
            loop.remove_reader(listener)
        await asyncio.sleep(0.05)  # asyncio is at work on some that it has accepted
        for listener in listeners:
            with contextlib.suppress(BlockingIOError):
                while True:
                    waiting.append(listener.accept()[0])
        for server in self.servers:
            server.close()
        for connection in waiting:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self.protocol, connection)

    def protocol(self):
        return self.config.http_protocol_class(self.config, self.server_state, self.lifespan.state)

    @contextlib.contextmanager
    def capture_signals(self):
        """As uvicorn does, which then ends the process by the same signal; here it ends with status 0."""
        try:
            before = {number: signal.signal(number, self.handle_exit) for number in STOPS}
        except ValueError:  # not in the main thread: who has started it sets should_exit
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def impatient(seconds):
    """uvicorn's protocol, which by itself waits for the rest of a head forever."""

    class Impatient(H11Protocol):
        timer = None

        def connection_made(self, transport):
            super().connection_made(transport)
            self.expect()

        def data_received(self, data):
            super().data_received(data)
            self.expect()

        def expect(self):
            begun = self.cycle is not None and not self.cycle.response_complete
            if begun and self.timer:
                self.timer.cancel()
                self.timer = None
            elif not begun and not self.timer:
                self.timer = self.loop.call_later(seconds, self.give_up)

        def give_up(self):
            self.timer = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Impatient
