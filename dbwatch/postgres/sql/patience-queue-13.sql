-- Who waits now for a relation that this backend of ours holds a lock on, or waits for. Reads pg_locks only.
SELECT DISTINCT w.virtualtransaction AS transaction, NULL::float8 AS waited_s
  FROM pg_catalog.pg_locks AS o
  JOIN pg_catalog.pg_locks AS w
    ON w.locktype = 'relation' AND w.database = o.database AND w.relation = o.relation
   AND NOT w.granted AND w.pid <> o.pid
 WHERE o.pid = %(pid)s AND o.locktype = 'relation'
