-- What the worker of a session can do, for the registry of handlers; remote workers say it in remote_workers. It goes with its session.
CREATE TABLE worker_offers (
    session_id BLOB    NOT NULL PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    handlers   TEXT    NOT NULL,
    queues     TEXT    NOT NULL,
    slots      INTEGER NOT NULL,
    CONSTRAINT worker_offers_have_slots CHECK (slots > 0)
) STRICT;
