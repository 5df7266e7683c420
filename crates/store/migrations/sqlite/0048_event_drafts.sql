-- Events whose payload a publisher makes from the end of a step, until it has: written in the transaction of that end. One that is made or
-- given up moves to `events` under its id. A claimed one is due again when its time is over, so that one whose maker died is made by another.
CREATE TABLE event_drafts (
    id             BLOB   NOT NULL PRIMARY KEY,
    namespace      TEXT   NOT NULL,
    type           TEXT   NOT NULL,
    at             INTEGER NOT NULL,
    job_id         BLOB   NOT NULL,
    workflow_id    BLOB,
    step           TEXT,
    attempt        INTEGER NOT NULL,
    outcome        TEXT   NOT NULL,
    correlation_id TEXT   NOT NULL,
    publisher      TEXT   NOT NULL,
    mode           TEXT   NOT NULL,
    payload_schema TEXT,
    -- The step's result, or its error; NULL: the result is large, and is read where its job has it.
    ended          TEXT,
    due_at         INTEGER NOT NULL,
    tries          INTEGER NOT NULL DEFAULT 0,
    claim          BLOB,
    problem        TEXT,
    CONSTRAINT event_drafts_outcome_is_known CHECK (outcome IN ('completed', 'retrying', 'failed')),
    CONSTRAINT event_drafts_mode_is_known CHECK (mode IN ('durable', 'fast', 'broadcast')),
    CONSTRAINT event_drafts_only_results_are_elsewhere CHECK (ended IS NOT NULL OR outcome = 'completed')
) STRICT;
CREATE INDEX event_drafts_due ON event_drafts (publisher, due_at, id);
CREATE INDEX event_drafts_by_time ON event_drafts (at, id);
