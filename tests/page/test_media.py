"""A photo with boxes, a video with marks: what is drawn matches the API's results."""

import io
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import FloatRect, Locator, Route, expect

from tests.detection.clips import Clip
from tests.long import later
from tests.page.numbered import SHOWN_NUMBER, numbered, steady, unsteady
from tests.page.pictures import ASTRONAUT, CHELSEA, card, glimpse, tiff, turned, unseen
from tests.page.watched import Tab
from tests.system.service import Service, token

Colour = tuple[int, int, int]
TOLERANCE = 24
NEAR_PIXELS = 2
OFF_PIXELS = 7


def detected(service: Service, content: bytes, name: str) -> tuple[str, list[dict[str, Any]]]:
    """Return a processed media item: its id and its annotations."""
    answer = service.upload("/detect", content, name=name)
    assert answer.ok, answer.text
    return answer.json()["media"]["id"], answer.json()["annotations"]


def shown_box(tab: Tab) -> tuple[Image.Image, Colour]:
    """Return the picture with its one box as on the screen, and the box's expected colour."""
    expect(tab.page.locator(".box")).to_have_count(1)
    frame = tab.page.locator(".frame")
    expect(frame).to_have_class("frame frame-fitted")
    colour = tab.page.locator(".box-line").evaluate("node => getComputedStyle(node).stroke")
    red, green, blue = (int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return Image.open(io.BytesIO(frame.screenshot())).convert("RGB"), (red, green, blue)


def edges(box: dict[str, Any], width: int, height: int) -> dict[str, tuple[float, float, int, int]]:
    """Return the middle of each edge of a box in pixels, and the direction across it."""
    x, y = box["centerX"] * width, box["centerY"] * height
    half_width, half_height = box["width"] * width / 2, box["height"] * height / 2
    return {
        "left": (x - half_width, y, 1, 0),
        "right": (x + half_width, y, 1, 0),
        "top": (x, y - half_height, 0, 1),
        "bottom": (x, y + half_height, 0, 1),
    }


def is_drawn(picture: Image.Image, colour: Colour, at: tuple[float, float]) -> bool:
    x, y = round(at[0]), round(at[1])
    if not (0 <= x < picture.width and 0 <= y < picture.height):
        return False
    pixel = picture.getpixel((x, y))
    assert isinstance(pixel, tuple)
    return all(abs(one - other) <= TOLERANCE for one, other in zip(pixel, colour, strict=True))


def assert_drawn_where_the_api_says(tab: Tab, box: dict[str, Any]) -> None:
    picture, colour = shown_box(tab)
    for edge, (x, y, across, down) in edges(box, *picture.size).items():
        near = [(x + across * step, y + down * step) for step in range(-NEAR_PIXELS, NEAR_PIXELS + 1)]
        assert any(is_drawn(picture, colour, at) for at in near), f"no line at the {edge} edge"
        off = [(x + across * step, y + down * step) for step in (-OFF_PIXELS, OFF_PIXELS)]
        assert not any(is_drawn(picture, colour, at) for at in off), f"a line beside the {edge} edge"


@pytest.mark.parametrize(("width", "height"), [pytest.param(390, 844, marks=pytest.mark.long), (1280, 800)])
def test_a_box_is_drawn_where_the_api_says(open_tab: Any, service: Service, width: int, height: int) -> None:
    media_id, [frame] = detected(service, unseen(ASTRONAUT, "boxes"), "boxes.jpg")
    tab = open_tab(width, height)
    tab.sign_in(token("ada"), f"#/media/{media_id}")
    assert_drawn_where_the_api_says(tab, frame["detections"][0])
    expect(tab.page.get_by_role("img", name="1 box: person 73 %")).to_be_visible()


@pytest.mark.long
def test_a_photo_that_lies_on_its_side_is_shown_upright_with_its_box_in_place(tab: Tab, service: Service) -> None:
    media_id, [frame] = detected(service, turned(CHELSEA), "turned.jpg")
    tab.sign_in(token("ada"), f"#/media/{media_id}")
    assert_drawn_where_the_api_says(tab, frame["detections"][0])
    picture, _ = shown_box(tab)
    assert picture.width / picture.height == pytest.approx(451 / 300, rel=0.02)


@pytest.mark.long
def test_the_slider_and_the_classes_say_which_boxes_are_shown(tab: Tab, service: Service) -> None:
    media_id, _ = detected(service, unseen(ASTRONAUT, "filters"), "filters.jpg")
    tab.sign_in(token("ada"), f"#/media/{media_id}")
    boxes, slider = tab.page.locator(".box"), tab.page.get_by_label("Confidence at least")
    expect(boxes).to_have_count(1)
    slider.fill("74")
    expect(boxes).to_have_count(0)
    expect(tab.page.get_by_role("group", name="Classes").get_by_text("0")).to_be_visible()
    slider.fill("73")
    expect(boxes).to_have_count(1)
    tab.page.get_by_role("checkbox", name="person").uncheck()
    expect(boxes).to_have_count(0)
    tab.page.get_by_role("button", name="All", exact=True).click()
    expect(boxes).to_have_count(1)


@pytest.mark.long
def test_the_record_says_what_is_known_of_a_media_and_another_run_can_be_asked_for(tab: Tab, service: Service) -> None:
    content = unseen(CHELSEA, "record")
    media_id, _ = detected(service, content, "record.jpg")
    run = service.request("GET", f"/media/{media_id}").json()["run"]
    tab.sign_in(token("grace"), f"#/media/{media_id}")
    record = tab.page.get_by_role("region", name="Record")
    for text in (media_id, f"{len(content):,} bytes", "ada"):
        expect(record.get_by_text(text)).to_be_visible()
    detection = tab.page.get_by_role("region", name="Detection")
    expect(detection.get_by_text(run["detector"])).to_be_visible()
    expect(tab.page.get_by_role("region", name="Delivery").get_by_text("3 delivered, 0 waiting")).to_be_visible()
    detection.get_by_role("button", name="Run again").click()
    expect(detection.get_by_text("Done")).to_be_visible()
    expect(detection.get_by_text(f"number {run['id']}", exact=True)).to_have_count(0)


@pytest.mark.long
def test_what_is_missing_of_a_damaged_picture_is_said(tab: Tab, service: Service) -> None:
    media_id, _ = detected(service, ASTRONAUT[:-2], "cut.jpg")
    tab.sign_in(token("ada"), f"#/media/{media_id}")
    warnings = tab.page.get_by_role("list", name="Warnings").get_by_role("listitem")
    expect(warnings).to_have_text(["the picture ends early, but all its rows are there"])


@pytest.mark.long
def test_a_media_that_was_only_stored_is_shown_without_results_and_can_be_processed_later(
    tab: Tab, service: Service
) -> None:
    content = unseen(ASTRONAUT, "later")
    media_id = service.upload("/media", content, name="later.jpg").json()["media"]["id"]
    tab.sign_in(token("ada"), f"#/media/{media_id}")
    expect(tab.page.get_by_text("No run yet.")).to_be_visible()
    expect(tab.page.locator(".frame-fitted")).to_be_visible()
    # The link is renewed, too.
    tab.page.wait_for_event("response", lambda answer: answer.url.endswith(f"/media/{media_id}"))
    tab.page.get_by_role("button", name="Run detection").click()
    expect(tab.page.locator(".box")).to_have_count(1)
    expect(tab.page.get_by_text("Processed", exact=True)).to_be_visible()


@pytest.mark.long
def test_a_picture_that_browsers_do_not_show_is_offered_to_download(tab: Tab, service: Service) -> None:
    content = tiff(CHELSEA)
    media_id, _ = detected(service, content, "scan.tiff")
    tab.sign_in(token("ada"), f"#/media/{media_id}")
    expect(tab.page.get_by_text("This browser cannot show this picture (TIFF)")).to_be_visible()
    expect(tab.page.get_by_role("region", name="Objects in this picture").get_by_text("cat")).to_be_visible()
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "scan.tiff"
    assert Path(download.value.path()).read_bytes() == content


@pytest.mark.long
def test_a_link_that_has_run_out_is_renewed(tab: Tab, service: Service) -> None:
    tab.expects(401)
    media_id, _ = detected(service, unseen(ASTRONAUT, "renewed"), "renewed.jpg")
    asked: list[str] = []

    def refuse_twice(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) > 2:
            route.continue_()
        else:
            route.fulfill(status=401, body="")  # the picture's own request, and the one for the reason of its failure

    tab.page.route("**/content?*", refuse_twice)
    tab.sign_in(token("ada"), f"#/media/{media_id}")
    expect(tab.page.locator(".frame-fitted")).to_be_visible()
    expect(tab.page.locator(".box")).to_have_count(1)
    assert len(asked) == 3


@pytest.mark.long
def test_a_busy_service_is_asked_for_the_picture_again(tab: Tab, service: Service) -> None:
    tab.expects(503)
    media_id, _ = detected(service, unseen(ASTRONAUT, "busy"), "busy.jpg")
    asked: list[str] = []

    def refuse_twice(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) > 2:
            route.continue_()
        else:
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="")

    tab.page.route("**/content?*", refuse_twice)
    tab.sign_in(token("ada"), f"#/media/{media_id}")
    expect(tab.page.locator(".frame-fitted")).to_be_visible()


