//! What Gold tables are derived with: the rows of Silver tables as they are now, and who leads to whom.
//!
//! Receives rows that came and went in Silver tables. Promises to name the driving rows whose output may be another by
//! that, and to give for each the rows that it leads to. A cache of Silver: everything here can be made again from it.
//! Never reads or writes the lake.

pub mod calendar;
mod edges;
mod rows;
mod groups;
mod versions;
mod lookup;
mod join;

pub use edges::{Edges, Slot};
pub use groups::Groups;
pub use join::Join;
pub use lookup::{Finding, Looked, Side};
pub use rows::{Rows, Taken, named};
pub use versions::{FeedColumns, Versions};
