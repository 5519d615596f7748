"""check_log finds each way to break the promise, and nothing in what the promise allows."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.reference.ordering import check_log

A, B = "a" * 16, "b" * 16


class Log:
    """A request log as the receiver writes it, made by hand: each call is one request, decided at once."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def create(self, media_id: str = A, *, seq: int | None = 1, key: str | None = None, **changes: Any) -> None:
        entry = {"method": "POST", "path": "/api/media", "body": {"id": media_id, "mediaStatus": 1}, "status": 201}
        self._add(entry, media_id, seq, key, changes)

    def change(self, status: int, media_id: str = A, /, *, seq: int, key: str | None = None, **changes: Any) -> None:
        path = f"/api/media/{media_id}/status"
        entry = {"method": "PUT", "path": path, "body": {"mediaStatus": status}, "status": 200}
        self._add(entry, media_id, seq, key, changes)

    def _add(
        self, entry: dict[str, Any], media_id: str, seq: int | None, key: str | None, changes: dict[str, Any]
    ) -> None:
        index = len(self.entries) + 1
        fixed = {
            "index": index,
            "mediaId": media_id,
            "seq": seq,
            "idempotencyKey": key or f"{media_id[0]}-{seq}",
            "applied": True,
            "answeredAfter": index,
        }
        self.entries.append(entry | fixed | changes)

    def check(self, **options: Any) -> list[str]:
        return check_log(self.entries, **options)


REFUSED: dict[str, Any] = {"applied": False, "status": 503}
REPEATED: dict[str, Any] = {"applied": False}
CONFLICT: dict[str, Any] = {"applied": False, "status": 409}
LOST: dict[str, Any] = {"status": None}


def test_an_empty_log_is_clean() -> None:
    assert Log().check() == []


def test_two_media_in_order_beside_each_other_are_clean() -> None:
    log = Log()
    log.create(A)
    log.create(B)
    log.change(2, B, seq=2)
    log.change(2, A, seq=2)
    log.change(6, A, seq=3)
    log.change(3, B, seq=3)
    log.change(2, A, seq=4)
    assert log.check() == []


def test_sending_again_after_a_failure_or_a_lost_answer_is_clean() -> None:
    log = Log()
    log.create(**REFUSED)
    log.create(**LOST)
    log.create(**REPEATED)
    log.change(2, seq=2, **LOST)
    log.change(2, seq=2, **REPEATED)
    log.change(3, seq=3)
    log.change(2, seq=2, **REPEATED)  # by a sender that was frozen
    assert log.check() == []


def test_requests_that_only_read_are_of_no_account() -> None:
    log = Log()
    log.create()
    log.entries.append(log.entries[0] | {"index": 2, "method": "GET", "path": f"/api/media/{B}", "mediaId": B})
    log.entries.append(log.entries[0] | {"index": 3, "method": "PUT", "path": f"/api/media/{B}", "mediaId": B})
    assert log.check() == []


def test_the_order_of_the_list_itself_does_not_matter() -> None:
    log = Log()
    log.create()
    log.change(2, seq=2)
    assert check_log(log.entries[::-1]) == []


def test_a_media_created_by_somebody_else_may_get_statuses_from_one_on() -> None:
    log = Log()
    log.create(seq=None, key="somebody")
    log.change(2, seq=1)
    log.change(3, seq=2)
    assert log.check() == []


def test_a_create_answered_with_a_conflict_may_be_followed_by_a_status() -> None:
    log = Log()
    log.create(seq=None, key="somebody")
    log.create(**CONFLICT)
    log.change(2, seq=2)
    assert log.check() == []


def test_a_conflict_over_the_status_that_the_media_has_may_be_passed_over() -> None:
    log = Log()
    log.create()
    log.change(2, seq=2)
    log.change(2, seq=3, **CONFLICT)
    log.change(3, seq=4)
    assert log.check() == []


def test_a_conflict_over_another_status_may_not_be_passed_over() -> None:
    log = Log()
    log.create()
    log.change(3, seq=2, **CONFLICT)
    log.change(2, seq=3)
    assert log.check() == [f"entry 3, media {A}: seq 3 applied after seq 1, without [2]"]


def test_a_message_that_a_person_skipped_may_be_missing() -> None:
    log = Log()
    log.create()
    log.change(2, seq=3)
    assert log.check(skipped={(A, 2)}) == []
    assert len(log.check(skipped={(B, 2), (A, 1)})) == 1


def test_a_status_before_its_create_is_found() -> None:
    log = Log()
    log.change(2, seq=2, applied=False, status=404)
    log.create()
    assert log.check() == [f"entry 1, media {A}: a status before its create was accepted"]


def test_a_status_after_a_create_that_was_only_refused_is_found() -> None:
    log = Log()
    log.create(**REFUSED)
    log.change(2, seq=2, **REFUSED)
    assert log.check() == [f"entry 2, media {A}: a status before its create was accepted"]


def test_a_status_that_arrived_while_the_create_was_under_way_is_found() -> None:
    log = Log()
    log.create(answeredAfter=2)
    log.change(2, seq=2, applied=False, status=404)
    log.change(2, seq=2)
    assert log.check() == [f"entry 2, media {A}: a status before its create was accepted"]


