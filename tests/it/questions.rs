//! What people ask of the online store: the queries of `examples/queries` over the real pipeline, with a store so small that
//! every answer is worked out by hand.
//!
//! The store is below, as tables. What it has to trip over: an order that is paid twice, unpaid ones, one sent back with two
//! reasons, one cancelled with a reason and one without, a product and an order that are deleted, a cost that rises between
//! two orders, and names with surplus blanks.

use std::collections::BTreeMap;
use std::fs;

use lodestream_tests::capture::{Capture, Event};
use lodestream_tests::pipeline::{Pipeline, Source, Wanted};
use lodestream_tests::places;
use serde_json::{Map, Value, json};

use crate::variants::seed;

/// Source tables with their columns, the key first; `CreatedAt` and `UpdatedAt` come after them.
const TABLES: [(&str, &[(&str, &str)]); 9] = [
    ("OrderStatus", &[("StatusID", "INT"), ("StatusName", "VARCHAR"), ("StatusDescription", "VARCHAR")]),
    ("Sellers", &[("SellerID", "INT"), ("Name", "VARCHAR"), ("Email", "VARCHAR"), ("PhoneNumber", "VARCHAR")]),
    ("Customers", &[("CustomerID", "INT"), ("Name", "VARCHAR"), ("Email", "VARCHAR"), ("PhoneNumber", "VARCHAR")]),
    ("ProductCategories", &[("CategoryID", "INT"), ("CategoryName", "VARCHAR"), ("CategoryDescription", "TEXT")]),
    (
        "Products",
        &[
            ("ProductID", "INT"),
            ("Name", "VARCHAR"),
            ("Description", "TEXT"),
            ("Price", "DECIMAL"),
            ("Cost", "DECIMAL"),
            ("CategoryID", "INT"),
            ("SellerID", "INT"),
        ],
    ),
    (
        "Orders",
        &[
            ("OrderID", "INT"),
            ("OrderNumber", "VARCHAR"),
            ("TotalAmount", "DECIMAL"),
            ("StatusID", "INT"),
            ("CustomerID", "INT"),
        ],
    ),
    (
        "OrderItems",
        &[
            ("OrderItemID", "INT"),
            ("OrderID", "INT"),
            ("ProductID", "INT"),
            ("Quantity", "INT"),
            ("CurrentPrice", "DECIMAL"),
        ],
    ),
    ("Payments", &[("PaymentID", "INT"), ("OrderID", "INT"), ("PaymentMethodID", "INT"), ("Amount", "DECIMAL")]),
    ("Reasons", &[("ReasonID", "INT"), ("OrderID", "INT"), ("ReasonType", "ENUM"), ("ReasonDescription", "VARCHAR")]),
];

const ORDERED: i64 = 1;
const SHIPPED: i64 = 2;
const DELIVERED: i64 = 3;
const RETURNED: i64 = 4;
const CANCELLED: i64 = 5;

const ALDER: i64 = 1;
const BIRCH: i64 = 2;
const CEDAR: i64 = 3;

const BOOKS: i64 = 1;
const TOOLS: i64 = 2;
const GARDEN: i64 = 3;

const ANN: i64 = 1;
const BOB: i64 = 2;
const CY: i64 = 3;
const DI: i64 = 4;

/// of Alder, a book; costs 6.00
const ATLAS: i64 = 1;
/// of Birch, a tool; costs 12.00, from 1 April 15.00
const HAMMER: i64 = 2;
/// of Birch, a tool; costs 20.00
const SAW: i64 = 3;
/// of Alder, a book; costs 35.00, deleted on 20 April
const GLOBE: i64 = 4;
/// of Cedar, for the garden; costs 1.50
const SEEDS: i64 = 5;

