-- dbwatch monitor: who holds and who waits for which lock? Names come from pg_class: no function that opens the
-- relation. All that is waited for comes first; ids of transactions that nobody waits for are left out.
WITH entry AS MATERIALIZED (
    SELECT l.*,
           concat_ws('/', l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid, l.transactionid,
                     l.classid, l.objid, l.objsubid) AS object_key
      FROM pg_catalog.pg_locks AS l
     WHERE l.mode <> 'SIReadLock'
       AND l.pid IS DISTINCT FROM pg_backend_pid()
), chosen AS MATERIALIZED (
    SELECT w.*, count(*) OVER () AS total
      FROM (SELECT e.*, bool_or(NOT e.granted) OVER (PARTITION BY e.object_key) AS contested FROM entry AS e) AS w
     WHERE w.contested OR w.locktype NOT IN ('virtualxid', 'transactionid')
     ORDER BY w.granted, w.contested DESC, w.mode = 'AccessExclusiveLock' DESC, w.pid
     LIMIT 5000
)
SELECT coalesce(k.pid, 0),
       k.locktype,
       CASE k.locktype
           WHEN 'relation' THEN r.name
           WHEN 'extend' THEN concat('extension of ', r.name)
           WHEN 'page' THEN concat('page ', k.page, ' of ', r.name)
           WHEN 'tuple' THEN concat('tuple (', k.page, ',', k.tuple, ') of ', r.name)
           WHEN 'transactionid' THEN concat('transaction ', k.transactionid)
           WHEN 'virtualxid' THEN concat('virtual transaction ', k.virtualxid)
           WHEN 'advisory' THEN concat('advisory ', CASE
               WHEN k.objsubid = 1 THEN ((k.classid::bigint << 32) | k.objid::bigint)::text
               ELSE concat_ws(' ', k.classid, k.objid)
           END)
           WHEN 'object' THEN concat('object ', k.objid, ' in ', coalesce(o.relname, k.classid::text))
           ELSE concat_ws(' ', k.locktype, k.relation, k.page, k.tuple, k.transactionid, k.classid, k.objid)
       END,
       k.object_key,
       k.mode,
       k.granted,
       NULL::timestamptz,
       CASE WHEN k.pid IS NULL THEN
           (SELECT p.gid
              FROM entry AS e
              JOIN pg_prepared_xact() AS p ON p.transaction = e.transactionid
             WHERE e.pid IS NULL
               AND e.locktype = 'transactionid'
               AND e.virtualtransaction = k.virtualtransaction
             LIMIT 1)
       END,
       k.total
  FROM chosen AS k
  LEFT JOIN pg_catalog.pg_class AS c
    ON c.oid = k.relation
   AND k.database::bigint IN (0, %(database)s::bigint)
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_class AS o ON o.oid = k.classid
 CROSS JOIN LATERAL (
     SELECT CASE
         WHEN c.oid IS NULL THEN concat('relation ', k.relation)
         WHEN n.nspname IN ('public', 'pg_catalog') THEN quote_ident(c.relname)
         ELSE concat(quote_ident(n.nspname), '.', quote_ident(c.relname))
     END AS name
 ) AS r
 ORDER BY k.granted, k.contested DESC, k.pid
