-- Workers in other processes and languages, who talk to a server node and not to the database. Everything that a node must know to
-- serve one is here, so that any node can.

-- Of whose jobs a session may have, as a JSON list; NULL: of all.
ALTER TABLE sessions ADD COLUMN namespaces TEXT;

CREATE TABLE remote_workers (
    session_id    BLOB    NOT NULL PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    name          TEXT    NOT NULL,
    secret_digest TEXT    NOT NULL,
    handlers      TEXT    NOT NULL,
    queues        TEXT    NOT NULL,
    slots         INTEGER NOT NULL,
    lease_us      INTEGER NOT NULL,
    CONSTRAINT remote_workers_have_slots CHECK (slots > 0),
    CONSTRAINT remote_workers_have_leases CHECK (lease_us > 0)
) STRICT;

-- Which line of which attempt it is, as its worker counts: a repeated call adds none twice. NULL where nobody counts.
ALTER TABLE job_logs ADD COLUMN epoch INTEGER;
ALTER TABLE job_logs ADD COLUMN line INTEGER;
