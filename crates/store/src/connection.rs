//! A connection of a driver: what runs statements, and takes note of the slow ones where that is wanted. Compiled once inside each
//! engine, like `statements`; `super` is the engine, which says what it is made of ([`Inner`]).

use std::fmt;
use std::sync::Arc;

use futures_util::future::{self, BoxFuture};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use sqlx::{Database, Describe, Either, Execute, Executor, Result, SqlStr};

use super::{Engine, Inner};
use crate::slow_plans::{Notes, Running, SlowPlans};

/// A connection in somebody's hands.
pub(crate) struct Connection {
    pub(super) inner: Inner,
    notes: Option<Arc<Notes>>,
    /// The method of the contract that uses it.
    call: &'static str,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("call", &self.call).finish_non_exhaustive()
    }
}

impl Connection {
    /// `plans`: where slow statements are noted.
    pub(super) fn new(inner: Inner, plans: Option<&SlowPlans>, call: &'static str) -> Self {
        Self { inner, notes: plans.map(|plans| Arc::clone(&plans.notes)), call }
    }

    /// Another method uses it now.
    #[allow(dead_code, reason = "only the one writer is used by many")]
    pub(super) fn name(&mut self, call: &'static str) {
        self.call = call;
    }

    /// A statement as it is run, and what notes its time.
    fn watch<'q>(&self, notes: &Arc<Notes>, mut query: impl Execute<'q, Engine>) -> Result<Watched> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        let sql = query.sql();
        let running = Notes::begin(notes, self.call, &sql);
        Ok(((sql, arguments), running))
    }
}

type Watched = ((SqlStr, Option<<Engine as Database>::Arguments>), Running);
type Row = <Engine as Database>::Row;
type Done = <Engine as Database>::QueryResult;

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Engine;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<Done, Row>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Engine>,
    {
        let Some(notes) = self.notes.clone() else { return self.inner.get().fetch_many(query) };
        match self.watch(&notes, query) {
            Ok((statement, running)) => {
                // Held until the last row was read, or nobody wants more.
                let found = self.inner.get().fetch_many(statement);
                found.inspect(move |_| _ = &running).boxed()
            }
            Err(error) => stream::once(future::ready(Err(error))).boxed(),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<Row>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Engine>,
    {
        let Some(notes) = self.notes.clone() else { return self.inner.get().fetch_optional(query) };
        match self.watch(&notes, query) {
            Ok((statement, running)) => Box::pin(async move {
                let found = self.inner.get().fetch_optional(statement).await;
                drop(running);
                found
            }),
            Err(error) => Box::pin(future::ready(Err(error))),
        }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [<Engine as Database>::TypeInfo],
    ) -> BoxFuture<'e, Result<<Engine as Database>::Statement>>
    where
        'c: 'e,
    {
        self.inner.get().prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Engine>>>
    where
        'c: 'e,
    {
        self.inner.get().describe(sql)
    }
}
