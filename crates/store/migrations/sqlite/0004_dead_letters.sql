-- A job that failed for good, as it was then: one row for each time. The transaction that fails the job writes it. Builds of
-- views have none: their view shows that its newest version could not be built, and the next touch builds again.
CREATE TABLE dead_letters (
    job_id         BLOB   NOT NULL,
    seq            INTEGER NOT NULL,
    namespace      TEXT   NOT NULL,
    queue          TEXT   NOT NULL,
    handler        TEXT   NOT NULL,
    status         TEXT   NOT NULL,
    error          TEXT   NOT NULL,
    attempts       TEXT   NOT NULL,
    input          TEXT   NOT NULL,
    priority       INTEGER NOT NULL,
    retry          TEXT   NOT NULL,
    attempt        INTEGER NOT NULL,
    attempts_max   INTEGER NOT NULL,
    timeout_ms     INTEGER,
    correlation_id TEXT   NOT NULL,
    workflow_id    BLOB,
    step           TEXT,
    submitted_at   INTEGER NOT NULL,
    failed_at      INTEGER NOT NULL,
    status_at      INTEGER NOT NULL,
    PRIMARY KEY (job_id, seq),
    CONSTRAINT dead_letters_status_is_known CHECK (
        status IN ('pending', 'investigating', 'redriven', 'resolved', 'discarded'))
) STRICT;
CREATE UNIQUE INDEX dead_letters_one_open ON dead_letters (job_id) WHERE status IN ('pending', 'investigating');

-- Who did what about it, and why.
CREATE TABLE dead_letter_notes (
    job_id BLOB   NOT NULL,
    seq    INTEGER NOT NULL,
    place  INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    actor  TEXT   NOT NULL,
    status TEXT   NOT NULL,
    text   TEXT   NOT NULL,
    PRIMARY KEY (job_id, seq, place),
    FOREIGN KEY (job_id, seq) REFERENCES dead_letters (job_id, seq)
) STRICT;
