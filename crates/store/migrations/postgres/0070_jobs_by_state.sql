-- Lists of jobs in a state that few are in: what waits, and the ends that somebody looks for. The others are found otherwise: what runs by
-- its session, what has completed by walking along the ids, for that is nearly everything.
-- By an expression, so that nothing but lists can take this index: where the database believes that little waits, a claim would otherwise
-- read all that waits by it, and sort.
CREATE INDEX jobs_by_state ON jobs ((state || ''), id) WHERE (state || '') NOT IN ('completed', 'running');
