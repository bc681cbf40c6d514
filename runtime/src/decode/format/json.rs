//! Records as the JSON converter writes them, from bytes to the parts of a change.

pub(crate) mod cursor;
pub(crate) mod escape;
pub(crate) mod literal;
pub(crate) mod number;

pub(crate) mod layout;
pub(crate) mod source_block;
pub(crate) mod wrapper;

pub(crate) mod envelope;
pub(crate) mod op_and_time;
