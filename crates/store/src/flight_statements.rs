//! The example's statements. Compiled once inside each engine, like `statements`; `super` is the engine.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::Row as _;

use super::statements::views;
use super::{Driver, texts};
use crate::error::Result;
use crate::flights::{FlightStore, FlightTotals, Leg};
use crate::records::Touch;

/// Rows of one insert.
const ROWS_A_STATEMENT: usize = 5_000;

#[async_trait]
impl FlightStore for Driver {
    async fn flights_prepare(&self) -> Result<FlightTotals> {
        self.write(|db, _, _| {
            Box::pin(async move {
                for statement in [
                    "CREATE TABLE IF NOT EXISTS example_flights (number BIGINT NOT NULL PRIMARY KEY, \
                     carrier TEXT NOT NULL, dest TEXT NOT NULL, arr_delay BIGINT)",
                    // Holds all that a read of one destination needs: no look-up of each flight's row.
                    "CREATE INDEX IF NOT EXISTS example_flights_delays ON example_flights (dest, carrier, arr_delay)",
                    "CREATE TABLE IF NOT EXISTS example_members (alliance TEXT NOT NULL, carrier TEXT NOT NULL, \
                     PRIMARY KEY (alliance, carrier))",
                    "CREATE TABLE IF NOT EXISTS example_changes (number BIGINT NOT NULL PRIMARY KEY, \
                     alliance TEXT NOT NULL, carrier TEXT NOT NULL, joins BIGINT NOT NULL)",
                ] {
                    sqlx::query(statement).execute(&mut *db).await?;
                }
                let row = sqlx::query("SELECT count(*) AS flights FROM example_flights").fetch_one(db).await?;
                Ok(FlightTotals { flights: row.try_get("flights")? })
            })
        })
        .await
    }

    async fn flights_load(&self, legs: Vec<Leg>) -> Result<FlightTotals> {
        let legs = Arc::new(legs);
        self.write(move |db, _, _| {
            let legs = Arc::clone(&legs);
            Box::pin(async move {
                sqlx::query("DELETE FROM example_flights").execute(&mut *db).await?;
                let mut number: i64 = 0;
                for part in legs.chunks(ROWS_A_STATEMENT) {
                    super::bulk::flights_insert(db, number, part).await?;
                    number += i64::try_from(part.len()).unwrap_or(i64::MAX);
                }
                Ok(FlightTotals { flights: number })
            })
        })
        .await
    }

    async fn flights_to(&self, dest: &str, carriers: &[String]) -> Result<Vec<(String, Option<i64>)>> {
        let (dest, carriers) = (dest.to_owned(), carriers.to_vec());
        self.read(move |db, _| {
            Box::pin(async move {
                let rows = sqlx::query(concat!(
                    "SELECT carrier, arr_delay FROM example_flights WHERE dest = $1 AND carrier ",
                    in_texts!("$2")
                ))
                .bind(dest)
                .bind(texts(&carriers))
                .fetch_all(db)
                .await?;
                rows.iter().map(|row| Ok((row.try_get("carrier")?, row.try_get("arr_delay")?))).collect()
            })
        })
        .await
    }

    async fn destinations_served(&self, carriers: &[String]) -> Result<Vec<(String, String)>> {
        let carriers = carriers.to_vec();
        self.read(move |db, _| {
            Box::pin(async move {
                let rows = sqlx::query(concat!(
                    "SELECT DISTINCT dest, carrier FROM example_flights WHERE carrier ",
                    in_texts!("$1"),
                    " ORDER BY dest, carrier"
                ))
                .bind(texts(&carriers))
                .fetch_all(db)
                .await?;
                rows.iter().map(|row| Ok((row.try_get("dest")?, row.try_get("carrier")?))).collect()
            })
        })
        .await
    }

    async fn alliance_members(&self, alliance: &str) -> Result<Vec<String>> {
        let alliance = alliance.to_owned();
        self.read(move |db, _| {
            Box::pin(async move {
                let rows =
                    sqlx::query("SELECT carrier FROM example_members WHERE alliance = $1 ORDER BY carrier")
                        .bind(alliance)
                        .fetch_all(db)
                        .await?;
                rows.iter().map(|row| Ok(row.try_get("carrier")?)).collect()
            })
        })
        .await
    }

    async fn alliance_change(
        &self,
        alliance: &str,
        carrier: &str,
        joins: bool,
        number: i64,
    ) -> Result<Option<i64>> {
        let (alliance, carrier) = (Arc::new(alliance.to_owned()), Arc::new(carrier.to_owned()));
        self.write(move |db, now, effects| {
            let (alliance, carrier) = (Arc::clone(&alliance), Arc::clone(&carrier));
            Box::pin(async move {
                let new = sqlx::query(
                    "INSERT INTO example_changes (number, alliance, carrier, joins) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (number) DO NOTHING",
                )
                .bind(number)
                .bind(alliance.as_str())
                .bind(carrier.as_str())
                .bind(i64::from(joins))
                .execute(&mut *db)
                .await?
                .rows_affected();
                if new == 0 {
                    return Ok(None);
                }
                let statement = if joins {
                    "INSERT INTO example_members (alliance, carrier) VALUES ($1, $2) ON CONFLICT DO NOTHING"
                } else {
                    "DELETE FROM example_members WHERE alliance = $1 AND carrier = $2"
                };
                sqlx::query(statement)
                    .bind(alliance.as_str())
                    .bind(carrier.as_str())
                    .execute(&mut *db)
                    .await?;
                let touch = Touch {
                    namespace: "alliance".to_owned(),
                    key: alliance.as_str().to_owned(),
                    ..Touch::default()
                };
                let outcomes = views::touch(db, now, &[touch], effects).await?;
                Ok(outcomes.first().map(|outcome| outcome.version))
            })
        })
        .await
    }

    async fn alliance_last_change(&self) -> Result<Option<i64>> {
        self.read(|db, _| {
            Box::pin(async move {
                let row =
                    sqlx::query("SELECT MAX(number) AS number FROM example_changes").fetch_one(db).await?;
                Ok(row.try_get("number")?)
            })
        })
        .await
    }
}
