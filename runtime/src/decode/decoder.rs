//! The decoder of one source table.
//!
//! Receives blocks of the table's topic with what is known of its structures and of the connector's modes. Promises that
//! every record before the row it stops at is in the output exactly once, as rows, a floor or a bad row, and that the
//! record it stops at left no trace.

use std::sync::Arc;

use super::codec::Modes;
use super::envelope::{Action, Parsed, Reader};
use super::epoch::{Epochs, Lost, Origin, Place, Snapshot};
use super::evidence::Evidence;
use super::history::{SchemaChange, SchemaHistory};
use super::lineage::Moment;
use super::output::{Decoded, RowMark};
use super::plan::{NoPlan, PlanKey, Plans, Row};
use super::row::{Texts, delete, upsert, write};
use super::structure::split_file;
use super::{BadRow, BinaryHandling, Patience, Settings, SourcePosition, Step, TableName, classify, shorten};
use crate::change::{Floor, Op};
use crate::record::{self, Block, PartitionId, Record};

/// Decodes the records of one source table's topic.
pub struct Decoder {
    /// of the block at hand
    topic: Arc<str>,
    /// changes before this are another table's
    since: Option<Moment>,
    /// topics of the names that the table had before, and until when
    ancestors: Vec<(Arc<str>, Moment)>,
    settings: Settings,
    epochs: Epochs,
    reader: Reader,
    plans: Plans,
    place: TablePlace,
    scratch: Vec<u8>,
}

/// The table and the part of the source that the last record was in.
#[derive(Debug, Default)]
struct TablePlace {
    table: Option<TableName>,
    /// grows with every other table
    number: u32,
    file: Vec<u8>,
    base: String,
    file_number: u64,
    /// within which positions the entry of the history holds, and for which revision
    window: Option<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    revision: u64,
    from: (u64, u64),
    to: (u64, u64),
    entry: Option<usize>,
}

/// What is known while a record is decoded.
#[derive(Clone, Copy)]
struct Known<'a> {
    history: &'a SchemaHistory,
    evidence: Evidence,
    patience: Patience,
}

/// A record that has a place in the source's order.
struct Placed<'a> {
    value: &'a [u8],
    key_bytes: &'a [u8],
    parsed: &'a Parsed,
    /// layout of the key
    key: Option<usize>,
    base: &'a str,
    mark: RowMark,
}

/// Why a record was not decoded.
pub(super) enum Stop {
    /// nothing will explain it
    Bad(String),
    /// something that is not known yet may explain it
    Held(String),
    /// the table cannot go on
    Jump(String),
}

impl Decoder {
    /// A decoder of the records of `topic`, of which nothing has been read.
    pub fn new(topic: Arc<str>, settings: Settings) -> Self {
        Decoder {
            topic,
            since: None,
            ancestors: Vec::new(),
            settings,
            epochs: Epochs::new(),
            reader: Reader::default(),
            plans: Plans::default(),
            place: TablePlace::default(),
            scratch: Vec::new(),
        }
    }

    /// The epochs as of the last decoded record; what a commit of the rows decoded so far has to keep.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Goes on from the epochs that a commit kept.
    pub fn set_epochs(&mut self, epochs: Epochs) {
        self.epochs = epochs;
    }

    /// The table had other names: changes of `ancestors`' topics are its own until a moment, those of its own topic since
    /// one. Every block of another topic is taken for the own topic's.
    pub fn set_lineage(&mut self, since: Option<Moment>, ancestors: Vec<(Arc<str>, Moment)>) {
        self.since = since;
        self.ancestors = ancestors;
    }

    /// The table of the last decoded record.
    pub fn table(&self) -> Option<&TableName> {
        self.place.table.as_ref()
    }

