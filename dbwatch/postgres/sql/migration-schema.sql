-- In which schema a relation is found by the search_path, and in which one a new object would be made.
SELECT current_schema()::text,
       (SELECT n.nspname::text
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.oid = to_regclass(quote_ident({relation})))
