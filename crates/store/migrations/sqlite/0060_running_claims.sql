-- What one claim has taken is found by it, though its session holds much more.
DROP INDEX jobs_running;
CREATE INDEX jobs_running ON jobs (session_id, claim) WHERE session_id IS NOT NULL;
