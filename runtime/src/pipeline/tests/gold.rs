//! Gold tables: at rest what a query over their inputs gives, whatever happened to these.

use super::Run;
use super::faulty::{Fault, FaultyLake};
use super::shop::{Event, Shop};
use super::write_file;
use crate::transform::tests::guests::{Guest, trapping_on};

const FILE: &str = r#"
[gold.seventh]
from = "t07"
[gold.joined]
from = "t07"
select = ["other.name"]
lookup.other = { table = "t08", on = "ID" }
[gold.both]
from = "t07"
select = ["other.name"]
lookup.other = { table = "t08", on = "id", required = true }
[gold.named]
from = "t07"
select = ["newest.id AS newest", "greatest.name"]
lookup.newest = { table = "t08", on = "name", by = "name", pick = "latest" }
lookup.greatest = { table = "t09", on = "newest.name", by = "name", pick = "latest", order_by = "id" }
[gold.counts]
sql = "SELECT NAME, COUNT(*) AS N, MAX(ID) AS LAST FROM Silver.t07 GROUP BY NAME"
key = "name"
refresh = "100ms"
[gold.total]
sql = "SELECT 1 AS one, sum(c.n) AS n, sum(d.\"Day\") AS days FROM gold.Counts c CROSS JOIN gold.days d"
key = "one"
refresh = "100ms"
[gold.days]
from = "calendar"
calendar = { from = "2024-02-28", to = "2024-03-01" }
"#;

/// Each Gold table of [`FILE`], what is looked at of it, and a query that gives the same.
const WANTED: [(&str, &str, &str); 7] = [
    ("counts", "name, n, last", "SELECT name, count(*), max(id) FROM silver.t07 GROUP BY name"),
    (
        "total",
        "one, n, days",
        "SELECT 1, nullif(count(*), 0) * 3, nullif(count(DISTINCT name), 0) * 58 FROM silver.t07",
    ),
    ("days", "\"DateKey\", \"DayOfWeek\"", "VALUES (20240228, 3), (20240229, 4), (20240301, 5)"),
    ("seventh", "id, name", "SELECT id, name FROM silver.t07"),
    ("joined", "id, name", "SELECT a.id, b.name FROM silver.t07 a LEFT JOIN silver.t08 b ON a.id = b.id"),
    ("both", "id, name", "SELECT a.id, b.name FROM silver.t07 a JOIN silver.t08 b ON a.id = b.id"),
    (
        "named",
        "id, newest, name",
        "SELECT a.id, b.id, c.name FROM silver.t07 a \
         LEFT JOIN (SELECT *, row_number() OVER (PARTITION BY name ORDER BY _seq DESC, id DESC) AS n FROM silver.t08) b \
         ON b.name = a.name AND b.n = 1 \
         LEFT JOIN (SELECT *, row_number() OVER (PARTITION BY name ORDER BY id DESC) AS n FROM silver.t09) c \
         ON c.name = b.name AND c.n = 1",
    ),
];

async fn is_exact(lake: &FaultyLake, (table, columns, wanted): (&str, &str, &str)) -> bool {
    let has = lake.text(&format!("SELECT {columns} FROM gold.{table} ORDER BY 1")).await;
    let wanted = lake.text(&format!("SELECT * FROM ({wanted}) AS t({columns}) ORDER BY 1")).await;
    let body = |text: Option<String>| text.map(|text| text.lines().skip(3).map(str::to_owned).collect::<Vec<_>>());
    let (has, wanted) = (body(has), body(wanted));
    if has != wanted {
        eprintln!("{table}: {has:#?} {wanted:#?}");
    }
    has.is_some() && has == wanted
}

