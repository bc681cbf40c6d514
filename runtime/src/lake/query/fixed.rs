//! A query over tables at versions that are named: what a Gold table is made of.
//!
//! Receives SQL over `silver.<table>` and `gold.<table>`, and the version of each. Promises that the same versions give the
//! same rows: what depends on the time, on chance or on the order in which rows are met is refused or fixed. Names of tables
//! and columns are found as they are written, else without case.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::TryStreamExt;

use super::{Lake, query_error, run_error};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{delta_table, lake_error, turn};
use crate::model::table_id::{Layer, TableId};

/// A table that a query reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// as the query names it
    pub written: TableId,
    /// the one in the lake
    pub table: TableId,
    /// the version that is read
    pub version: u64,
}

/// The tables that a query names, as it writes them.
///
/// # Errors
/// `Config` for what is no query, and for tables of other layers than Silver and Gold.
pub fn tables_named(sql: &str) -> Result<Vec<TableId>> {
    let session = SessionContext::new_with_config(as_written());
    let state = session.state();
    let statement = state.sql_to_statement(sql, &state.config().options().sql_parser.dialect).map_err(unfit)?;
    let mut tables = Vec::new();
    for reference in state.resolve_table_references(&statement).map_err(unfit)? {
        let layer = reference
            .schema()
            .and_then(|schema| Layer::ALL.into_iter().find(|l| l.as_str().eq_ignore_ascii_case(schema)));
        let id = match layer {
            Some(Layer::Silver) => TableId::silver(reference.table()),
            Some(Layer::Gold) => TableId::gold(reference.table()),
            _ => {
                return Err(Error::new(ErrorKind::Config, format!("the query reads `{reference}`"))
                    .hint("a Gold table is made of `silver.<table>` and `gold.<table>`"));
            }
        };
        if !tables.contains(&id) {
            tables.push(id);
        }
    }
    Ok(tables)
}

impl Lake {
    /// The rows that `sql` gives of `tables`; beyond `memory_bytes` it works on disk, and its result has no more.
    ///
    /// # Errors
    /// `Config` for a query that cannot be planned or that fails for a value, the lake's otherwise.
    pub async fn query_fixed(&self, sql: &str, tables: &[Named], memory_bytes: usize) -> Result<RecordBatch> {
        let pool = Arc::new(FairSpillPool::new(memory_bytes));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().map_err(query_error)?;
        let session = SessionContext::new_with_config_rt(as_written(), runtime);
        self.register(&session, tables).await?;
        let frame = plan(&session, sql).await?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let _turn = turn().await;
        let mut stream = frame.execute_stream().await.map_err(run_error)?;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = stream.try_next().await.map_err(run_error)? {
            bytes += batch.get_array_memory_size();
            if bytes > memory_bytes {
                let message = format!("the result of the query takes more than `{memory_bytes}` bytes");
                return Err(Error::new(ErrorKind::Config, message).hint("raise `limits.query_memory`"));
            }
            batches.push(batch);
        }
        let joined = concat_batches(&schema, &batches);
        joined.map_err(|e| Error::new(ErrorKind::Internal, "the rows of a query do not fit together").caused_by(e))
    }

    async fn register(&self, session: &SessionContext, tables: &[Named]) -> Result<()> {
        let mut layers: BTreeMap<Layer, MemorySchemaProvider> = BTreeMap::new();
        for Named { written, table, version } in tables {
            let unreadable = || format!("version `{version}` of `{table}` cannot be read");
            let location = self.root.table(&table.path())?;
            let delta = delta_table(&location, Some(*version)).await.map_err(|e| e.within(unreadable()))?;
            let provider = delta.table_provider().await.map_err(|e| lake_error(unreadable(), e))?;
            let layer = layers.entry(written.layer).or_default();
            // again in lower case: as the second way to plan writes it
            for name in [written.name.to_string(), written.name.to_lowercase()] {
                if !layer.table_exist(&name) {
                    layer.register_table(name, Arc::clone(&provider) as _).map_err(query_error)?;
                }
            }
        }
        let catalog = session.catalog("datafusion");
        let catalog = catalog.ok_or_else(|| Error::new(ErrorKind::Internal, "the query session has no catalog"))?;
        for (layer, provider) in layers {
            catalog.register_schema(layer.as_str(), Arc::new(provider)).map_err(query_error)?;
        }
        Ok(())
    }
}

