-- What `sqlite3 DAMAGED .dump` brought into a new database is not whole: rows refer to rows that were lost. This makes it
-- consistent, so that the service goes on with it. To be run once, before the service is started:
-- sqlite3 RESCUED < docs/deploy/after_rescue.sql
PRAGMA foreign_keys = OFF;
BEGIN IMMEDIATE;

-- Rows of a media item that was lost say nothing any more; its file stays, and the same upload adopts it.
DELETE FROM outbox_message WHERE media_id NOT IN (SELECT id FROM media);
DELETE FROM outbox_stream WHERE media_id NOT IN (SELECT id FROM media);
DELETE FROM detection_run WHERE media_id NOT IN (SELECT id FROM media);
DELETE FROM detection WHERE run_id NOT IN (SELECT id FROM detection_run);

-- Streams that were lost, or whose messages are not all there: nothing of them is sent as it stands.
-- `flask outbox resend --missing` then says again what the other side lacks.
CREATE TEMP TABLE incomplete AS
SELECT media.id AS media_id, media.user_id, max(coalesce(stream.last_seq, 0), coalesce(kept.highest, 0)) AS last_seq
FROM media
LEFT JOIN outbox_stream AS stream ON stream.media_id = media.id
LEFT JOIN (
    SELECT message.media_id,
           min(seq) AS lowest,
           max(seq) AS highest,
           count(*) AS messages,
           sum(delivered_at IS NULL) AS waiting,
           min(CASE WHEN delivered_at IS NULL THEN seq END) AS first_waiting,
           max(CASE WHEN delivered_at IS NOT NULL THEN seq END) AS last_delivered
    FROM outbox_message AS message GROUP BY message.media_id
) AS kept ON kept.media_id = media.id
WHERE stream.media_id IS NULL
   OR coalesce(kept.waiting, 0) <> stream.last_seq - stream.acked_seq
   OR kept.highest > stream.last_seq
   OR kept.highest - kept.lowest + 1 <> kept.messages
   OR kept.first_waiting <= stream.acked_seq
   OR kept.last_delivered > stream.acked_seq;

DELETE FROM outbox_message WHERE media_id IN (SELECT media_id FROM incomplete);
DELETE FROM outbox_attempt WHERE (media_id, seq) NOT IN (SELECT media_id, seq FROM outbox_message);
DELETE FROM outbox_stream WHERE media_id IN (SELECT media_id FROM incomplete);
INSERT INTO outbox_stream
    (media_id, user_id, last_seq, acked_seq, lease_epoch, attempts, failures, counted_attempts, outcome_unknown)
SELECT media_id, user_id, last_seq, last_seq, 0, 0, 0, 0, 0 FROM incomplete;

-- The next start finds the database behind the media folders' markers, and goes on in a new epoch: numbers of lost
-- messages are not used twice within one.
UPDATE database_instance SET counter = 0;
COMMIT;
