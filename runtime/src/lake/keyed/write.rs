//! The rows that owners are to have, as data files.
//!
//! Receives a transform's answer to a selection. Promises files with the table's own columns filled in, and for each row
//! whose it is and where it lies; where rows are replaced when they differ, nothing is written of owners whose rows are the
//! same. Writes files and nothing else: without a commit that names them they are no part of the table.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanArray, Decimal128Builder, RecordBatch, TimestampMicrosecondBuilder, UInt32Array,
};
use arrow::compute::filter_record_batch;
use deltalake::kernel::Add;
use roaring::RoaringBitmap;

use super::replace::OwnerRows;
use super::{KeyedTable, Owners};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::file::{Codec, DataFile, pick, split};
use crate::lake::freshness::{Freshness, fingerprints};
use crate::lake::log::schema::{SEQ_TYPE, batch_of, utc};
use crate::model::schema::widen::align;
use crate::model::sequence::Sequence;

/// Where the output rows went.
pub(in crate::lake) struct WrittenRows {
    /// the new files, with their numbers of rows
    pub(in crate::lake) adds: Vec<(Add, u32)>,
    /// (source row, new file, row in it), sorted
    pub(in crate::lake) places: Vec<(u32, u32, u32)>,
    /// fingerprint of the rows of each upsert; `None` where their sequences mark them
    pub(in crate::lake) marks: Option<Vec<Sequence>>,
    /// rows were left out because their owners have the same
    pub(in crate::lake) is_partial: bool,
    /// every row written, the table's own columns included
    pub(in crate::lake) rows: RecordBatch,
    /// by new file its rows of `rows`; `None`: all of them
    picks: Vec<Option<UInt32Array>>,
}

impl WrittenRows {
    /// Asked for one source row after the other: where the rows written for it lie.
    pub(in crate::lake) fn places_by_source<'a>(&'a self) -> impl FnMut(usize) -> &'a [(u32, u32, u32)] {
        let mut at = 0;
        move |source| {
            let from = at;
            while self.places.get(at).is_some_and(|(s, _, _)| *s as usize == source) {
                at += 1;
            }
            self.places.get(from..at).unwrap_or_default()
        }
    }

    /// The rows of [`Self::rows`] that `hidden` names by new file.
    pub(in crate::lake) fn written_rows(&self, hidden: &[RoaringBitmap]) -> RoaringBitmap {
        let mut rows = RoaringBitmap::new();
        for (picked, hidden) in self.picks.iter().zip(hidden) {
            match picked {
                None => rows |= hidden,
                Some(picked) => rows.extend(hidden.iter().filter_map(|row| picked.values().get(row as usize))),
            }
        }
        rows
    }
}

impl KeyedTable {
    /// Writes the output rows to data files.
    pub(in crate::lake) async fn write(&self, of: OwnerRows<'_>, rejected: &[bool]) -> Result<WrittenRows> {
        let rows = of.output.num_rows();
        let mut sources = sources_of(&of, rejected)?;
        let schema = &self.committer.schema;
        let mut output = RecordBatch::new_empty(schema.data.clone());
        if rows > 0 {
            self.check_columns(of.output)?;
            output = align(of.output, &schema.data)?;
        }
        let marks = match self.freshness {
            Freshness::Newer => None,
            Freshness::Differs => {
                let marks = fingerprints(&self.hasher.batch_images(&output)?, &sources, of.selection.owners.len());
                let (due, due_sources) = self.differing(&of, &output, &sources, &marks)?;
                (output, sources) = (due, due_sources.into());
                Some(marks)
            }
        };
        let mut written = WrittenRows {
            adds: Vec::new(),
            places: Vec::with_capacity(sources.len()),
            is_partial: sources.len() < rows,
            rows: match sources.is_empty() {
                true => RecordBatch::new_empty(schema.all.clone()),
                false => self.complete(&of, &output, &sources, marks.as_deref())?,
            },
            marks,
            picks: Vec::new(),
        };
        if !sources.is_empty() {
            self.write_files(&mut written, &sources).await?;
        }
        Ok(written)
    }

    /// Writes `written.rows`, a file a partition; `sources`: whose each is.
    async fn write_files(&self, written: &mut WrittenRows, sources: &[u32]) -> Result<()> {
        let schema = &self.committer.schema;
        for (values, picked) in split(&written.rows, schema, self.committer.settings.partitions_max)? {
            let mut file = DataFile::new(schema, Codec::Fast)?;
            file.push(&pick(&written.rows, picked.as_ref())?)?;
            let count = file.rows() as u32;
            let number = written.adds.len() as u32;
            match &picked {
                None => written.places.extend(sources.iter().enumerate().map(|(row, s)| (*s, number, row as u32))),
                Some(picked) => {
                    let of = |out: u32| sources.get(out as usize).copied().unwrap_or(0);
                    let places = picked.values().iter().enumerate().map(|(row, out)| (of(*out), number, row as u32));
                    written.places.extend(places);
                }
            }
            let add = file.write(&self.committer.store, values, true).await?;
            written.adds.push((add, count));
            written.picks.push(picked);
        }
        written.places.sort_unstable();
        let is_keyless = matches!(self.owners, Owners::Multiset(_));
        if is_keyless && written.places.windows(2).any(|w| matches!(w, [a, b] if a.0 == b.0)) {
            let message = "a table whose source has no key cannot have several rows for one";
            return Err(Error::new(ErrorKind::Config, message)
                .hint("give the source table a primary key, or let the transform return at most one row each"));
        }
        Ok(())
    }

