-- Who waits now for a relation that this backend of ours holds a lock on, or waits for before them, and since when they
-- wait behind it. Reads pg_locks only.
SELECT w.virtualtransaction AS transaction,
       max(extract(epoch FROM clock_timestamp() - greatest(w.waitstart, o.waitstart)))::float8 AS waited_s
  FROM pg_catalog.pg_locks AS o
  JOIN pg_catalog.pg_locks AS w
    ON w.locktype = 'relation' AND w.database = o.database AND w.relation = o.relation
   AND NOT w.granted AND w.pid <> o.pid
 WHERE o.pid = %(pid)s AND o.locktype = 'relation' AND (o.granted OR w.waitstart >= o.waitstart)
 GROUP BY w.virtualtransaction
