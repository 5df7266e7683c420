-- Keys of items are ordered byte by byte, as on SQLite, whatever the database's own order: who reads them page by page finds the page of a key by
-- comparing. Builds the indexes on these columns anew.
ALTER TABLE view_items ALTER COLUMN item TYPE TEXT COLLATE "C";
ALTER TABLE view_staged ALTER COLUMN item TYPE TEXT COLLATE "C";
