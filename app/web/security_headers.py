"""What every answer tells browsers not to do with it, refusals included.

The API's answers are data: nothing in them may be run, framed, sniffed for another type, kept in a cache, or pulled
into another site's page. A view that is meant for more (the page, the docs, a media's content) sets the header in
question itself, and it is left as it is. Strict-Transport-Security is not among them: only who ends TLS, a proxy in
front, knows whether the whole host is to be reached that way alone.
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
    """Set the headers on every answer that does not bring its own."""
    app.after_request(_protect)


def _protect(response: Response) -> Response:
    # One look for all: each `in` of Werkzeug's headers goes through all of them, and ends in an exception.
    brought = {name.lower() for name, _value in response.headers}
    response.headers.extend((name, value) for name, value in HEADERS.items() if name.lower() not in brought)
    return response
