-- Which of the indexes that a statement makes, each in the schema of its table, is INVALID? One over partitions may be: it
-- is until theirs are attached.
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  FROM unnest(%(schemas)s::text[], %(tables)s::text[], %(names)s::text[]) AS w(schema, relation, name)
  JOIN pg_catalog.pg_class AS t
       ON t.oid = to_regclass(concat_ws('.', quote_ident(nullif(w.schema, '')), quote_ident(w.relation)))
  JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
  JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind = 'i'
  JOIN pg_catalog.pg_index AS i ON i.indexrelid = c.oid
 WHERE NOT i.indisvalid