/// An order: number, day, customer, its state in the end, payments, and its items: product, quantity, price.
type Order = (i64, &'static str, i64, i64, i64, &'static [(i64, i64, &'static str)]);

const ORDERS: [Order; 15] = [
    (1, "02-03", ANN, DELIVERED, 1, &[(ATLAS, 1, "10.00"), (ATLAS, 1, "10.00")]),
    (2, "02-03", BOB, DELIVERED, 2, &[(HAMMER, 1, "20.00")]),
    (3, "03-10", ANN, DELIVERED, 1, &[(ATLAS, 1, "10.00"), (SAW, 1, "30.00")]),
    (4, "03-12", CY, CANCELLED, 0, &[(HAMMER, 3, "20.00"), (SAW, 1, "30.00")]),
    (5, "03-20", BOB, RETURNED, 1, &[(ATLAS, 1, "9.50")]),
    (6, "03-28", DI, ORDERED, 0, &[(SAW, 1, "30.00")]),
    (7, "04-02", ANN, DELIVERED, 1, &[(HAMMER, 2, "20.00")]),
    (8, "04-02", CY, DELIVERED, 1, &[(GLOBE, 1, "50.00"), (ATLAS, 1, "10.00")]),
    (9, "04-09", BOB, SHIPPED, 1, &[(SAW, 1, "30.00")]),
    (10, "04-15", CY, CANCELLED, 0, &[(ATLAS, 1, "10.00")]),
    (11, "04-22", BOB, DELIVERED, 1, &[(HAMMER, 1, "20.00")]),
    (12, "04-25", DI, DELIVERED, 0, &[(ATLAS, 1, "10.00")]),
    // deleted on 27 April; its item and its payment stay behind
    (13, "04-25", ANN, DELIVERED, 1, &[(ATLAS, 5, "10.00")]),
    (14, "02-10", DI, DELIVERED, 1, &[(SEEDS, 2, "4.00")]),
    (15, "03-05", DI, DELIVERED, 1, &[(SEEDS, 1, "4.00")]),
];

/// A change of the database: its day in 2025, the table, and the row by the table's columns. Of a deleted row the key alone.
type Change = (&'static str, &'static str, Value);

/// What changes beside the orders.
fn around_the_orders() -> Vec<Change> {
    vec![
        ("02-01", "OrderStatus", json!([ORDERED, "Ordered", null])),
        ("02-01", "OrderStatus", json!([SHIPPED, "Shipped", null])),
        ("02-01", "OrderStatus", json!([DELIVERED, " Delivered", null])),
        ("02-01", "OrderStatus", json!([RETURNED, "Returned  ", null])),
        ("02-01", "OrderStatus", json!([CANCELLED, "Cancelled", null])),
        ("02-01", "Sellers", json!([ALDER, "  Alder   Books ", "alder@example.org", null])),
        ("02-01", "Sellers", json!([BIRCH, "Birch Tools", "birch@example.org", null])),
        ("02-01", "Sellers", json!([CEDAR, "Cedar Garden", "cedar@example.org", null])),
        ("02-01", "ProductCategories", json!([BOOKS, "Books ", null])),
        ("02-01", "ProductCategories", json!([TOOLS, "Hand  Tools", null])),
        ("02-01", "ProductCategories", json!([GARDEN, "Garden", null])),
        ("02-01", "Customers", json!([ANN, "Ann  Lee", "ann@example.org", null])),
        ("02-01", "Customers", json!([BOB, " Bob Ray ", "bob@example.org", null])),
        ("02-01", "Customers", json!([CY, "Cy Fox", "cy@example.org", null])),
        ("02-01", "Customers", json!([DI, "Di Roe", "di@example.org", null])),
        ("02-01", "Products", json!([ATLAS, " Atlas  of Trees", null, "10.00", "6.00", BOOKS, ALDER])),
        ("02-01", "Products", json!([HAMMER, "Hammer", null, "20.00", "12.00", TOOLS, BIRCH])),
        ("02-01", "Products", json!([SAW, "Saw", null, "30.00", "20.00", TOOLS, BIRCH])),
        ("02-01", "Products", json!([GLOBE, "Globe", null, "50.00", "35.00", BOOKS, ALDER])),
        ("02-01", "Products", json!([SEEDS, "Seed Mix", null, "4.00", "1.50", GARDEN, CEDAR])),
        ("03-13", "Reasons", json!([1, 4, "Cancellation", "found it cheaper"])),
        ("03-25", "Reasons", json!([2, 5, "Return", "damaged"])),
        ("03-26", "Reasons", json!([3, 5, "Return", "wrong size"])),
        ("04-01", "Products", json!([HAMMER, "Hammer", null, "20.00", "15.00", TOOLS, BIRCH])),
        ("04-20", "Products", json!([GLOBE])),
        ("04-27", "Orders", json!([13])),
    ]
}

/// Every change, in order of the days: an order is `Ordered` on its own day and gets its state on 26 April.
fn changes() -> Vec<Change> {
    let (mut changes, mut items, mut payments) = (around_the_orders(), 0, 0);
    for (order, day, customer, state, paid, sold) in ORDERS {
        // what the customer was to pay, and paid, is asked by nobody
        let row = |state| json!([order, format!("N{order}"), "1.00", state, customer]);
        changes.push((day, "Orders", row(ORDERED)));
        for (product, quantity, price) in sold {
            items += 1;
            changes.push((day, "OrderItems", json!([items, order, product, quantity, price])));
        }
        for _ in 0..paid {
            payments += 1;
            changes.push((day, "Payments", json!([payments, order, 1, "1.00"])));
        }
        if state != ORDERED {
            changes.push(("04-26", "Orders", row(state)));
        }
    }
    changes.sort_by_key(|(day, ..)| *day);
    changes
}

/// Milliseconds from 1970 to ten o'clock of a day `MM-DD` of 2025.
fn ten_o_clock(day: &str) -> i64 {
    const FEBRUARY_MS: i64 = 1_738_368_000_000;
    let (month, day) = day.split_once('-').expect("a day `MM-DD`");
    let before = match month {
        "02" => 0,
        "03" => 28,
        "04" => 59,
        _ => panic!("the store is open from February to April, not in {month}"),
    };
    FEBRUARY_MS + ((before + day.parse::<i64>().expect("a day") - 1) * 24 + 10) * 3_600_000
}

/// The database and its connector: changes in, the records that Debezium would write out, bare, decimals as text.
#[derive(Default)]
struct Connector {
    rows: BTreeMap<(&'static str, i64), Map<String, Value>>,
    capture: Capture,
    position: u64,
}

impl Connector {
    /// `CREATE TABLE`.
    fn create(&mut self, table: &str, columns: &[(&str, &str)]) {
        let times = [("CreatedAt", "TIMESTAMP"), ("UpdatedAt", "TIMESTAMP")];
        let described = columns.iter().chain(&times).zip(1..).map(|((name, kind), position)| {
            let (length, scale) = if *kind == "DECIMAL" { (Some(12), Some(2)) } else { (None, None) };
            json!({
                "name": name, "typeName": kind, "length": length, "scale": scale, "position": position,
                "optional": position > 1, "defaultValueExpression": null, "enumValues": null,
            })
        });
        let described: Vec<Value> = described.collect();
        let key = columns[0].0;
        let structure = json!({"defaultCharsetName": "utf8mb4", "primaryKeyColumnNames": [key], "columns": described});
        let time = ten_o_clock("02-01");
        let value = json!({
            "source": self.source(table, time), "ts_ms": time, "databaseName": "online_store", "schemaName": null,
            "ddl": format!("CREATE TABLE {table} (`{key}` INT, PRIMARY KEY ({key}))"),
            "tableChanges": [{"type": "CREATE", "id": format!("\"online_store\".\"{table}\""), "table": structure}],
        });
        self.push("online_store", time, &json!({"databaseName": "online_store"}), Some(&value));
    }

    /// A row that is inserted, updated where it is there, or deleted.
    fn change(&mut self, (day, table, values): &Change) {
        let (_, columns) = TABLES.iter().find(|(name, _)| name == table).expect("one of the tables");
        let values = values.as_array().expect("a row");
        let id = values[0].as_i64().expect("a key");
        let before = self.rows.remove(&(*table, id));
        let after = (values.len() > 1).then(|| {
            let now = json!(format!("2025-{day}T10:00:00Z"));
            let created = before.as_ref().map_or(&now, |row| &row["CreatedAt"]).clone();
            let times = [("CreatedAt", created), ("UpdatedAt", now)];
            let named = columns.iter().map(|(name, _)| *name).zip(values.iter().cloned()).chain(times);
            named.map(|(name, value)| (name.to_owned(), value)).collect::<Map<String, Value>>()
        });
        let op = match (&before, &after) {
            (None, Some(_)) => "c",
            (Some(_), Some(_)) => "u",
            _ => "d",
        };
        if let Some(row) = &after {
            self.rows.insert((*table, id), row.clone());
        }
        let (topic, time, key) = (format!("online_store.online_store.{table}"), ten_o_clock(day), columns[0].0);
        let source = self.source(table, time);
        let value = json!({"before": before, "after": after, "source": source, "op": op, "ts_ms": time});
        self.push(&topic, time, &json!({key: id}), Some(&value));
        if op == "d" {
            self.push(&topic, time, &json!({key: id}), None);
        }
    }

    fn source(&mut self, table: &str, time: i64) -> Value {
        self.position += 100;
        json!({
            "version": "3.6.1.Final", "connector": "mysql", "name": "online_store", "ts_ms": time, "snapshot": "false",
            "db": "online_store", "table": table, "server_id": 1, "gtid": null, "file": "binlog.000002",
            "pos": self.position, "row": 0,
        })
    }

    fn push(&mut self, topic: &str, time: i64, key: &Value, value: Option<&Value>) {
        let event = Event {
            topic: topic.to_owned(),
            partition: 0,
            offset: 0,
            timestamp_ms: time,
            headers: Vec::new(),
            key: Some(key.to_string().into_bytes()),
            value: value.map(|value| value.to_string().into_bytes()),
        };
        self.capture.insert(self.capture.events.len(), event);
    }
}

/// The tables of the real pipeline file, over the store's records, whose topics come in any order.
fn pipeline_of_the_store() -> Pipeline {
    let mut connector = Connector::default();
    for (table, columns) in TABLES {
        connector.create(table, columns);
    }
    for change in changes() {
        connector.change(&change);
    }
    let file = places::workspace().join("pipelines/online_store/online_store.toml");
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("`{}`: {e}", file.display()));
    let at = text.find("\n[silver.").expect("a Silver table in the pipeline file");
    let module = places::module("online_store_fact_sales.wasm");
    let modules = module.parent().expect("the folder of the modules").display().to_string();
    let sections = text[at..].replace("../../target/modules", &modules);
    let wanted = Wanted { sections, ..Wanted::default() };
    let pipeline = Pipeline::new("online_store", &Source::Replay("events.jsonl.gz".into()), &wanted);
    let mixed = connector.capture.interleaved(seed("questions"));
    mixed.write(&pipeline.folder().join("events.jsonl.gz")).expect("the store's records");
    pipeline
}

#[test]
fn every_question_about_the_online_store_gets_the_answer_worked_out_by_hand() {
    let folder = places::workspace().join("examples/queries");
    let files = fs::read_dir(&folder).expect("folder of the queries").flatten();
    let mut asked: Vec<String> =
        files.filter_map(|file| file.file_name().to_str()?.strip_suffix(".sql").map(str::to_owned)).collect();
    asked.sort();
    let answers = BTreeMap::from(ANSWERS);
    assert_eq!(asked, answers.keys().copied().collect::<Vec<_>>(), "each query has an answer here and the reverse");

    let pipeline = pipeline_of_the_store();
    pipeline.run_until_end();
    assert_eq!(pipeline.dead_letters(), []);
    let mut wrong = Vec::new();
    for (name, answer) in answers {
        let sql = fs::read_to_string(folder.join(format!("{name}.sql"))).expect("a query");
        assert!(sql.starts_with("-- "), "`{name}.sql` does not begin with its question");
        // the text begins like an option: `--` says that it is none
        let ended = pipeline.output(name, pipeline.command(&["query"], &["--csv", "--", &sql])).expect_code(0);
        if ended.out != answer {
            wrong.push(format!("{name}: wanted\n{answer}got\n{}", ended.out));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// Paid items of orders that are there, from which most answers follow:
//
//     order  day    customer  seller  category  product  pieces  revenue  cost   profit
//     1      02-03  Ann       Alder   Books     Atlas    1 + 1   20.00    12.00    8.00
//     2      02-03  Bob       Birch   Tools     Hammer   1       20.00    12.00    8.00
//     14     02-10  Di        Cedar   Garden    Seeds    2        8.00     3.00    5.00
//     15     03-05  Di        Cedar   Garden    Seeds    1        4.00     1.50    2.50
//     3      03-10  Ann       Alder   Books     Atlas    1       10.00     6.00    4.00
//     3      03-10  Ann       Birch   Tools     Saw      1       30.00    20.00   10.00
//     5      03-20  Bob       Alder   Books     Atlas    1        9.50     6.00    3.50
//     7      04-02  Ann       Birch   Tools     Hammer   2       40.00    30.00   10.00
//     8      04-02  Cy        -       -         4        1       50.00    35.00   15.00
//     8      04-02  Cy        Alder   Books     Atlas    1       10.00     6.00    4.00
//     9      04-09  Bob       Birch   Tools     Saw      1       30.00    20.00   10.00
//     11     04-22  Bob       Birch   Tools     Hammer   1       20.00    15.00    5.00
//
// Orders 4, 6, 10 and 12 are not paid; order 13 is gone.
const ANSWERS: [(&str, &str); 13] = [
    // February, March, April. Books: 20, 10 + 9.50, 10. Tools: 20, 30, 40 + 30 + 20. Garden: 8, 4, nothing. Percent: 60 of 30,
    // -4 of 4, -9.50 of 19.50; 10 of 20, -0.50 of 20, -4 of 8.
    (
        "growing_and_declining_categories",
        "year,month,category_id,category,revenue,revenue_before,change,change_percent,trend\n\
         2025,4,2,Hand Tools,90.00,30.00,60.00,200.0,growing\n\
         2025,4,3,Garden,0.00,4.00,-4.00,-100.0,declining\n\
         2025,4,1,Books,10.00,19.50,-9.50,-48.72,declining\n\
         2025,3,2,Hand Tools,30.00,20.00,10.00,50.0,growing\n\
         2025,3,1,Books,19.50,20.00,-0.50,-2.5,declining\n\
         2025,3,3,Garden,4.00,8.00,-4.00,-50.0,declining\n",
    ),
    // Bob: 20 + 9.50 + 30 + 20 from 3 February to 22 April, 78 days in three steps. Ann: 20 + 40 + 40 to 2 April, 58 days in
    // two. Di: 8 + 4, paid on 10 February and 5 March. Cy paid once.
    (
        "loyal_customers",
        "customer_id,customer,orders,spending,first_order,last_order,days_between_orders\n\
         2,Bob Ray,4,79.50,2025-02-03,2025-04-22,26.0\n\
         1,Ann Lee,3,100.00,2025-02-03,2025-04-02,29.0\n\
         4,Di Roe,2,12.00,2025-02-10,2025-03-05,23.0\n",
    ),
    // Ann, Bob and Di: 100 + 79.50 + 12 of 251.50 in all, in 3 + 4 + 2 orders. Cy: 50 + 10.
    (
        "repeat_and_one_time_customers",
        "customer_kind,customers,orders,spending,spending_per_customer,spending_percent\n\
         repeat,3,9,191.50,63.83,76.14\n\
         one-time,1,1,60.00,60.0,23.86\n",
    ),
    // Alder: 1, 3, 8, 12 delivered, 5 sent back, 10 cancelled: 1 / 5 and 1 / 6. Birch: 2, 3, 7, 11 delivered, 4 cancelled, 6
    // ordered, 9 shipped: 0 / 4 and 1 / 7. Cedar: 14, 15. Nobody's: 8.
    (
        "return_and_cancellation_rates",
        "seller_id,seller,orders,delivered,returned,cancelled,return_percent,cancellation_percent\n\
         1,Alder Books,6,4,1,1,20.0,16.67\n\
         2,Birch Tools,7,4,0,1,0.0,14.29\n\
         3,Cedar Garden,2,2,0,0,0.0,0.0\n\
         ,(unknown),1,1,0,0,0.0,0.0\n",
    ),
    // 10, 5 and 4
    (
        "return_and_cancellation_reasons",
        "seller_id,seller,state,reason,orders\n\
         1,Alder Books,Cancelled,(none given),1\n\
         1,Alder Books,Returned,wrong size,1\n\
         2,Birch Tools,Cancelled,found it cheaper,1\n",
    ),
    // Birch: 20 + 30 + 40 + 30 + 20, profit 8 + 10 + 10 + 10 + 5. Alder: 20 + 10 + 9.50 + 10, profit 8 + 4 + 3.50 + 4. Cedar:
    // 8 + 4, profit 5 + 2.50.
    (
        "revenue_by_seller",
        "seller_id,seller,orders,paid_orders,revenue,profit\n\
         2,Birch Tools,7,5,140.00,43.00\n\
         ,(unknown),1,1,50.00,15.00\n\
         1,Alder Books,6,4,49.50,19.50\n\
         3,Cedar Garden,2,2,12.00,7.50\n",
    ),
    // Each seller has its category to itself, so its months are those above; the best tenth of three sellers is one.
    (
        "seller_segments",
        "seller_id,seller,revenue,trend,return_percent,segment\n\
         2,Birch Tools,140.00,growing,0.0,top\n\
         1,Alder Books,49.50,declining,20.0,risk\n\
         3,Cedar Garden,12.00,declining,0.0,risk\n",
    ),
    (
        "top_products_by_day",
        "day,place,product_id,product,orders,pieces,revenue\n\
         2025-04-22,1,2,Hammer,1,1,20.00\n\
         2025-04-09,1,3,Saw,1,1,30.00\n\
         2025-04-02,1,4,(unknown),1,1,50.00\n\
         2025-04-02,2,2,Hammer,1,2,40.00\n\
         2025-04-02,3,1,Atlas of Trees,1,1,10.00\n\
         2025-03-20,1,1,Atlas of Trees,1,1,9.50\n\
         2025-03-10,1,3,Saw,1,1,30.00\n\
         2025-03-10,2,1,Atlas of Trees,1,1,10.00\n\
         2025-03-05,1,5,Seed Mix,1,1,4.00\n\
         2025-02-10,1,5,Seed Mix,1,2,8.00\n\
         2025-02-03,1,1,Atlas of Trees,1,2,20.00\n\
         2025-02-03,1,2,Hammer,1,1,20.00\n",
    ),
    // April, hammers: 40 + 20. March, atlases: 10 + 9.50.
    (
        "top_products_by_month",
        "year,month,place,product_id,product,orders,pieces,revenue\n\
         2025,4,1,2,Hammer,2,3,60.00\n\
         2025,4,2,4,(unknown),1,1,50.00\n\
         2025,4,3,3,Saw,1,1,30.00\n\
         2025,4,4,1,Atlas of Trees,1,1,10.00\n\
         2025,3,1,3,Saw,1,1,30.00\n\
         2025,3,2,1,Atlas of Trees,2,2,19.50\n\
         2025,3,3,5,Seed Mix,1,1,4.00\n\
         2025,2,1,1,Atlas of Trees,1,2,20.00\n\
         2025,2,1,2,Hammer,1,1,20.00\n\
         2025,2,3,5,Seed Mix,1,2,8.00\n",
    ),
    // February and March, atlases: 20 + 10 + 9.50.
    (
        "top_products_by_quarter",
        "year,quarter,place,product_id,product,orders,pieces,revenue\n\
         2025,2,1,2,Hammer,2,3,60.00\n\
         2025,2,2,4,(unknown),1,1,50.00\n\
         2025,2,3,3,Saw,1,1,30.00\n\
         2025,2,4,1,Atlas of Trees,1,1,10.00\n\
         2025,1,1,1,Atlas of Trees,3,4,39.50\n\
         2025,1,2,3,Saw,1,1,30.00\n\
         2025,1,3,2,Hammer,1,1,20.00\n\
         2025,1,4,5,Seed Mix,2,3,12.00\n",
    ),
    (
        "top_sellers_by_day",
        "day,place,seller_id,seller,orders,pieces,revenue\n\
         2025-04-22,1,2,Birch Tools,1,1,20.00\n\
         2025-04-09,1,2,Birch Tools,1,1,30.00\n\
         2025-04-02,1,2,Birch Tools,1,2,40.00\n\
         2025-04-02,2,1,Alder Books,1,1,10.00\n\
         2025-03-20,1,1,Alder Books,1,1,9.50\n\
         2025-03-10,1,2,Birch Tools,1,1,30.00\n\
         2025-03-10,2,1,Alder Books,1,1,10.00\n\
         2025-03-05,1,3,Cedar Garden,1,1,4.00\n\
         2025-02-10,1,3,Cedar Garden,1,2,8.00\n\
         2025-02-03,1,1,Alder Books,1,2,20.00\n\
         2025-02-03,1,2,Birch Tools,1,1,20.00\n",
    ),
    // April, Birch: orders 7, 9 and 11, pieces 2 + 1 + 1
    (
        "top_sellers_by_month",
        "year,month,place,seller_id,seller,orders,pieces,revenue\n\
         2025,4,1,2,Birch Tools,3,4,90.00\n\
         2025,4,2,1,Alder Books,1,1,10.00\n\
         2025,3,1,2,Birch Tools,1,1,30.00\n\
         2025,3,2,1,Alder Books,2,2,19.50\n\
         2025,3,3,3,Cedar Garden,1,1,4.00\n\
         2025,2,1,1,Alder Books,1,2,20.00\n\
         2025,2,1,2,Birch Tools,1,1,20.00\n\
         2025,2,3,3,Cedar Garden,1,2,8.00\n",
    ),
    // February and March, Birch: 20 + 30; Alder: 20 + 19.50
    (
        "top_sellers_by_quarter",
        "year,quarter,place,seller_id,seller,orders,pieces,revenue\n\
         2025,2,1,2,Birch Tools,3,4,90.00\n\
         2025,2,2,1,Alder Books,1,1,10.00\n\
         2025,1,1,2,Birch Tools,2,2,50.00\n\
         2025,1,2,1,Alder Books,3,4,39.50\n\
         2025,1,3,3,Cedar Garden,2,3,12.00\n",
    ),
];