@pytest.mark.long
def test_a_video_that_browsers_do_not_play_is_offered_to_download_and_its_finds_are_shown(
    tab: Tab, service: Service, tmp_path: Path
) -> None:
    photo = Image.open(io.BytesIO(ASTRONAUT)).convert("RGB")
    clip = Clip("old.avi", codec="mpeg4").write(tmp_path, photo)
    media_id, annotations = detected(service, clip.read_bytes(), "old.avi")
    tab.sign_in(token("ada"), f"#/media/{media_id}")
    expect(tab.page.get_by_text("This browser cannot play this video (AVI)")).to_be_visible()
    timeline = tab.page.get_by_role("slider", name="Timeline of detections")
    timeline.focus()
    tab.page.keyboard.press("ArrowRight")
    found = tab.page.get_by_role("region", name="Objects in this picture")
    expect(found.get_by_role("listitem")).to_have_count(len(annotations[1]["detections"]))


@pytest.mark.long
def test_a_media_that_nobody_knows_is_said_to_be_unknown(tab: Tab) -> None:
    tab.expects(404)
    tab.sign_in(token("ada"), "#/media/0123456789abcdef")
    expect(tab.page.get_by_text("There is no media item '0123456789abcdef'.")).to_be_visible()
    expect(tab.page.get_by_role("button", name="Run again")).to_be_hidden()