def test_a_sender_that_was_told_of_a_create_that_never_was_is_not_to_blame() -> None:
    for told in (200, 201, 204, 409):
        log = Log()
        log.create(applied=False, status=told)
        log.change(2, seq=2, applied=False, status=404)
        assert log.check() == []


def test_a_number_left_out_is_found() -> None:
    log = Log()
    log.create()
    log.change(2, seq=2)
    log.change(3, seq=5)
    assert log.check() == [f"entry 3, media {A}: seq 5 applied after seq 2, without [3, 4]"]


def test_a_first_number_other_than_one_is_found() -> None:
    log = Log()
    log.create(seq=2)
    assert log.check() == [f"entry 1, media {A}: seq 2 applied after seq 0, without [1]"]


def test_a_message_that_only_failed_before_the_next_was_applied_is_found() -> None:
    log = Log()
    log.create()
    log.change(2, seq=2, **REFUSED)
    log.change(2, seq=3)
    assert log.check() == [f"entry 3, media {A}: seq 3 applied after seq 1, without [2]"]


def test_a_number_applied_twice_is_found() -> None:
    log = Log()
    log.create()
    log.change(2, seq=2)
    log.change(3, seq=2, key="another")
    violations = log.check()
    assert f"entry 3, media {A}: seq 2 applied after seq 2" in violations
    assert f"entry 3, media {A}: seq 2 sent under another key than in entry 2" in violations


def test_a_lower_number_applied_later_is_found() -> None:
    log = Log()
    log.create()
    log.change(2, seq=2)
    log.change(3, seq=3)
    log.change(2, seq=1, key="a-1")
    assert f"entry 4, media {A}: seq 1 applied after seq 3" in log.check()


def test_a_message_sent_before_the_one_before_was_answered_is_found() -> None:
    log = Log()
    log.create()
    log.change(2, seq=2, answeredAfter=3)
    log.change(3, seq=3)
    assert log.check() == [f"entry 3, media {A}: seq 3 sent before seq 2 was answered"]


def test_an_applied_transition_that_is_not_allowed_is_found() -> None:
    log = Log()
    log.create()
    log.change(3, seq=2)
    log.change(6, seq=3)
    assert log.check() == [
        f"entry 2, media {A}: status 1 became 3, which is not allowed",
        f"entry 3, media {A}: status 3 became 6, which is not allowed",
    ]


def test_a_second_create_that_was_applied_is_found() -> None:
    log = Log()
    log.create(key="first")
    log.create(seq=None, key="second")
    assert log.check() == [f"entry 2, media {A}: a second create applied, under key second after key first"]


def test_a_message_sent_under_a_new_key_is_found() -> None:
    log = Log()
    log.create(key="first", **LOST)
    log.create(key="second", **CONFLICT)
    assert log.check() == [f"entry 2, media {A}: seq 1 sent under another key than in entry 1"]


def test_a_key_used_for_two_requests_is_found_even_if_both_were_refused() -> None:
    for second in ("status", "other media", "other seq"):
        log = Log()
        log.create(key="Same")
        if second == "status":
            log.change(2, seq=2, key="same", **REFUSED)
        elif second == "other media":
            log.create(B, key="same", **REFUSED)
        else:
            log.create(seq=2, key="same", **REFUSED)
        assert log.check() == ["entry 2: key same was used for another request, entry 1"]


def test_a_key_used_for_the_same_status_of_two_media_is_found() -> None:
    log = Log()
    log.create(A)
    log.create(B)
    log.change(2, A, seq=2, key="same")
    log.change(2, B, seq=2, key="same")
    assert log.check() == ["entry 4: key same was used for another request, entry 3"]


def test_a_request_that_was_cut_off_with_its_sender_s_death_is_no_other_request() -> None:
    log = Log()
    log.create(key="same", body="", mediaId=None, applied=False, status=400)
    log.create(key="same")
    assert log.check() == []


def test_a_body_that_is_no_object_is_checked_too() -> None:
    log = Log()
    log.create()
    log.change(2, seq=2, body="{", applied=False, status=400)
    assert log.check() == []


RUNS = st.lists(st.sampled_from([3, 6]), min_size=1, max_size=4).map(
    lambda ends: [2] + [s for e in ends for s in (e, 2)]
)
TRIES = st.lists(st.sampled_from([REFUSED, {"applied": False, "status": None}]), max_size=2)


@given(runs=st.lists(RUNS, min_size=1, max_size=3), data=st.data())
def test_any_honest_sender_is_clean_and_any_message_left_out_is_found(
    runs: list[list[int]], data: st.DataObject
) -> None:
    log = Log()
    for number, statuses in enumerate(runs):
        media_id = f"{number:x}" * 16
        log.create(media_id)
        for seq, status in enumerate(statuses, start=2):
            for failed in data.draw(TRIES):
                log.change(status, media_id, seq=seq, **failed)
            log.change(status, media_id, seq=seq)
            if data.draw(st.booleans()):
                log.change(status, media_id, seq=seq, **REPEATED)
    assert log.check() == []
    last = {entry["mediaId"]: entry["seq"] for entry in log.entries}
    lost = data.draw(st.sampled_from([e for e in log.entries if e["seq"] < last[e["mediaId"]]]))
    rest = [e for e in log.entries if (e["mediaId"], e["seq"]) != (lost["mediaId"], lost["seq"])]
    assert check_log(rest) != []
