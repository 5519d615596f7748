"""What can go wrong, named once. Nothing here knows of HTTP: `app.web.problems` maps each class to its answer.

DetectionsError
├── SettingsError            a setting is wrong or missing; the service does not start
├── MalformedUpload          no file, a cut-off body, bad multipart, bad parameters
├── UploadTimedOut           the client stopped sending
├── MediaTooLarge            more bytes or pixels than allowed
├── UnsupportedMedia         extension not allowed, or first bytes of another kind of file
├── Undecodable              stored and recorded, but the decoder rejects it
├── Unauthorized             no acceptable token
├── Forbidden                a token that does not allow this
├── MediaNotFound            no media with that id
│   └── NotParked            a known media, but nothing of it is parked
├── UploadNotFound           no resumable upload of this user with that id
├── UploadGone               a resumable upload that has expired
├── WrongOffset              a part of a resumable upload that does not begin where the last one ended
├── UploadLocked             another request is writing the resumable upload
│   └── UploadTakenOver      another request for the resumable upload has come meanwhile
├── ChecksumMismatch         a part of a resumable upload whose bytes are not those that were meant
├── UnsupportedProtocol      a version of the upload protocol that is not spoken here
├── TooManyUploads           more unfinished uploads than one user may have
├── MediaIdCollision         the id exists with other content
├── AlreadyProcessing        a run of that media is under way
├── NotProcessing            no run of that media is under way
├── Unavailable              busy beyond a limit, or shutting down; try again later
│   ├── HouseFault           a run cannot reach its file or its detector; the media item may be sound
│   ├── DatabaseUnfit        the database, or what stands before it, cannot be used until a person changes it
│   ├── DatabaseFailed       the database's file is not at its place, is read-only, or its disk refuses
│   │   ├── DatabaseDiskFailed  its disk refuses (EIO and the like)
│   │   └── DatabaseDamaged  what the database reads is not what it wrote
│   └── RecordsNotReadable   the annotations service lets nobody look at its records
├── StorageFull              no room on the disk
├── StorageFailed            the disk refused (EIO and the like)
│   └── StoredFileUnreadable a stored file cannot be read to its end
├── IllegalTransition        a status change that the contract does not allow
└── DetectorFailed           the detector itself broke, not the media
    └── DetectorNotReady     the detector broke before it had its model, whatever the media
"""


class DetectionsError(Exception):
    """Base of every error of this service; its text is fit to show to the client."""


class SettingsError(DetectionsError):
    """A setting is wrong or missing; the text names it, its value where that is no secret, and the remedy."""


class MalformedUpload(DetectionsError):
    """The request does not carry one whole, well-formed file, or a parameter of it is wrong."""


class UploadTimedOut(DetectionsError):
    """The client stopped sending before the body was complete."""


class MediaTooLarge(DetectionsError):
    """More bytes or pixels than this service accepts; `media_id` where the media was stored before that was known."""

    def __init__(self, reason: str, media_id: str | None = None) -> None:
        super().__init__(reason)
        self.media_id = media_id


class UnsupportedMedia(DetectionsError):
    """The extension is not allowed, or the first bytes are of another kind of file."""


class Undecodable(DetectionsError):
    """The decoder rejects the content: the media is stored, and its status is Error."""

    def __init__(self, reason: str, media_id: str | None = None) -> None:
        super().__init__(reason)
        self.media_id = media_id


class Unauthorized(DetectionsError):
    """The request carries no acceptable token."""


class Forbidden(DetectionsError):
    """The token is good, but does not allow this."""


class MediaNotFound(DetectionsError):
    """No media has that id."""


class NotParked(MediaNotFound):
    """The media is known, but none of its messages waits for a person."""


class UploadNotFound(DetectionsError):
    """This user has no resumable upload with that id."""


class UploadGone(DetectionsError):
    """The resumable upload has expired."""


class WrongOffset(DetectionsError):
    """A part of a resumable upload does not begin where the last one ended, which is at `offset`."""

    def __init__(self, offset: int, given: int) -> None:
        super().__init__(f"The upload has {offset} bytes; a part that begins at {given} does not follow them.")
        self.offset = offset


class UploadLocked(DetectionsError):
    """Another request is writing the resumable upload, and has not let go of it in time."""


class UploadTakenOver(UploadLocked):
    """Another request for the resumable upload has come while this one was writing it."""


class ChecksumMismatch(DetectionsError):
    """The bytes of a part are not those that its checksum was made of; none of them counts."""


class UnsupportedProtocol(DetectionsError):
    """The client speaks a version of the upload protocol that this service does not."""


class TooManyUploads(DetectionsError):
    """The user has as many unfinished uploads as one may have."""


class MediaIdCollision(DetectionsError):
    """The id exists with other content; the stored file is untouched. `media_id` where a record has that id."""

    def __init__(self, reason: str, media_id: str | None = None) -> None:
        super().__init__(reason)
        self.media_id = media_id


class AlreadyProcessing(DetectionsError):
    """A run of that media is under way."""


class NotProcessing(DetectionsError):
    """No run of that media is under way."""


class Unavailable(DetectionsError):
    """Busy beyond a limit, or shutting down: the same call may succeed after `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class DatabaseUnfit(Unavailable):
    """The database, or a pooler before it, cannot be used as it is; the text says what a person has to change."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, retry_after=30)


class DatabaseFailed(Unavailable):
    """The database cannot be used for a fault of its file or of its disk.

    The text is for everybody; `advice`, for the log and for commands, also names paths and says what a person can do.
    """

    def __init__(self, reason: str, advice: str | None = None) -> None:
        super().__init__(reason, retry_after=5)
        self.advice = advice or reason


class DatabaseDiskFailed(DatabaseFailed):
    """The database's disk refuses; a commit that failed so may yet come true."""


class DatabaseDamaged(DatabaseFailed):
    """What the database reads is not what it wrote: a person has to restore or to rescue it."""


class RecordsNotReadable(Unavailable):
    """The annotations service has no GET for its records, or forbids it; what it has cannot be told."""


class StorageFull(DetectionsError):
    """No room on the disk; nothing was left behind."""


class StorageFailed(DetectionsError):
    """The disk refused an operation (EIO and the like); the upload did not happen."""


class StoredFileUnreadable(StorageFailed):
    """The disk refused to read a stored file that could be opened."""


class IllegalTransition(DetectionsError):
    """A change of status that the contract does not allow."""


class DetectorFailed(DetectionsError):
    """The detector broke (crashed, hung, ran out of its limits); the media may be sound."""


class DetectorNotReady(DetectorFailed):
    """The detector could not be started, or broke before its model was loaded: no media item is to blame.

    `stderr` is the end of its standard error, for the log.
    """

    def __init__(self, reason: str, stderr: str = "") -> None:
        super().__init__(reason)
        self.stderr = stderr


class HouseFault(Unavailable):
    """What keeps a run from its file or its detector although the media item may be sound; the run waits.

    `kind` is one of `app.runs.house_faults.FaultKind`; the text names no path, because /readyz tells it to everybody.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason, retry_after=15)
        self.kind = kind
