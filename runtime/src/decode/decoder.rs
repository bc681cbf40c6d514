//! The decoder of one source table.
//!
//! Receives blocks of the table's topic with what is known of its structures and of the connector's modes. Promises that
//! every record before the row it stops at is in the output exactly once, as rows, a floor or a bad record, and that the
//! record it stops at left no trace.

use std::sync::Arc;

use super::bad_record::{BadRecord, shorten};
use super::current_table::CurrentTable;
use super::dialect::mysql::binlog::{Moment, SourceEvent, SourcePosition};
use super::format::json::envelope::{Action, EnvelopeReader, Parsed};
use super::format::json::source_block::Snapshot;
use super::order::epochs::{Epochs, Lost, Place};
use super::output::{Decoded, RowMark};
use super::plan::{NoPlan, PlanKey, Plans, Row};
use super::row::{Texts, append_keyed, append_keyless};
use super::schema::history::{SchemaChange, SchemaHistory};
use super::settings::Settings;
use super::step::{Patience, Step, Stop};
use super::table_name::TableName;
use super::value::modes::{BinaryHandling, Evidence, Modes};
use crate::model::change::{Floor, Op};
use crate::model::positions::{Origin, PartitionId};
use crate::model::record::{Block, Record};

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
    reader: EnvelopeReader,
    plans: Plans,
    current: CurrentTable,
    scratch: Vec<u8>,
}

/// What is known while a record is decoded.
#[derive(Clone, Copy)]
struct Known<'a> {
    history: &'a SchemaHistory,
    evidence: Evidence,
    patience: Patience,
}

