//! The types of `lodestream:transform@0.1.0` as they cross into and out of a guest.
//!
//! What comes out is copied before the call ends, because wasmtime then lets the guest free it (`cabi_post_…`). wasmtime
//! counts every byte of it against the store's allowance first, so a guest that names the same bytes a million times
//! costs its host no more than [`super::Limits::output_bytes`].

use wasmtime::component::{ComponentType, Lift, Lower};

/// The version served, as it stands in the names of exports and imports.
pub(super) const VERSION: &str = "0.1.0";
/// The interface that a module exports, without its version.
pub(super) const GUEST: &str = "lodestream:transform/guest";
/// The interface that a module may import, with its version.
pub(super) const HOST: &str = "lodestream:transform/host@0.1.0";
/// The interface of types; components name it among their imports, it holds no function.
pub(super) const TYPES: &str = "lodestream:transform/types@0.1.0";
/// The contract as text: what a core module without an embedded world is taken to implement.
pub(super) const WIT: &str = include_str!("../../../sdk/wit/transform.wit");

#[derive(ComponentType, Lift, Lower, Debug, Clone, PartialEq, Eq)]
#[component(record)]
pub(super) struct WitField {
    pub(super) name: String,
    pub(super) format: String,
    pub(super) nullable: bool,
}

#[derive(ComponentType, Lower, Debug, Clone)]
#[component(record)]
pub(super) struct WitRelation {
    pub(super) name: String,
    pub(super) fields: Vec<WitField>,
    pub(super) key: Vec<String>,
}

#[derive(ComponentType, Lift, Debug, Clone, Copy)]
#[component(record)]
pub(super) struct WitColumnRef {
    pub(super) relation: u32,
    pub(super) field: u32,
}

#[derive(ComponentType, Lift, Debug, Clone)]
#[component(record)]
pub(super) struct WitComputed {
    pub(super) field: WitField,
    pub(super) column: u32,
}

#[derive(ComponentType, Lift, Debug, Clone)]
#[component(record)]
pub(super) struct WitPassed {
    pub(super) name: String,
    pub(super) from: WitColumnRef,
}

#[derive(ComponentType, Lift, Debug, Clone)]
#[component(variant)]
pub(super) enum WitOutputField {
    #[component(name = "computed")]
    Computed(WitComputed),
    #[component(name = "passed")]
    Passed(WitPassed),
}

#[derive(ComponentType, Lift, Debug, Clone)]
#[component(record)]
pub(super) struct WitDescription {
    pub(super) reads: Vec<WitColumnRef>,
    pub(super) writes: Vec<WitOutputField>,
    pub(super) key: Vec<u32>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct WitColumn<'a> {
    pub(super) length: u32,
    #[component(name = "null-count")]
    pub(super) null_count: u32,
    pub(super) buffers: Vec<&'a [u8]>,
    pub(super) children: u32,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct WitColumnOut {
    pub(super) length: u32,
    #[component(name = "null-count")]
    pub(super) null_count: u32,
    pub(super) buffers: Vec<Vec<u8>>,
    pub(super) children: u32,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct WitRejection {
    pub(super) row: u32,
    pub(super) reason: String,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct WitOutput {
    pub(super) columns: Vec<WitColumnOut>,
    #[component(name = "source-rows")]
    pub(super) source_rows: Option<Vec<u32>>,
    pub(super) rejected: Vec<WitRejection>,
}

#[derive(ComponentType, Lift, Debug, Clone, Copy, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "only lifting makes these, from a discriminant")]
pub(super) enum WitLevel {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

/// Parameters and results of `describe`.
pub(super) type DescribeParams<'a> = (&'a str, &'a [WitRelation]);
pub(super) type DescribeResult = (Result<WitDescription, String>,);
/// Parameters and results of `transform`.
pub(super) type TransformParams<'a> = (&'a str, &'a [WitField], u32, &'a [WitColumn<'a>]);
pub(super) type TransformResult = (Result<WitOutput, String>,);