    /// The floor that a statement sets which left the table without the rows it had; `partition`: of the schema-change
    /// topic `topic`. `None` as long as no row has been decoded: there is nothing to take away, and to place it takes rows.
    ///
    /// # Errors
    /// Why the statement has no place among the table's rows.
    pub fn floor(&mut self, change: &SchemaChange, topic: &Arc<str>, partition: i32) -> Result<Option<Floor>, String> {
        let origin = Origin {
            base: &change.position.base,
            server: change.server,
            file: change.position.file,
            pos: change.position.pos,
            row: 0,
            ts_ms: change.ts_ms,
            snapshot: Snapshot::No,
            key_change: false,
        };
        match self.epochs.place_statement(&origin) {
            Ok(None) => Ok(None),
            Ok(Some(place)) => {
                self.epochs.accept_statement(&origin, &place);
                let told_in = PartitionId { topic: Arc::clone(topic), partition };
                let origin = record::Origin { input: told_in.into(), offset: change.offset };
                Ok(Some(Floor { sequence: place.sequence, origin }))
            }
            Err(Lost::Jump) => Err(JUMP.to_owned()),
            Err(Lost::TooLarge) => Err("a statement's binlog position is too large to be one".to_owned()),
        }
    }

    /// Decodes records of `block` from row `from` on into `out`, until its end or until one that cannot be decoded yet.
    pub fn decode(
        &mut self,
        block: &Block,
        from: usize,
        history: &SchemaHistory,
        evidence: &mut Evidence,
        patience: Patience,
        out: &mut Decoded,
    ) -> Step {
        let partition = block.partition().partition;
        if self.topic != block.partition().topic {
            self.topic = Arc::clone(&block.partition().topic);
        }
        let mut row = from;
        let mut observed = false;
        while let Some(record) = block.get(row) {
            let known = Known { history, evidence: *evidence, patience };
            match self.record(record, partition, known, out) {
                Ok(()) => {}
                Err(stop) => {
                    if !observed && !matches!(stop, Stop::Jump(_)) && !evidence.is_settled() {
                        observed = true;
                        let before = *evidence;
                        self.observe(block, row, history, evidence);
                        if *evidence != before {
                            continue;
                        }
                    }
                    match stop {
                        Stop::Bad(reason) => out.push_bad(BadRow {
                            topic: Arc::clone(&self.topic),
                            partition,
                            offset: record.offset,
                            reason: shorten(reason),
                        }),
                        Stop::Held(reason) => return Step::Held { row, reason: shorten(reason) },
                        Stop::Jump(reason) => return Step::Jump { row, reason: shorten(reason) },
                    }
                }
            }
            row += 1;
        }
        Step::Done
    }

    /// Takes evidence of the connector's modes from the records of `block` from row `from` on, without decoding them.
    /// One call may settle what holds the other tables of the connector.
    pub fn observe(&mut self, block: &Block, from: usize, history: &SchemaHistory, evidence: &mut Evidence) {
        let mut row = from;
        while let Some(record) = block.get(row) {
            if evidence.is_settled() {
                return;
            }
            self.observe_record(record, history, evidence);
            row += 1;
        }
    }

    fn observe_record(&mut self, record: Record<'_>, history: &SchemaHistory, evidence: &mut Evidence) {
        let Some(value) = record.value else { return };
        let Ok(Some(parsed)) = self.reader.value(value) else { return };
        let fields = parsed.wrap.and_then(|w| self.reader.wraps.get(w)?.fields.as_ref());
        if fields.is_some() || self.locate(value, &parsed).is_err() {
            return;
        }
        let image = match (parsed.image, parsed.before) {
            (Some(image), _) => image,
            (None, Some(before)) => {
                let Ok(image) = self.reader.read_before(value, before) else { return };
                std::mem::swap(&mut self.reader.image, &mut self.reader.before);
                image
            }
            (None, None) => return,
        };
        let base = std::mem::take(&mut self.place.base);
        let known = Known { history, evidence: *evidence, patience: Patience::Hold };
        let key = self.plan_key(&parsed, &base, Some(image), None, known);
        let key = PlanKey { key_only: false, ..key };
        self.place.base = base;
        let Decoder { plans, reader, settings, place, topic, .. } = self;
        let Some(table) = &place.table else { return };
        let row = || Row {
            table,
            topic,
            image: reader.images.get(image),
            key: None,
            fields: None,
            flattened: parsed.flattened,
            base: &place.base,
        };
        let Ok(plan) = plans.get(&key, settings, history, row) else { return };
        for (step, token) in plan.steps.iter().zip(&reader.image) {
            if let Some(kind) = step.and_then(|(column, _)| plan.version.kinds.get(column)) {
                evidence.observe(*kind, *token, value);
            }
        }
    }

