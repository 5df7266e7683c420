-- Who may ask over HTTP. Of a key's secret only a keyed hash is kept, under a key of its own for each.
CREATE TABLE api_keys (
    id            TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    salt          BYTEA    NOT NULL,
    digest        BYTEA    NOT NULL,
    scopes        TEXT    NOT NULL,
    created_at    BIGINT NOT NULL,
    created_by    TEXT    NOT NULL,
    expires_at    BIGINT,
    last_used_at  BIGINT,
    revoked_at    BIGINT,
    revoked_by    TEXT,
    revoke_reason TEXT,
    CONSTRAINT api_keys_revoked_is_whole CHECK (
        (revoked_at IS NULL) = (revoked_by IS NULL) AND (revoked_at IS NULL) = (revoke_reason IS NULL))
);
CREATE UNIQUE INDEX api_keys_one_live_name ON api_keys (name) WHERE revoked_at IS NULL;

-- What operators did. A row is written before the action, so that none is done without one, and completed after it.
CREATE TABLE audit_rows (
    id         UUID    NOT NULL PRIMARY KEY,
    at         BIGINT NOT NULL,
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    namespace  TEXT,
    target     TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    request_id TEXT,
    before     TEXT,
    after      TEXT,
    outcome    TEXT    NOT NULL,
    CONSTRAINT audit_rows_outcome_is_known CHECK (outcome IN ('begun', 'done', 'refused', 'unknown'))
);
CREATE INDEX audit_rows_by_namespace ON audit_rows (namespace, id);

-- Requests that name an idempotency key: what they asked for, what their handler makes things from, and the answer.
CREATE TABLE request_keys (
    caller      TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    seed        UUID    NOT NULL,
    held_until  BIGINT NOT NULL,
    status      BIGINT,
    body        TEXT,
    location    TEXT,
    expires_at  BIGINT NOT NULL,
    PRIMARY KEY (caller, key),
    CONSTRAINT request_keys_answer_is_whole CHECK ((status IS NULL) = (body IS NULL))
);
CREATE INDEX request_keys_by_expiry ON request_keys (expires_at);
