//! SQL over the lake, with DataFusion: every table of every layer as of now, deletion vectors honoured.
//!
//! Tables are named `bronze.<topic>` (quoted where the topic has dots), `silver.<table>`, `gold.<table>`, and `dead_letters`. Receives SQL.
//! Promises that a table is read when a query names it and not before, so that one that cannot be read ends only the
//! queries that need it. Never writes.

mod fixed;

pub use fixed::{Named, tables_named};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::{DEAD_LETTERS, Location, delta_table, lake_error, turn};

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
            .map_err(|e| lake_error(format!("cannot list layer `{layer}`"), e))?;
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
        // as it is written: `Path::from` would write what is not ASCII as escapes
        let Ok(log) = Path::parse(format!("{path}/_delta_log")) else { return Ok(false) };
        let first =
            store.list(Some(&log)).try_next().await.map_err(|e| lake_error(format!("cannot list `{path}`"), e))?;
        Ok(first.is_some())
    }

    /// The session in which every table of the lake can be queried, and what could not be read of them.
    async fn session(&self) -> Result<(SessionContext, Broken)> {
        let config = SessionConfig::new().with_information_schema(true).with_target_partitions(2);
        let session = SessionContext::new_with_config(config);
        let catalog = session
            .catalog("datafusion")
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the query session has no catalog"))?;
        let broken = Broken::default();
        for layer in LAYERS {
            let names = self.tables(layer).await?.into_iter().map(|name| (name.clone(), format!("{layer}/{name}")));
            catalog.register_schema(layer, self.schema(names.collect(), &broken)).map_err(query_error)?;
        }
        if self.has_table(DEAD_LETTERS).await? {
            let letters = DEAD_LETTERS.to_owned();
            let names = BTreeMap::from([(letters.clone(), letters)]);
            catalog.register_schema("public", self.schema(names, &broken)).map_err(query_error)?;
        }
        Ok((session, broken))
    }

    fn schema(&self, tables: BTreeMap<String, String>, broken: &Broken) -> Arc<dyn SchemaProvider> {
        Arc::new(Tables { root: self.root.clone(), tables, broken: broken.clone() })
    }

    /// Runs `sql`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for SQL that cannot be planned; the lake's otherwise.
    pub async fn query(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let (session, broken) = self.session().await?;
        let frame = session.sql(sql).await.map_err(|e| broken.take().unwrap_or_else(|| query_error(e)))?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let mut batches = run(frame).await?;
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
        let name = path.rsplit('/').next().unwrap_or(path);
        let name = TableReference::bare(name);
        session.register_table(name, provider(&self.root, path).await?).map_err(query_error)?;
        run(session.sql(sql).await.map_err(query_error)?).await
    }
}

/// The tables of one schema, read when a query names them.
#[derive(Debug)]
struct Tables {
    root: Location,
    /// by name the path under the root
    tables: BTreeMap<String, String>,
    broken: Broken,
}

#[async_trait::async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    /// `None` also for a table that cannot be read: the list of all columns is one without it.
    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(path) = self.tables.get(name) else { return Ok(None) };
        match provider(&self.root, path).await {
            Ok(table) => Ok(Some(table)),
            Err(error) => {
                self.broken.note(error);
                Ok(None)
            }
        }
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}

/// Why a table that a query named could not be read: the first reason.
#[derive(Debug, Clone, Default)]
struct Broken(Arc<Mutex<Option<Error>>>);

