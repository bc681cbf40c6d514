//! wasmtime, narrowed to what the contract needs, and the way from a module's bytes to compiled code.
//!
//! Every option that matters to safety or to determinism is named here, whatever wasmtime's default is.
//!
//! Compiled code lives in memory, found by the sha256 of the bytes, and between runs where [`cache`](super::cache) says.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, OptLevel, Strategy};

use super::cache;
use super::contract::{GUEST, HOST, VERSION};
use super::inspect;
use super::instance::{Compiled, Live, State, TICK, clean, log};
use super::limits::Limits;
use super::slots::Slots;
use crate::error::{Error, ErrorKind, Result};

/// Compiled modules kept for the next load of the same bytes. A pipeline has tens of modules; a Python one is 34 MB.
const CACHED: usize = 32;

/// Loads modules and holds what they share. Cheap to clone; one a process is enough.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    wasm: wasmtime::Engine,
    limits: Limits,
    cache: Mutex<HashMap<[u8; 32], Arc<Compiled>>>,
    /// one compilation at a time: each uses every core
    compiling: Arc<Mutex<()>>,
    slots: Slots,
}

/// A loaded module: compiled, its contract and imports checked. Cheap to clone.
#[derive(Clone)]
pub struct Module {
    name: Arc<str>,
    sha256: [u8; 32],
    pub(super) compiled: Arc<Compiled>,
    pub(super) limits: Arc<Limits>,
    // The ticker that ends endless loops lives as long as the engine does.
    _engine: Engine,
}

impl Engine {
    /// An engine whose modules are held to `limits`. Starts a thread that advances the epoch every 10 ms and ends
    /// with the engine.
    ///
    /// # Errors
    /// `Internal` where this processor or system cannot run wasmtime as configured.
    pub fn new(limits: Limits) -> Result<Engine> {
        Engine::start(limits, None)
    }

    /// The same; what it compiles is kept for the next run, in a folder of this user.
    ///
    /// # Errors
    /// As [`Engine::new`]; a cache that cannot be used is only logged.
    pub fn with_cache(limits: Limits) -> Result<Engine> {
        Engine::start(limits, cache::open())
    }

    fn start(limits: Limits, cache: Option<wasmtime::Cache>) -> Result<Engine> {
        let slots = Slots::one_a_core();
        let wasm = wasmtime::Engine::new(configure(&limits, &slots).cache(cache)).map_err(|e| {
            Error::new(ErrorKind::Internal, "the WebAssembly engine does not start").caused_by(format!("{e:#}"))
        })?;
        let ticking = wasm.weak();
        std::thread::Builder::new()
            .name("lode-epoch".into())
            .spawn(move || {
                while let Some(engine) = ticking.upgrade() {
                    engine.increment_epoch();
                    drop(engine);
                    std::thread::sleep(TICK);
                }
            })
            .map_err(|e| {
                Error::new(ErrorKind::Internal, "the thread that ends endless modules does not start").caused_by(e)
            })?;
        let (cache, compiling) = (Mutex::default(), Arc::default());
        Ok(Engine { inner: Arc::new(Inner { wasm, limits, cache, compiling, slots }) })
    }

