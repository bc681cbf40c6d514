//! Gives every column back through Rust values, so that each type crosses in both directions.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct In<'a> {
    b: Option<bool>,
    i8: Option<i8>,
    i16: Option<i16>,
    i32: Option<i32>,
    i64: Option<i64>,
    f32: Option<f32>,
    f64: Option<f64>,
    u: Option<&'a str>,
    z: Option<&'a [u8]>,
    d: Option<Decimal<38, 9>>,
    day: Option<Date>,
    at: Option<Timestamp>,
    local: Option<DateTime>,
    #[lode(name = "found.u")]
    looked_up: Option<&'a str>,
    _op: &'a str,
}

#[derive(Output)]
struct Out<'a> {
    b: Option<bool>,
    i8: Option<i8>,
    i16: Option<i16>,
    i32: Option<i32>,
    i64: Option<i64>,
    f32: Option<f32>,
    f64: Option<f64>,
    u: Option<&'a str>,
    z: Option<&'a [u8]>,
    d: Option<Decimal<38, 9>>,
    day: Option<Date>,
    at: Option<Timestamp>,
    local: Option<DateTime>,
    looked_up: Option<&'a str>,
    op: &'a str,
}

#[transform(pass("other", "found.v"))]
fn probe<'a>(row: In<'a>, params: &Params) -> Out<'a> {
    let In { b, i8, i16, i32, i64, f32, f64, u, z, d, day, at, local, looked_up, _op: op } = row;
    if i64.is_some() && i64 == params.integer("panic_on") {
        log(Level::Info, "about to panic");
        panic!("the value {i64:?} is bad");
    }
    Out { b, i8, i16, i32, i64, f32, f64, u, z, d, day, at, local, looked_up, op }
}