impl Broken {
    fn note(&self, error: Error) {
        tracing::debug!(%error, "a table cannot be read");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

async fn provider(root: &Location, path: &str) -> Result<Arc<dyn TableProvider>> {
    let unreadable = || format!("table `{path}` cannot be read");
    let table = delta_table(&root.table(path)?, None).await.map_err(|e| e.within(unreadable()))?;
    let provider = table.table_provider().await.map_err(|e| lake_error(unreadable(), e))?;
    Ok(provider)
}

async fn run(frame: DataFrame) -> Result<Vec<RecordBatch>> {
    let _turn = turn().await;
    frame.collect().await.map_err(run_error)
}

/// A query that was planned and then failed: by the lake, or by a value that its SQL cannot take.
fn run_error(error: DataFusionError) -> Error {
    let of_lake = matches!(
        error.find_root(),
        DataFusionError::ObjectStore(_)
            | DataFusionError::IoError(_)
            | DataFusionError::ParquetError(_)
            | DataFusionError::External(_)
    );
    match of_lake {
        true => lake_error("the lake could not be read", error),
        false => query_error(error),
    }
}

fn query_error(error: DataFusionError) -> Error {
    Error::new(ErrorKind::Config, "the query cannot be run").caused_by(error).hint(
        "`SELECT * FROM information_schema.tables` lists every table; names with dots or capitals need double quotes",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::lake::tests::{copy, model, of, ranges, spec};
    use crate::lake::{BronzeTable, KeyedTable, Rebuild, Settings, TableSpec};
    use crate::model::change::Op;

    /// A lake with the sound topic `a` and the topic `b`, whose log is cut.
    async fn damaged() -> (tempfile::TempDir, Lake) {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::open(folder.path().to_str().unwrap(), &Default::default()).unwrap();
        for topic in ["a", "b"] {
            let location = root.table(&format!("bronze/{topic}")).unwrap();
            BronzeTable::open_or_create(location, topic, Settings::default()).await.unwrap();
        }
        let log = folder.path().join("bronze/b/_delta_log/00000000000000000000.json");
        let text = std::fs::read(&log).unwrap();
        std::fs::write(log, &text[..text.len() - 20]).unwrap();
        (folder, Lake::new(root))
    }

    fn cells(batches: &[RecordBatch]) -> Vec<String> {
        let cell = |b: &RecordBatch, row| arrow::util::display::array_value_to_string(b.column(0), row).unwrap();
        batches.iter().flat_map(|b| (0..b.num_rows()).map(move |row| cell(b, row))).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_broken_table_ends_the_queries_that_name_it_and_no_other() {
        let (_folder, lake) = damaged().await;
        assert_eq!(cells(&lake.query("SELECT count(*) FROM bronze.a").await.unwrap()), ["0"]);
        let error = lake.query("SELECT count(*) FROM bronze.b").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let told = error.to_string();
        assert!(told.starts_with("table `bronze/b` cannot be read: version `0` of the log"), "{told}");
        assert!(error.next_step().is_some());
        let error = lake.query_table("bronze/b", "SELECT count(*) FROM b").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn all_tables_are_listed_and_the_columns_of_those_that_can_be_read() {
        let (_folder, lake) = damaged().await;
        let of = |what: &str| {
            format!(
                "SELECT DISTINCT table_name FROM information_schema.{what} WHERE table_schema = 'bronze' ORDER BY 1"
            )
        };
        assert_eq!(cells(&lake.query(&of("tables")).await.unwrap()), ["a", "b"]);
        assert_eq!(cells(&lake.query(&of("columns")).await.unwrap()), ["a"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_that_is_not_there_is_an_error_of_the_query() {
        let (_folder, lake) = damaged().await;
        let error = lake.query("SELECT * FROM bronze.c").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_name_with_dots_capitals_or_a_keyword_is_found_in_quotes() {
        let (folder, lake) = damaged().await;
        let names = ["open_b.shop.orders", "Shop.Orders", "shop.orders", "order", "2026-12", "naïve"];
        for name in names {
            let location = lake.root.table(&format!("bronze/{name}")).unwrap();
            BronzeTable::open_or_create(location, name, Settings::default()).await.unwrap();
        }
        assert_eq!(lake.tables("bronze").await.unwrap().len(), 2 + names.len());
        for name in names {
            let found = lake.query(&format!("SELECT count(*) FROM bronze.\"{name}\"")).await.unwrap();
            assert_eq!(cells(&found), ["0"], "{name}");
            let found = lake.query_table(&format!("bronze/{name}"), &format!("SELECT count(*) FROM \"{name}\"")).await;
            assert_eq!(cells(&found.unwrap()), ["0"], "{name}");
        }
        // without them the name is another
        let error = lake.query("SELECT * FROM bronze.Shop.Orders").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.next_step().is_some_and(|hint| hint.contains("double quotes")), "{error}");
        std::fs::remove_dir_all(folder.path().join("bronze/shop.orders")).unwrap();
        assert!(lake.query("SELECT * FROM bronze.\"shop.orders\"").await.is_err(), "`Shop.Orders` is no `shop.orders`");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_folder_without_a_log_is_no_table() {
        let (folder, lake) = damaged().await;
        std::fs::create_dir_all(folder.path().join("silver/left/_lode/g0")).unwrap();
        std::fs::write(folder.path().join("silver/left/_lode/g0/owners-1.parquet"), "").unwrap();
        std::fs::write(folder.path().join("silver/left/a.parquet"), "").unwrap();
        assert!(lake.tables("silver").await.unwrap().is_empty());
        assert_eq!(lake.tables("bronze").await.unwrap(), ["a", "b"]);
        assert!(lake.tables("gold").await.unwrap().is_empty());
        let error = lake.query_table("silver/left", "SELECT * FROM left").await.unwrap_err();
        assert!(error.to_string().starts_with("table `silver/left` cannot be read"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_that_only_newer_programs_can_read_ends_the_queries_that_name_it() {
        let (folder, lake) = damaged().await;
        let log = folder.path().join("bronze/b/_delta_log");
        let actions = [
            json!({"commitInfo": {}}),
            json!({"protocol": {
                "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["ofTomorrow"], "writerFeatures": ["ofTomorrow"],
            }}),
        ];
        let sound =
            std::fs::read_to_string(folder.path().join("bronze/a/_delta_log/00000000000000000000.json")).unwrap();
        std::fs::write(log.join("00000000000000000000.json"), sound).unwrap();
        assert_eq!(cells(&lake.query("SELECT count(*) FROM bronze.b").await.unwrap()), ["0"]);
        std::fs::write(log.join("00000000000000000001.json"), actions.map(|a| a.to_string()).join("\n")).unwrap();
        let error = lake.query("SELECT count(*) FROM bronze.b").await.unwrap_err();
        assert!(error.to_string().starts_with("table `bronze/b` cannot be read"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Config, "the file is sound: {error:?}");
        assert_eq!(cells(&lake.query("SELECT count(*) FROM bronze.a").await.unwrap()), ["0"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_that_is_made_anew_is_the_old_one_until_it_is_the_new_one() {
        let (_folder, lake) = damaged().await;
        let at = lake.root.table("silver/orders").unwrap();
        let mut table = KeyedTable::open_or_create(at.clone(), spec(), model::settings()).await.unwrap();
        copy(&mut table, &of(&[(1, "old", Op::Create, 1, 0, 0)]), &ranges(&[(0, 0, 1)])).await.unwrap();
        let rebuild = Rebuild::begin(&at, &model::settings()).await.unwrap().unwrap();
        let newer = TableSpec { generation: rebuild.generation(), ..spec() };
        let mut grown = KeyedTable::open_or_create(rebuild.staging().clone(), newer, model::settings()).await.unwrap();
        copy(&mut grown, &of(&[(1, "new", Op::Create, 1, 0, 0)]), &ranges(&[(0, 0, 1)])).await.unwrap();
        let seen = async || cells(&lake.query("SELECT v FROM silver.orders").await.unwrap());
        assert_eq!(seen().await, ["old"]);
        assert_eq!(lake.tables("silver").await.unwrap(), ["orders"], "what grows is no table of its own");
        rebuild.take_over(Map::new()).await.unwrap();
        assert_eq!(seen().await, ["new"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lost_file_is_the_lakes_fault_and_a_value_that_sql_cannot_take_the_querys() {
        let (folder, lake) = damaged().await;
        let at = lake.root.table("silver/orders").unwrap();
        let mut table = KeyedTable::open_or_create(at, spec(), model::settings()).await.unwrap();
        copy(&mut table, &of(&[(1, "x", Op::Create, 1, 0, 0)]), &ranges(&[(0, 0, 1)])).await.unwrap();
        let error = lake.query("SELECT CAST(v AS INT) FROM silver.orders").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        let files = std::fs::read_dir(folder.path().join("silver/orders")).unwrap().map(|file| file.unwrap().path());
        let data: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "parquet")).collect();
        assert_eq!(data.len(), 1);
        data.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let error = lake.query("SELECT v FROM silver.orders").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(error.next_step().is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_query_without_rows_has_its_columns() {
        let (_folder, lake) = damaged().await;
        let found = lake.query("SELECT _offset AS \"At\" FROM bronze.a WHERE false").await.unwrap();
        assert!(found.iter().all(|batch| batch.num_rows() == 0));
        assert_eq!(found[0].schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["At"]);
    }
}
