//! What authors write: every kind of row function and of field, run natively.

use lodestream_sdk::testing::Table;

mod fan_out {
    use lodestream_sdk::prelude::*;

    #[derive(Input)]
    struct Order<'a> {
        #[lode(name = "order type")]
        kind: Option<&'a str>,
        r#match: i64,
        #[lode(name = "buyer.email")]
        email: Option<&'a str>,
    }

    #[derive(Output)]
    struct Line<'a> {
        kind: &'a str,
        number: i64,
        email: Option<String>,
        currency: String,
    }

    #[transform(pass("id"), key("id", "number"))]
    fn lines<'a>(order: Order<'a>, params: &Params) -> Result<impl Iterator<Item = Line<'a>>, String> {
        let kind = order.kind.ok_or_else(|| format!("order without a type, match {}", order.r#match))?;
        let currency = params.text("currency").unwrap_or("EUR").to_owned();
        let email = order.email.map(str::to_owned);
        Ok((0..order.r#match).map(move |number| Line {
            kind,
            number,
            email: email.clone(),
            currency: currency.clone(),
        }))
    }
}

fn orders() -> Table {
    Table::new("orders", &["id"])
        .column("id", [10_i32, 11, 12, 13])
        .column("order type", [Some("web"), None, Some("shop"), Some("web")])
        .column("match", [Some(2_i16), Some(9), None, Some(0)])
        .lookup(Table::new("buyer", &["buyer_id"]).column("email", [Some("a@b"), None, None, None]))
}

#[test]
fn an_iterator_gives_several_rows_an_error_and_a_null_reject_one() {
    let given = orders().run::<fan_out::Module>(r#"{"currency":"CHF"}"#).unwrap();
    assert_eq!(given.columns(), ["id", "kind", "number", "email", "currency"]);
    assert_eq!(given.source_rows, [0, 0]);
    assert_eq!(given.column::<i32>("id").unwrap(), [Some(10), Some(10)]);
    assert_eq!(given.column::<i64>("number").unwrap(), [Some(0), Some(1)]);
    assert_eq!(given.column::<&str>("email").unwrap(), [Some("a@b"), Some("a@b")]);
    assert_eq!(given.column::<&str>("currency").unwrap(), [Some("CHF"), Some("CHF")]);
    assert_eq!(given.key, ["id", "number"]);
    let rejected = [(1, "order without a type, match 9".to_owned()), (2, "`match` is null".to_owned())];
    assert_eq!(given.rejected, rejected);
}

#[test]
fn a_missing_lookup_is_named() {
    let orders = Table::new("orders", &[]).column("id", [1_i32]).column("order type", ["x"]).column("match", [1_i64]);
    let error = orders.run::<fan_out::Module>("{}").unwrap_err();
    assert!(error.starts_with("table `orders` has no column `buyer.email`"), "{error}");
    assert!(orders.run::<fan_out::Module>("[").is_err());
}

mod every_type {
    use lodestream_sdk::prelude::*;
    use lodestream_sdk::{Input, Output};

    #[derive(Input)]
    struct In<'a> {
        b: Option<bool>,
        i: Option<i64>,
        f: Option<f64>,
        u: Option<String>,
        z: Option<&'a [u8]>,
        d: Option<Decimal<14, 4>>,
        a: Option<AnyDecimal>,
        day: Option<Date>,
        at: Option<Timestamp>,
        local: Option<DateTime>,
    }

    #[derive(Output)]
    struct Out<'a> {
        b: Option<bool>,
        i: Option<i64>,
        f: Option<f64>,
        u: Option<String>,
        z: Option<&'a [u8]>,
        d: Option<Decimal<14, 4>>,
        a: Option<String>,
        day: Option<Date>,
        at: Option<Timestamp>,
        local: Option<DateTime>,
    }

    #[transform()]
    fn same(row: In<'_>) -> Vec<Out<'_>> {
        let In { b, i, f, u, z, d, a, day, at, local } = row;
        vec![Out { b, i, f, u, z, d, a: a.map(|a| a.to_string()), day, at, local }]
    }
}

#[test]
fn every_type_goes_in_and_out() {
    use lodestream_sdk::{Date, DateTime, Decimal, Timestamp};
    let given = Table::new("t", &[])
        .column("b", [Some(true), None])
        .column("i", [Some(-5_i8), None])
        .column("f", [Some(1.5), None])
        .column("u", [Some("ü"), None])
        .column("z", [Some(&[0_u8, 255][..]), None])
        .column("d", [Some(Decimal::<12, 2>(-150)), None])
        .column("a", [Some(Decimal::<7, 3>(-1_500)), None])
        .column("day", [Some(Date(3)), None])
        .column("at", [Some(Timestamp(4)), None])
        .column("local", [Some(DateTime(-5)), None])
        .run::<every_type::Module>("{}")
        .unwrap();
    assert_eq!(given.column::<bool>("b").unwrap(), [Some(true), None]);
    assert_eq!(given.column::<i64>("i").unwrap(), [Some(-5), None]);
    assert_eq!(given.column::<f64>("f").unwrap(), [Some(1.5), None]);
    assert_eq!(given.column::<&str>("u").unwrap(), [Some("ü"), None]);
    assert_eq!(given.column::<&[u8]>("z").unwrap(), [Some(&[0_u8, 255][..]), None]);
    assert_eq!(given.column::<Decimal<14, 4>>("d").unwrap(), [Some(Decimal(-15_000)), None]);
    assert_eq!(given.column::<&str>("a").unwrap(), [Some("-1.500"), None]);
    assert_eq!(given.column::<Date>("day").unwrap(), [Some(Date(3)), None]);
    assert_eq!(given.column::<Timestamp>("at").unwrap(), [Some(Timestamp(4)), None]);
    assert_eq!(given.column::<DateTime>("local").unwrap(), [Some(DateTime(-5)), None]);
}
