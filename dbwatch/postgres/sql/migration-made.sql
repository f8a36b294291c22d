-- The OID and the name of an object just made, the newest first; without a name, the newest ones on its table.
SELECT m.oid::bigint, m.name::text
  FROM (SELECT c.oid, c.relname AS name, c.xmin
          FROM pg_catalog.pg_class AS c
         WHERE {kind} IN ('table', 'view', 'materialized view', 'foreign table', 'sequence')
           AND c.relnamespace = to_regnamespace(quote_ident({schema})) AND c.relname = {name}
        UNION ALL
        SELECT c.oid, c.relname, c.xmin
          FROM pg_catalog.pg_index AS i
          JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
         WHERE {kind} = 'index'
           AND c.relnamespace = to_regnamespace(quote_ident({schema}))
           AND ({name} = c.relname
                OR {name} = '' AND i.indrelid = to_regclass(quote_ident({schema}) || '.' || quote_ident({parent})))
        UNION ALL
        SELECT a.attrelid, a.attname, a.xmin
          FROM pg_catalog.pg_attribute AS a
         WHERE {kind} = 'column'
           AND a.attrelid = to_regclass(quote_ident({schema}) || '.' || quote_ident({parent}))
           AND a.attname = {name}
        UNION ALL
        SELECT o.oid, o.conname, o.xmin
          FROM pg_catalog.pg_constraint AS o
         WHERE {kind} = 'constraint'
           AND o.conrelid = to_regclass(quote_ident({schema}) || '.' || quote_ident({parent}))
           AND {name} IN ('', o.conname)
           AND o.contype NOT IN ('n', 't')
        UNION ALL
        SELECT t.oid, t.tgname, t.xmin
          FROM pg_catalog.pg_trigger AS t
         WHERE {kind} = 'trigger'
           AND t.tgrelid = to_regclass(quote_ident({schema}) || '.' || quote_ident({parent}))
           AND t.tgname = {name}
        UNION ALL
        SELECT p.oid, p.polname, p.xmin
          FROM pg_catalog.pg_policy AS p
         WHERE {kind} = 'policy'
           AND p.polrelid = to_regclass(quote_ident({schema}) || '.' || quote_ident({parent}))
           AND p.polname = {name}
        UNION ALL
        SELECT w.oid, w.rulename, w.xmin
          FROM pg_catalog.pg_rewrite AS w
         WHERE {kind} = 'rule'
           AND w.ev_class = to_regclass(quote_ident({schema}) || '.' || quote_ident({parent}))
           AND w.rulename = {name}
        UNION ALL
        SELECT t.oid, t.typname, t.xmin
          FROM pg_catalog.pg_type AS t
         WHERE {kind} IN ('type', 'domain')
           AND t.typnamespace = to_regnamespace(quote_ident({schema})) AND t.typname = {name}
        UNION ALL
        SELECT p.oid, p.proname, p.xmin
          FROM pg_catalog.pg_proc AS p
         WHERE {kind} IN ('function', 'procedure', 'aggregate')
           AND p.pronamespace = to_regnamespace(quote_ident({schema})) AND p.proname = {name}
        UNION ALL
        SELECT s.oid, s.stxname, s.xmin
          FROM pg_catalog.pg_statistic_ext AS s
         WHERE {kind} = 'statistics'
           AND s.stxnamespace = to_regnamespace(quote_ident({schema})) AND s.stxname = {name}
        UNION ALL
        SELECT n.oid, n.nspname, n.xmin FROM pg_catalog.pg_namespace AS n WHERE {kind} = 'schema' AND n.nspname = {name}
        UNION ALL
        SELECT e.oid, e.extname, e.xmin FROM pg_catalog.pg_extension AS e WHERE {kind} = 'extension' AND e.extname = {name}
        UNION ALL
        SELECT p.oid, p.pubname, p.xmin FROM pg_catalog.pg_publication AS p WHERE {kind} = 'publication' AND p.pubname = {name}
        UNION ALL
        SELECT t.oid, t.evtname, t.xmin
          FROM pg_catalog.pg_event_trigger AS t
         WHERE {kind} = 'event trigger' AND t.evtname = {name}
       ) AS m
 ORDER BY age(m.xmin), m.oid DESC
 LIMIT {count}
