-- Lists of jobs in a state that few are in: what waits, and the ends that somebody looks for. The others are found otherwise: what runs by
-- its session, what has completed by walking along the ids, for that is nearly everything.
CREATE INDEX jobs_by_state ON jobs (state, id) WHERE state NOT IN ('completed', 'running');
