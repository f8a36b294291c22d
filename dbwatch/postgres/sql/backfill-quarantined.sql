-- The rows that one backfill, or each, holds in quarantine, by key: the first `most` of them, or all.
SELECT
    q.backfill_id AS id,
    q.key,
    q.sqlstate,
    q.message
FROM dbwatch.quarantine AS q
WHERE %(id)s::bigint IS NULL OR q.backfill_id = %(id)s::bigint
ORDER BY q.backfill_id DESC, length(q.key), q.key COLLATE "C"
LIMIT %(most)s::bigint;
