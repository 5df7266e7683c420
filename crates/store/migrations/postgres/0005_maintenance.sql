-- Who leads a kind of work that one process at a time shall do. The token rises whenever the lead changes hands.
CREATE TABLE leaders (
    role       TEXT   NOT NULL PRIMARY KEY,
    holder     UUID   NOT NULL,
    token      BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- What retention looks at. A job enters the first once in its life, at its end.
CREATE INDEX jobs_ended ON jobs (state, finished_at) WHERE finished_at IS NOT NULL AND workflow_id IS NULL;
CREATE INDEX workflows_ended ON workflows (state, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX dead_letters_closed ON dead_letters (status_at) WHERE status IN ('redriven', 'resolved', 'discarded');
