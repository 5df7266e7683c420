-- The trace of the call that made a batch: its callbacks go on in it (W3C Trace Context).
ALTER TABLE batches ADD COLUMN trace_context TEXT;

-- The traces of touches that no build has answered yet. The build that is made next belongs to them, and takes them away.
CREATE TABLE view_touch_traces (
    view_id       BLOB    NOT NULL REFERENCES views (id) ON DELETE CASCADE,
    trace_context TEXT    NOT NULL,
    at            INTEGER NOT NULL,
    PRIMARY KEY (view_id, trace_context)
) STRICT, WITHOUT ROWID;

-- The trace of a touch that is asked for: of the build whose publication asks for it, or of whoever writes the row.
ALTER TABLE touch_requests ADD COLUMN trace_context TEXT;
