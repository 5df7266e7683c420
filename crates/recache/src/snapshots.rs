//! Snapshot reads for builds whose inputs are rows of the application's own database.

use recache_store::snapshot::{Snapshot, SnapshotPool};
use recache_worker::{BuildContext, BuildPart, Failure};

/// Reads an application's inputs as they were at one moment of the build.
///
/// ```no_run
/// use recache::store::snapshot::sqlx;
/// use recache::{BuildContext, Failure, Handlers, SnapshotReads};
///
/// # fn register(handlers: &mut Handlers, pool: sqlx::PgPool) -> Result<(), recache::worker::RegisterError> {
/// handlers.view("prices", move |build: BuildContext| {
///     let pool = pool.clone();
///     async move {
///         let mut inputs = build.snapshot(&pool).await?;
///         let prices: Vec<(String, i64)> = sqlx::query_as("SELECT sku, cents FROM prices")
///             .fetch_all(&mut *inputs)
///             .await
///             .map_err(Failure::retryable)?;
///         let vat: (i64,) = sqlx::query_as("SELECT percent FROM vat")
///             .fetch_one(&mut *inputs)
///             .await
///             .map_err(Failure::retryable)?;
///         drop(inputs); // read first, then compute
///         for (sku, cents) in prices {
///             build.put(&sku, None, &(cents * (100 + vat.0) / 100)).await?;
///         }
///         Ok(())
///     }
/// })
/// # }
/// ```
pub trait SnapshotReads {
    /// Sees `pool`'s database as it is now, and so with every change that this build was asked for. A build that shall stop gets none. A database that
    /// cannot be reached is a failure that may go away.
    fn snapshot<P: SnapshotPool>(
        &self,
        pool: &P,
    ) -> impl Future<Output = Result<Snapshot<P::Database>, Failure>> + Send;
}

impl SnapshotReads for BuildContext {
    async fn snapshot<P: SnapshotPool>(&self, pool: &P) -> Result<Snapshot<P::Database>, Failure> {
        self.checkpoint().await?;
        pool.snapshot().await.map_err(Failure::retryable)
    }
}

impl SnapshotReads for BuildPart {
    async fn snapshot<P: SnapshotPool>(&self, pool: &P) -> Result<Snapshot<P::Database>, Failure> {
        self.checkpoint().await?;
        pool.snapshot().await.map_err(Failure::retryable)
    }
}
