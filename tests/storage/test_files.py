"""Files on disk: what is created, published, compared and removed, and what never is."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import StorageFailed, StorageFull, Unavailable
from app.storage import COMPARE_BYTES, INCOMING, Storage, lock_orphan, remove_if_same, same_content, translate_os_errors
from tests.ingest.intake import is_temporary

CONTENT = b"content of a file"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage({"Image": tmp_path / "images", "Video": tmp_path / "videos"})
    storage.prepare()
    return storage


@pytest.fixture
def images(tmp_path: Path, storage: Storage) -> Path:
    return tmp_path / "images"


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    fds = (os.memfd_create("ours"), os.memfd_create("theirs"))
    yield fds
    for fd in fds:
        os.close(fd)


def test_a_file_on_its_way_in_lies_beside_its_destination_under_a_name_of_its_own(
    storage: Storage, images: Path
) -> None:
    with storage.incoming("Image", None) as incoming:
        incoming.write(CONTENT)
        assert incoming.path.parent == images / INCOMING
        assert is_temporary(incoming.path.name)
        assert os.fstat(incoming.fd).st_dev == images.stat().st_dev
        assert incoming.path.stat().st_mode & 0o007 == 0


def test_publishing_gives_a_second_name_and_the_first_goes_at_the_end(storage: Storage, images: Path) -> None:
    final = images / "0123456789abcdef.jpg"
    with storage.incoming("Image", None) as incoming:
        incoming.write(CONTENT)
        incoming.sync()
        assert incoming.publish(final)
        assert incoming.path.samefile(final)
    assert final.read_bytes() == CONTENT
    assert list(storage.leftovers()) == []


def test_publishing_never_overwrites(storage: Storage, images: Path) -> None:
    final = images / "0123456789abcdef.jpg"
    final.write_bytes(b"first")
    with storage.incoming("Image", None) as incoming:
        incoming.write(CONTENT)
        assert not incoming.publish(final)
        incoming.unpublish(final)
    assert final.read_bytes() == b"first"


def test_withdrawing_takes_back_our_final_name(storage: Storage, images: Path) -> None:
    final = images / "0123456789abcdef.jpg"
    with storage.incoming("Image", None) as incoming:
        assert incoming.publish(final)
        incoming.unpublish(final)
        assert not final.exists()
        assert incoming.path.exists()


def test_a_final_name_that_cannot_be_taken_back_keeps_its_proof(storage: Storage, tmp_path: Path) -> None:
    final = tmp_path / "plain file" / "0123456789abcdef.jpg"
    final.parent.touch()
    with pytest.raises(StorageFailed), storage.incoming("Image", None) as incoming:
        incoming.unpublish(final)
    assert list(storage.leftovers()) == [incoming.path]


def test_a_failure_leaves_nothing_in_the_folder(storage: Storage, images: Path) -> None:
    def fail_half_way() -> None:
        with storage.incoming("Image", None) as incoming:
            incoming.write(CONTENT)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list((images / INCOMING).iterdir()) == []


def test_a_kept_name_stays_as_proof(storage: Storage) -> None:
    with storage.incoming("Image", None) as incoming:
        incoming.keep_name()
    assert list(storage.leftovers()) == [incoming.path]


def test_the_lock_of_a_file_on_its_way_in_guards_its_final_name_too(storage: Storage, images: Path) -> None:
    final = images / "0123456789abcdef.jpg"
    with storage.incoming("Image", None) as incoming:
        incoming.publish(final)
        with pytest.raises(Unavailable), lock_orphan(final, wait=0):
            pytest.fail("two hold the same file")
    with lock_orphan(final, wait=0) as found:
        assert found is not None


def test_waiting_for_a_lock_ends_when_its_owner_lets_go(storage: Storage, images: Path) -> None:
    final = images / "0123456789abcdef.jpg"
    held, let_go = threading.Event(), threading.Event()

    def upload() -> None:
        with storage.incoming("Image", None) as incoming:
            incoming.publish(final)
            held.set()
            let_go.wait(30)

    owner = threading.Thread(target=upload)
    owner.start()
    try:
        assert held.wait(30)
        threading.Timer(0.1, let_go.set).start()
        with lock_orphan(final, wait=30) as found:
            assert found is not None
            assert let_go.is_set()
    finally:
        let_go.set()
        owner.join()


def test_what_was_waited_for_is_checked_anew_when_it_is_another_file_by_then(storage: Storage, images: Path) -> None:
    final = images / "0123456789abcdef.jpg"
    held, waiting = threading.Event(), threading.Event()

    def replace() -> None:
        with storage.incoming("Image", None) as incoming:
            incoming.publish(final)
            held.set()
            waiting.wait(30)
            incoming.unpublish(final)
            final.write_bytes(b"another")

    owner = threading.Thread(target=replace)
    owner.start()
    try:
        assert held.wait(30)
        threading.Timer(0.1, waiting.set).start()
        with lock_orphan(final, wait=30) as found:
            assert found is not None
            assert os.pread(found.fd, 100, 0) == b"another"
    finally:
        waiting.set()
        owner.join()


def test_holding_what_is_not_there_finds_nothing(images: Path) -> None:
    with lock_orphan(images / "0123456789abcdef.jpg", wait=0) as found:
        assert found is None


def test_a_link_in_the_place_of_a_file_is_refused_and_never_followed(images: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    (images / "0123456789abcdef.jpg").symlink_to(secret)
    with pytest.raises(StorageFailed), lock_orphan(images / "0123456789abcdef.jpg", wait=0):
        pytest.fail("the link was followed")


def test_only_a_name_in_the_incoming_folder_proves_that_a_file_is_ours(images: Path) -> None:
    final = images / "0123456789abcdef.jpg"
    final.write_bytes(CONTENT)
    os.link(final, images / "a backup.jpg")
    with lock_orphan(final, wait=0) as found:
        assert found is not None
        assert found.other_names() == []
    os.link(final, images / INCOMING / "proof.part")
    with lock_orphan(final, wait=0) as found:
        assert found is not None
        assert found.other_names() == [images / INCOMING / "proof.part"]


def test_a_name_is_removed_only_if_it_is_the_open_files(images: Path) -> None:
    ours, theirs = images / "ours", images / "theirs"
    for path in (ours, theirs):
        path.write_bytes(CONTENT)
    with ours.open("rb") as file:
        remove_if_same(theirs, file.fileno())
        remove_if_same(images / "missing", file.fileno())
        assert theirs.exists()
        remove_if_same(ours, file.fileno())
    assert not ours.exists()


@settings(max_examples=40)
@given(base=st.binary(min_size=1, max_size=64), edits=st.integers(0, 3 * COMPARE_BYTES), length=st.sampled_from((0, 1)))
def test_content_is_the_same_only_if_every_byte_is(base: bytes, edits: int, length: int) -> None:
    content = (base * (2 * COMPARE_BYTES // len(base) + 1))[: 2 * COMPARE_BYTES + 17]
    other = bytearray(content)
    if edits < len(other):
        other[edits] ^= 0x80
    other += b"x" * length
    fds = [os.memfd_create("ours"), os.memfd_create("theirs")]
    try:
        for fd, data in zip(fds, (content, bytes(other)), strict=True):
            os.write(fd, data)
        assert same_content(*fds) == (content == bytes(other))
    finally:
        for fd in fds:
            os.close(fd)


def test_comparing_leaves_both_positions_alone(pair: tuple[int, int]) -> None:
    for fd in pair:
        os.write(fd, CONTENT)
        os.lseek(fd, 3, os.SEEK_SET)
    assert same_content(*pair)
    assert [os.lseek(fd, 0, os.SEEK_CUR) for fd in pair] == [3, 3]


def test_more_than_the_disk_has_is_refused_before_a_byte_comes(storage: Storage, images: Path) -> None:
    with pytest.raises(StorageFull), storage.incoming("Image", 1 << 60):
        pytest.fail("there is no such disk")
    with pytest.raises(StorageFull):
        storage.admit(1 << 60)
    storage.admit(1)
    assert list((images / INCOMING).iterdir()) == []


def test_uploads_under_way_count_against_the_room_until_they_have_written_it(storage: Storage, images: Path) -> None:
    free = storage.free_bytes(images)
    slack = 1 << 30  # other processes use this disk too
    share = free - slack
    with storage.incoming("Image", share) as incoming:
        assert storage.free_bytes(images) < 2 * slack
        with pytest.raises(StorageFull), storage.incoming("Image", 2 * slack):
            pytest.fail("that room is promised")
        incoming.write(CONTENT)
        assert incoming.size == len(CONTENT)
    assert storage.free_bytes(images) > share - slack


def test_uploads_of_one_type_count_against_the_other_s_room_on_the_same_disk(storage: Storage, images: Path) -> None:
    slack = 1 << 30  # other processes use this disk too
    with storage.incoming("Video", storage.free_bytes(images) - slack), pytest.raises(StorageFull):
        storage.incoming("Image", 2 * slack).__enter__()


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageFailed),
        (errno.EROFS, StorageFailed),
    ],
)
def test_what_the_disk_says_is_told_apart(number: int, meaning: type[Exception]) -> None:
    with pytest.raises(meaning), translate_os_errors(Path("name")):
        raise OSError(number, os.strerror(number))


def test_folders_that_cannot_be_made_are_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed):
        Storage({"Image": tmp_path / "file" / "images"}).prepare()


@pytest.mark.parametrize(
    "inside", ["x.jpg", ".incoming/x.jpg", "sub/x.jpg", "../x.jpg", "link.jpg", "missing.jpg", "sub"]
)
def test_only_a_plain_file_directly_in_a_folder_is_contained(inside: str, storage: Storage, images: Path) -> None:
    (images / "sub").mkdir()
    for name in ("x.jpg", ".incoming/x.jpg", "sub/x.jpg", "../x.jpg"):
        (images / name).touch()
    (images / "link.jpg").symlink_to(images / "x.jpg")
    assert storage.contains(images / inside) == (inside == "x.jpg")
