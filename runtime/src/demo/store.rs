//! What the online store does: a state of fifteen tables, and the transactions that move it.
//!
//! Receives a seed and the time. Promises that the same seed moves the same way, that no row names another that is not
//! there, and that its state is the truth: what the database would hold. Never looks at what becomes of its changes.
//!
//! A review's rating may be none when it is written; an update only ever makes it a good one.

mod transactions;

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::names;
use super::schema::Table;

const SELLERS: i64 = 40;
const CUSTOMERS: i64 = 200;
const PRODUCTS: i64 = 120;
const ORDERS: i64 = 400;
/// How far back the store's first rows reach, in seconds.
const PAST: i64 = 90 * 86_400;

/// A value as the database holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Int(i64),
    /// hundredths
    Money(i64),
    Text(String),
    /// seconds since 1970, UTC
    Time(i64),
    Flag(bool),
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) table: Table,
    /// in the order of the table's columns
    pub(super) values: Vec<Value>,
}

impl Row {
    /// The value of a column; null where there is none of that name.
    pub(super) fn get(&self, column: &str) -> &Value {
        self.table.place(column).and_then(|place| self.values.get(place)).unwrap_or(&Value::Null)
    }

    /// The number in a column; 0 where there is none.
    pub(super) fn number(&self, column: &str) -> i64 {
        match self.get(column) {
            Value::Int(n) | Value::Money(n) | Value::Time(n) => *n,
            _ => 0,
        }
    }

    pub(super) fn key(&self) -> i64 {
        self.number(self.table.key())
    }

    fn put(&mut self, column: &str, value: Value) {
        if let Some(place) = self.table.place(column)
            && let Some(cell) = self.values.get_mut(place)
        {
            *cell = value;
        }
    }
}

/// One row changed: made (no `before`), changed, or taken away (no `after`). Where the keys of the two differ, the row
/// got another key.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) table: Table,
    pub(super) before: Option<Row>,
    pub(super) after: Option<Row>,
}

/// The store.
#[derive(Debug, Clone)]
pub(super) struct Store {
    rng: StdRng,
    /// seconds since 1970
    now: i64,
    tables: BTreeMap<Table, BTreeMap<i64, Row>>,
    last_key: BTreeMap<Table, i64>,
    misrated: BTreeSet<i64>,
    /// what the transaction under way has done
    changes: Vec<Change>,
}

impl Store {
    /// A store with some months behind it.
    pub(super) fn new(seed: u64, now: i64) -> Store {
        let mut store = Store {
            rng: StdRng::seed_from_u64(seed),
            now: now - PAST,
            tables: Table::ALL.iter().map(|table| (*table, BTreeMap::new())).collect(),
            last_key: BTreeMap::new(),
            misrated: BTreeSet::new(),
            changes: Vec::new(),
        };
        store.open(now);
        store.changes.clear();
        store
    }

    /// The rows of a table by key.
    pub(super) fn rows(&self, table: Table) -> &BTreeMap<i64, Row> {
        static NONE: BTreeMap<i64, Row> = BTreeMap::new();
        self.tables.get(&table).unwrap_or(&NONE)
    }

    /// Keys of the reviews that ever had a rating that is none.
    pub(super) fn misrated(&self) -> &BTreeSet<i64> {
        &self.misrated
    }

    /// The next transaction: what it changed, in order. `now` in seconds since 1970.
    pub(super) fn transact(&mut self, now: i64) -> Vec<Change> {
        self.now = now;
        // Some find nothing to do: an empty cart, an order that is where it ends.
        while self.changes.is_empty() {
            self.act();
        }
        std::mem::take(&mut self.changes)
    }

    /// A transaction that gives one customer another e-mail address and telephone number.
    pub(super) fn change_contact_of_customer(&mut self, now: i64) -> Vec<Change> {
        self.now = now;
        self.change_contact(Table::Customers);
        std::mem::take(&mut self.changes)
    }

    fn open(&mut self, now: i64) {
        for (name, description) in names::STATUSES {
            self.insert(Table::OrderStatus, vec![text(name), text(description)]);
        }
        for (name, description) in names::METHODS {
            self.insert(Table::PaymentMethods, vec![text(name), text(description)]);
        }
        for (name, description) in names::CATEGORIES {
            self.insert(Table::ProductCategories, vec![text(name), text(description)]);
        }
        for _ in 0..SELLERS {
            self.add_seller();
        }
        for _ in 0..PRODUCTS {
            self.add_product();
        }
        for _ in 0..CUSTOMERS {
            self.add_customer();
        }
        for order in 1..=ORDERS {
            self.now = now - PAST + PAST * order / (ORDERS + 1);
            self.place_order();
            self.pay();
            self.advance_order();
            self.review();
            self.fill_cart();
        }
    }

    /// A key of the table's rows, any of them; `None` where it has none.
    fn any(&mut self, table: Table) -> Option<i64> {
        let rows = self.tables.get(&table)?;
        let (first, last) = (*rows.first_key_value()?.0, *rows.last_key_value()?.0);
        let start = self.rng.random_range(first..=last);
        rows.range(start..).next().map(|(key, _)| *key)
    }

    fn row(&self, table: Table, key: i64) -> Option<&Row> {
        self.rows(table).get(&key)
    }

    /// Keys of the rows whose `column` is `value`.
    fn keys_where(&self, table: Table, column: &str, value: i64) -> Vec<i64> {
        self.rows(table).values().filter(|row| row.number(column) == value).map(Row::key).collect()
    }

    /// A key that no row of the table ever had.
    fn next_key(&mut self, table: Table) -> i64 {
        let last = self.last_key.entry(table).or_insert(0);
        *last += 1;
        *last
    }

