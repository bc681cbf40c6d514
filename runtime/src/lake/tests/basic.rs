use super::*;

async fn open(location: &Location) -> KeyedTable {
    KeyedTable::open_or_create(location.clone(), spec(), Settings::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_changed_owners_are_replaced() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let mut table = open(&location).await;
    let first = of(&[
        (1, "a", Op::Create, 10, 0, 0),
        (2, "b", Op::Create, 11, 0, 1),
        (3, "c", Op::Create, 12, 1, 0),
        (2, "b2", Op::Update, 13, 0, 2),
    ]);
    let outcome = copy(&mut table, &first, &ranges(&[(0, 0, 3), (1, 0, 1)])).await.unwrap();
    assert_eq!(outcome, Outcome::Committed(1));
    assert_eq!(rows(&location).await, map(&[(1, "a"), (2, "b2"), (3, "c")]));

    let second = of(&[
        (1, "late", Op::Update, 9, 0, 3),
        (2, "", Op::Delete, 20, 0, 4),
        (3, "c2", Op::Update, 21, 0, 5),
        (4, "d", Op::Create, 22, 0, 6),
    ]);
    copy(&mut table, &second, &ranges(&[(0, 3, 7)])).await.unwrap();
    let expected = map(&[(1, "a"), (3, "c2"), (4, "d")]);
    assert_eq!(rows(&location).await, expected);

    // the same again: it is there already; a late change after the delete does not bring the row back
    assert_eq!(
        copy(&mut table, &second, &ranges(&[(0, 3, 7)])).await.unwrap(),
        Outcome::AlreadyCommitted { version: 2 }
    );
    let mut table = open(&location).await;
    assert_eq!(table.version(), 2);
    assert_eq!(table.positions().get(partition(0)), Some(7));
    let late = of(&[(2, "late", Op::Update, 19, 1, 1)]);
    copy(&mut table, &late, &ranges(&[(1, 1, 2)])).await.unwrap();
    assert_eq!(rows(&location).await, expected);
    // a gap and a step back are not ours
    assert_eq!(copy(&mut table, &[], &ranges(&[(1, 5, 6)])).await.unwrap(), Outcome::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_follow_each_other_and_one_is_fenced() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let mut a = open(&location).await;
    let mut b = open(&location).await;
    copy(&mut a, &of(&[(1, "a", Op::Create, 1, 0, 0)]), &ranges(&[(0, 0, 1)])).await.unwrap();
    // another partition: b follows a's commit and adds its own
    copy(&mut b, &of(&[(2, "b", Op::Create, 2, 1, 0)]), &ranges(&[(1, 0, 1)])).await.unwrap();
    assert_eq!(rows(&location).await, map(&[(1, "a"), (2, "b")]));
    // the same range in other hands
    let same = copy(&mut b, &of(&[(1, "a", Op::Create, 1, 0, 0)]), &ranges(&[(0, 0, 1)])).await.unwrap();
    assert_eq!(same, Outcome::AlreadyCommitted { version: 2 });
    copy(&mut b, &of(&[(1, "x", Op::Update, 5, 0, 1)]), &ranges(&[(0, 1, 3)])).await.unwrap();
    let late = copy(&mut a, &of(&[(1, "y", Op::Update, 6, 0, 1)]), &ranges(&[(0, 1, 5)])).await.unwrap();
    assert_eq!(late, Outcome::Fenced);
    assert_eq!(rows(&location).await, map(&[(1, "x"), (2, "b")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_eight_writers_of_one_range_one_commits() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let mut tasks = Vec::new();
    open(&location).await;
    for n in 0..8i64 {
        let location = location.clone();
        tasks.push(tokio::spawn(async move {
            let mut table = open(&location).await;
            let batch = of(&[(n, "x", Op::Create, 1, 0, 0), (100, "y", Op::Create, 2, 0, 1)]);
            copy(&mut table, &batch, &ranges(&[(0, 0, 2 + n)])).await.unwrap()
        }));
    }
    let mut committed = 0;
    for task in tasks {
        if let Outcome::Committed { .. } = task.await.unwrap() {
            committed += 1;
        }
    }
    assert_eq!(committed, 1);
    assert_eq!(rows(&location).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_by_another_engine_is_followed() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let mut table = open(&location).await;
    let first = of(&[(1, "a", Op::Create, 1, 0, 0), (2, "b", Op::Create, 2, 0, 1), (3, "c", Op::Create, 3, 0, 2)]);
    copy(&mut table, &first, &ranges(&[(0, 0, 3)])).await.unwrap();
    let second = of(&[(1, "a2", Op::Update, 4, 0, 3), (2, "", Op::Delete, 5, 0, 4), (4, "d", Op::Create, 6, 0, 5)]);
    copy(&mut table, &second, &ranges(&[(0, 3, 6)])).await.unwrap();
    super::model::delta(&location).await.restore().with_version_to_restore(1).await.unwrap();
    assert_eq!(rows(&location).await, map(&[(1, "a"), (2, "b"), (3, "c")]));
    // the positions stay: what was restored is as it was, until its next change
    let third = of(&[(1, "a3", Op::Update, 7, 0, 6), (2, "old", Op::Update, 4, 1, 0)]);
    copy(&mut table, &third, &ranges(&[(0, 6, 7), (1, 0, 1)])).await.unwrap();
    assert_eq!(rows(&location).await, map(&[(1, "a3"), (2, "b"), (3, "c")]));
    let mut table = open(&location).await;
    assert_eq!(table.positions().get(partition(0)), Some(7));
    copy(&mut table, &of(&[(2, "b2", Op::Update, 9, 0, 7)]), &ranges(&[(0, 7, 8)])).await.unwrap();
    assert_eq!(rows(&location).await, map(&[(1, "a3"), (2, "b2"), (3, "c")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_keeps_what_a_retained_version_reads() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    // vectors in files, so that they can be lost
    let settings = Settings { inline_vector_bytes: 0, ..super::model::settings() };
    let week = Settings { vacuum_retention: Settings::default().vacuum_retention, ..settings.clone() };
    let mut table = KeyedTable::open_or_create(location.clone(), spec(), week).await.unwrap();
    for round in 0..6i64 {
        let rows: Vec<Row> =
            (0..10).map(|id| (id, "v", Op::Update, (round * 10 + id + 1) as u128, 0, round * 10 + id)).collect();
        let from = round * 10;
        copy(&mut table, &of(&rows[..if round == 5 { 5 } else { 10 }]), &ranges(&[(0, from, from + 10)]))
            .await
            .unwrap();
    }
    let done = table.maintain().await.unwrap();
    assert_eq!(done, Vacuumed::default());
    for version in 1..=table.version() {
        let mut old = deltalake::DeltaTable::new(location.log_store().unwrap());
        old.load_version(version).await.unwrap();
        let context = datafusion::prelude::SessionContext::new();
        old.update_datafusion_session(&context.state()).unwrap();
        context.register_table("t", old.table_provider().await.unwrap()).unwrap();
        let count = context.sql("SELECT id FROM t").await.unwrap().count().await.unwrap();
        assert_eq!(count, 10, "version {version}");
    }
    let mut table = KeyedTable::open_or_create(location.clone(), spec(), settings.clone()).await.unwrap();
    // another generation that grows in the same folder names none of these files, and deletes none
    let rebuild = super::Rebuild::begin(&location, &settings).await.unwrap().unwrap();
    let next = TableSpec { generation: rebuild.generation(), ..spec() };
    let mut grown = KeyedTable::open_or_create(rebuild.staging().clone(), next, settings).await.unwrap();
    copy(&mut grown, &of(&[(1, "v", Op::Update, 1, 0, 0)]), &ranges(&[(0, 0, 1)])).await.unwrap();
    assert_eq!(grown.vacuum().await.unwrap(), Vacuumed::default());
    assert_eq!(rows(&location).await.len(), 10);
    let done = table.vacuum().await.unwrap();
    assert!(done.files > 0, "{done:?}");
    assert_eq!(table.vacuum().await.unwrap(), Vacuumed::default());
    assert_eq!(rows(&location).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_wear_longer_while_a_table_catches_up() {
    let (_dir, root) = lake();
    let mut table = open(&root.table("silver/orders").unwrap()).await;
    let mut offset = 0;
    // rows of the first file that are hidden by then, and whether the file is due: steady, catching up
    for (ids, steady, catching_up) in [(0..20, false, false), (0..10, true, false), (10..16, true, true)] {
        let rows: Vec<Row> = ids
            .map(|id| {
                offset += 1;
                (id, "v", Op::Update, offset as u128, 0, offset - 1)
            })
            .collect();
        let from = offset - rows.len() as i64;
        copy(&mut table, &of(&rows), &ranges(&[(0, from, offset)])).await.unwrap();
        assert_eq!(table.plan_compaction(Pace::Steady).is_some(), steady, "at {offset}");
        assert_eq!(table.plan_compaction(Pace::CatchingUp).is_some(), catching_up, "at {offset}");
    }
}
