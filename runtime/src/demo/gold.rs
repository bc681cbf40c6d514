//! Whether Gold is what a query over Silver gives, written apart from the modules that made it.
//!
//! Receives a lake in which Silver is exact and everything has ended. Compares every Gold table with its query, all columns,
//! both ways. Never writes to the lake.

use futures::TryStreamExt;

use super::authors::texts;
use crate::error::Result;
use crate::lake::query::Lake;
use crate::lake::{Location, delta_table, lake_error};

/// Differences of a table that are told in full.
const TOLD: usize = 3;

/// A Gold table of the online store.
struct Wanted {
    name: &'static str,
    columns: &'static str,
    /// what its rows are to be, in these columns
    query: &'static str,
}

/// A name of a dimension: no blanks around it, one between words.
macro_rules! squeezed {
    ($column:literal) => {
        concat!("trim(regexp_replace(", $column, ", '\\s+', ' ', 'g'))")
    };
}

const WANTED: [Wanted; 10] = [
    Wanted {
        name: "DimDate",
        columns: r#""DateKey", "Date", "Day", "Month", "Quarter", "Year", "DayOfWeek""#,
        query: r#"SELECT CAST(to_char(d, '%Y%m%d') AS INT), CAST(d AS DATE), date_part('day', d), date_part('month', d),
                         date_part('quarter', d), date_part('year', d), date_part('isodow', d)
                  FROM (SELECT unnest(generate_series(DATE '2020-01-01', DATE '2035-12-31', INTERVAL '1 day')) AS d)"#,
    },
    Wanted {
        name: "DimProduct",
        columns: r#""ProductID", "ProductName", "CategoryID", "SellerID""#,
        query: concat!(
            r#"SELECT "ProductID", "#,
            squeezed!(r#""Name""#),
            r#", "CategoryID", "SellerID" FROM silver.products"#
        ),
    },
    Wanted {
        name: "DimCategory",
        columns: r#""CategoryID", "CategoryName""#,
        query: concat!(
            r#"SELECT "CategoryID", "#,
            squeezed!(r#""CategoryName""#),
            r#" FROM silver."ProductCategories""#
        ),
    },
    Wanted {
        name: "DimSeller",
        columns: r#""SellerID", "SellerName""#,
        query: concat!(r#"SELECT "SellerID", "#, squeezed!(r#""Name""#), " FROM silver.sellers"),
    },
    Wanted {
        name: "DimCustomer",
        columns: r#""CustomerID", "CustomerName""#,
        query: concat!(r#"SELECT "CustomerID", "#, squeezed!(r#""Name""#), " FROM silver.customers"),
    },
    Wanted {
        name: "DimOrderStatus",
        columns: r#""StatusID", "StatusName""#,
        query: concat!(r#"SELECT "StatusID", "#, squeezed!(r#""StatusName""#), r#" FROM silver."OrderStatus""#),
    },
    Wanted {
        name: "DimReason",
        columns: r#""ReasonID", "ReasonType", "ReasonDescription""#,
        query: r#"SELECT "ReasonID", "ReasonType", "ReasonDescription" FROM silver."Reasons""#,
    },
    Wanted {
        name: "FactSales",
        columns: r#""OrderItemID", "OrderID", "ProductID", "SellerID", "CustomerID", "CategoryID", "OrderDateKey",
                    "StatusID", "Quantity", "CurrentPrice", "UnitCost", "Profit", "Revenue", "IsPaid""#,
        query: include_str!("gold/fact_sales.sql"),
    },
    Wanted {
        name: "FactOrderReason",
        columns: r#""OrderItemID", "ReasonID", "OrderID", "SellerID", "OrderDateKey", "StatusID""#,
        query: include_str!("gold/fact_order_reason.sql"),
    },
    Wanted {
        name: "SalesByMonth",
        columns: r#""Year", "Month", "SellerID", "Revenue", "Profit", "Items""#,
        query: r#"SELECT "OrderDateKey" / 10000 AS y, "OrderDateKey" / 100 % 100 AS m, "SellerID", sum("Revenue"),
                         sum("Profit"), count(*)
                  FROM gold."FactSales" WHERE "IsPaid" AND "OrderDateKey" IS NOT NULL GROUP BY y, m, "SellerID""#,
    },
];

/// What the check found of one table.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) rows: usize,
    /// rows that are wanted and not there, or there and not wanted
    pub(super) differ: usize,
    /// the versions of its inputs that its newest whole commit stands for
    pub(super) inputs: String,
    /// some of what differs, in words
    pub(super) told: Vec<String>,
}

/// Compares Gold with what Silver gives.
///
/// # Errors
/// When the lake cannot be read.
pub(super) async fn check(lake: &Lake, root: &Location) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for wanted in &WANTED {
        let Wanted { name, columns, query } = wanted;
        let mut found = Found { name: (*name).to_owned(), ..Found::default() };
        if !lake.has_table(&format!("gold/{name}")).await? {
            found.differ = 1;
            found.told.push("there is no such table".to_owned());
            all.push(found);
            continue;
        }
        found.rows = count(lake, &format!(r#"SELECT count(*) AS n FROM gold."{name}""#)).await?;
        let has = format!(r#"SELECT {columns} FROM gold."{name}""#);
        let wanted = format!("SELECT * FROM ({query}) AS w({columns})");
        for (what, this, that) in [("is missing", &wanted, &has), ("is not wanted", &has, &wanted)] {
            let rows = lake.query(&format!("{this} EXCEPT {that}")).await?;
            for batch in &rows {
                found.differ += batch.num_rows();
                let shown = (0..batch.num_rows()).take(TOLD.saturating_sub(found.told.len()));
                let cell =
                    |column: &_, row| arrow::util::display::array_value_to_string(column, row).unwrap_or_default();
                found.told.extend(shown.map(|row| {
                    let cells: Vec<String> = batch.columns().iter().map(|column| cell(column, row)).collect();
                    format!("({}) {what}", cells.join(", "))
                }));
            }
        }
        found.inputs = inputs(root, name).await?;
        all.push(found);
    }
    Ok(all)
}

async fn count(lake: &Lake, sql: &str) -> Result<usize> {
    let mut rows = 0;
    for batch in lake.query(sql).await? {
        rows += texts(&batch, "n")?.iter().filter_map(|n| n.parse::<usize>().ok()).sum::<usize>();
    }
    Ok(rows)
}

/// `silver.orders 41, silver.products 12`: the versions of its inputs that a Gold table stands at.
async fn inputs(root: &Location, name: &str) -> Result<String> {
    let table = delta_table(&root.table(&format!("gold/{name}"))?, None).await?;
    let unreadable = |e| lake_error("reading the table's log failed", e);
    let commits: Vec<_> = table.history(None).try_collect().await.map_err(unreadable)?;
    let inputs = commits.into_iter().find_map(|commit| commit.info.get("lode")?.get("inputs")?.as_object().cloned());
    let versions = inputs.unwrap_or_default().into_iter().map(|(input, version)| format!("{input} {version}"));
    Ok(versions.collect::<Vec<_>>().join(", "))
}
