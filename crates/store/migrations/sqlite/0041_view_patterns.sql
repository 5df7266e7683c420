-- JSON Schemas that the keys and values of a view's items must fit.
ALTER TABLE views ADD COLUMN item_key_schema TEXT;
ALTER TABLE views ADD COLUMN item_value_schema TEXT;
-- The pattern that the view was made from; NULL for one that was defined by name.
ALTER TABLE views ADD COLUMN pattern TEXT;
CREATE INDEX views_by_pattern ON views (namespace, pattern) WHERE pattern IS NOT NULL;

-- Definitions that cover every view whose key matches: the first touch of such a view makes it.
CREATE TABLE view_patterns (
    namespace         TEXT    NOT NULL,
    pattern           TEXT    NOT NULL,
    handler           TEXT    NOT NULL,
    queue             TEXT    NOT NULL,
    policy            TEXT    NOT NULL,
    retry             TEXT    NOT NULL,
    timeout_ms        INTEGER,
    item_key_schema   TEXT,
    item_value_schema TEXT,
    created_at        INTEGER NOT NULL,
    PRIMARY KEY (namespace, pattern)
) STRICT, WITHOUT ROWID;
