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
    assert_eq!(outcome, Outcome::Committed { version: 1 });
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
    assert_eq!(table.positions().get(&partition(0)), Some(&7));
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
