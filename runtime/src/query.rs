//! SQL over the lake, with DataFusion: every table of every layer as of now, deletion vectors honoured.
//!
//! Tables are named `bronze.<topic>` (quoted where the topic has dots), `silver.<table>`, and `dead_letters`.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::DeltaTable;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::table::Location;

/// The layers that hold one folder a table.
pub const LAYERS: [&str; 3] = ["bronze", "silver", "gold"];

/// A lake, read-only.
#[derive(Debug, Clone)]
pub struct Lake {
    root: Location,
}

impl Lake {
    /// The lake at `root`.
    pub fn new(root: Location) -> Self {
        Lake { root }
    }

    /// Names of the tables of `layer`.
    ///
    /// # Errors
    /// The lake's.
    pub async fn tables(&self, layer: &str) -> Result<Vec<String>> {
        let store = self.root.store()?;
        let listed = store
            .list_with_delimiter(Some(&Path::from(layer)))
            .await
            .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot list layer `{layer}`")).caused_by(e))?;
        let names = listed.common_prefixes.iter().filter_map(|p| p.filename().map(str::to_owned));
        let mut tables = Vec::new();
        for name in names {
            if self.has_table(&format!("{layer}/{name}")).await? {
                tables.push(name);
            }
        }
        tables.sort();
        Ok(tables)
    }

    /// True when there is a Delta log at `path` under the root.
    ///
    /// # Errors
    /// The lake's.
    pub async fn has_table(&self, path: &str) -> Result<bool> {
        let store = self.root.store()?;
        let log = Path::from(format!("{path}/_delta_log"));
        let first = store
            .list(Some(&log))
            .try_next()
            .await
            .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot list `{path}`")).caused_by(e))?;
        Ok(first.is_some())
    }

    /// The session in which every table of the lake can be queried.
    ///
    /// # Errors
    /// The lake's, or a table that cannot be read.
    pub async fn session(&self) -> Result<SessionContext> {
        let config = SessionConfig::new().with_information_schema(true).with_target_partitions(2);
        let session = SessionContext::new_with_config(config);
        let catalog = session
            .catalog("datafusion")
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the query session has no catalog"))?;
        for layer in LAYERS {
            let schema = MemorySchemaProvider::new();
            for name in self.tables(layer).await? {
                self.register(&schema, &name, &format!("{layer}/{name}")).await?;
            }
            catalog.register_schema(layer, Arc::new(schema)).map_err(query_error)?;
        }
        if self.has_table(crate::deadletter::TABLE).await?
            && let Some(public) = catalog.schema("public")
        {
            self.register(public.as_ref(), crate::deadletter::TABLE, crate::deadletter::TABLE).await?;
        }
        Ok(session)
    }

    async fn register(&self, schema: &dyn SchemaProvider, name: &str, path: &str) -> Result<()> {
        let location = self.root.table(path)?;
        let broken = || Error::new(ErrorKind::Corrupt, format!("table `{path}` cannot be read"));
        let unreadable = |e: deltalake::DeltaTableError| broken().caused_by(e);
        let mut table = DeltaTable::new(location.log_store()?);
        table.load().await.map_err(unreadable)?;
        let provider = table.table_provider().await.map_err(|e| broken().caused_by(e))?;
        schema.register_table(name.to_owned(), provider).map_err(query_error)?;
        Ok(())
    }

    /// Runs `sql`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for SQL that cannot be planned; the lake's otherwise.
    pub async fn query(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let session = self.session().await?;
        let frame = session.sql(sql).await.map_err(query_error)?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let mut batches = frame.collect().await.map_err(run_error)?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema));
        }
        Ok(batches)
    }

    /// Runs `sql` over the one table at `path`, which goes by the last part of the path.
    ///
    /// # Errors
    /// As [`Lake::query`].
    pub async fn query_table(&self, path: &str, sql: &str) -> Result<Vec<RecordBatch>> {
        let session = SessionContext::new();
        let schema = session.catalog("datafusion").and_then(|c| c.schema("public"));
        let schema = schema.ok_or_else(|| Error::new(ErrorKind::Internal, "the query session has no schema"))?;
        let name = path.rsplit('/').next().unwrap_or(path);
        self.register(schema.as_ref(), name, path).await?;
        session.sql(sql).await.map_err(query_error)?.collect().await.map_err(run_error)
    }
}

/// A query that was planned and then failed: by the lake, or by a value that its SQL cannot take.
fn run_error(error: datafusion::error::DataFusionError) -> Error {
    use datafusion::error::DataFusionError;
    let of_lake = matches!(
        error.find_root(),
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::External(_)
    );
    match of_lake {
        true => Error::new(ErrorKind::Unavailable, "the lake could not be read").caused_by(error),
        false => query_error(error),
    }
}

fn query_error(error: datafusion::error::DataFusionError) -> Error {
    Error::new(ErrorKind::Config, "the query cannot be run").caused_by(error).hint(
        "`SELECT * FROM information_schema.tables` lists every table; names with dots or capitals need double quotes",
    )
}
