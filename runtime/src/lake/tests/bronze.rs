use futures::TryStreamExt;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::*;
use crate::model::positions::Positions;
use crate::model::record::{Block, Record};

pub(crate) fn block(number: i32, offsets: std::ops::Range<i64>) -> Block {
    let mut block = Block::new(partition(number));
    for offset in offsets {
        let value = format!("{{\"n\":{offset}}}");
        let record = Record {
            offset,
            timestamp_ms: 1_700_000_000_000 + offset,
            key: (offset % 3 != 0).then_some(b"\xff\xfe".as_slice()),
            value: (offset % 5 != 0).then_some(value.as_bytes()),
            headers: if offset % 2 == 0 { b"[[\"a\",\"b\"]]" } else { b"" },
        };
        assert!(block.push(record));
    }
    block
}

pub(crate) fn rows_of(blocks: impl IntoIterator<Item = Block>, ms: i64) -> RecordBatch {
    let mut rows = BronzeRows::new();
    for block in blocks {
        rows.push(&Arc::new(block), 0, |_| (Some(Op::Create), None));
    }
    rows.finish(ms).unwrap()
}

/// The rows as the data files of one commit over `covers`.
pub(crate) fn files_of(table: &BronzeTable, batches: &[RecordBatch], covers: &Ranges) -> BronzeFiles {
    let mut draft = BronzeDraft::default();
    for batch in batches {
        table.add(&mut draft, batch).unwrap();
    }
    draft.finish(covers).unwrap()
}

/// Encodes rows and appends them over `(partition, from, to)`.
pub(crate) async fn append(table: &mut BronzeTable, batches: &[RecordBatch], over: &[(i32, i64, i64)]) -> Outcome {
    let files = files_of(table, batches, &ranges(over));
    table.append(&files, &ranges(over), Map::new()).await.unwrap()
}