@pytest.mark.long
def test_the_list_is_filtered_by_status_and_type(tab: Tab, service: Service) -> None:
    service.upload("/media", card(500), name="listed.png")
    tab.sign_in(token("ada"))
    row = tab.page.get_by_role("row").filter(has_text="listed.png")
    expect(row).to_be_visible()
    tab.page.get_by_label("Status").select_option("Processed")
    expect(row).to_have_count(0)
    tab.page.get_by_label("Status").select_option("New")
    expect(row.get_by_text("New")).to_be_visible()
    tab.page.get_by_label("Type").select_option("Videos")
    expect(row).to_have_count(0)


@pytest.mark.long
def test_the_list_loads_more_and_stays_where_it_is_while_new_media_come(tab: Tab, service: Service) -> None:
    for number in range(600, 630):
        service.upload("/media", card(number), name=f"many {number}.png")
    tab.sign_in(token("ada"))
    rows = tab.page.locator("tbody tr")
    expect(rows).to_have_count(25)
    tab.page.get_by_role("button", name="Load more").click()
    expect(tab.page.get_by_role("link", name="many 600.png")).to_be_visible()
    focused = tab.page.get_by_role("link", name="many 610.png")
    focused.focus()
    service.upload("/media", card(640), name="newest.png")
    expect(rows.first).to_contain_text("newest.png")
    expect(focused).to_be_focused()
    expect(tab.page.get_by_role("link", name="many 600.png")).to_be_visible()


