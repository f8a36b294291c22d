-- How many rows of a table meet a condition, up to a bound. Waits for nobody but ACCESS EXCLUSIVE.
SELECT count(*) FROM (SELECT FROM {table} WHERE {condition} LIMIT {bound}) AS found
