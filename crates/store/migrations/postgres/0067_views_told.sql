-- How many items of a superseded build's own making a later generation took over.
ALTER TABLE view_staged ADD COLUMN made_by UUID;
CREATE TABLE build_work (
    view_id    UUID NOT NULL REFERENCES views (id),
    job_id     UUID NOT NULL,
    version    BIGINT NOT NULL,
    items_used BIGINT NOT NULL,
    PRIMARY KEY (view_id, job_id)
);
