-- Touches that an application asks for within its own transaction: docs/decisions/0032-touches-from-sql.md. Whoever reconciles
-- views takes them, in order, and touches. `items` is a JSON array of texts; NULL for all of the view.
CREATE TABLE touch_requests (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT    NOT NULL,
    key       TEXT    NOT NULL,
    items     TEXT
) STRICT;
