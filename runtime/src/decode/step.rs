//! How far decoding came, and what stopped it.

/// What to do with a record that no known structure explains.
///
/// Whoever decodes a block says `LastChance` once it has read the schema-change topic to where it ended after the block
/// was fetched, and has applied all of it; without such a topic, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// stop before it: more of the schema-change topic may come
    Hold,
    /// the schema-change topic is read to its end: type it from its own schema where it has one, else it is a bad record
    LastChance,
}

/// How far [`Decoder::decode`](super::Decoder::decode) came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// every record of the block is decoded
    Done,
    /// records before `row` are decoded; `row` needs a structure, or evidence of a mode, that is not known yet. Worth
    /// another try when [`SchemaHistory::revision`](super::SchemaHistory::revision) or the
    /// [`Evidence`](super::Evidence) has changed
    Held {
        /// index in the block of the first record that is not decoded
        row: usize,
        /// what is missing
        reason: String,
    },
    /// records before `row` are decoded; at `row` the source's order jumps back and nothing explains it: stop the table
    Jump {
        /// index in the block of the first record that is not decoded
        row: usize,
        /// what was seen, and the next step
        reason: String,
    },
}

/// Why one record was not decoded.
pub(crate) enum Stop {
    /// nothing will explain it
    Bad(String),
    /// something that is not known yet may explain it
    Held(String),
    /// the table cannot go on
    Jump(String),
}