    fn modes(&self, evidence: Evidence) -> Modes {
        Modes {
            time: self.settings.time_precision.or(evidence.time_precision()),
            decimal: self.settings.decimal_handling.or(evidence.decimal_handling()),
            binary: self.settings.binary_handling.unwrap_or(BinaryHandling::Base64),
        }
    }

    /// Finds the table and the binlog file of a record.
    #[inline]
    fn locate(&mut self, value: &[u8], parsed: &Parsed) -> Result<(), String> {
        let place = &mut self.place;
        let database = parsed.database.map(|t| t.of(value));
        let table = parsed.table.map(|t| t.of(value));
        let same = place.table.as_ref().is_some_and(|known| {
            database.is_none_or(|d| d == known.database.as_bytes()) && table.is_none_or(|t| t == known.table.as_bytes())
        });
        if !same {
            let owned = |part: Option<&[u8]>| part.and_then(|p| std::str::from_utf8(p).ok()).map(str::to_owned);
            let named = classify::named(&self.topic, owned(database), owned(table));
            place.table = Some(named.ok_or("the record does not name its table")?);
            place.number = place.number.wrapping_add(1);
            place.window = None;
        }
        let file = parsed.file.of(value);
        if place.file != file {
            let split = std::str::from_utf8(file).ok().and_then(split_file);
            let (base, number) = split.ok_or("the record's binlog file has no number")?;
            if base != place.base {
                base.clone_into(&mut place.base);
                place.window = None;
            }
            place.file_number = number;
            place.file.clear();
            place.file.extend_from_slice(file);
        }
        Ok(())
    }

    /// Index of the history's entry in force at the record's position.
    #[inline]
    fn entry_in_force(&mut self, parsed: &Parsed, base: &str, history: &SchemaHistory) -> Option<usize> {
        let at = (self.place.file_number, parsed.pos);
        if let Some(w) = self.place.window
            && w.revision == history.revision()
            && w.from <= at
            && at < w.to
        {
            return w.entry;
        }
        let entries = history.entries(self.place.table.as_ref()?).map(|e| e.as_slice()).unwrap_or_default();
        let strict = entries.iter().any(|e| e.position.base == base);
        let mut window = Window { revision: history.revision(), from: (0, 0), to: (u64::MAX, u64::MAX), entry: None };
        for (index, entry) in entries.iter().enumerate() {
            if strict && entry.position.base != base {
                continue;
            }
            let position = (entry.position.file, entry.position.pos);
            if position <= at {
                if position >= window.from {
                    window.from = position;
                    window.entry = Some(index);
                }
            } else {
                window.to = window.to.min(position);
            }
        }
        self.place.window = Some(window);
        window.entry
    }

    #[inline]
    fn plan_key(
        &mut self,
        parsed: &Parsed,
        base: &str,
        image: Option<usize>,
        key: Option<usize>,
        known: Known<'_>,
    ) -> PlanKey {
        let entry = self.entry_in_force(parsed, base, known.history);
        PlanKey {
            image: image.and_then(|at| self.reader.images.get(at)).map(|l| l.id),
            key: key.and_then(|at| self.reader.keys.get(at)).map(|l| l.id),
            wrap: parsed.wrap.and_then(|at| self.reader.wraps.get(at)).map(|w| w.id),
            entry,
            table: self.place.number,
            revision: known.history.revision(),
            patience: known.patience,
            modes: self.modes(known.evidence),
            key_only: parsed.action == Action::Delete,
        }
    }

