//! One call into a guest: a fresh store and instance under limits, the log it may write, and a name for whatever went
//! wrong. Nothing of an instance outlives its call.

use std::time::Duration;

use wasmtime::component::{ComponentExportIndex, InstancePre, TypedFunc, WasmStr};
use wasmtime::{ResourceLimiter, Store, StoreContextMut, Trap};

use super::apply::{LogLevel, LogLine};
use super::contract::{DescribeParams, DescribeResult, TransformParams, TransformResult, WitLevel};
use super::limits::Limits;
use super::slots::{INSTANCES, MEMORIES, Slot, Slots, TABLES};

/// How often the engine's epoch advances.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// A compiled module with its imports bound, and where its two functions are.
pub(super) struct Compiled {
    pub(super) slots: Slots,
    pub(super) pre: InstancePre<State>,
    pub(super) describe: ComponentExportIndex,
    pub(super) transform: ComponentExportIndex,
}

/// What a store holds beside the guest.
pub(super) struct State {
    meter: Meter,
    logs: Vec<LogLine>,
    logs_dropped: u64,
    log_lines: usize,
    log_line_bytes: usize,
}

/// Counts memory and tables of one store.
struct Meter {
    memory_bytes: usize,
    memory_limit: usize,
    table_limit: usize,
    refused: Option<String>,
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_sub(current).saturating_add(desired);
        if total > self.memory_limit {
            self.refused = Some(format!("it asked for more memory than `{} MiB`", self.memory_limit >> 20));
            return Ok(false);
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.table_limit {
            self.refused = Some(format!("it asked for a table of more than `{}` elements", self.table_limit));
            return Ok(false);
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES as usize
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}

/// A live instance, good for one call.
pub(super) struct Live {
    store: Store<State>,
    instance: wasmtime::component::Instance,
    // These two word the messages.
    call_time: Duration,
    output_bytes: usize,
    // Last, so that the instance is gone before another takes its place.
    _slot: Slot,
}

impl Live {
    /// A fresh instance of `compiled` under `limits`, once there is a slot for it; its time runs from then.
    pub(super) fn new(compiled: &Compiled, limits: &Limits) -> Result<Live, String> {
        let slot = compiled.slots.take();
        let state = State {
            meter: Meter {
                memory_bytes: 0,
                memory_limit: limits.memory_bytes,
                table_limit: limits.table_elements,
                refused: None,
            },
            logs: Vec::new(),
            logs_dropped: 0,
            log_lines: limits.log_lines,
            log_line_bytes: limits.log_line_bytes,
        };
        let mut store = Store::new(compiled.pre.engine(), state);
        store.limiter(|state| &mut state.meter);
        let ticks = limits.call_time.as_millis().div_ceil(TICK.as_millis()).max(1) as u64;
        // One more, because the first tick may come at once.
        store.set_epoch_deadline(ticks.saturating_add(1));
        // Bounds what wasmtime allocates here for what a call gives.
        store.set_hostcall_fuel(limits.output_bytes);
        match compiled.pre.instantiate(&mut store) {
            Ok(instance) => Ok(Live {
                store,
                instance,
                call_time: limits.call_time,
                output_bytes: limits.output_bytes,
                _slot: slot,
            }),
            Err(error) => Err(name_failure(&error, store.data(), limits.call_time, limits.output_bytes)),
        }
    }

    /// Calls `describe`. The outer error is a broken module, the inner one what the module says.
    pub(super) fn describe(
        &mut self,
        compiled: &Compiled,
        params: DescribeParams<'_>,
    ) -> Result<DescribeResult, String> {
        let called = self
            .instance
            .get_typed_func(&mut self.store, compiled.describe)
            .and_then(|f: TypedFunc<DescribeParams<'_>, DescribeResult>| f.call(&mut self.store, params));
        called.map_err(|e| name_failure(&e, self.store.data(), self.call_time, self.output_bytes))
    }

    /// Calls `transform`. What it gives is as yet unchecked.
    pub(super) fn transform(
        &mut self,
        compiled: &Compiled,
        params: TransformParams<'_>,
    ) -> Result<TransformResult, String> {
        let called = self
            .instance
            .get_typed_func(&mut self.store, compiled.transform)
            .and_then(|f: TypedFunc<TransformParams<'_>, TransformResult>| f.call(&mut self.store, params));
        called.map_err(|e| name_failure(&e, self.store.data(), self.call_time, self.output_bytes))
    }

    /// Checks that both functions have the contract's types, without calling them.
    pub(super) fn check_types(&mut self, compiled: &Compiled) -> Result<(), String> {
        let described: Result<TypedFunc<DescribeParams<'_>, DescribeResult>, _> =
            self.instance.get_typed_func(&mut self.store, compiled.describe);
        described.map_err(|e| format!("`describe` has another type than the contract's: {e}"))?;
        let transformed: Result<TypedFunc<TransformParams<'_>, TransformResult>, _> =
            self.instance.get_typed_func(&mut self.store, compiled.transform);
        transformed.map_err(|e| format!("`transform` has another type than the contract's: {e}"))?;
        Ok(())
    }

    /// Linear memory that the instance has: it never gives any back.
    pub(super) fn memory_bytes(&self) -> usize {
        self.store.data().meter.memory_bytes
    }

    /// The log lines written so far, and how many were dropped.
    pub(super) fn take_logs(&mut self) -> (Vec<LogLine>, u64) {
        let state = self.store.data_mut();
        (std::mem::take(&mut state.logs), std::mem::take(&mut state.logs_dropped))
    }
}

/// The import `log`.
pub(super) fn log(
    mut store: StoreContextMut<'_, State>,
    (level, message): (WitLevel, WasmStr),
) -> wasmtime::Result<()> {
    let full = store.data().logs.len() >= store.data().log_lines;
    if full {
        store.data_mut().logs_dropped += 1;
        return Ok(());
    }
    let limit = store.data().log_line_bytes;
    let message = clean(&message.to_str(&store)?, limit);
    let level = match level {
        WitLevel::Debug => LogLevel::Debug,
        WitLevel::Info => LogLevel::Info,
        WitLevel::Warn => LogLevel::Warn,
        WitLevel::Error => LogLevel::Error,
    };
    store.data_mut().logs.push(LogLine { level, message });
    Ok(())
}

/// Guest text fit for a log or a table: at most `limit` bytes, control characters escaped.
pub(super) fn clean(text: &str, limit: usize) -> String {
    let mut cleaned = String::with_capacity(text.len().min(limit));
    for c in text.chars() {
        let start = cleaned.len();
        if c.is_control() {
            cleaned.extend(c.escape_default());
        } else {
            cleaned.push(c);
        }
        if cleaned.len() > limit {
            cleaned.truncate(start);
            cleaned.push('…');
            break;
        }
    }
    cleaned
}

fn name_failure(error: &wasmtime::Error, state: &State, call_time: Duration, output_bytes: usize) -> String {
    let what = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => format!("it ran longer than `{} ms`", call_time.as_millis()),
        Some(Trap::StackOverflow) => "it recursed until its stack was full".to_owned(),
        Some(Trap::MemoryOutOfBounds) => "it reached outside its memory".to_owned(),
        Some(Trap::IntegerDivisionByZero) => "it divided by zero".to_owned(),
        Some(Trap::UnreachableCodeReached) => "it trapped".to_owned(),
        Some(other) => format!("it trapped: {other}"),
        None => match format!("{error:#}") {
            // wasmtime's name for the allowance helps nobody.
            text if text.contains("fuel allocated for hostcalls") => {
                format!("its output is larger than `{output_bytes}` bytes")
            }
            text => format!("it broke the contract: {text}"),
        },
    };
    let mut message = match &state.meter.refused {
        Some(refused) => format!("{what}; {refused}"),
        None => what,
    };
    // An SDK logs the text of a panic as an error before the trap.
    if let Some(line) = state.logs.iter().rev().find(|line| line.level == LogLevel::Error) {
        message.push_str("; it logged: ");
        message.push_str(&line.message);
    }
    message
}