    /// The limits that modules are held to.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Checks and compiles `bytes`: a component, or a core module that becomes one. `name` is for messages.
    ///
    /// # Errors
    /// `Module`, each time with what to do: too large, not WebAssembly, another contract version, imports other than
    /// `log`, wrong types, compiled too slowly, or instantiation that fails.
    pub fn load(&self, bytes: &[u8], name: &str) -> Result<Module> {
        let limits = &self.inner.limits;
        if bytes.len() > limits.module_bytes {
            return Err(broken(name, format!("is `{}` bytes, more than `{}`", bytes.len(), limits.module_bytes))
                .hint("build it for release, stripped; or raise `module_bytes`"));
        }
        let sha256: [u8; 32] = Sha256::digest(bytes).into();
        let known = self.cache().get(&sha256).cloned();
        let compiled = match known {
            Some(compiled) => compiled,
            None => {
                let compiled = Arc::new(self.compile(bytes, name)?);
                let mut cache = self.cache();
                if cache.len() >= CACHED {
                    // The modules in use hold their code themselves; only the next load of old bytes is slower.
                    cache.clear();
                }
                cache.insert(sha256, compiled.clone());
                compiled
            }
        };
        Ok(Module { name: name.into(), sha256, compiled, limits: Arc::new(limits.clone()), _engine: self.clone() })
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Arc<Compiled>>> {
        self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compile(&self, bytes: &[u8], name: &str) -> Result<Compiled> {
        let kind = inspect::inspect(bytes, name)?;
        let wasm = self.inner.wasm.clone();
        let turn = self.inner.compiling.clone();
        let owned = bytes.to_vec();
        let (done, result) = mpsc::sync_channel(1);
        let started = Instant::now();
        // A thread of its own: the deadline holds even where the compiler does not end, and a defect in the compiler
        // that panics ends the thread and nothing else.
        std::thread::Builder::new()
            .name("lode-compile".into())
            .spawn(move || {
                let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                let compiled = inspect::to_component(&owned, kind)
                    .map_err(|e| format!("does not become a component: {e:#}"))
                    .and_then(|component| {
                        Component::new(&wasm, component).map_err(|e| format!("does not compile: {e:#}"))
                    });
                // Nobody listens any more when the deadline has passed.
                let _ = done.send(compiled);
            })
            .map_err(|e| Error::new(ErrorKind::Internal, "the compile thread does not start").caused_by(e))?;
        let limit = self.inner.limits.compile_time;
        let component = match result.recv_timeout(limit) {
            Ok(Ok(component)) => component,
            Ok(Err(reason)) => return Err(broken(name, clean(&reason, self.inner.limits.error_bytes))),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(broken(name, format!("did not compile within `{} s`", limit.as_secs()))
                    .hint("raise `compile_time`, or build a smaller module"));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(broken(name, "made the compiler fail".to_owned()));
            }
        };
        let compiled = self.bind(&component, name)?;
        let checked = Live::new(&compiled, &self.inner.limits).and_then(|mut live| live.check_types(&compiled));
        checked.map_err(|e| broken(name, format!("cannot be used: {}", clean(&e, self.inner.limits.error_bytes))))?;
        tracing::debug!(module = name, bytes = bytes.len(), took = ?started.elapsed(), "compiled");
        Ok(compiled)
    }

    fn bind(&self, component: &Component, name: &str) -> Result<Compiled> {
        let mut linker: Linker<State> = Linker::new(&self.inner.wasm);
        let bound = linker.instance(HOST).and_then(|mut host| host.func_wrap("log", log));
        bound.map_err(|e| Error::new(ErrorKind::Internal, "`log` cannot be offered").caused_by(format!("{e:#}")))?;
        let pre = linker
            .instantiate_pre(component)
            .map_err(|e| broken(name, clean(&format!("cannot be linked: {e:#}"), self.inner.limits.error_bytes)))?;
        let interface = format!("{GUEST}@{VERSION}");
        let missing = |what: &str| broken(name, format!("exports no `{what}`"));
        let guest = component.get_export_index(None, &interface).ok_or_else(|| missing(&interface))?;
        let find = |function: &str| component.get_export_index(Some(&guest), function).ok_or_else(|| missing(function));
        Ok(Compiled {
            slots: self.inner.slots.clone(),
            pre,
            describe: find("describe")?,
            transform: find("transform")?,
        })
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("name", &self.name).field("sha256", &self.sha256()).finish_non_exhaustive()
    }
}

impl Module {
    /// What the pipeline calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hash of the bytes it was loaded from, as 64 hexadecimal digits.
    pub fn sha256(&self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.sha256 {
            // Writing to a String does not fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }

    /// The hash of the bytes it was loaded from.
    pub fn hash(&self) -> [u8; 32] {
        self.sha256
    }

    /// The same code, held to other limits from now on.
    #[must_use]
    pub fn held_to(&self, limits: Limits) -> Module {
        Module { limits: Arc::new(limits), ..self.clone() }
    }

    /// The limits it is held to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn broken(&self, message: &str) -> Error {
        broken(&self.name, clean(message, self.limits.error_bytes))
    }
}

fn broken(name: &str, message: String) -> Error {
    Error::new(ErrorKind::Module, format!("module `{name}` {message}"))
}

fn configure(limits: &Limits, slots: &Slots) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .parallel_compilation(true)
        // Determinism: one NaN, and no instruction whose result depends on the processor.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        // What compilers emit today.
        .wasm_component_model(true)
        .wasm_simd(true)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_extended_const(true)
        // What no guest needs. Threads, garbage collection, exceptions and async are not compiled in at all.
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_tail_call(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .shared_memory(false)
        .concurrency_support(false)
        // Interruption by time; fuel costs a quarter of the speed.
        .epoch_interruption(true)
        .consume_fuel(false)
        .max_wasm_stack(limits.stack_bytes)
        // Instances from a pool, their memories reset to an image of the initial one.
        .allocation_strategy(slots.pool(limits))
        .memory_init_cow(true)
        .signals_based_traps(true)
        .memory_guard_size(32 << 20)
        .guard_before_linear_memory(true)
        .generate_address_map(false)
        .native_unwind_info(false)
        .debug_info(false)
        .wasm_backtrace_max_frames(None);
    config
}
