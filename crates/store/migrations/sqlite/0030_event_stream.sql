-- Where an event stands in the stream of all of them. Given when the event is handed on, under the lock of the row of
-- `event_stream`: so places are seen in their order, whatever the order in which the events themselves were committed.
ALTER TABLE events ADD COLUMN place INTEGER;
CREATE UNIQUE INDEX events_by_place ON events (place) WHERE place IS NOT NULL;

-- One row. `last_place` was given last; up to `removed_through` events may be gone.
CREATE TABLE event_stream (
    id              INTEGER NOT NULL PRIMARY KEY,
    last_place      INTEGER NOT NULL,
    removed_through INTEGER NOT NULL,
    CONSTRAINT event_stream_is_one_row CHECK (id = 1)
) STRICT;
INSERT INTO event_stream (id, last_place, removed_through) VALUES (1, 0, 0);

-- Changes of this type are written since this place of the stream, without a gap.
ALTER TABLE events_wanted ADD COLUMN since_place INTEGER NOT NULL DEFAULT 0;

-- Who reads the stream, and which changes of state are written for it until when.
CREATE TABLE event_listeners (
    name  TEXT   NOT NULL PRIMARY KEY,
    types TEXT   NOT NULL,
    until INTEGER NOT NULL
) STRICT;
