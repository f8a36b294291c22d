-- dbwatch backfill: takes a row out of quarantine, as the first statement of the transaction that fills it. Where it is
-- not there any more, because another has tried it again, the cast fails and nothing is filled.
WITH /* dbwatch */ gone AS (
    DELETE FROM dbwatch.quarantine AS q
    WHERE q.backfill_id = %(id)s AND q.key = %(key)s
    RETURNING 1
)
SELECT
    CASE WHEN count(*) = 1 THEN true ELSE CAST('dbwatch: not in quarantine any more, ' || count(*) AS boolean) END
FROM gone