pub(crate) async fn read_all(table: &BronzeTable, from: &Positions) -> BTreeMap<i32, Vec<i64>> {
    let blocks: Vec<Block> = table.read(from).await.unwrap().try_collect().await.unwrap();
    let mut all: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for read in blocks {
        let number = read.partition().partition;
        for record in read.iter() {
            let wanted = block(number, record.offset..record.offset + 1);
            let wanted = wanted.get(0).unwrap();
            assert_eq!(record.key, wanted.key);
            assert_eq!(record.value, wanted.value);
            assert_eq!(record.headers, wanted.headers);
            assert_eq!(record.timestamp_ms, wanted.timestamp_ms);
            all.entry(number).or_default().push(record.offset);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_there_once_and_comes_back_in_order() {
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    let open = || BronzeTable::open_or_create(location.clone(), "bronze/shop.orders", Settings::default());
    let mut table = open().await.unwrap();
    let day = 86_400_000;
    let first = [rows_of([block(0, 0..10), block(1, 0..4)], day)];
    let covered = [(0, 0, 10), (1, 0, 4)];
    assert_eq!(append(&mut table, &first, &covered).await, Outcome::Committed(1));
    let again = append(&mut table, &first, &covered).await;
    assert_eq!(again, Outcome::AlreadyCommitted { version: 1 });
    // flush borders differ after a restart: half of these rows are there already
    let mut table = open().await.unwrap();
    let second = [rows_of([block(0, 5..20)], 2 * day), rows_of([block(1, 0..6)], 3 * day)];
    append(&mut table, &second, &[(0, 5, 20), (1, 0, 6)]).await;
    let count = query(&location, "SELECT count(*), count(DISTINCT _offset * 10 + _partition) FROM t").await;
    assert_eq!(count[0].column(0).as_primitive::<Int64Type>().value(0), 26);
    assert_eq!(count[0].column(1).as_primitive::<Int64Type>().value(0), 26);

    let all = read_all(&table, &Positions::new()).await;
    assert_eq!(all[&0], (0..20).collect::<Vec<_>>());
    assert_eq!(all[&1], (0..6).collect::<Vec<_>>());
    let late = read_all(&table, &[(partition(0), 15), (partition(1), 6)].into()).await;
    assert_eq!(late[&0], (15..20).collect::<Vec<_>>());
    assert!(!late.contains_key(&1));
    let gap = append(&mut table, &[], &[(0, 25, 30)]).await;
    assert_eq!(gap, Outcome::Fenced);
}

async fn compacted(table: &mut BronzeTable) -> Packed {
    table.append_only().compacting(Pace::Steady).unwrap().await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_every_record_and_its_order() {
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    let settings = super::model::settings();
    let mut table = BronzeTable::open_or_create(location.clone(), "bronze/shop.orders", settings).await.unwrap();
    for round in 0..7i64 {
        let batch = rows_of([block(0, round * 10..round * 10 + 10), block(1, round * 3..round * 3 + 3)], 86_400_000);
        append(&mut table, &[batch], &[(0, round * 10, round * 10 + 10), (1, round * 3, round * 3 + 3)]).await;
    }
    assert_eq!(compressions(&location).await, ["SNAPPY"]);
    let packed = compacted(&mut table).await;
    assert_eq!(packed.files(), 7);
    // an append comes first and is not in the way
    append(&mut table, &[rows_of([block(0, 70..75)], 86_400_000)], &[(0, 70, 75)]).await;
    assert!(table.append_only().commit_compacted(packed).await.unwrap());
    assert_eq!(compressions(&location).await, ["SNAPPY", "ZSTD(ZstdLevel(1))"]);
    let done = table.maintain().await.unwrap();
    assert_eq!(done.files, 7);
    // another engine may put the rows in any order
    super::model::foreign_optimize(&location).await;
    let all = read_all(&table, &Positions::new()).await;
    assert_eq!(all[&0], (0..75).collect::<Vec<_>>());
    assert_eq!(all[&1], (0..21).collect::<Vec<_>>());
    append(&mut table, &[rows_of([block(1, 21..22)], 86_400_000)], &[(1, 21, 22)]).await;
    assert_eq!(read_all(&table, &[(partition(0), 75)].into()).await[&1].last(), Some(&21));
}

#[test]
fn values_that_are_taken_as_they_lie_in_a_large_block_are_those_of_its_records() {
    let filler = "ä€ ".repeat(1 << 16);
    let large = |odd: &[&'static [u8]]| {
        let mut block = Block::new(partition(0));
        let texts = [Some(filler.as_bytes()), None, Some("".as_bytes()), Some("zwölf".as_bytes())];
        let values = texts.into_iter().chain(odd.iter().map(|value| Some(*value)));
        for (offset, value) in values.enumerate() {
            let (offset, timestamp_ms) = (offset as i64, 0);
            assert!(block.push(Record { offset, timestamp_ms, key: Some(b"k"), value, headers: b"" }));
        }
        block
    };
    // `ä` cut in two is text where both halves are one value, and nowhere else
    for odd in [&[][..], &["ä".as_bytes()], &[b"\xff"], &[b"\xc3", b"\xa4"]] {
        for blocks in [vec![large(odd)], vec![large(odd), block(1, 0..7)], vec![block(1, 0..7), large(odd)]] {
            let wanted: Vec<Option<Vec<u8>>> =
                blocks.iter().flat_map(|b| b.iter().map(|r| r.value.map(<[u8]>::to_vec))).collect();
            let lens: Vec<_> = blocks.iter().flat_map(|b| b.value_lens().collect::<Vec<_>>()).collect();
            assert_eq!(lens, wanted.iter().map(|value| value.as_ref().map(Vec::len)).collect::<Vec<_>>());
            let batch = rows_of(blocks, 0);
            let texts = batch.column_by_name("_value").unwrap().as_string::<i32>();
            let bytes = batch.column_by_name("_value_bytes").unwrap().as_binary::<i32>();
            for (row, wanted) in wanted.iter().enumerate() {
                let text = texts.is_valid(row).then(|| texts.value(row).as_bytes());
                let raw = bytes.is_valid(row).then(|| bytes.value(row));
                let is_text = wanted.as_ref().is_some_and(|value| std::str::from_utf8(value).is_ok());
                assert_eq!((text, raw), if is_text { (wanted.as_deref(), None) } else { (None, wanted.as_deref()) });
            }
        }
    }
}

/// How the files of the newest version are compressed.
async fn compressions(location: &Location) -> Vec<String> {
    let folder = location.url().to_file_path().unwrap();
    let table = super::model::delta(location).await;
    let log = table.snapshot().unwrap().log_data();
    let files = log.iter().map(|file| folder.join(file.path().as_ref()));
    let all: std::collections::BTreeSet<String> = files
        .flat_map(|path| {
            let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
            let columns = reader.metadata().row_group(0).columns().iter().map(|c| c.compression().to_string());
            columns.collect::<Vec<_>>()
        })
        .collect();
    all.into_iter().collect()
}

/// Whether the newest version of the log says that rows changed.
fn data_change(location: &Location, version: u64) -> bool {
    let log = location.url().to_file_path().unwrap().join(format!("_delta_log/{version:020}.json"));
    std::fs::read_to_string(log).unwrap().contains("\"dataChange\":true")
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_beside_appends_keeps_few_files_and_every_record_once() {
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    let open = || BronzeTable::open_or_create(location.clone(), "bronze/shop.orders", super::model::settings());
    let mut table = open().await.unwrap();
    let mut running = None;
    let (mut packed, mut most) = (0, 0);
    for round in 0..120i64 {
        // two days, so that files of both lie side by side
        let day = 86_400_000 * (1 + round / 60);
        let batch = rows_of([block(0, round * 5..round * 5 + 5)], day);
        append(&mut table, &[batch], &[(0, round * 5, round * 5 + 5)]).await;
        if running.is_none() {
            running = table.append_only().compacting(Pace::Steady).map(tokio::spawn);
        }
        // appends go on while files are rewritten; now and then one waits, as a slow source does
        let ready =
            running.as_ref().is_some_and(|task: &tokio::task::JoinHandle<_>| task.is_finished() || round % 4 == 3);
        if ready && let Some(task) = running.take() {
            if let Some(done) = task.await.unwrap().unwrap() {
                assert!(table.append_only().commit_compacted(done).await.unwrap(), "nobody else writes");
                assert!(!data_change(&location, table.version()), "a compaction changes no row");
                packed += 1;
            }
            most = most.max(super::model::delta(&location).await.snapshot().unwrap().log_data().num_files());
        }
        if round % 40 == 20 {
            // the process ends; what was written and not committed is nobody's
            running = None;
            table = open().await.unwrap();
        }
    }
    assert!(packed > 10, "{packed} compactions");
    assert!(most < 40, "{most} files at one time");
    let all = read_all(&table, &Positions::new()).await;
    assert_eq!(all[&0], (0..600).collect::<Vec<_>>());
    let count = query(&location, "SELECT count(*) FROM t").await;
    assert_eq!(count[0].column(0).as_primitive::<Int64Type>().value(0), 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_was_overtaken_is_dropped_also_when_appends_came_between() {
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    let open = || BronzeTable::open_or_create(location.clone(), "bronze/shop.orders", super::model::settings());
    let mut table = open().await.unwrap();
    for round in 0..5i64 {
        let batch = rows_of([block(0, round * 5..round * 5 + 5)], 86_400_000);
        append(&mut table, &[batch], &[(0, round * 5, round * 5 + 5)]).await;
    }
    let packed = compacted(&mut table).await;
    // another program rewrites the same files, and an append of ours follows its commit
    super::model::foreign_optimize(&location).await;
    append(&mut table, &[rows_of([block(0, 25..30)], 86_400_000)], &[(0, 25, 30)]).await;
    assert!(!table.append_only().commit_compacted(packed).await.unwrap());
    assert_eq!(read_all(&table, &Positions::new()).await[&0], (0..30).collect::<Vec<_>>());
    assert!(table.append_only().compacting(Pace::Steady).is_some(), "it is tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_whose_files_the_table_itself_rewrote_meanwhile_is_dropped() {
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    let open = || BronzeTable::open_or_create(location.clone(), "bronze/shop.orders", super::model::settings());
    for is_opened_anew in [false, true] {
        let mut table = open().await.unwrap();
        let from = table.positions().get(partition(0)).unwrap_or(0);
        for at in (from..from + 25).step_by(5) {
            append(&mut table, &[rows_of([block(0, at..at + 5)], 86_400_000)], &[(0, at, at + 5)]).await;
        }
        let packed = compacted(&mut table).await;
        if is_opened_anew {
            table = open().await.unwrap();
        }
        table.maintain().await.unwrap();
        assert!(!table.append_only().commit_compacted(packed).await.unwrap());
        assert_eq!(read_all(&table, &Positions::new()).await[&0], (0..from + 25).collect::<Vec<_>>());
    }
}
