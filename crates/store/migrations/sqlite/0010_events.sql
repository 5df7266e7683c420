-- What a step publishes at its ends (model::event::StepEvent), kept with its job; NULL for nearly all.
ALTER TABLE jobs ADD COLUMN publishes TEXT;

-- What a step calls, where its handler's name does not say it all: {"callable", "method"}.
ALTER TABLE jobs ADD COLUMN call TEXT;

-- Events: written in the transaction of what happened, then given to each subscriber that asked for them. `problem` says why
-- a payload was refused; such an event is told to nobody.
CREATE TABLE events (
    id             BLOB   NOT NULL PRIMARY KEY,
    namespace      TEXT   NOT NULL,
    type           TEXT   NOT NULL,
    at             INTEGER NOT NULL,
    job_id         BLOB,
    workflow_id    BLOB,
    step           TEXT,
    attempt        INTEGER,
    outcome        TEXT,
    correlation_id TEXT,
    data           TEXT   NOT NULL,
    problem        TEXT,
    routed_at      INTEGER,
    CONSTRAINT events_refused_are_not_routed CHECK (problem IS NULL OR routed_at IS NOT NULL)
) STRICT;
CREATE INDEX events_unrouted ON events (at, id) WHERE routed_at IS NULL;
CREATE INDEX events_by_time ON events (at, id);

-- Who is told. A subscriber is a program (`handler`) or an address (`webhook`). `failures` in a row make it rest until
-- `rest_until`. The secrets of webhooks are needed as they are: whoever can read this table can sign.
CREATE TABLE subscribers (
    id               BLOB   NOT NULL PRIMARY KEY,
    name             TEXT   NOT NULL,
    kind             TEXT   NOT NULL,
    namespace        TEXT,
    types            TEXT   NOT NULL,
    url              TEXT,
    secret           TEXT,
    old_secret       TEXT,
    old_secret_until INTEGER,
    retry            TEXT   NOT NULL,
    timeout_ms       INTEGER NOT NULL,
    state            TEXT   NOT NULL DEFAULT 'active',
    state_at         INTEGER NOT NULL,
    state_actor      TEXT   NOT NULL,
    state_reason     TEXT   NOT NULL,
    failures         INTEGER NOT NULL DEFAULT 0,
    rest_until       INTEGER NOT NULL DEFAULT 0,
    created_at       INTEGER NOT NULL,
    CONSTRAINT subscribers_name_is_unique UNIQUE (name),
    CONSTRAINT subscribers_kind_is_known CHECK (kind IN ('handler', 'webhook')),
    CONSTRAINT subscribers_webhook_has_address CHECK (
        (kind = 'webhook') = (url IS NOT NULL) AND (kind = 'webhook') = (secret IS NOT NULL)),
    CONSTRAINT subscribers_old_secret_ends CHECK ((old_secret IS NULL) = (old_secret_until IS NULL)),
    CONSTRAINT subscribers_state_is_known CHECK (state IN ('active', 'paused', 'gone'))
) STRICT;

-- The changes of state that some subscriber asks for; derived from `subscribers.types`. Triggers write those, and are there
-- only while something is in here.
CREATE TABLE events_wanted (
    type TEXT NOT NULL PRIMARY KEY
) STRICT;

-- One row for each event and subscriber. A claimed one is due again when its time is over, so that one whose sender died is sent
-- again, with the same id. `attempts_each` are granted anew when it is made once more.
CREATE TABLE deliveries (
    subscriber_id BLOB   NOT NULL REFERENCES subscribers (id),
    event_id      BLOB   NOT NULL REFERENCES events (id),
    state         TEXT   NOT NULL DEFAULT 'pending',
    due_at        INTEGER NOT NULL,
    attempt       INTEGER NOT NULL DEFAULT 0,
    attempts_max  INTEGER NOT NULL,
    attempts_each INTEGER NOT NULL,
    claim         BLOB,
    created_at    INTEGER NOT NULL,
    ended_at      INTEGER,
    status        INTEGER,
    error         TEXT,
    PRIMARY KEY (subscriber_id, event_id),
    CONSTRAINT deliveries_state_is_known CHECK (state IN ('pending', 'delivered', 'dead')),
    CONSTRAINT deliveries_end_has_time CHECK ((state = 'pending') = (ended_at IS NULL))
) STRICT;
CREATE INDEX deliveries_due ON deliveries (subscriber_id, due_at, event_id) WHERE state = 'pending';
CREATE INDEX deliveries_ended ON deliveries (state, ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX deliveries_by_event ON deliveries (event_id);

CREATE TABLE delivery_attempts (
    subscriber_id BLOB   NOT NULL,
    event_id      BLOB   NOT NULL,
    attempt       INTEGER NOT NULL,
    at            INTEGER NOT NULL,
    took_us       INTEGER NOT NULL,
    status        INTEGER,
    error         TEXT,
    PRIMARY KEY (subscriber_id, event_id, attempt),
    FOREIGN KEY (subscriber_id, event_id) REFERENCES deliveries (subscriber_id, event_id) ON DELETE CASCADE
) STRICT;
