-- Who holds what a statement needs: locks that conflict with its own on the relations it names, on what inherits from
-- them and on an index's table; dumps of this database; snapshots. One row per transaction. Opens no relation.
WITH RECURSIVE wanted AS MATERIALIZED (
    SELECT w.schema, w.name, w.held
      FROM unnest(%(schemas)s::text[], %(names)s::text[], %(helds)s::text[]) AS w (schema, name, held)
), spot (relation, held) AS (
    SELECT c.oid, w.held
      FROM wanted AS w
      JOIN pg_catalog.pg_class AS c ON c.relname = w.name
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = w.schema
        OR (w.schema = '' AND (pg_table_is_visible(c.oid) OR to_regclass(quote_ident(w.name)) IS NULL))
     UNION
    SELECT i.inhrelid, s.held
      FROM spot AS s
      JOIN pg_catalog.pg_inherits AS i ON i.inhparent = s.relation
), reach AS (
    SELECT s.relation, s.held FROM spot AS s
     UNION
    SELECT x.indrelid, s.held FROM spot AS s JOIN pg_catalog.pg_index AS x ON x.indexrelid = s.relation
), here AS MATERIALIZED (
    SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()
), entry AS MATERIALIZED (
    SELECT l.pid, l.virtualtransaction, l.relation, l.mode,
           array_position('{AccessShareLock,RowShareLock,RowExclusiveLock,ShareUpdateExclusiveLock,ShareLock,'
                          'ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}'::text[], l.mode) AS strength
      FROM pg_catalog.pg_locks AS l
     WHERE l.granted
       AND l.locktype = 'relation'
       AND l.database = (SELECT h.oid FROM here AS h)
       AND l.pid IS DISTINCT FROM pg_backend_pid()
), holding AS (
    SELECT DISTINCT ON (e.virtualtransaction) e.virtualtransaction, e.pid, e.mode, c.relname::text AS relation
      FROM entry AS e
      JOIN reach AS r ON r.relation = e.relation AND r.held = e.mode
      JOIN pg_catalog.pg_class AS c ON c.oid = e.relation
     ORDER BY e.virtualtransaction, e.strength DESC, e.relation
), reading AS (
    SELECT e.virtualtransaction
      FROM entry AS e
      JOIN pg_catalog.pg_class AS c ON c.oid = e.relation
     WHERE e.mode = 'AccessShareLock' AND c.relkind IN ('r', 'p') AND c.oid >= 16384
     GROUP BY e.virtualtransaction
    HAVING count(*) >= greatest(20, 0.8 * (
        SELECT count(*) FROM pg_catalog.pg_class AS t WHERE t.relkind IN ('r', 'p') AND t.oid >= 16384
    ))
), session AS (
    SELECT a.*, v.virtualtransaction
      FROM pg_stat_get_activity(NULL) AS a
      JOIN pg_catalog.pg_locks AS v ON v.pid = a.pid AND v.locktype = 'virtualxid' AND v.granted
     WHERE a.datid = (SELECT h.oid FROM here AS h)
       AND a.pid <> pg_backend_pid()
       AND coalesce(a.application_name, '') NOT LIKE %(ours)s
), found AS (
    SELECT s.pid,
           s.virtualtransaction,
           coalesce(nullif(s.application_name, ''), nullif(s.backend_type, 'client backend'), u.rolname, '') AS who,
           coalesce(s.state, '') AS state,
           extract(epoch FROM clock_timestamp() - s.xact_start)::float8 AS age_s,
           coalesce(h.mode, '') AS mode,
           coalesce(h.relation, '') AS relation,
           %(snapshots)s AND s.backend_xmin IS NOT NULL AND s.backend_type IS NOT DISTINCT FROM 'client backend'
               AS snapshot,
           %(schema)s AND (s.application_name IS NOT DISTINCT FROM 'pg_dump' OR r.virtualtransaction IS NOT NULL)
               AS dump
      FROM session AS s
      LEFT JOIN pg_catalog.pg_roles AS u ON u.oid = s.usesysid
      LEFT JOIN holding AS h ON h.virtualtransaction = s.virtualtransaction
      LEFT JOIN reading AS r ON r.virtualtransaction = s.virtualtransaction
)
SELECT f.pid,
       f.virtualtransaction AS transaction,
       f.who, f.state, f.age_s, f.mode, f.relation, f.snapshot, f.dump
  FROM found AS f
 WHERE f.mode <> '' OR f.snapshot OR f.dump
 UNION ALL
SELECT 0,
       h.virtualtransaction,
       'prepared transaction ' || coalesce(p.gid, h.virtualtransaction),
       '',
       extract(epoch FROM clock_timestamp() - p.prepared)::float8,
       h.mode,
       h.relation,
       false,
       false
  FROM holding AS h
  LEFT JOIN pg_catalog.pg_locks AS x
    ON x.virtualtransaction = h.virtualtransaction AND x.locktype = 'transactionid' AND x.pid IS NULL
  LEFT JOIN pg_prepared_xact() AS p ON p.transaction = x.transactionid
 WHERE h.pid IS NULL
