"""Commits messages now and then, and prints when each commit had returned: `<media id> <seconds>`."""

import sys
import time
import uuid
from contextlib import closing

from app.database import Database
from app.database.models import Media
from app.media.status import create_media
from app.outbox.queue import OutboxQueue

PAUSE = 0.03


def main() -> None:
    """argv: the database's URL, and how many."""
    url, count = sys.argv[1], int(sys.argv[2])
    time.sleep(0.5)
    with closing(Database(url)) as database:
        queue = OutboxQueue(database.now)
        for _number in range(count):
            media_id = uuid.uuid4().hex[:16]
            path = f"/srv/images/{media_id}.jpg"
            media = Media(
                id=media_id,
                name="photo.jpg",
                path=path,
                media_type="Image",
                media_status=1,
                user_id="ada",
                size_bytes=1,
                created_at=1.8e9,
            )
            with database.write_transaction() as connection:
                create_media(connection, queue, media, request_id=None)
            print(media_id, time.time(), flush=True)
            time.sleep(PAUSE)


if __name__ == "__main__":
    main()
