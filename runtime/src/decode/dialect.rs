//! What only one kind of database says. Another database is a folder beside `mysql`.

pub(crate) mod mysql;
