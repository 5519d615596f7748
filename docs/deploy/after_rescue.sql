-- In a database made from `sqlite3 DAMAGED .dump`, rows refer to rows that were lost. This makes it consistent, so that
-- the service can use it. Run once, before the service is started:
-- sqlite3 RESCUED < docs/deploy/after_rescue.sql
PRAGMA foreign_keys = OFF;
BEGIN IMMEDIATE;

-- Delete the rows of lost media items. Their files stay, and the same upload adopts them.
DELETE FROM outbox_message WHERE media_id NOT IN (SELECT id FROM media);
DELETE FROM outbox_stream WHERE media_id NOT IN (SELECT id FROM media);
DELETE FROM detection_run WHERE media_id NOT IN (SELECT id FROM media);
DELETE FROM detection WHERE run_id NOT IN (SELECT id FROM detection_run);

-- Replace streams that were lost, or that lack messages, by empty ones, so that nothing of them is sent.
-- `flask outbox resend --missing` then sends again what the annotations service lacks.
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

-- The next start finds the database behind the media folders' markers and begins a new epoch, so that no sequence number
-- is used twice within an epoch.
UPDATE database_instance SET counter = 0;
COMMIT;