@pytest.fixture(scope="module")
def video(service: Service, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    """A clip with a person from second 2 to second 4: its id and its annotations."""
    media_id, annotations = detected(service, glimpse(tmp_path_factory.mktemp("clips")), "glimpse.mp4")
    assert 1.9 < annotations[0]["time"] < annotations[-1]["time"] < 4.1
    return media_id, annotations


def middle(rectangle: FloatRect | None) -> tuple[float, float]:
    assert rectangle is not None
    return rectangle["x"] + rectangle["width"] / 2, rectangle["y"] + rectangle["height"] / 2


def position(tab: Tab) -> float:
    return float(tab.page.locator("video").evaluate("video => video.currentTime"))


def open_video(tab: Tab, media_id: str) -> Locator:
    """Open the video and return its timeline when the player is ready."""
    tab.sign_in(token("ada"), f"#/media/{media_id}")
    expect(tab.page.locator(".frame-fitted")).to_be_visible()
    return tab.page.get_by_role("slider", name="Timeline of detections")


@pytest.mark.long
def test_marks_stand_on_the_timeline_where_something_was_found(
    tab: Tab, video: tuple[str, list[dict[str, Any]]]
) -> None:
    media_id, annotations = video
    timeline = open_video(tab, media_id)
    track, mark = timeline.bounding_box(), timeline.locator(".mark")
    expect(mark).to_have_count(1)
    place = mark.bounding_box()
    assert track is not None
    assert place is not None
    start, end = ((place["x"] + along - track["x"]) / track["width"] * 6 for along in (0, place["width"]))
    assert start == pytest.approx(annotations[0]["time"], abs=0.05)
    assert end == pytest.approx(annotations[-1]["time"] + 0.25, abs=0.1)


@pytest.mark.long
def test_a_click_on_a_mark_seeks_to_what_was_found_and_its_box_is_drawn(
    tab: Tab, video: tuple[str, list[dict[str, Any]]]
) -> None:
    media_id, annotations = video
    timeline = open_video(tab, media_id)
    expect(tab.page.locator(".box")).to_have_count(0)
    tab.page.mouse.click(*middle(timeline.locator(".mark").bounding_box()))
    expect(tab.page.locator(".box")).to_have_count(1)
    sought = position(tab)
    frame = min(annotations, key=lambda one: abs(one["time"] - sought))
    assert sought == pytest.approx(frame["time"], abs=0.01)
    tab.page.wait_for_function("() => !document.querySelector('video').seeking")
    tab.page.locator("video").evaluate("video => { video.controls = false; }")
    assert_drawn_where_the_api_says(tab, frame["detections"][0])
    track = timeline.bounding_box()
    assert track is not None
    tab.page.mouse.click(track["x"] + track["width"] / 12, track["y"] + 5)
    expect(tab.page.locator(".box")).to_have_count(0)
    assert position(tab) == pytest.approx(0.5, abs=0.05)


CLIPS = {
    "variable.mp4": unsteady(frames=50),
    "film.mp4": steady(Fraction(24000, 1001), frames=50),
    "ntsc.mp4": steady(Fraction(30000, 1001), frames=60),
    "twice-ntsc.mp4": steady(Fraction(60000, 1001), frames=120),
    "slow-motion.mp4": steady(Fraction(240), frames=200),
    "variable.webm": unsteady(frames=50),
    "late.mp4": steady(Fraction(30), frames=45, start=Fraction(1, 2)),
}


@pytest.mark.parametrize("name", later([*CLIPS][:1], *[*CLIPS][1:]))
def test_a_detection_is_shown_on_the_very_frame_that_was_processed(
    name: str, tab: Tab, service: Service, tmp_path: Path
) -> None:
    codec = "libvpx" if name.endswith("webm") else "libx264"
    clip = numbered(tmp_path, name, CLIPS[name], codec=codec, b_frames=not name.startswith("variable"))
    media_id, annotations = detected(service, clip, name)
    assert len(annotations) > 2
    timeline = open_video(tab, media_id)
    player = tab.page.locator("video")
    track = timeline.bounding_box()
    assert track is not None
    for frame in annotations[1:]:
        length = float(timeline.get_attribute("aria-valuemax") or 0)
        tab.page.mouse.click(track["x"] + track["width"] * frame["time"] / length, track["y"] + 5)
        shown = -1
        for _ in range(100):
            tab.page.wait_for_timeout(20)
            shown = player.evaluate(SHOWN_NUMBER)
            if shown == frame["sourceFrame"]:
                break
        assert frame["time"] == frame["time"]
        assert shown == frame["sourceFrame"]
        expect(tab.page.locator(".box")).to_have_count(len(frame["detections"]))


@pytest.mark.long
def test_the_keyboard_goes_from_find_to_find(tab: Tab, video: tuple[str, list[dict[str, Any]]]) -> None:
    media_id, annotations = video
    timeline = open_video(tab, media_id)
    timeline.focus()
    tab.page.keyboard.press("ArrowRight")
    expect(timeline).to_have_attribute("aria-valuetext", "0:02.0, 1 object: person")
    assert position(tab) == pytest.approx(annotations[0]["time"], abs=0.01)
    tab.page.keyboard.press("ArrowRight")
    expect(tab.page.locator(".position")).to_have_text("0:02.3")
    tab.page.keyboard.press("Home")
    expect(timeline).to_have_attribute("aria-valuetext", "0:00.0, no detections")


@pytest.mark.long
def test_boxes_come_and_go_over_the_running_picture(tab: Tab, video: tuple[str, list[dict[str, Any]]]) -> None:
    timeline = open_video(tab, video[0])
    expect(tab.page.locator(".box")).to_have_count(0)
    tab.page.locator("video").evaluate("video => { video.muted = true; video.currentTime = 1.5; }")
    timeline.focus()
    tab.page.keyboard.press("Space")
    expect(tab.page.locator(".box")).to_have_count(1)
    assert position(tab) > 1.8
    expect(tab.page.locator(".box")).to_have_count(0)
    assert position(tab) > 3.8


@pytest.mark.long
def test_what_a_run_finds_appears_while_it_goes(
    tab: Tab, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = glimpse(tmp_path_factory.mktemp("clips"), name="long.mp4", frames=240, first=0, last=239)
    answer = service.upload("/detect", content, name="long.mp4", headers={"Prefer": "respond-async"})
    timeline = open_video(tab, answer.json()["media"]["id"])
    expect(timeline.locator(".mark")).not_to_have_count(0)
    state = tab.page.locator(".run-state")
    assert re.fullmatch(r"Detecting: \d+ of \d+ frames", state.inner_text())
    expect(tab.page.get_by_role("progressbar", name="Progress of the run")).to_be_visible()
    expect(state).to_have_text("Done", timeout=90_000)
    expect(timeline.locator(".mark")).to_have_count(1)