    fn check_columns(&self, output: &RecordBatch) -> Result<()> {
        let data = &self.committer.schema.data;
        match output.schema_ref().fields().iter().find(|f| data.field_with_name(f.name()).is_err()) {
            None => Ok(()),
            Some(stranger) => {
                Err(Error::new(ErrorKind::Config, format!("the table has no column `{}`", stranger.name()))
                    .hint("`evolve` adds it"))
            }
        }
    }

    /// The output rows of owners whose rows are to be others, and their source rows.
    fn differing(
        &self,
        of: &OwnerRows<'_>,
        output: &RecordBatch,
        sources: &[u32],
        marks: &[Sequence],
    ) -> Result<(RecordBatch, Vec<u32>)> {
        let differs: Vec<bool> =
            of.selection.owners.iter().zip(marks).map(|(owner, mark)| self.replaces(*owner, *mark)).collect();
        let is_due = |source: &u32| differs.get(*source as usize).copied().unwrap_or(false);
        let mask: BooleanArray = sources.iter().map(|source| Some(is_due(source))).collect();
        let output = filter_record_batch(output, &mask)
            .map_err(|e| Error::new(ErrorKind::Internal, "output rows cannot be filtered").caused_by(e))?;
        Ok((output, sources.iter().copied().filter(|source| is_due(source)).collect()))
    }

    /// The output with the table's own columns.
    fn complete(
        &self,
        of: &OwnerRows<'_>,
        rows: &RecordBatch,
        sources: &[u32],
        marks: Option<&[Sequence]>,
    ) -> Result<RecordBatch> {
        let (schema, selection) = (&self.committer.schema, of.selection);
        let marks = marks.unwrap_or(&selection.sequences);
        let mut mark = Decimal128Builder::with_capacity(sources.len()).with_data_type(SEQ_TYPE);
        let mut ts = TimestampMicrosecondBuilder::with_capacity(sources.len()).with_data_type(utc());
        let keyless = matches!(self.owners, Owners::Multiset(_));
        let mut owner = BinaryBuilder::new();
        for source in sources {
            let at = *source as usize;
            let sequence = marks.get(at).copied().unwrap_or_default();
            mark.append_value(i128::try_from(sequence.0).unwrap_or(i128::MAX));
            let ms = selection.source_ts_ms.get(at).copied().unwrap_or(0);
            ts.append_option(if ms == 0 { None } else { ms.checked_mul(1000) });
            if keyless {
                owner.append_value(selection.owners.get(at).copied().unwrap_or(0).to_be_bytes());
            }
        }
        let (mark, ts, owner): (ArrayRef, ArrayRef, ArrayRef) =
            (Arc::new(mark.finish()), Arc::new(ts.finish()), Arc::new(owner.finish()));
        let own = schema.own();
        let columns = schema
            .all
            .fields()
            .iter()
            .map(|field| match field.name().as_str() {
                name if !own.contains(&name) => rows
                    .column_by_name(name)
                    .cloned()
                    .ok_or_else(|| Error::new(ErrorKind::Internal, format!("column `{name}` is missing"))),
                crate::lake::SOURCE_TS => Ok(ts.clone()),
                crate::lake::OWNER if keyless => Ok(owner.clone()),
                _ => Ok(mark.clone()),
            })
            .collect::<Result<Vec<_>>>()?;
        batch_of(schema.all.clone(), columns, rows.num_rows())
    }
}

/// For each output row its row of the selection, which must be there and not rejected.
fn sources_of<'a>(of: &OwnerRows<'a>, rejected: &[bool]) -> Result<Cow<'a, [u32]>> {
    let rows = of.output.num_rows();
    let sources: Cow<'a, [u32]> = match of.source_rows {
        Some(sources) => sources.into(),
        None => (0..rows as u32).collect(),
    };
    if sources.len() != rows || (of.source_rows.is_none() && rows != of.selection.owners.len()) {
        return Err(Error::new(ErrorKind::Internal, "output rows and their source rows differ in number"));
    }
    if sources.iter().any(|s| rejected.get(*s as usize).is_none_or(|r| *r)) {
        return Err(Error::new(ErrorKind::Internal, "an output row names a source row that is absent or rejected"));
    }
    Ok(sources)
}
