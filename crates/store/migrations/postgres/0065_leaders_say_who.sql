-- Who leads and since when, for people. It was said with said_token; where that is not the token, a process leads that does not say it.
ALTER TABLE leaders ADD COLUMN said_token BIGINT;
ALTER TABLE leaders ADD COLUMN node TEXT;
ALTER TABLE leaders ADD COLUMN since BIGINT;