    #[inline]
    fn record(&mut self, record: Record<'_>, partition: i32, known: Known<'_>, out: &mut Decoded) -> Result<(), Stop> {
        let Some(value) = record.value else { return Ok(()) };
        let size = value.len() + record.key.map_or(0, <[u8]>::len);
        if size > self.settings.record_bytes_max {
            return Err(Stop::Bad(format!(
                "the record has {size} bytes, more than `record_bytes_max` ({})",
                self.settings.record_bytes_max
            )));
        }
        let Some(parsed) = self.reader.value(value).map_err(Stop::Bad)? else { return Ok(()) };
        if parsed.action == Action::Nothing {
            return Ok(());
        }
        self.locate(value, &parsed).map_err(Stop::Bad)?;
        let key_bytes = record.key.unwrap_or_default();
        let key = match record.key {
            Some(key) if parsed.action != Action::Truncate => self.reader.read_key(key).map_err(Stop::Bad)?,
            _ => None,
        };
        let base = std::mem::take(&mut self.place.base);
        let origin = Origin {
            base: &base,
            server: parsed.server,
            file: self.place.file_number,
            pos: parsed.pos,
            row: parsed.row,
            ts_ms: parsed.ts_ms,
            snapshot: parsed.snapshot,
            key_change: parsed.action == Action::Delete && is_key_change(record.headers),
        };
        let Some(lane) = self.lane(partition, &origin) else {
            self.place.base = base;
            return Ok(());
        };
        let place = self.epochs.place(lane, &origin);
        let result = match place.map(|place| self.judged(place, known)) {
            Err(Lost::TooLarge) => Err(Stop::Bad("the record's binlog position is too large to be one".to_owned())),
            Err(Lost::Jump) => Err(Stop::Jump(JUMP.to_owned())),
            Ok(Err(stop)) => Err(stop),
            Ok(Ok(place)) => {
                let mark = RowMark {
                    op: match parsed.action {
                        Action::Read => Op::Read,
                        Action::Create => Op::Create,
                        Action::Delete => Op::Delete,
                        _ => Op::Update,
                    },
                    sequence: place.sequence,
                    source_ts_ms: parsed.ts_ms,
                    partition,
                    offset: record.offset,
                };
                let rows = if parsed.action == Action::Truncate {
                    Ok(0)
                } else {
                    let parsed = &parsed;
                    self.rows(&Placed { value, key_bytes, parsed, key, base: &base, mark }, known, out)
                };
                rows.map(|rows| {
                    let floor = |sequence| {
                        let told_in = PartitionId { topic: Arc::clone(&self.topic), partition };
                        Floor { sequence, origin: record::Origin { input: told_in.into(), offset: record.offset } }
                    };
                    if parsed.action == Action::Truncate {
                        out.push_floor(floor(place.sequence));
                    }
                    if let Some(sequence) = place.floor {
                        out.push_floor(floor(sequence));
                    }
                    self.epochs.accept(lane, &origin, place);
                    out.count(rows, size);
                })
            }
        };
        self.place.base = base;
        result
    }

    /// What the epochs know a Kafka partition of the block's topic by; `None` of a record that is another table's.
    #[inline]
    fn lane(&self, partition: i32, origin: &Origin<'_>) -> Option<i32> {
        let found = self.ancestors.iter().zip(1..).find(|((topic, _), _)| *topic == self.topic);
        match found {
            None => (!self.since.as_ref().is_some_and(|since| since.is_after(origin))).then_some(partition),
            Some(((_, until), number)) => until.is_after(origin).then_some(partition + number * LANES),
        }
    }

    /// `place` without the floor of a snapshot that may have read a part of the table.
    #[inline]
    fn judged(&self, mut place: Place, known: Known<'_>) -> Result<Place, Stop> {
        let Some(run) = self.epochs.ended_run(&place) else { return Ok(place) };
        let position = SourcePosition { base: run.base.clone(), file: run.file, pos: run.pos };
        if known.history.is_whole_snapshot(&position) {
            return Ok(place);
        }
        if known.patience == Patience::Hold {
            return Err(Stop::Held("whether a snapshot read the whole table is not known yet".to_owned()));
        }
        let (topic, file, pos) = (&self.topic, run.file, run.pos);
        tracing::warn!(%topic, file, pos, "nothing tells whether a snapshot read the whole table: rows it did not read stay");
        place.floor = None;
        Ok(place)
    }

