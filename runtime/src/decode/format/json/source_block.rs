//! What a record says of where it comes from: Debezium's `source` block, or the fields of it that stand in a flattened
//! row.
//!
//! Receives the tokens of the members. Promises the table and the position in the binlog, or what is missing.

use super::cursor::{Token, ValueKind};
use super::layout::Layout;
use super::number::int64;

/// What `source.snapshot` says of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Snapshot {
    /// a streamed change
    No,
    /// a row of a snapshot
    Read,
    /// the last row of the table's snapshot
    Last,
    /// a row read beside the stream
    Incremental,
}

/// Where a record comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceBlock {
    pub(crate) database: Option<Token>,
    pub(crate) table: Option<Token>,
    /// the binlog file
    pub(crate) file: Token,
    pub(crate) pos: u64,
    pub(crate) row: u64,
    /// the database server; 0 where unknown
    pub(crate) server: u64,
    /// the source's time; 0 where unknown
    pub(crate) ts_ms: i64,
    pub(crate) snapshot: Snapshot,
}

const NO_POSITION: &str = "the record has no binlog position (`source.file`, `source.pos`, `source.row`)";
const NO_FLAT_POSITION: &str = "the record has no binlog position; set `add.fields` of ExtractNewRecordState to \
     `op,table,source.ts_ms,source.file,source.pos,source.row`";

/// Which members of an object tell where its record comes from.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct SourceFields {
    pub(crate) layout: Option<u32>,
    ts_ms: Option<usize>,
    snapshot: Option<usize>,
    database: Option<usize>,
    table: Option<usize>,
    server: Option<usize>,
    pub(crate) file: Option<usize>,
    pos: Option<usize>,
    row: Option<usize>,
    pub(crate) op: Option<usize>,
    pub(crate) deleted: Option<usize>,
    /// they stand among the row's own fields
    flattened: bool,
}

impl SourceFields {
    /// Those of the envelope's `source`.
    pub(crate) fn of_source(layout: &Layout) -> SourceFields {
        SourceFields {
            layout: Some(layout.id),
            ts_ms: layout.find("ts_ms"),
            snapshot: layout.find("snapshot"),
            database: layout.find("db"),
            table: layout.find("table"),
            server: layout.find("server_id"),
            file: layout.find("file"),
            pos: layout.find("pos"),
            row: layout.find("row"),
            op: None,
            deleted: None,
            flattened: false,
        }
    }

    /// Those that ExtractNewRecordState adds to a row.
    pub(crate) fn of_flattened(layout: &Layout) -> SourceFields {
        let either =
            |name: &str| layout.find(&format!("__source_{name}")).or_else(|| layout.find(&format!("__{name}")));
        SourceFields {
            layout: Some(layout.id),
            ts_ms: either("ts_ms"),
            snapshot: either("snapshot"),
            database: either("db"),
            table: either("table"),
            server: either("server_id"),
            file: either("file"),
            pos: either("pos"),
            row: either("row"),
            op: layout.find("__op"),
            deleted: layout.find("__deleted"),
            flattened: true,
        }
    }

    /// Reads them from the members `tokens`; `read`: the record's operation is a snapshot's.
    #[inline]
    pub(crate) fn source(&self, bytes: &[u8], tokens: &[Token], read: bool) -> Result<SourceBlock, &'static str> {
        let member =
            |at: Option<usize>| at.and_then(|at| tokens.get(at)).copied().filter(|t| t.kind != ValueKind::Null);
        let number =
            |at: Option<usize>| member(at).filter(|t| t.kind == ValueKind::Number).and_then(|t| int64(t.of(bytes)));
        let unsigned = |at: Option<usize>| number(at).and_then(|n| u64::try_from(n).ok());
        let text = |at: Option<usize>| member(at).filter(|t| t.kind == ValueKind::Text);
        let snapshot = match member(self.snapshot) {
            Some(token) if token.is_text() => match token.of(bytes) {
                b"false" => Snapshot::No,
                b"incremental" => Snapshot::Incremental,
                b"last" | b"last_in_data_collection" => Snapshot::Last,
                _ => Snapshot::Read,
            },
            Some(token) if token.kind == ValueKind::True => Snapshot::Read,
            Some(_) => Snapshot::No,
            None if read => Snapshot::Read,
            None => Snapshot::No,
        };
        let missing = if self.flattened { NO_FLAT_POSITION } else { NO_POSITION };
        Ok(SourceBlock {
            database: text(self.database),
            table: text(self.table),
            file: text(self.file).ok_or(missing)?,
            pos: unsigned(self.pos).ok_or(missing)?,
            row: unsigned(self.row).ok_or(missing)?,
            server: unsigned(self.server).unwrap_or(0),
            ts_ms: number(self.ts_ms).unwrap_or(0),
            snapshot,
        })
    }
}
