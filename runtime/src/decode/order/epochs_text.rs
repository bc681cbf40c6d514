//! The epochs of a table as a short text.
//!
//! Receives what a commit kept in the table's configuration. Promises that what was written is read back the same, and an
//! error for anything else. The text is JSON with a version, so that later forms can be told apart.

use serde_json::{Value, json};

use super::epochs::{Epochs, Reach, Run};
use crate::decode::dialect::mysql::binlog::Binlog;
use crate::error::{Error, ErrorKind, Result};
use crate::model::sequence::Sequence;

impl std::fmt::Display for Epochs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let binlogs: Vec<Value> = self.binlogs.iter().map(|i| json!([i.base, i.server])).collect();
        let partitions: Vec<Value> = self
            .partitions
            .iter()
            .map(|r| json!([r.partition, r.newest.0.to_string(), r.ts_ms, r.last.base, r.last.server]))
            .collect();
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|r| json!([r.base, r.file, r.pos, r.sequence.0.to_string(), r.behind, r.floor_due]))
            .collect();
        write!(f, "{}", json!({"v": 1, "epochs": binlogs, "partitions": partitions, "runs": runs}))
    }
}

impl std::str::FromStr for Epochs {
    type Err = Error;

    /// From what [`ToString`] gave. An empty text is a table that nothing was read into.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Epochs::new());
        }
        read(text).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "the epochs kept in the table cannot be read")
                .hint("they are `lode.epochs` in the table's configuration; `lode rebuild` makes them anew")
        })
    }
}

fn read(text: &str) -> Option<Epochs> {
    let value: Value = serde_json::from_str(text).ok()?;
    if value.get("v")?.as_u64()? != 1 {
        return None;
    }
    let word = |v: &Value, at: usize| Some(v.get(at)?.as_str()?.to_owned());
    let number = |v: &Value, at: usize| v.get(at)?.as_u64();
    let sequence = |v: &Value, at: usize| Some(Sequence(v.get(at)?.as_str()?.parse().ok()?));
    let flag = |v: &Value, at: usize| v.get(at)?.as_bool();
    let binlogs = value.get("epochs")?.as_array()?.iter();
    let partitions = value.get("partitions")?.as_array()?.iter();
    let run = |v: &Value| {
        Some(Run {
            base: word(v, 0)?,
            file: number(v, 1)?,
            pos: number(v, 2)?,
            sequence: sequence(v, 3)?,
            behind: flag(v, 4)?,
            floor_due: flag(v, 5)?,
        })
    };
    Some(Epochs {
        binlogs: binlogs.map(|v| Some(Binlog { base: word(v, 0)?, server: number(v, 1)? })).collect::<Option<_>>()?,
        partitions: partitions
            .map(|v| {
                Some(Reach {
                    partition: i32::try_from(v.get(0)?.as_i64()?).ok()?,
                    newest: sequence(v, 1)?,
                    ts_ms: v.get(2)?.as_i64()?,
                    last: Binlog { base: word(v, 3)?, server: number(v, 4)? },
                })
            })
            .collect::<Option<_>>()?,
        runs: value.get("runs")?.as_array()?.iter().map(run).collect::<Option<_>>()?,
    })
}
