-- What a step publishes at its ends (model::event::StepEvent), kept with its job; NULL for nearly all.
ALTER TABLE jobs ADD COLUMN publishes TEXT;

-- What a step calls, where its handler's name does not say it all: {"callable", "method"}.
ALTER TABLE jobs ADD COLUMN call TEXT;

-- Events: written in the transaction of what happened, then given to each subscriber that asked for them. `problem` says why
-- a payload was refused; such an event is told to nobody.
CREATE TABLE events (
    id             UUID   NOT NULL PRIMARY KEY,
    namespace      TEXT   NOT NULL,
    type           TEXT   NOT NULL,
    at             BIGINT NOT NULL,
    job_id         UUID,
    workflow_id    UUID,
    step           TEXT,
    attempt        BIGINT,
    outcome        TEXT,
    correlation_id TEXT,
    data           TEXT   NOT NULL,
    problem        TEXT,
    routed_at      BIGINT,
    CONSTRAINT events_refused_are_not_routed CHECK (problem IS NULL OR routed_at IS NOT NULL)
);
CREATE INDEX events_unrouted ON events (at, id) WHERE routed_at IS NULL;
CREATE INDEX events_by_time ON events (at, id);

-- Who is told. A subscriber is a program (`handler`) or an address (`webhook`). `failures` in a row make it rest until
-- `rest_until`. The secrets of webhooks are needed as they are: whoever can read this table can sign.
CREATE TABLE subscribers (
    id               UUID   NOT NULL PRIMARY KEY,
    name             TEXT   NOT NULL,
    kind             TEXT   NOT NULL,
    namespace        TEXT,
    types            TEXT   NOT NULL,
    url              TEXT,
    secret           TEXT,
    old_secret       TEXT,
    old_secret_until BIGINT,
    retry            TEXT   NOT NULL,
    timeout_ms       BIGINT NOT NULL,
    state            TEXT   NOT NULL DEFAULT 'active',
    state_at         BIGINT NOT NULL,
    state_actor      TEXT   NOT NULL,
    state_reason     TEXT   NOT NULL,
    failures         BIGINT NOT NULL DEFAULT 0,
    rest_until       BIGINT NOT NULL DEFAULT 0,
    created_at       BIGINT NOT NULL,
    CONSTRAINT subscribers_name_is_unique UNIQUE (name),
    CONSTRAINT subscribers_kind_is_known CHECK (kind IN ('handler', 'webhook')),
    CONSTRAINT subscribers_webhook_has_address CHECK (
        (kind = 'webhook') = (url IS NOT NULL) AND (kind = 'webhook') = (secret IS NOT NULL)),
    CONSTRAINT subscribers_old_secret_ends CHECK ((old_secret IS NULL) = (old_secret_until IS NULL)),
    CONSTRAINT subscribers_state_is_known CHECK (state IN ('active', 'paused', 'gone'))
);

-- The changes of state that some subscriber asks for; derived from `subscribers.types`. Triggers write those, and are there
-- only while something is in here.
CREATE TABLE events_wanted (
    type TEXT NOT NULL PRIMARY KEY
);

-- One row for each event and subscriber. A claimed one is due again when its time is over, so that one whose sender died is sent
-- again, with the same id. `attempts_each` are granted anew when it is made once more.
CREATE TABLE deliveries (
    subscriber_id UUID   NOT NULL REFERENCES subscribers (id),
    event_id      UUID   NOT NULL REFERENCES events (id),
    state         TEXT   NOT NULL DEFAULT 'pending',
    due_at        BIGINT NOT NULL,
    attempt       BIGINT NOT NULL DEFAULT 0,
    attempts_max  BIGINT NOT NULL,
    attempts_each BIGINT NOT NULL,
    claim         UUID,
    created_at    BIGINT NOT NULL,
    ended_at      BIGINT,
    status        BIGINT,
    error         TEXT,
    PRIMARY KEY (subscriber_id, event_id),
    CONSTRAINT deliveries_state_is_known CHECK (state IN ('pending', 'delivered', 'dead')),
    CONSTRAINT deliveries_end_has_time CHECK ((state = 'pending') = (ended_at IS NULL))
);
CREATE INDEX deliveries_due ON deliveries (subscriber_id, due_at, event_id) WHERE state = 'pending';
CREATE INDEX deliveries_ended ON deliveries (state, ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX deliveries_by_event ON deliveries (event_id);

CREATE TABLE delivery_attempts (
    subscriber_id UUID   NOT NULL,
    event_id      UUID   NOT NULL,
    attempt       BIGINT NOT NULL,
    at            BIGINT NOT NULL,
    took_us       BIGINT NOT NULL,
    status        BIGINT,
    error         TEXT,
    PRIMARY KEY (subscriber_id, event_id, attempt),
    FOREIGN KEY (subscriber_id, event_id) REFERENCES deliveries (subscriber_id, event_id) ON DELETE CASCADE
);

-- What the triggers do (src/postgres/watch.rs makes them). For each statement: a bulk one makes one call.
CREATE FUNCTION events_of_jobs() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO recache.events (id, namespace, type, at, job_id, workflow_id, step, attempt, correlation_id, data)
        SELECT gen_random_uuid(), j.namespace, 'job.' || r.to_state, r.at, j.id, j.workflow_id, j.step, r.attempt,
            j.correlation_id, json_build_object('queue', j.queue, 'handler', j.handler, 'from', r.from_state,
                'to', r.to_state, 'seq', r.seq, 'detail', r.detail)::text
        FROM moved r JOIN recache.jobs j ON j.id = r.job_id
            JOIN recache.events_wanted w ON w.type = 'job.' || r.to_state;
    RETURN NULL;
END
$$;

CREATE FUNCTION events_of_workflows() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO recache.events (id, namespace, type, at, workflow_id, correlation_id, data)
        SELECT gen_random_uuid(), NEW.namespace, w.type, COALESCE(NEW.finished_at, recache.clock()), NEW.id,
            NEW.correlation_id, json_build_object('from', OLD.state, 'to', NEW.state,
                'template_digest', NEW.template_digest)::text
        FROM recache.events_wanted w WHERE w.type = 'workflow.' || NEW.state;
    RETURN NULL;
END
$$;

CREATE FUNCTION events_of_views() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO recache.events (id, namespace, type, at, data)
        SELECT gen_random_uuid(), NEW.namespace, w.type,
            COALESCE(CASE w.type WHEN 'view.touched' THEN NEW.touched_at WHEN 'view.published' THEN NEW.last_recached_at END,
                recache.clock()),
            json_build_object('view_id', NEW.id, 'key', NEW.key, 'recache_version', NEW.recache_version,
                'live_version', NEW.live_version, 'error', NEW.last_error)::text
        FROM recache.events_wanted w
        WHERE w.type = 'view.touched' AND NEW.recache_version > OLD.recache_version
            OR w.type = 'view.published' AND NEW.live_version > OLD.live_version
            OR w.type = 'view.failed' AND NEW.recache_status = 'failed' AND OLD.recache_status <> 'failed';
    RETURN NULL;
END
$$;
