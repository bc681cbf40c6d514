//! One value: from the bytes of a record to an Arrow array, exactly or not at all.

pub(crate) mod scalar;
pub(crate) mod time_text;

pub(crate) mod column_type;
pub(crate) mod modes;

pub(crate) mod codec;
pub(crate) mod column;
