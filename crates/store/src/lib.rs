//! Durable state of Recache: one contract, a PostgreSQL and an SQLite driver.
