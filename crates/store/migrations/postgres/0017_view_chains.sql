-- Which views are made from which others: docs/decisions/0042-chains-of-views.md. A publication that changed something asks for a touch
-- of those below, in its own transaction.
CREATE TABLE view_sources (
    view_id   UUID NOT NULL REFERENCES views (id),
    source_id UUID NOT NULL REFERENCES views (id),
    PRIMARY KEY (view_id, source_id),
    CONSTRAINT view_sources_are_others CHECK (view_id <> source_id)
);
CREATE INDEX view_sources_by_source ON view_sources (source_id, view_id);

-- One row, taken by whoever changes the graph: two changes at once could close a circle that neither of them sees.
CREATE TABLE view_graph (
    id      BIGINT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    CONSTRAINT view_graph_is_one CHECK (id = 1)
);
INSERT INTO view_graph (id, version) VALUES (1, 0);
