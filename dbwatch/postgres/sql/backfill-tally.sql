-- How many rows a backfill holds in quarantine, by SQLSTATE.
SELECT
    q.sqlstate,
    count(*) AS held
FROM dbwatch.quarantine AS q
WHERE q.backfill_id = %(id)s
GROUP BY q.sqlstate;
