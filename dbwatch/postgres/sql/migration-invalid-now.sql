-- Every INVALID index that nobody is seen to build just now, those of REINDEX on TOAST tables too.
SELECT c.oid::bigint, quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'i'
   AND NOT i.indisvalid
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index AS p WHERE p.index_relid = c.oid)
 ORDER BY 2
