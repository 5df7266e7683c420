-- A job may have a unique key: no second job with it can be there while the first has not ended, nor while it is in one of
-- the ended states that `unique_ended` names, one bit each (model::unique::ended_bit spells the same numbers).
ALTER TABLE jobs
    ADD COLUMN unique_key TEXT,
    ADD COLUMN unique_ended BIGINT NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX jobs_unique ON jobs (unique_key) WHERE unique_key IS NOT NULL AND (
    state IN ('blocked', 'queued', 'running') OR (unique_ended & CASE state WHEN 'completed' THEN 1 WHEN 'failed' THEN 2
    WHEN 'cancelled' THEN 4 WHEN 'superseded' THEN 8 WHEN 'skipped' THEN 16 WHEN 'resolved' THEN 32 ELSE 0 END) <> 0);

-- What makes a submit safe to repeat. Kept apart from the job, which retention may remove sooner.
CREATE TABLE idempotency_keys (
    namespace  TEXT   NOT NULL,
    key        TEXT   NOT NULL,
    job_id     UUID   NOT NULL,
    body       TEXT   NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, key)
);
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
