-- How many items of a superseded build's own making a later generation took over.
ALTER TABLE view_staged ADD COLUMN made_by BLOB;
CREATE TABLE build_work (
    view_id    BLOB NOT NULL REFERENCES views (id),
    job_id     BLOB NOT NULL,
    version    INTEGER NOT NULL,
    items_used INTEGER NOT NULL,
    PRIMARY KEY (view_id, job_id)
) STRICT;
