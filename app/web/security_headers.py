"""Security headers of every response, errors included.

API responses are data: browsers must not run, frame, sniff or cache them, or embed them in pages of other origins. A
view that needs something else (the page, the docs, a file's content) sets the header itself. Strict-Transport-Security
is left to the proxy that terminates TLS, because it concerns the whole host.
"""

from flask import Flask, Response

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def install(app: Flask) -> None:
    """Add the headers to every response that does not set its own."""
    app.after_request(_add_headers)


def _add_headers(response: Response) -> Response:
    # One pass, because each `in` on Werkzeug's headers is a linear search.
    present = {name.lower() for name, _value in response.headers}
    response.headers.extend((name, value) for name, value in HEADERS.items() if name.lower() not in present)
    return response