/// A record that is taken apart.
struct Opened<'a> {
    value: &'a [u8],
    key_bytes: &'a [u8],
    parsed: &'a Parsed,
    /// layout of the key
    key: Option<usize>,
    partition: i32,
    offset: i64,
    bytes: usize,
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
            reader: EnvelopeReader::default(),
            plans: Plans::default(),
            current: CurrentTable::default(),
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
        self.current.name.as_ref()
    }

    /// The floor that a statement sets which left the table without the rows it had; `partition`: of the schema-change
    /// topic `topic`. `None` as long as no row has been decoded: there is nothing to take away, and to place it takes rows.
    ///
    /// # Errors
    /// Why the statement has no place among the table's rows.
    pub fn floor(&mut self, change: &SchemaChange, topic: &Arc<str>, partition: i32) -> Result<Option<Floor>, String> {
        let event = SourceEvent {
            base: &change.position.base,
            server: change.server,
            file: change.position.file,
            pos: change.position.pos,
            row: 0,
            ts_ms: change.ts_ms,
            snapshot: Snapshot::No,
            key_change: false,
        };
        match self.epochs.place_statement(&event) {
            Ok(None) => Ok(None),
            Ok(Some(place)) => {
                self.epochs.accept_statement(&event, &place);
                let told_in = PartitionId { topic: Arc::clone(topic), partition };
                let origin = Origin { input: told_in.into(), offset: change.offset };
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
                        Stop::Bad(reason) => out.push_bad(BadRecord {
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
        if fields.is_some() || self.current.locate(&self.topic, value, &parsed.source).is_err() {
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
        let base = std::mem::take(&mut self.current.base);
        let known = Known { history, evidence: *evidence, patience: Patience::Hold };
        let key = self.plan_key(&parsed, &base, Some(image), None, known);
        let key = PlanKey { key_only: false, ..key };
        self.current.base = base;
        let Decoder { plans, reader, settings, current, topic, .. } = self;
        let Some(table) = &current.name else { return };
        let row = || Row {
            table,
            topic,
            image: reader.images.get(image),
            key: None,
            fields: None,
            flattened: parsed.flattened,
            base: &current.base,
        };
        let Ok(plan) = plans.get(&key, settings, history, row) else { return };
        for (step, token) in plan.steps.iter().zip(&reader.image) {
            if let Some(column_type) = step.and_then(|(column, _)| plan.structure.types.get(column)) {
                evidence.observe(*column_type, *token, value);
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

    #[inline]
    fn plan_key(
        &mut self,
        parsed: &Parsed,
        base: &str,
        image: Option<usize>,
        key: Option<usize>,
        known: Known<'_>,
    ) -> PlanKey {
        let entry = self.current.entry_in_force(base, parsed.source.pos, known.history);
        PlanKey {
            image: image.and_then(|at| self.reader.images.get(at)).map(|l| l.id),
            key: key.and_then(|at| self.reader.keys.get(at)).map(|l| l.id),
            wrap: parsed.wrap.and_then(|at| self.reader.wraps.get(at)).map(|w| w.id),
            entry,
            table: self.current.number,
            revision: known.history.revision(),
            patience: known.patience,
            modes: self.modes(known.evidence),
            key_only: parsed.action == Action::Delete,
        }
    }

    #[inline]
    fn record(&mut self, record: Record<'_>, partition: i32, known: Known<'_>, out: &mut Decoded) -> Result<(), Stop> {
        let Some(value) = record.value else { return Ok(()) };
        let bytes = value.len() + record.key.map_or(0, <[u8]>::len);
        if bytes > self.settings.record_bytes_max {
            return Err(Stop::Bad(format!(
                "the record has {bytes} bytes, more than `record_bytes_max` ({})",
                self.settings.record_bytes_max
            )));
        }
        let Some(parsed) = self.reader.value(value).map_err(Stop::Bad)? else { return Ok(()) };
        if parsed.action == Action::Nothing {
            return Ok(());
        }
        self.current.locate(&self.topic, value, &parsed.source).map_err(Stop::Bad)?;
        let key = match record.key {
            Some(key) if parsed.action != Action::Truncate => self.reader.read_key(key).map_err(Stop::Bad)?,
            _ => None,
        };
        let key_bytes = record.key.unwrap_or_default();
        let taken = Opened { value, key_bytes, parsed: &parsed, key, partition, offset: record.offset, bytes };
        let base = std::mem::take(&mut self.current.base);
        let event = SourceEvent {
            base: &base,
            server: parsed.source.server,
            file: self.current.file_number,
            pos: parsed.source.pos,
            row: parsed.source.row,
            ts_ms: parsed.source.ts_ms,
            snapshot: parsed.source.snapshot,
            key_change: parsed.action == Action::Delete && is_key_change(record.headers),
        };
        let result = self.event(&taken, &event, known, out);
        self.current.base = base;
        result
    }

    /// Puts the rows and the floors of one event into `out`, once it has a place in the source's order.
    #[inline]
    fn event(
        &mut self,
        taken: &Opened<'_>,
        event: &SourceEvent<'_>,
        known: Known<'_>,
        out: &mut Decoded,
    ) -> Result<(), Stop> {
        let Some(lane) = self.lane(taken.partition, event) else { return Ok(()) };
        let place = self.epochs.place(lane, event).map_err(|lost| match lost {
            Lost::TooLarge => Stop::Bad("the record's binlog position is too large to be one".to_owned()),
            Lost::Jump => Stop::Jump(JUMP.to_owned()),
        })?;
        let place = self.judged(place, known)?;
        let truncated = taken.parsed.action == Action::Truncate;
        let mark = RowMark {
            op: match taken.parsed.action {
                Action::Read => Op::Read,
                Action::Create => Op::Create,
                Action::Delete => Op::Delete,
                _ => Op::Update,
            },
            sequence: place.sequence,
            source_ts_ms: event.ts_ms,
            partition: taken.partition,
            offset: taken.offset,
        };
        let rows = if truncated { 0 } else { self.rows(taken, event.base, mark, known, out)? };
        for sequence in truncated.then_some(place.sequence).into_iter().chain(place.floor) {
            let told_in = PartitionId { topic: Arc::clone(&self.topic), partition: taken.partition };
            let origin = Origin { input: told_in.into(), offset: taken.offset };
            out.push_floor(Floor { sequence, origin });
        }
        self.epochs.accept(lane, event, place);
        out.count(rows, taken.bytes);
        Ok(())
    }

    /// What the epochs call a Kafka partition of the block's topic; `None` of an event that is another table's.
    #[inline]
    fn lane(&self, partition: i32, event: &SourceEvent<'_>) -> Option<i32> {
        let found = self.ancestors.iter().zip(1..).find(|((topic, _), _)| *topic == self.topic);
        match found {
            None => (!self.since.as_ref().is_some_and(|since| since.is_after(event))).then_some(partition),
            Some(((_, until), number)) => until.is_after(event).then_some(partition + number * LANES),
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
    fn rows(
        &mut self,
        taken: &Opened<'_>,
        base: &str,
        mark: RowMark,
        known: Known<'_>,
        out: &mut Decoded,
    ) -> Result<usize, Stop> {
        let Opened { value, key_bytes, parsed, key, .. } = *taken;
        let image = self.image(taken, mark.op)?;
        let plan_key = self.plan_key(parsed, base, image, key, known);
        let Decoder { plans, reader, settings, current, topic, scratch, .. } = self;
        let Some(table) = &current.name else { return Err(Stop::Bad("the record does not name its table".to_owned())) };
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
        let plan = plans.get(&plan_key, settings, known.history, row).map_err(|no| match no {
            NoPlan::Unexplained(reason) => held(reason),
            NoPlan::Bad(reason) => Stop::Bad(reason),
        })?;
        let texts = Texts { value, key: key_bytes, scratch };
        if !plan.keys.is_empty() {
            if key.is_none() {
                return Err(Stop::Bad("the record of a table with a primary key has no key".to_owned()));
            }
            let image = image.map(|_| reader.image.as_slice());
            append_keyed(out.chunk(&plan.structure, topic), mark, &held, plan, &reader.key, image, texts)?;
            return Ok(1);
        }
        if image.is_none() {
            return Err(Stop::Bad(
                "the record has no row image (`before`), and its table has no primary key".to_owned(),
            ));
        }
        let before = if mark.op == Op::Update {
            if image_before(reader, taken)? != plan_key.image {
                return Err(held("the images before and after the change do not have the same columns".to_owned()));
            }
            Some(reader.before.as_slice())
        } else {
            None
        };
        append_keyless(out.chunk(&plan.structure, topic), mark, &held, plan, before, &reader.image, texts)
    }

    /// Layout of the image that a change's rows are made of, which is then in the reader: of a delete, the one before it.
    #[inline]
    fn image(&mut self, taken: &Opened<'_>, op: Op) -> Result<Option<usize>, Stop> {
        let parsed = taken.parsed;
        if op != Op::Delete {
            return match parsed.image {
                None => Err(Stop::Bad("the record has no row image (`after`)".to_owned())),
                found => Ok(found),
            };
        }
        if parsed.flattened {
            return Ok(parsed.image);
        }
        let Some(before) = parsed.before else { return Ok(None) };
        let image = self.reader.read_before(taken.value, before).map_err(Stop::Bad)?;
        std::mem::swap(&mut self.reader.image, &mut self.reader.before);
        Ok(Some(image))
    }
}

/// Reads the image before an update of a table without a key into the reader; answers its layout's number.
fn image_before(reader: &mut EnvelopeReader, taken: &Opened<'_>) -> Result<Option<u32>, Stop> {
    let Some(before) = taken.parsed.before else {
        return Err(Stop::Bad(
            "an update of a table without a primary key has no image before the change; use Debezium's envelope for it"
                .to_owned(),
        ));
    };
    let before = reader.read_before(taken.value, before).map_err(Stop::Bad)?;
    Ok(reader.images.get(before).map(|l| l.id))
}

/// More than a topic has partitions: those of different topics are never one lane.
const LANES: i32 = 1 << 24;

const JUMP: &str = "the binlog position jumps back although the source's time goes on: the binlog was reset or the server \
     restored from a backup; check the source, then `lode rebuild` the table";

fn is_key_change(headers: &[u8]) -> bool {
    memchr::memmem::find(headers, b"\"__debezium.newkey\"").is_some()
}