async fn are_exact(lake: &FaultyLake) -> bool {
    for table in WANTED {
        if !is_exact(lake, table).await {
            eprintln!("gold `{}` differs", table.0);
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn gold_is_what_a_query_gives_through_faults_truncates_structure_changes_and_restarts() {
    let (mut shop, lake) = (Shop::new(), FaultyLake::new());
    shop.work(30);
    let run = Run::follow(&shop, &lake, FILE);
    run.until("Gold has what there is", async |_| are_exact(&lake).await).await;
    lake.break_commits("gold/", Fault::Unanswered, 5);
    while !lake.is_spent() {
        shop.work(5);
        run.until_exact(&shop, &lake).await;
        run.until("Gold has the changes", async |_| are_exact(&lake).await).await;
    }
    for (number, event) in [(8, Event::Truncated), (7, Event::Truncated), (7, Event::ColumnAdded), (8, Event::MadeAnew)]
    {
        shop.happen(number, event);
        shop.work(5);
        run.until_exact(&shop, &lake).await;
        run.until("Gold has what that left", async |_| are_exact(&lake).await).await;
    }
    assert!(lake.text("SELECT note FROM gold.seventh").await.is_some(), "a copy follows added columns");
    run.stop().await.expect("a good end");
    // What comes while nothing runs is taken in by a run to the end.
    shop.work(10);
    Run::start(&shop, &lake, FILE, true).end().await.expect("a good end");
    shop.assert_exact(&lake).await;
    assert!(are_exact(&lake).await);
    for (table, ..) in WANTED {
        if table == "days" {
            continue; // it reads nothing
        }
        lake.assert_each_range_once(&format!("gold/{table}")).await;
    }
}

const TWINS: &str = r#"
[gold.twins]
from = "t07"
transform = "twin.wasm"
lookup.other = { table = "t08", on = "id" }
"#;

/// Gives `id`, and the other table's as `column`; fails where that is `value`.
fn twin(column: &'static str, value: i64) -> Vec<u8> {
    let (reads, passes) = (vec![[1, 0]], vec![("id", [0, 0])]);
    Guest { reads, writes: vec![(column, "l", true, 0)], passes, ..trapping_on(value) }.wasm()
}

const LETTERS: &str = "SELECT stage, \"table\", topic, reason FROM dead_letters WHERE stage = 'gold'";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_fails_is_a_dead_letter_until_it_is_good_and_another_module_derives_all_again() {
    let (mut shop, lake) = (Shop::new(), FaultyLake::new());
    let put = |bytes: Vec<u8>| std::fs::write(shop.folder().join("twin.wasm"), bytes).expect("the module");
    put(twin("twin", 7));
    let (path, _) = write_file(&shop, TWINS);
    shop.work(40);
    let run = Run::follow(&shop, &lake, TWINS);
    let exact = async |column: &str, but: i64| {
        let columns = format!("id, {column}");
        let wanted = format!(
            "SELECT a.id, b.id FROM silver.t07 a LEFT JOIN silver.t08 b ON a.id = b.id WHERE b.id IS NULL OR b.id <> {but}"
        );
        is_exact(&lake, ("twins", &columns, &wanted)).await
    };
    run.until("all but one are there", async |_| shop.others_are_exact(&lake, &[]).await && exact("twin", 7).await)
        .await;
    let letters = lake.text(LETTERS).await.expect("dead letters");
    assert!(letters.contains("silver/t07") && letters.contains("`id` = `7`: "), "{letters}");
    assert_eq!(letters.matches("twins").count(), 1, "{letters}");
    shop.happen(8, Event::Truncated);
    shop.work(3);
    run.until_exact(&shop, &lake).await;
    run.until("the row is good", async |_| exact("twin", 7).await).await;
    run.until("its letter is gone", async |_| {
        lake.text(LETTERS).await.is_some_and(|letters| !letters.contains("twins"))
    })
    .await;
    std::fs::write(path.with_file_name("twin.wasm"), twin("other", -1)).expect("the module");
    run.until("every row has the other column", async |_| exact("other", -1).await).await;
    run.stop().await.expect("a good end");
}

const UNFIT: &str = r#"
[gold.itself]
sql = "SELECT id FROM gold.itself"
key = "id"
[gold.one]
sql = "SELECT id FROM gold.other"
key = "id"
[gold.other]
sql = "SELECT id FROM gold.one"
key = "id"
[gold.missing]
sql = "SELECT id FROM gold.othre"
key = "id"
[gold.bronze]
sql = "SELECT * FROM bronze.t07"
key = "id"
[gold.column]
sql = "SELECT nam FROM silver.t07"
key = "nam"
[gold.key]
sql = "SELECT id, name FROM silver.t07"
key = "nme"
[gold.twice]
sql = "SELECT 'a' AS a, id FROM silver.t07"
key = "a"
[gold.chance]
sql = "SELECT id, random() AS r FROM silver.t07"
key = "id"
[gold.kind]
sql = "SELECT id, [id] AS list FROM silver.t07"
key = "id"
[gold.good]
sql = "SELECT id FROM silver.t07"
key = "id"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_does_not_fit_stops_its_table_with_what_to_do_and_no_other() {
    let (mut shop, lake) = (Shop::new(), FaultyLake::new());
    shop.work(30);
    let run = Run::follow(&shop, &lake, UNFIT);
    let good = ("good", "id", "SELECT id FROM silver.t07");
    run.until("the good one is there", async |_| {
        shop.others_are_exact(&lake, &[]).await && is_exact(&lake, good).await
    })
    .await;
    let wanted = [
        ("itself", "reads its own table", "Silver alone"),
        ("one", "gold `one` and gold `other` read each other", "Silver alone"),
        ("other", "gold `other` and gold `one` read each other", "Silver alone"),
        ("missing", "`gold.othre` is no table", "did you mean `gold.other`?"),
        ("bronze", "reads `bronze.t07`", "silver.<table>"),
        ("column", "cannot be planned", "lode query"),
        ("key", "no column `nme`", "did you mean `name`?"),
        ("twice", "several rows of the key (a) = (a)", "group by"),
        ("chance", "calls `random`", "from their columns"),
        ("kind", "column `list` is List", "CAST"),
    ];
    run.until("all others have stopped", async |status| status.stopped.len() == wanted.len()).await;
    let status = run.status();
    for (table, what, todo) in wanted {
        let stopped = status.gold[table].report.stopped.clone().expect("a reason");
        assert!(stopped.reason.contains(what), "{table}: {stopped:?}");
        assert!(stopped.hint.as_ref().is_some_and(|hint| hint.contains(todo)), "{table}: {stopped:?}");
    }
    // a changed pipeline file takes it up again
    write_file(
        &shop,
        &UNFIT.replace("'a' AS a, id FROM silver.t07\"", "name AS a, max(id) AS id FROM silver.t07 GROUP BY name\""),
    );
    let mended = ("twice", "a, id", "SELECT name, max(id) FROM silver.t07 GROUP BY name");
    run.until("it is made", async |_| is_exact(&lake, mended).await).await;
    shop.work(10);
    run.until("it is current", async |_| shop.others_are_exact(&lake, &[]).await && is_exact(&lake, good).await).await;
    run.stop().await.expect_err("some had stopped");
}
