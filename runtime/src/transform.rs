//! Transforms: a guest module's function over a batch of rows, in a sandbox.
//!
//! Receives module bytes, the relations a table offers, and batches; promises that whatever a module does, its host
//! goes on, that nothing from a guest reaches Arrow unchecked, and that the same rows give the same rows (a fresh
//! instance for every call, no clock, no randomness). Never touches a lake, a topic or a file, and never decides
//! what becomes of a rejected row.
//!
//! ```text
//! Engine::load(bytes) ─► Module::describe(params, relations) ─► Prepared::apply(batch) ─► Applied
//! ```
//!
//! All calls are synchronous and use up to [`Limits::call_time`]: run them on a blocking thread, with at least 2 MiB
//! of stack. Compiled code is read from this user's own cache alone.

mod apply;
mod cache;
mod columns;
mod contract;
mod describe;
mod engine;
mod format;
mod gate;
mod inspect;
mod instance;
mod limits;
mod piece;
mod slots;

#[cfg(test)]
pub(crate) mod tests;

pub use apply::{Applied, LogLevel, LogLine};
pub use describe::{ColumnRef, Prepared, Relation};
pub use engine::{Engine, Module};
pub use limits::Limits;
