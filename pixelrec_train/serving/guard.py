"""What stands before the application: against foreign hosts, large and slow bodies, and a crowd."""

import asyncio
from urllib.parse import urlsplit

from pixelrec_train.serving.problems import problem

# Nothing from elsewhere, nothing inline, in nobody's frame.
FOR_BROWSERS = {
    b"content-security-policy": b"default-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}

DRAINED = 16  # times the largest body: so much is read and thrown away, that its sender may hear why


class TooLarge(Exception):
    pass


class Guard:
    """ASGI middleware."""

    def __init__(self, app, hosts, max_body, seconds, most):
        """
        Args:
            hosts: names of this server, lower case; "*" = any.
            max_body: bytes.
            seconds: in which a body must have come.
            most: requests at a time.
        """
        self.app, self.hosts, self.max_body, self.seconds, self.most = app, hosts, max_body, seconds, most
        self.present, self.stopping = 0, False

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        send = self.with_headers(send)
        if self.present >= self.most:
            return await problem(503, "more requests are here than can be answered. Try again in a second.")(
                scope, receive, send
            )
        self.present += 1
        try:
            refused = self.refused(scope)
            if refused is None:
                receive, refused = await self.with_body(scope, receive)
            await (self.app if refused is None else refused)(scope, receive, send)
        finally:
            self.present -= 1

    def refused(self, scope):
        """A response to who is not meant, or None."""
        headers = dict(scope["headers"])
        host = name_of(f"//{headers.get(b'host', b'').decode('latin1')}")
        if not host:
            return problem(400, "the request has no Host header that names a host.")
        for what, name in (("Host", host), ("Origin", origin_of(headers))):
            if name is not None and not {name, "*"} & self.hosts:
                return problem(403, f"{what} {name:.100} is not served here. --allowed_hosts names others.")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > DRAINED * self.max_body:
            return self.too_large()
        return None

    def too_large(self):
        return problem(413, f"the body is larger than {self.max_body:,} bytes.")

    async def with_body(self, scope, receive):
        """(receive that gives the whole body, None), or (receive, what refuses it)."""
        if scope["method"] in ("GET", "HEAD"):
            return receive, None
        try:
            body = await asyncio.wait_for(self.body(receive), self.seconds)
        except TooLarge:
            return receive, self.too_large()
        except asyncio.TimeoutError:
            return receive, problem(408, f"the body did not come within {self.seconds:g} s.")
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def once():
            return next(messages, None) or await receive()

        return once, None

    async def body(self, receive):
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size <= self.max_body:
                parts.append(part)
            elif size > DRAINED * self.max_body:
                break
        if size > self.max_body:
            raise TooLarge
        return b"".join(parts)

    def with_headers(self, send):
        async def wrapped(message):
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                more = [(name, value) for name, value in FOR_BROWSERS.items() if name not in there]
                if self.stopping or message["status"] in (408, 413):  # who may still send is not listened to
                    more.append((b"connection", b"close"))
                message = message | {"headers": [*message["headers"], *more]}
            await send(message)

        return wrapped


def name_of(url):
    """The host of a URL without its port, lower case; "" where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def origin_of(headers):
    """The host of the site whose page asks; None where no page does, or a browser keeps it to itself."""
    origin = headers.get(b"origin")
    return None if origin is None else name_of(origin.decode("latin1"))
