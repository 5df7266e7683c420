-- The history of jobs by days, by the time in the job's id: docs/decisions/0077-history-goes-by-days.md. A day is made ahead and goes as a
-- whole (src/postgres/history_days.rs). The table as it was becomes the part of everything before tomorrow: it is not written anew, only read once.

-- The parts that go as a whole: history of ids from `first_id` up to, not including, `past_id`. What lies in none of them is in
-- `job_history_default`. `swept_to`: this one stays for long, and history whose job is gone is removed from it up to this id.
CREATE TABLE job_history_days (
    part     TEXT NOT NULL PRIMARY KEY,
    first_id UUID NOT NULL,
    past_id  UUID NOT NULL,
    swept_to UUID,
    CONSTRAINT job_history_days_are_spans CHECK (first_id < past_id)
);
CREATE UNIQUE INDEX job_history_days_by_first ON job_history_days (first_id);

ALTER TABLE job_history RENAME TO job_history_before;
ALTER INDEX job_history_pkey RENAME TO job_history_before_pkey;
CREATE TABLE job_history (LIKE job_history_before INCLUDING ALL EXCLUDING INDEXES EXCLUDING CONSTRAINTS, PRIMARY KEY (job_id, seq)) PARTITION BY RANGE (job_id);
CREATE TABLE job_history_default PARTITION OF job_history DEFAULT;

DO $$
DECLARE
    day      CONSTANT BIGINT := 86400000;
    tomorrow CONSTANT UUID := (lpad(to_hex((recache.clock() / 1000 / day + 1) * day), 12, '0') || repeat('0', 20))::uuid;
    one      RECORD;
    settings TEXT;
BEGIN
    -- Who might read or write it may do so still, and what somebody set for it holds for what is made from now on.
    FOR one IN
        SELECT g.privilege_type, g.is_grantable, CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END AS grantee
        FROM pg_class c, aclexplode(c.relacl) g WHERE c.oid = 'recache.job_history_before'::regclass AND g.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON recache.job_history TO %s%s', one.privilege_type, one.grantee,
            CASE WHEN one.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
    SELECT string_agg(format('%I = %L', o.option_name, o.option_value), ', ') INTO settings
        FROM pg_class c, pg_options_to_table(c.reloptions) o WHERE c.oid = 'recache.job_history_before'::regclass;
    IF settings IS NOT NULL THEN
        EXECUTE format('ALTER TABLE recache.job_history_default SET (%s)', settings);
    END IF;

    -- Whoever listens to changes of jobs listens where they are written from now on (src/postgres/watch.rs).
    IF EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = 'recache.job_history_before'::regclass AND tgname = 'events_of_jobs') THEN
        DROP TRIGGER events_of_jobs ON recache.job_history_before;
        CREATE TRIGGER events_of_jobs AFTER INSERT ON recache.job_history REFERENCING NEW TABLE AS moved
            FOR EACH STATEMENT EXECUTE FUNCTION recache.events_of_jobs();
    END IF;

    -- Ids that somebody made otherwise, as random ones are.
    WITH other AS (DELETE FROM recache.job_history_before WHERE job_id >= tomorrow
            RETURNING job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail)
        INSERT INTO recache.job_history_default (job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail)
            SELECT * FROM other;
    EXECUTE format('ALTER TABLE recache.job_history ATTACH PARTITION recache.job_history_before FOR VALUES FROM (MINVALUE) TO (%L)', tomorrow);
    INSERT INTO recache.job_history_days (part, first_id, past_id)
        VALUES ('job_history_before', '00000000-0000-0000-0000-000000000000', tomorrow);
END
$$;

-- Where attempts of a job failed, the newest first. A function, so that the statement that settles has the parts of the history in its
-- plan only when something failed: with them every settlement would open the index of each day.
CREATE FUNCTION job_failures(job UUID, rows_max BIGINT) RETURNS TABLE (seq BIGINT, attempt BIGINT, at BIGINT, detail TEXT)
    LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT h.seq, h.attempt, h.at, h.detail FROM recache.job_history h
        WHERE h.job_id = job AND h.from_state = 'running' AND h.detail IS NOT NULL ORDER BY h.seq DESC LIMIT rows_max;
END
$$;
