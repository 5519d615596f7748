"""Signed links to content, and the token's user."""

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
    """Return the token's user, and whether it is an administrator's."""
    return jsonify(userId=g.user_id, admin=g.is_admin)


@blueprint.post("/media/<media_id>/link")
def make(media_id: str) -> Response:
    """Create a link to a media item's content that needs no token for some minutes."""
    get_services().queries.fetch(media_items.view, media_id)
    link = get_services().links.sign(media_id, g.user_id)
    response = jsonify(
        url=url_for(CONTENT, media_id=media_id, signature=link.signature), expiresAt=rfc3339(link.expires_at)
    )
    response.status_code = HTTPStatus.CREATED
    return response


def authenticate_by_link_or_token() -> None:
    """Authenticate a content request by its link's signature if it has one, and other requests by token.

    With a signature the token is ignored, so that a link works whatever the browser adds.
    """
    signature = request.args.get("signature")
    if request.endpoint != CONTENT or signature is None or request.method == "OPTIONS":
        authenticate()
        return
    g.user_id = get_services().links.user_of((request.view_args or {})["media_id"], signature)
