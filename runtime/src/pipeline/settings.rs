//! The pipeline file's settings, as each stage takes them.

use std::collections::HashMap;

use super::Options;
use crate::config::{self, Config};
use crate::decode;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Settings;
use crate::source::{self, Budget, Source, kafka};
use crate::transform::Limits;

/// The lake's options, secrets included, read where they are kept.
///
/// # Errors
/// [`ErrorKind::Config`] when a secret cannot be read.
pub fn lake_options(config: &Config) -> Result<HashMap<String, String>> {
    config.lake.options.iter().map(|(key, value)| Ok((key.clone(), value.fetch(key)?))).collect()
}

/// The source's settings where it is Kafka; `until_end` as in [`kafka::Settings`].
pub fn kafka_settings(config: &Config, until_end: bool) -> Option<kafka::Settings> {
    let config::Source::Kafka { brokers, topics, group, refresh, options } = &config.source else { return None };
    Some(kafka::Settings {
        name: config.name.clone(),
        brokers: brokers.clone(),
        topics: topics.clone(),
        refresh: *refresh,
        options: options.clone(),
        // A run to the end reads everything itself.
        group: group.clone().filter(|_| !until_end),
        until_end,
    })
}

/// Starts the source of a pipeline.
pub(super) type BeginSource = Box<dyn Fn(&Config, Options, Budget) -> Result<Source> + Send + Sync>;

/// Starts the source that the pipeline file names.
pub(super) fn named_source(config: &Config, options: Options, budget: Budget) -> Result<Source> {
    let block_rows = config.flush.rows;
    match kafka_settings(config, options.until_end) {
        Some(settings) => source::kafka::start(settings, budget, block_rows),
        None => source::replay::start(config.source.captures().to_vec(), budget, block_rows),
    }
}

/// The limits of a pipeline's modules.
pub fn module_limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        failed_ratio: limits.rejected_ratio,
        memory_bytes: limits.module_memory_bytes,
        call_time: limits.module_time,
        output_bytes: limits.module_output_bytes,
        output_rows: limits.module_output_rows,
        log_lines: limits.module_log_lines,
        module_bytes: limits.module_size_bytes,
        compile_time: limits.compile_time,
        ..Limits::default()
    }
}

/// The settings of a pipeline's tables.
pub fn table_settings(config: &Config) -> Settings {
    Settings {
        target_file_bytes: config.maintenance.target_file_bytes as u64,
        small_files_min: config.maintenance.small_files,
        hidden_ratio: config.maintenance.hidden_ratio,
        checkpoint_every: config.maintenance.checkpoint_interval,
        vacuum_retention: config.maintenance.retention,
        block_rows: config.flush.rows.min(50_000),
        ..Settings::default()
    }
}

pub(super) fn decode_settings(debezium: &config::Debezium, columns: &[(String, String)]) -> Result<decode::Settings> {
    use decode::{BinaryHandling, DecimalHandling, TimePrecision};
    let columns = columns.iter().map(|(name, kind)| {
        let parsed = decode::mysql_column_type(kind).map_err(|e: String| {
            Error::new(ErrorKind::Config, format!("column `{name}`: `{kind}` is not a type")).caused_by(e)
        })?;
        Ok((name.clone(), parsed))
    });
    Ok(decode::Settings {
        time_precision: debezium.time_precision.as_deref().map(|mode| match mode {
            "connect" => TimePrecision::Connect,
            "isostring" => TimePrecision::IsoString,
            _ => TimePrecision::AdaptiveTimeMicroseconds,
        }),
        decimal_handling: debezium.decimal_handling.as_deref().map(|mode| match mode {
            "string" => DecimalHandling::String,
            "double" => DecimalHandling::Double,
            _ => DecimalHandling::Precise,
        }),
        binary_handling: debezium.binary_handling.as_deref().map(|mode| match mode {
            "hex" => BinaryHandling::Hex,
            _ => BinaryHandling::Base64,
        }),
        columns: columns.collect::<Result<_>>()?,
        ..decode::Settings::default()
    })
}
