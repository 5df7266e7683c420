-- Drawn anew with every publication: names a generation beyond its number, which a database that was put back from a backup gives
-- a second time. NULL for what was published before.
ALTER TABLE views ADD COLUMN live_stamp UUID;
