//! What a module file says of itself, read before anything of it is compiled: its kind, the contract it was built
//! for, and what it wants from its host. Turns core modules into components.

use wasmparser::{Encoding, Parser, Payload};

use super::contract::{GUEST, HOST, TYPES, VERSION, WIT};
use crate::error::{Error, ErrorKind, Result};

/// What a module file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BinaryKind {
    /// a component of the contract's world
    Component,
    /// a core module whose exports follow the canonical ABI, with its world embedded
    CoreWithWorld,
    /// the same without an embedded world: the contract's own is taken
    Core,
}

/// Reads `bytes` and checks contract version and imports. No code is compiled or run.
pub(super) fn inspect(bytes: &[u8], name: &str) -> Result<BinaryKind> {
    if !bytes.starts_with(b"\0asm") {
        return Err(Error::new(
            ErrorKind::Module,
            format!("module `{name}` is not WebAssembly: it does not begin as such"),
        )
        .hint("build it for wasm32-unknown-unknown, or make a component of it"));
    }
    let found = scan(bytes).map_err(|e| {
        Error::new(ErrorKind::Module, format!("module `{name}` is not WebAssembly"))
            .hint("build it for wasm32-unknown-unknown, or make a component of it")
            .caused_by(e)
    })?;
    check_version(&found, name)?;
    check_imports(&found, name)?;
    Ok(match (found.component, found.embedded_world) {
        (true, _) => BinaryKind::Component,
        (false, true) => BinaryKind::CoreWithWorld,
        (false, false) => BinaryKind::Core,
    })
}

/// The component that `bytes` are or become.
pub(super) fn to_component(
    bytes: &[u8],
    kind: BinaryKind,
) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let with_world;
    let core = match kind {
        BinaryKind::Component => return Ok(bytes.to_vec()),
        BinaryKind::CoreWithWorld => bytes,
        BinaryKind::Core => {
            let mut resolve = wit_parser::Resolve::default();
            let package = resolve.push_source("transform.wit", WIT)?;
            let world = resolve.select_world(&[package], Some("transform"))?;
            let mut extended = bytes.to_vec();
            wit_component::embed_component_metadata(
                &mut extended,
                &resolve,
                world,
                wit_component::StringEncoding::UTF8,
            )?;
            with_world = extended;
            &with_world
        }
    };
    Ok(wit_component::ComponentEncoder::default().module(core)?.validate(false).encode()?)
}

#[derive(Default)]
struct Found {
    component: bool,
    embedded_world: bool,
    exports: Vec<String>,
    imports: Vec<String>,
}

fn scan(bytes: &[u8]) -> Result<Found, wasmparser::BinaryReaderError> {
    let mut found = Found::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { encoding, .. } => {
                depth += 1;
                if depth == 1 {
                    found.component = encoding == Encoding::Component;
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ if depth > 1 => {}
            Payload::ExportSection(section) => {
                for export in section {
                    found.exports.push(export?.name.to_owned());
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    found.imports.push(format!("{}#{}", import.module, import.name));
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    found.exports.push(export?.name.name.to_owned());
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    found.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                found.embedded_world = true;
            }
            _ => {}
        }
    }
    Ok(found)
}

fn check_version(found: &Found, name: &str) -> Result<()> {
    let versions: Vec<&str> = found
        .exports
        .iter()
        .filter_map(|export| export.strip_prefix("cabi_post_").unwrap_or(export).strip_prefix(GUEST)?.strip_prefix('@'))
        .map(|rest| rest.split('#').next().unwrap_or(rest))
        .collect();
    if versions.contains(&VERSION) {
        return Ok(());
    }
    Err(match versions.first() {
        Some(version) => Error::new(
            ErrorKind::Module,
            format!(
                "module `{name}` was built for version `{}` of the transform contract; this host serves `{VERSION}`",
                shortened(version)
            ),
        )
        .hint("build it with an SDK of this release, or run a newer `lode`"),
        None => Error::new(ErrorKind::Module, format!("module `{name}` exports no `{GUEST}@{VERSION}`"))
            .hint("build it with a Lodestream SDK; sdk/wit/README.md says what a module exports"),
    })
}

fn check_imports(found: &Found, name: &str) -> Result<()> {
    const MOST_NAMED: usize = 8;
    let log = format!("{HOST}#log");
    let allowed = |import: &&String| {
        if found.component { *import == HOST || *import == TYPES } else { **import == log }
    };
    let unexpected: Vec<&String> = found.imports.iter().filter(|import| !allowed(import)).collect();
    if unexpected.is_empty() {
        return Ok(());
    }
    let mut named: Vec<String> = unexpected.iter().take(MOST_NAMED).map(|i| format!("`{}`", shortened(i))).collect();
    if unexpected.len() > MOST_NAMED {
        named.push(format!("{} more", unexpected.len() - MOST_NAMED));
    }
    Err(Error::new(ErrorKind::Module, format!("module `{name}` imports {}", named.join(", ")))
        .hint(format!("the only import is `{HOST}` with `log`: no clock, randomness, file, network or environment")))
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect::<String>().escape_debug().to_string()
}
