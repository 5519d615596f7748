"""Signed links to media, and whose token it is: what a page needs that shows media and knows its user."""

from http import HTTPStatus

from flask import Blueprint, Response, g, jsonify, request, url_for

from app.current import get_services
from app.formats.timestamps import rfc3339
from app.queries import media_items
from app.web.auth.authentication import authenticate

blueprint = Blueprint("links", __name__)
blueprint.before_request(authenticate)

CONTENT = "media.content"


@blueprint.get("/me")
def me() -> Response:
    """Whose token this is, and whether it is an administrator's."""
    return jsonify(userId=g.user_id, admin=g.is_admin)


@blueprint.post("/media/<media_id>/link")
def make(media_id: str) -> Response:
    """A link to the media's bytes that needs no token, for some minutes."""
    get_services().queries.fetch(media_items.view, media_id)
    link = get_services().links.sign(media_id, g.user_id)
    response = jsonify(
        url=url_for(CONTENT, media_id=media_id, signature=link.signature), expiresAt=rfc3339(link.expires_at)
    )
    response.status_code = HTTPStatus.CREATED
    return response


def authenticate_by_link_or_token() -> None:
    """As `authenticate`, but a link's signature stands for a token where the bytes of its media are asked for.

    With a signature no token is looked at: a page's own links are good or bad whatever the browser adds to them.
    """
    signature = request.args.get("signature")
    if request.endpoint != CONTENT or signature is None or request.method == "OPTIONS":
        authenticate()
        return
    g.user_id = get_services().links.user_of((request.view_args or {})["media_id"], signature)
