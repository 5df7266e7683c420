-- A job that failed for good, as it was then: one row for each time. The transaction that fails the job writes it. Builds of
-- views have none: their view shows that its newest version could not be built, and the next touch builds again.
CREATE TABLE dead_letters (
    job_id         UUID   NOT NULL,
    seq            BIGINT NOT NULL,
    namespace      TEXT   NOT NULL,
    queue          TEXT   NOT NULL,
    handler        TEXT   NOT NULL,
    status         TEXT   NOT NULL,
    error          TEXT   NOT NULL,
    attempts       TEXT   NOT NULL,
    input          TEXT   NOT NULL,
    priority       BIGINT NOT NULL,
    retry          TEXT   NOT NULL,
    attempt        BIGINT NOT NULL,
    attempts_max   BIGINT NOT NULL,
    timeout_ms     BIGINT,
    correlation_id TEXT   NOT NULL,
    workflow_id    UUID,
    step           TEXT,
    submitted_at   BIGINT NOT NULL,
    failed_at      BIGINT NOT NULL,
    status_at      BIGINT NOT NULL,
    PRIMARY KEY (job_id, seq),
    CONSTRAINT dead_letters_status_is_known CHECK (
        status IN ('pending', 'investigating', 'redriven', 'resolved', 'discarded'))
);
CREATE UNIQUE INDEX dead_letters_one_open ON dead_letters (job_id) WHERE status IN ('pending', 'investigating');

-- Who did what about it, and why.
CREATE TABLE dead_letter_notes (
    job_id UUID   NOT NULL,
    seq    BIGINT NOT NULL,
    place  BIGINT NOT NULL,
    at     BIGINT NOT NULL,
    actor  TEXT   NOT NULL,
    status TEXT   NOT NULL,
    text   TEXT   NOT NULL,
    PRIMARY KEY (job_id, seq, place),
    FOREIGN KEY (job_id, seq) REFERENCES dead_letters (job_id, seq)
);
