-- What a handler keeps for its next attempt, and what it says while it runs: the newest lines.
ALTER TABLE jobs ADD COLUMN checkpoint TEXT;
CREATE TABLE job_logs (
    job_id  UUID   NOT NULL,
    seq     BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    text    TEXT   NOT NULL,
    PRIMARY KEY (job_id, seq)
);