    /// `values`: those between the key and `CreatedAt`.
    fn insert(&mut self, table: Table, values: Vec<Value>) -> i64 {
        let key = self.next_key(table);
        let times = [Value::Time(self.now), Value::Time(self.now)];
        let values: Vec<Value> = std::iter::once(Value::Int(key)).chain(values).chain(times).collect();
        self.put(Row { table, values });
        key
    }

    fn put(&mut self, row: Row) {
        if row.table == Table::Reviews && !(1..=5).contains(&row.number("Rating")) {
            self.misrated.insert(row.key());
        }
        self.changes.push(Change { table: row.table, before: None, after: Some(row.clone()) });
        self.tables.entry(row.table).or_default().insert(row.key(), row);
    }

    /// `change` may give the row another key.
    fn update(&mut self, table: Table, key: i64, change: impl FnOnce(&mut Row)) {
        let Some(rows) = self.tables.get_mut(&table) else { return };
        let Some(before) = rows.remove(&key) else { return };
        let mut after = before.clone();
        change(&mut after);
        after.put("UpdatedAt", Value::Time(self.now));
        rows.insert(after.key(), after.clone());
        self.changes.push(Change { table, before: Some(before), after: Some(after) });
    }

    fn delete(&mut self, table: Table, key: i64) -> Option<Row> {
        let before = self.tables.get_mut(&table)?.remove(&key)?;
        self.changes.push(Change { table, before: Some(before.clone()), after: None });
        Some(before)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.choose(&mut self.rng).copied()
    }

    fn pick_text(&mut self, from: &[&str]) -> String {
        self.pick(from).unwrap_or_default().to_owned()
    }

    fn below(&mut self, bound: i64) -> i64 {
        self.rng.random_range(0..bound)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_000_000;

    fn after(seed: u64, transactions: i64) -> (Store, Vec<Change>) {
        let mut store = Store::new(seed, NOW);
        let changes = (0..transactions).flat_map(|n| store.transact(NOW + n)).collect();
        (store, changes)
    }

    #[test]
    fn the_same_seed_moves_the_same_way() {
        let (one, other) = (after(7, 300).0, after(7, 300).0);
        assert_eq!(one.tables, other.tables);
        assert_ne!(one.tables, after(8, 300).0.tables);
    }

    #[test]
    fn every_kind_of_change_comes_to_be_and_every_table_moves() {
        let (_, changes) = after(1, 3_000);
        for table in Table::ALL {
            assert!(changes.iter().any(|change| change.table == table), "{table:?} stands still");
        }
        let rekeyed = |change: &&Change| match (&change.before, &change.after) {
            (Some(before), Some(after)) => before.key() != after.key(),
            _ => false,
        };
        assert!(changes.iter().any(|change| change.after.is_none()));
        assert!(changes.iter().filter(rekeyed).count() > 10);
        let kept_key = changes.windows(2).any(|pair| match (&pair[0].before, &pair[0].after, &pair[1].after) {
            (Some(gone), None, Some(again)) => pair[0].table == pair[1].table && gone.key() == again.key(),
            _ => false,
        });
        assert!(kept_key, "no row was taken away and made again in one transaction");
    }

    #[test]
    fn folding_the_changes_gives_the_state() {
        let mut folded = Store::new(3, NOW).tables;
        let (store, changes) = after(3, 2_000);
        for change in changes {
            let rows = folded.entry(change.table).or_default();
            if let Some(before) = change.before {
                assert_eq!(rows.remove(&before.key()), Some(before));
            }
            if let Some(after) = change.after {
                assert_eq!(rows.insert(after.key(), after), None);
            }
        }
        assert_eq!(folded, store.tables);
    }

    #[test]
    fn no_row_names_another_that_is_not_there() {
        let (store, _) = after(5, 3_000);
        for (table, column, of) in [
            (Table::Products, "CategoryID", Table::ProductCategories),
            (Table::Products, "SellerID", Table::Sellers),
            (Table::Orders, "StatusID", Table::OrderStatus),
            (Table::Orders, "CustomerID", Table::Customers),
            (Table::Reasons, "OrderID", Table::Orders),
            (Table::OrderItems, "OrderID", Table::Orders),
            (Table::OrderItems, "ProductID", Table::Products),
            (Table::ShoppingCarts, "CustomerID", Table::Customers),
            (Table::CartItems, "CartID", Table::ShoppingCarts),
            (Table::CartItems, "ProductID", Table::Products),
            (Table::Payments, "OrderID", Table::Orders),
            (Table::Payments, "PaymentMethodID", Table::PaymentMethods),
            (Table::Reviews, "ProductID", Table::Products),
            (Table::Reviews, "CustomerID", Table::Customers),
            (Table::Addresses, "CustomerID", Table::Customers),
            (Table::Inventory, "ProductID", Table::Products),
        ] {
            assert!(!store.rows(table).is_empty());
            for row in store.rows(table).values() {
                assert!(store.row(of, row.number(column)).is_some(), "{table:?} {} names no row of {of:?}", row.key());
                assert_eq!(row.values.len(), table.columns().len());
            }
        }
    }

    #[test]
    fn a_good_rating_stays_one() {
        let (store, changes) = after(9, 3_000);
        let good = |row: &Row| (1..=5).contains(&row.number("Rating"));
        for change in changes.iter().filter(|change| change.table == Table::Reviews) {
            if let (Some(before), Some(after)) = (&change.before, &change.after) {
                assert!(!good(before) || good(after), "{change:?}");
            }
        }
        assert!(store.rows(Table::Reviews).values().any(|row| !good(row)));
    }
}
