-- The index of this name, where it is INVALID: a build that was broken off left it. One over partitions may be: it is
-- until theirs are attached.
SELECT c.oid::bigint
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = {schema} AND c.relname = {name} AND c.relkind = 'i' AND NOT i.indisvalid
