"""Signed links to a media item's content, valid for 15 minutes; and the token's user."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import delete, func, select

from app.database import Database, shared_keys
from app.database.models import SharedKey
from app.errors import Unauthorized
from app.media.hashing import media_id_of_bytes
from app.media.signed_links import LIFETIME_SECONDS, PURPOSE, MediaLinks
from tests.api.conftest import Api, picture
from tests.conftest import Clock
from tests.system.service import token

ID, OTHER = "0123456789abcdef", "fedcba9876543210"


def stored(api: Api, number: int) -> str:
    api.upload("/media", picture(number))
    return media_id_of_bytes(picture(number))


def link_to(api: Api, media_id: str, user: str = "ada") -> str:
    answer = api.request("POST", f"/media/{media_id}/link", user=user)
    assert answer.status_code == 201, answer.text
    assert answer.json is not None
    url: str = answer.json["url"]
    return url


@pytest.fixture
def links(timed_database: Database) -> MediaLinks:
    return MediaLinks(timed_database)


def test_a_token_s_holder_is_told_who_that_is_and_whether_an_administrator(api: Api) -> None:
    def me(**claims: object) -> object:
        answer = api.get("/me", headers={"Authorization": f"Bearer {token('grace', **claims)}"})
        assert answer.status_code == 200
        return answer.json

    assert me() == {"userId": "grace", "admin": False}
    for roles in (["admin"], ["other", "admin"], "admin", "other admin"):
        assert me(roles=roles) == {"userId": "grace", "admin": True}, roles
    for others in ([], ["Admin"], ["administrator"], "administrator", {"admin": True}, True, 1, None, [["admin"]]):
        assert me(roles=others) == {"userId": "grace", "admin": False}, others


def test_a_link_gives_the_bytes_without_a_token_whole_and_in_part(api: Api) -> None:
    media_id = stored(api, 100)
    url, client = link_to(api, media_id), api.app.test_client()
    assert url.startswith(f"/media/{media_id}/content?signature=")
    with client.get(url) as whole:
        assert whole.status_code == 200
        assert whole.data == picture(100)
    with client.get(url, headers={"Range": "bytes=10-19"}) as part:
        assert part.status_code == 206
        assert part.data == picture(100)[10:20]
    with client.head(url) as head:
        assert head.status_code == 200
        assert head.headers["Content-Length"] == str(len(picture(100)))


def test_a_link_is_told_when_it_ends(api: Api) -> None:
    media_id = stored(api, 101)
    answer = api.request("POST", f"/media/{media_id}/link").json
    assert answer is not None
    left = time.mktime(time.strptime(answer["expiresAt"], "%Y-%m-%dT%H:%M:%S.000Z")) - time.timezone - time.time()
    assert LIFETIME_SECONDS - 60 < left <= LIFETIME_SECONDS


def test_a_link_needs_a_token_to_be_made_and_a_media_to_lead_to(api: Api) -> None:
    assert api.app.test_client().post(f"/media/{stored(api, 102)}/link").status_code == 401
    for unknown in (ID, "none", "%00"):
        assert api.request("POST", f"/media/{unknown}/link").status_code == 404


def test_a_link_opens_nothing_but_the_bytes_of_its_media(api: Api) -> None:
    media_id, other = stored(api, 103), stored(api, 104)
    signature = link_to(api, media_id).partition("?")[2]
    client = api.app.test_client()
    for method, path in (
        ("GET", f"/media/{other}/content"),
        ("GET", f"/media/{media_id}"),
        ("GET", f"/media/{media_id}/events"),
        ("GET", f"/media/{media_id}/detections"),
        ("POST", f"/media/{media_id}/link"),
        ("GET", "/media"),
        ("GET", "/me"),
    ):
        assert client.open(f"{path}?{signature}", method=method).status_code == 401, path


CHANGES: dict[str, Callable[[str], str]] = {
    "cut": lambda text: text[:-1],
    "longer": lambda text: "A" + text,
    "empty": lambda _text: "",
    "nonsense": lambda _text: "é\0",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_signature_that_was_touched_is_no_token_even_beside_one(api: Api, change: Callable[[str], str]) -> None:
    media_id = stored(api, 105)
    signature = link_to(api, media_id).partition("=")[2]
    path = f"/media/{media_id}/content"
    answers = [
        api.app.test_client().get(path, query_string={"signature": change(signature)}),
        api.get(path, query_string={"signature": change(signature)}),
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.json is not None
        assert answer.json["type"].endswith("unauthorized")


def test_what_is_fetched_through_a_link_counts_as_its_user_s(links: MediaLinks) -> None:
    for user in ("ada", "Grace Hopper", "名前\N{GRINNING FACE}" * 50):
        assert links.user_of(ID, links.sign(ID, user).signature) == user


def test_a_link_ends_after_a_quarter_of_an_hour(links: MediaLinks, clock: Clock) -> None:
    link = links.sign(ID, "ada")
    assert link.expires_at == clock.seconds + 15 * 60
    clock.advance(15 * 60)
    assert links.user_of(ID, link.signature) == "ada"
    clock.advance(1)
    with pytest.raises(Unauthorized, match="expired"):
        links.user_of(ID, link.signature)


def test_a_link_of_one_media_is_none_of_another(links: MediaLinks) -> None:
    with pytest.raises(Unauthorized):
        links.user_of(OTHER, links.sign(ID, "ada").signature)


def test_without_a_key_no_signature_is_good(links: MediaLinks) -> None:
    with pytest.raises(Unauthorized):
        links.user_of(ID, "anything")


def test_every_process_signs_with_the_same_key_and_removing_it_ends_all_links(
    links: MediaLinks, timed_database: Database, database_url: str, clock: Clock
) -> None:
    link = links.sign(ID, "ada")
    with closing(Database(database_url, now=clock.sql)) as another:
        assert MediaLinks(another).user_of(ID, link.signature) == "ada"
    with timed_database.write_transaction() as session:
        session.execute(delete(SharedKey).where(SharedKey.purpose == PURPOSE))
    with pytest.raises(Unauthorized):
        links.user_of(ID, link.signature)
    assert links.user_of(ID, links.sign(ID, "ada").signature) == "ada"
    with pytest.raises(Unauthorized):
        links.user_of(ID, link.signature)


def test_of_many_that_make_a_key_at_once_all_get_the_same(database_url: str) -> None:
    def make(_number: int) -> str:
        with closing(Database(database_url)) as database, database.write_transaction() as session:
            return shared_keys.make(session, "a purpose")

    with ThreadPoolExecutor(8) as processes:
        made = set(processes.map(make, range(16)))
    assert len(made) == 1
    with closing(Database(database_url)) as database, database.read_transaction() as session:
        assert made == {shared_keys.find(session, "a purpose")}
        assert session.scalar(select(func.count()).select_from(SharedKey)) == 1