    /// Appends the rows of one change; answers how many.
    #[inline]
    fn rows(&mut self, placed: &Placed<'_>, known: Known<'_>, out: &mut Decoded) -> Result<usize, Stop> {
        let Placed { value, key_bytes, parsed, key, base, mark } = *placed;
        let mut image = parsed.image;
        if mark.op == Op::Delete && !parsed.flattened {
            image = None;
            if let Some(before) = parsed.before {
                image = Some(self.reader.read_before(value, before).map_err(Stop::Bad)?);
                std::mem::swap(&mut self.reader.image, &mut self.reader.before);
            }
        }
        if image.is_none() && mark.op != Op::Delete {
            return Err(Stop::Bad("the record has no row image (`after`)".to_owned()));
        }
        let plan_key = self.plan_key(parsed, base, image, key, known);
        let Decoder { plans, reader, settings, place, topic, scratch, .. } = self;
        let Some(table) = &place.table else { return Err(Stop::Bad("the record does not name its table".to_owned())) };
        let fields = parsed.wrap.and_then(|w| reader.wraps.get(w)?.fields.as_ref());
        let (images, keys) = (&reader.images, &reader.keys);
        let row = || Row {
            table,
            topic,
            image: image.and_then(|at| images.get(at)),
            key: key.and_then(|at| keys.get(at)),
            fields,
            flattened: parsed.flattened,
            base,
        };
        let held = |reason: String| match known.patience {
            Patience::Hold => Stop::Held(reason),
            Patience::LastChance => Stop::Bad(reason),
        };
        let no_plan = |no: NoPlan| match no {
            NoPlan::Unexplained(reason) => held(reason),
            NoPlan::Bad(reason) => Stop::Bad(reason),
        };
        let plan = plans.get(&plan_key, settings, known.history, row).map_err(no_plan)?;
        let texts = Texts { value, key: key_bytes, scratch: &mut *scratch };
        if !plan.keys.is_empty() {
            if key.is_none() {
                return Err(Stop::Bad("the record of a table with a primary key has no key".to_owned()));
            }
            let chunk = out.chunk(&plan.version, topic);
            if mark.op == Op::Delete {
                let image = image.map(|_| reader.image.as_slice());
                write(chunk, mark, &held, |chunk| delete(chunk, plan, &reader.key, image, texts))?;
            } else {
                write(chunk, mark, &held, |chunk| upsert(chunk, plan, Some(&reader.key), &reader.image, texts))?;
            }
            return Ok(1);
        }
        if image.is_none() {
            return Err(Stop::Bad(
                "the record has no row image (`before`), and its table has no primary key".to_owned(),
            ));
        }
        if mark.op != Op::Update {
            let chunk = out.chunk(&plan.version, topic);
            write(chunk, mark, &held, |chunk| upsert(chunk, plan, None, &reader.image, texts))?;
            return Ok(1);
        }
        let Some(before) = parsed.before else {
            return Err(Stop::Bad(
                "an update of a table without a primary key has no image before the change; use Debezium's envelope for it".to_owned(),
            ));
        };
        let before = reader.read_before(value, before).map_err(Stop::Bad)?;
        if reader.images.get(before).map(|l| l.id) != plan_key.image {
            return Err(held("the images before and after the change do not have the same columns".to_owned()));
        }
        let chunk = out.chunk(&plan.version, topic);
        let rows = chunk.rows();
        let gone = RowMark { op: Op::Delete, ..mark };
        let first = Texts { value, key: key_bytes, scratch: &mut *scratch };
        write(chunk, gone, &held, |chunk| upsert(chunk, plan, None, &reader.before, first))?;
        let second = Texts { value, key: key_bytes, scratch };
        if let Err(stop) = write(chunk, mark, &held, |chunk| upsert(chunk, plan, None, &reader.image, second)) {
            chunk.truncate(rows);
            return Err(stop);
        }
        Ok(2)
    }
}

/// More than a topic has partitions: those of different topics are never one lane.
const LANES: i32 = 1 << 24;

const JUMP: &str = "the binlog position jumps back although the source's time goes on: the binlog was reset or the server \
     restored from a backup; check the source, then `lode rebuild` the table";

fn is_key_change(headers: &[u8]) -> bool {
    memchr::memmem::find(headers, b"\"__debezium.newkey\"").is_some()
}
