//! Write a Lodestream transform in Rust: a struct in, a struct out, and a function of a row.
//!
//! ```
//! use lodestream_sdk::prelude::*;
//!
//! #[derive(Input)]
//! struct Customer<'a> {
//!     email: &'a str,
//! }
//!
//! #[derive(Output)]
//! struct Clean {
//!     email: String,
//! }
//!
//! #[transform(pass_rest)]
//! fn clean(customer: Customer) -> Clean {
//!     Clean { email: customer.email.to_lowercase() }
//! }
//! # fn main() {}
//! ```
//!
//! Build it as a `cdylib` for `wasm32-unknown-unknown`. The function stays an ordinary one, for ordinary tests.
//!
//! - Columns are found by name when the module loads; a wrong name or type is an error that says what there is. Another
//!   name than the field's: `#[lode(name = "order type")]`; a column of a lookup: `#[lode(name = "buyer.email")]`.
//! - `Option` of a type takes nulls; without it a row with a null there is rejected.
//! - Return the row, `Option` of it to leave rows out, `Vec` or an iterator of it to give several, `Result` to reject.
//! - `pass_rest` lets every column that is not written go through untouched, `drop("a")` all but some; `pass("a", "b")`
//!   names them; `key("a", "b")` says what identifies an output row. A second parameter `&Params` gets the params.
//! - Types: `bool`, `i8` to `i64`, `f32`, `f64`, `&str`, `String`, `&[u8]`, `Vec<u8>`, [`Decimal`], [`AnyDecimal`],
//!   [`Date`], [`Timestamp`], [`DateTime`].
//! - [`testing`] runs the whole module in native tests.
//! - Modules that work on whole columns implement [`Transform`] and name themselves in [`export!`].
//!
//! A module has no clock, randomness, files or network, and every batch gets a fresh instance of it: it is a function.

mod contract;
mod describe;
mod input;
mod log;
mod output;
mod params;
mod row;
mod text;
mod types;

#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod glue;
#[cfg(any(target_arch = "wasm32", test))]
mod heap;

pub use contract::{Batch, Column, ColumnRef, Columns, Description, Field, OutputField, Relation};
pub use describe::Describe;
pub use input::{Cell, Input, Values, Wanted};
pub use lodestream_sdk_macros::{Input, Output, transform};
pub use log::{Level, log};
pub use output::{Build, Output, Value, column_of};
pub use params::{Json, Params};
pub use row::{Each, Rows, Sink, Transform};
pub use types::{AnyDecimal, Date, DateTime, Decimal, Timestamp};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// What derived code calls.
#[doc(hidden)]
pub mod private {
    pub use crate::input::open_at;
    pub use crate::row::{Pass, describe};
}

/// What a module of a row function needs.
pub mod prelude {
    pub use crate::{AnyDecimal, Date, DateTime, Decimal, Input, Level, Output, Params, Timestamp, log, transform};
}

/// Makes a type that is a [`Transform`] the module's own. Once a module; `#[transform]` does it itself.
#[macro_export]
macro_rules! export {
    ($transform:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            #[unsafe(export_name = "cabi_realloc")]
            unsafe extern "C" fn realloc(old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
                unsafe { $crate::glue::realloc(old, old_size, align, size) }
            }
            #[unsafe(export_name = "lodestream:transform/guest@0.1.0#describe")]
            unsafe extern "C" fn describe(p: *mut u8, n: usize, r: *mut u32, m: usize) -> *const u32 {
                unsafe { $crate::glue::describe::<$transform>(p, n, r, m) }
            }
            #[unsafe(export_name = "lodestream:transform/guest@0.1.0#transform")]
            unsafe extern "C" fn transform(
                p: *mut u8,
                n: usize,
                f: *mut u32,
                k: usize,
                rows: u32,
                c: *mut u32,
                m: usize,
            ) -> *const u32 {
                unsafe { $crate::glue::transform::<$transform>(p, n, f, k, rows, c, m) }
            }
        };
    };
}
