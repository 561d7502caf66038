"""Who may ask: browsers that show this page itself. And what its pages may do."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tools.web.refusal import Refusal, Refused

POLICY = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    ),
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Guard:
    """Refuses requests of other sites, and adds the policy to every answer.

    A site whose name was made to point to this machine sends its own name as the host, and a page of another site its
    own as the origin. Programs such as curl send no origin; they are no way in for other sites.

    Args:
        app: answers the rest.
        names: hosts that are trusted, besides the address at which the connection arrived.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self.app = app
        self.names = {name.lower().strip("[]") for name in (*LOOPBACK, *names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(POLICY)
            await send(message)

        try:
            self._check(Headers(scope=scope), scope)
        except Refused as refused:
            await Refusal(refused)(scope, receive, send_with_policy)
            return
        await self.app(scope, receive, send_with_policy)

    def _check(self, headers: Headers, scope: Scope) -> None:
        hosts = headers.getlist("host")
        own = _split(f"//{hosts[0]}") if len(hosts) == 1 else None
        arrived = (scope.get("server") or ("",))[0]
        if own is None or own[0] not in self.names | {arrived.lower()}:
            raise Refused(
                400,
                "host",
                "the request names a host that is not trusted: use the address that the command printed, or start it "
                "with --trusted_hosts NAME",
            )
        if scope["method"] in ("GET", "HEAD") and (
            "transfer-encoding" in headers or headers.get("content-length", "0").strip("0")
        ):  # nobody would read it, and the server would receive it for ever
            raise Refused(400, "body", "a question for this address has no body: send none")
        origins = headers.getlist("origin")
        is_same = all(origin.startswith(("http://", "https://")) and _split(origin) == own for origin in origins)
        if not is_same or headers.get("sec-fetch-site", "same-origin") not in _sites(scope["method"]):
            raise Refused(403, "origin", "the request comes from a page of another site: open this page itself")


def _split(address: str) -> tuple[str, int | None] | None:
    """The name in lower case and the port of an address; None if it is none."""
    try:
        parts = urlsplit(address)
        plain = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
        return (parts.hostname, parts.port) if parts.hostname and plain else None
    except ValueError:
        return None


def _sites(method: str) -> tuple[str, ...]:
    """From where browsers may send a request: links on other sites may lead to this page."""
    return ("same-origin", "none", "cross-site", "same-site") if method in ("GET", "HEAD") else ("same-origin", "none")