/// One partition: rows are met in one order.
fn as_written() -> SessionConfig {
    SessionConfig::new().with_target_partitions(1).set_bool("datafusion.sql_parser.enable_ident_normalization", false)
}

/// Plans the query with names as they are written, and where they are not found, in lower case.
async fn plan(session: &SessionContext, sql: &str) -> Result<DataFrame> {
    let options = || SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = match session.sql_with_options(sql, options()).await {
        Ok(frame) => frame,
        Err(first) => {
            let state = session.state_ref();
            state.write().config_mut().options_mut().sql_parser.enable_ident_normalization = true;
            session.sql_with_options(sql, options()).await.map_err(|_| unfit(first))?
        }
    };
    match volatile(frame.logical_plan()).map_err(query_error)? {
        None => Ok(frame),
        Some(name) => {
            Err(Error::new(ErrorKind::Config, format!("the query calls `{name}`, which gives another value each time"))
                .hint("a Gold table is what its inputs are: take times from their columns"))
        }
    }
}

/// A function in the plan whose value is not that of its arguments alone.
fn volatile(plan: &LogicalPlan) -> Result<Option<String>, datafusion::error::DataFusionError> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    found = Some(call.func.name().to_owned());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

fn unfit(error: datafusion::error::DataFusionError) -> Error {
    Error::new(ErrorKind::Config, "the query cannot be planned")
        .caused_by(error)
        .hint("write names as the tables have them, `silver.<table>` and `gold.<table>`; `lode query` tries it out")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(error: &Error) -> String {
        format!("{error} | {}", error.next_step().unwrap_or(""))
    }

    #[test]
    fn the_tables_of_a_query_are_those_it_names_and_nothing_else() {
        let sql = "WITH big AS (SELECT * FROM silver.Orders) SELECT o.a, (SELECT max(x) FROM gold.\"Fact Sales\") \
                   FROM big o JOIN SILVER.items i ON o.a = i.a WHERE EXISTS (SELECT 1 FROM silver.Orders)";
        let mut named = tables_named(sql).unwrap();
        named.sort();
        assert_eq!(named, [TableId::silver("Orders"), TableId::silver("items"), TableId::gold("Fact Sales")]);
        for (sql, told) in [
            ("SELECT * FROM bronze.orders", "reads `bronze.orders`"),
            ("SELECT * FROM orders", "reads `orders`"),
            ("SELEC 1", "cannot be planned"),
        ] {
            let error = tables_named(sql).unwrap_err();
            assert!(message(&error).contains(told), "{}", message(&error));
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_would_give_another_result_each_time_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = crate::lake::Location::open(folder.path().to_str().unwrap(), &Default::default()).unwrap();
        let lake = Lake::new(root);
        for sql in [
            "SELECT random() AS a",
            "SELECT 1 AS a WHERE now() > TIMESTAMP '2020-01-01'",
            "SELECT (SELECT uuid()) AS a",
            "SELECT a FROM (SELECT 1 AS a) ORDER BY random()",
        ] {
            let error = lake.query_fixed(sql, &[], 1 << 20).await.unwrap_err();
            assert!(message(&error).contains("another value each time"), "{sql}: {}", message(&error));
        }
        let error = lake.query_fixed("CREATE TABLE a AS SELECT 1", &[], 1 << 20).await.unwrap_err();
        assert!(message(&error).contains("cannot be planned"), "{}", message(&error));
        let rows = lake.query_fixed("SELECT upper('a') AS a, 1 AS B", &[], 1 << 20).await.unwrap();
        assert_eq!((rows.num_rows(), rows.schema().field(1).name().as_str()), (1, "B"));
        let error = lake.query_fixed("SELECT repeat('a', 2000000) AS a", &[], 1 << 20).await.unwrap_err();
        assert!(message(&error).contains("`limits.query_memory`"), "{}", message(&error));
    }
}
