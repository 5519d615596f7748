"""Row 22: a survey of photos sent by 8 clients at once: none is refused, all are processed and delivered.

BATCH_PHOTOS (default 24) is how many; the full figure is 10,000. Somebody else sends a single photo meanwhile.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.reference.service import ReferenceService
from tests.system.promise import Uploads, assert_kept, photo, settle
from tests.system.service import Service

PHOTOS = int(os.environ.get("BATCH_PHOTOS", "24"))
CLIENTS = 8
ASYNC = {"Prefer": "respond-async"}
SECONDS_FOR_EACH = 1.0


class Survey(Uploads):
    """Photos of one user, none of which waits for its run."""

    def send_photo(self, service: Service, number: int) -> None:
        content = photo(number)
        answer = service.upload("/detect", content, name="photo.png", headers=ASYNC)
        if answer.ok:
            self.promised[answer.json()["media"]["id"]] = content
        else:
            self.refused.append(answer.status_code)


def ended_runs(service: Service) -> int:
    lines = service.request("GET", "/metrics").text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("detections_runs_total{"))


@pytest.mark.long
@pytest.mark.timeout(120 + PHOTOS)
def test_a_survey_sent_by_eight_clients_at_once_is_taken_in_processed_and_delivered(
    service: Service, annotations: ReferenceService
) -> None:
    survey, single = Survey(), Uploads()
    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        for number in range(PHOTOS):
            clients.submit(survey.send_photo, service, number)
    sent = time.monotonic()
    assert survey.refused == []
    assert len(survey.promised) == PHOTOS
    before = ended_runs(service)
    answer = service.upload("/detect", photo(PHOTOS), name="photo.png", user="somebody else")
    answered = time.monotonic()
    passed_over = ended_runs(service) - before
    assert answer.status_code == 201, answer.text
    single.promised[answer.json()["media"]["id"]] = photo(PHOTOS)
    while ended_runs(service) <= PHOTOS:
        assert time.monotonic() < sent + PHOTOS * SECONDS_FOR_EACH + 60
        time.sleep(0.2)
    processed = time.monotonic()
    settle(service)
    print(
        f"{PHOTOS} photos sent in {sent - began:.1f} s, processed {processed - began:.1f} s after the first; "
        f"another user's photo answered in {answered - sent:.2f} s, {passed_over} runs ended meanwhile"
    )
    assert {record["mediaStatus"] for record in annotations.records()} == {3}
    assert_kept(service, annotations, [survey, single])
