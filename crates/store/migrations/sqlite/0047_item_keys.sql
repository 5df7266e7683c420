-- Keys of items are ordered byte by byte here from the beginning; on PostgreSQL this migration makes it so.
SELECT 1;
