-- dbwatch monitor: how do these statements read? Reads the file of texts: asked only for statements not yet known.
SELECT DISTINCT ON (s.queryid)
       s.queryid,
       CASE WHEN octet_length(s.query) > 20000 THEN left(s.query, 20001) ELSE s.query END
  FROM {schema}.pg_stat_statements(true) AS s
 WHERE s.dbid = %(database)s::bigint::oid
   AND s.queryid = ANY (%(queryids)s::bigint[])
