-- What runs is found by its session, and by nothing else: a look-up of a job by its id that also asks for its state must not be taken for a
-- look at all that runs. With statistics from a moment in which little ran, it was.
DROP INDEX jobs_running;
CREATE INDEX jobs_running ON jobs (session_id) WHERE session_id IS NOT NULL;
