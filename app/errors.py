"""The errors of the service, independent of HTTP; `app.web.problems` maps each class to its answer.

DetectionsError
├── SettingsError            a setting is wrong or missing; the service does not start
├── MalformedUpload          no file, a cut-off body, bad multipart, bad parameters
├── UploadTimedOut           the client stopped sending
├── MediaTooLarge            more bytes or pixels than allowed
├── UnsupportedMedia         extension not allowed, or first bytes of another kind of file
├── Undecodable              stored and recorded, but the decoder rejects it
├── Unauthorized             no valid token
├── Forbidden                the token does not allow this
├── MediaNotFound            no media item with that id
│   └── NotParked            the media item is not parked
├── UploadNotFound           no resumable upload of this user with that id
├── UploadGone               the resumable upload has expired
├── WrongOffset              a part of a resumable upload does not begin where the last one ended
├── UploadLocked             another request is writing the resumable upload
│   └── UploadTakenOver      a newer request has taken over the resumable upload
├── ChecksumMismatch         a part of a resumable upload does not match its checksum
├── UnsupportedProtocol      a version of the upload protocol that is not supported
├── TooManyUploads           the user has too many unfinished uploads
├── MediaIdCollision         the id exists with other content
├── AlreadyProcessing        a run of the media item is under way
├── NotProcessing            no run of the media item is under way
├── Unavailable              busy beyond a limit, or shutting down; try again later
│   ├── HouseFault           a run cannot reach its file or its detector; the media item may be sound
│   ├── DatabaseUnfit        a person must change the database, or the pooler before it, first
│   ├── DatabaseFailed       the database's file is missing, replaced or read-only, or its disk failed
│   │   ├── DatabaseDiskFailed  I/O error of the database's disk
│   │   └── DatabaseDamaged  the database's content is damaged
│   └── RecordsNotReadable   the annotations service does not let its records be read
├── StorageFull              disk or quota full
├── StorageFailed            I/O error of a media folder
│   └── StoredFileUnreadable I/O error while a stored file is read
├── IllegalTransition        a change of status that is not allowed
└── DetectorFailed           the detector failed; the media item may be sound
    └── DetectorNotReady     the detector failed before it loaded its model
"""


class DetectionsError(Exception):
    """Base of all errors of the service; their texts may be shown to clients."""


class SettingsError(DetectionsError):
    """A setting is wrong or missing; the text names it, its value unless secret, and what to do."""


class MalformedUpload(DetectionsError):
    """The request does not carry one complete, well-formed file, or a parameter is wrong."""


class UploadTimedOut(DetectionsError):
    """The client stopped sending before the body was complete."""


class MediaTooLarge(DetectionsError):
    """More bytes or pixels than the service accepts; `media_id` is set if the media item is already stored."""

    def __init__(self, reason: str, media_id: str | None = None) -> None:
        super().__init__(reason)
        self.media_id = media_id


class UnsupportedMedia(DetectionsError):
    """The extension is not allowed, or the first bytes are of another kind of file."""


class Undecodable(DetectionsError):
    """The decoder rejects the content; the media item is stored with the status Error."""

    def __init__(self, reason: str, media_id: str | None = None) -> None:
        super().__init__(reason)
        self.media_id = media_id


class Unauthorized(DetectionsError):
    """The request has no valid token."""


class Forbidden(DetectionsError):
    """The token is valid but does not allow the request."""


class MediaNotFound(DetectionsError):
    """There is no media item with that id."""


class NotParked(MediaNotFound):
    """The media item exists, but its stream is not parked."""


class UploadNotFound(DetectionsError):
    """This user has no resumable upload with that id."""


class UploadGone(DetectionsError):
    """The resumable upload has expired."""


class WrongOffset(DetectionsError):
    """A part of a resumable upload does not begin at `offset`, where the last one ended."""

    def __init__(self, offset: int, given: int) -> None:
        super().__init__(f"The upload has {offset} bytes; a part that begins at {given} does not follow them.")
        self.offset = offset


class UploadLocked(DetectionsError):
    """Another request is writing the resumable upload and did not release it in time."""


class UploadTakenOver(UploadLocked):
    """A newer request has taken over the resumable upload that this one was writing."""


class ChecksumMismatch(DetectionsError):
    """A part does not match its checksum; none of its bytes counts."""


class UnsupportedProtocol(DetectionsError):
    """The client uses a version of the upload protocol that the service does not support."""


class TooManyUploads(DetectionsError):
    """The user has reached the limit of unfinished uploads."""


class MediaIdCollision(DetectionsError):
    """The id exists with other content; the stored file is unchanged. `media_id` is set if a record has the id."""

    def __init__(self, reason: str, media_id: str | None = None) -> None:
        super().__init__(reason)
        self.media_id = media_id


class AlreadyProcessing(DetectionsError):
    """A run of the media item is under way."""


class NotProcessing(DetectionsError):
    """No run of the media item is under way."""


class Unavailable(DetectionsError):
    """Busy beyond a limit, or shutting down: the same call may succeed after `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class DatabaseUnfit(Unavailable):
    """The database, or a pooler before it, cannot be used; the text says what a person must change."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, retry_after=30)


class DatabaseFailed(Unavailable):
    """The database's file or disk failed.

    The text is for clients; `advice`, for the log and for commands, also names paths and says what a person can do.
    """

    def __init__(self, reason: str, advice: str | None = None) -> None:
        super().__init__(reason, retry_after=5)
        self.advice = advice or reason


class DatabaseDiskFailed(DatabaseFailed):
    """I/O error of the database's disk; a commit that failed with it may still be replayed after a crash."""


class DatabaseDamaged(DatabaseFailed):
    """The database's content is damaged; a person must restore or rescue it."""


class RecordsNotReadable(Unavailable):
    """The annotations service has no GET for its records, or forbids it."""


class StorageFull(DetectionsError):
    """Disk or quota full; nothing was left behind."""


class StorageFailed(DetectionsError):
    """I/O error of a media folder; nothing was stored."""


class StoredFileUnreadable(StorageFailed):
    """I/O error while a stored file is read."""


class IllegalTransition(DetectionsError):
    """A change of status that is not allowed."""


class DetectorFailed(DetectionsError):
    """The detector failed (crashed, hung or exceeded its limits); the media item may be sound."""


class DetectorNotReady(DetectorFailed):
    """The detector could not be started, or failed before its model was loaded; the media item is not the cause.

    `stderr` is the end of its standard error, for the log.
    """

    def __init__(self, reason: str, stderr: str = "") -> None:
        super().__init__(reason)
        self.stderr = stderr


class HouseFault(Unavailable):
    """A run cannot reach its file or its detector although the media item may be sound; the run waits.

    `kind` is a `app.runs.house_faults.FaultKind`. The text names no path, because /readyz shows it to everybody.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason, retry_after=15)
        self.kind = kind
