//! Compiles components and runs them within their limits. With `bindings`, the only place that knows wasmtime.
//!
//! There is one wasmtime engine a process: compiled components are kept by digest, and on disk (`cache`); instances come from one pool. A call runs on its
//! caller's thread; epochs (`budget`) end it when its CPU budget is used. After any failure an instance is gone, and its owner makes a new one.

mod budget;
mod cache;
mod component;
mod contract;
mod convert;
mod host;
mod optional;

use crate::column::Column;
use crate::plugin::bindings::exports::millstream::plugin::transform;
use crate::plugin::bindings::{Plugin as Exports, PluginIndices};
use crate::plugin::describe::{About, Description, Mistake, Occasion, Request};
use crate::plugin::{CallError, DescribeError, Input, Instance, Limits, Loader, Plugin, Services, Verdict, verify};
use anyhow::Context;
use budget::Ticker;
pub use cache::keep_compiled;
pub use contract::{CONTRACT, Contract};
use host::Data;
use optional::Optional;
use sha2::Digest;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Cache, Config, InstanceAllocationStrategy, PoolingAllocationConfig, Store, Trap, UpdateDeadline, WasmBacktrace};

/// Instances that may live at the same time. The pool only reserves addresses for them.
const INSTANCES: u32 = 4000;
/// Core instances of one component: its own module, and the small ones around it.
const CORE_INSTANCES: u32 = 50;
/// Bytes of a memory that are zeroed rather than unmapped when an instance goes: mapping them anew costs more.
const KEEP_RESIDENT: usize = 1 << 20;
/// Stack of a guest, bytes: less than half of what a thread of Rust's has by default.
const STACK: usize = 512 << 10;
/// Frames of a guest's stack that are looked at when it traps.
const FRAMES: usize = 24;
/// What a guest may give in one call beyond its own memory: columns are copied as they are, but lists of records are wider in the host.
const GIVEN_BEYOND_MEMORY: usize = 16 << 20;
/// Compiled components that are kept though nobody uses them.
const KEPT: usize = 64;

/// Compiles plugins. Every engine of a process shares one cache and one pool.
#[derive(Clone, Copy)]
pub struct Engine {
    shared: &'static Shared,
}

struct Shared {
    engine: wasmtime::Engine,
    linker: Linker<Data>,
    ticker: Ticker,
    cache: Option<Cache>,
    /// By digest. A slot is locked while it is filled, so that a component is compiled once.
    compiled: Mutex<HashMap<String, Slot>>,
}

type Slot = Arc<Mutex<Option<Arc<Compiled>>>>;

impl Engine {
    pub fn new() -> anyhow::Result<Self> {
        static SHARED: OnceLock<Result<Shared, String>> = OnceLock::new();
        match SHARED.get_or_init(|| Shared::new().map_err(|error| format!("{error:#}"))) {
            Ok(shared) => Ok(Self { shared }),
            Err(error) => anyhow::bail!("WebAssembly cannot run on this machine: {error}"),
        }
    }
}

impl Shared {
    fn new() -> anyhow::Result<Self> {
        // Where so many addresses cannot be reserved (a limit on virtual memory), instances are made on demand, with memories as large as they are,
        // whose bounds are checked by the guest's code.
        let cache = cache::open();
        let config = || config(cache.clone());
        let frugal = || wasmtime::Engine::new(config().memory_reservation(0).memory_reservation_for_growth(1 << 20).memory_guard_size(0));
        let engine = wasmtime::Engine::new(config().allocation_strategy(pool())).or_else(|_| frugal())?;
        let mut linker = Linker::new(&engine);
        Exports::add_to_linker::<_, HasSelf<Data>>(&mut linker, |data| data)?;
        let epochs = engine.clone();
        let ticker = Ticker::start(move || epochs.increment_epoch()).context("cannot start a thread")?;
        Ok(Self { engine, linker, ticker, cache, compiled: Mutex::default() })
    }

    /// Components that were found compiled.
    fn hits(&self) -> usize {
        self.cache.as_ref().map_or(0, Cache::cache_hits)
    }
}

fn config(cache: Option<Cache>) -> Config {
    let mut config = Config::new();
    config
        .cache(cache)
        // Costs 120 ns an import and 500 ns a call, for what no plugin uses.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(STACK)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(FRAMES))
        // The same input gives the same output, on every machine.
        .relaxed_simd_deterministic(true)
        .cranelift_nan_canonicalization(true);
    config
}

fn pool() -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(INSTANCES)
        .total_memories(INSTANCES)
        .total_tables(4 * INSTANCES)
        .total_core_instances(5 * INSTANCES)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(4)
        .max_tables_per_component(CORE_INSTANCES)
        .table_elements(host::TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(64 << 10);
    InstanceAllocationStrategy::Pooling(pool)
}

impl Loader for Engine {
    fn load(&self, component: &[u8]) -> anyhow::Result<Arc<dyn Plugin>> {
        let digest: String = sha2::Sha256::digest(component).iter().map(|byte| format!("{byte:02x}")).collect();
        let slot = {
            let mut compiled = self.shared.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            if compiled.len() > KEPT {
                compiled.retain(|_, slot| Arc::strong_count(slot) > 1 || in_use(slot));
            }
            compiled.entry(digest.clone()).or_default().clone()
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = &*slot {
            return Ok(plugin.clone());
        }
        let plugin = Arc::new(Compiled::new(self.shared, component, digest)?);
        *slot = Some(plugin.clone());
        Ok(plugin)
    }
}

fn in_use(slot: &Slot) -> bool {
    slot.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|plugin| Arc::strong_count(plugin) > 1)
}

struct Compiled {
    exports: InstancePre<Data>,
    indices: PluginIndices,
    optional: Optional,
    ticker: &'static Ticker,
    about: About,
    digest: String,
    surface: component::Surface,
}

impl Compiled {
    fn new(shared: &'static Shared, bytes: &[u8], digest: String) -> anyhow::Result<Self> {
        let surface = component::surface(bytes)?;
        let (hits, started) = (shared.hits(), Instant::now());
        let component =
            Component::from_binary(&shared.engine, bytes).map_err(anyhow::Error::from).context("this component does not compile")?;
        tracing::debug!(digest, kept = shared.hits() > hits, took = ?started.elapsed(), "a component is ready");
        let linked = shared.linker.instantiate_pre(&component).and_then(|exports| Ok((PluginIndices::new(&exports)?, exports)));
        let (indices, exports) = linked.map_err(anyhow::Error::from).with_context(|| {
            format!("this component does not fit the plugin contract {CONTRACT}: build it anew with the SDK of this version")
        })?;
        let optional = Optional::of(&component);
        let mut plugin = Self { exports, indices, optional, ticker: &shared.ticker, about: About::default(), digest, surface };
        let answer = plugin.start(Limits::default())?.run(|exports, store| exports.call_about(store)).context("`about` failed")?;
        plugin.about = serde_json::from_str(&answer).context("`about` does not answer as `about.schema.json` says")?;
        Ok(plugin)
    }

    fn start(&self, limits: Limits) -> Result<Guest, CallError> {
        let mut store = Store::new(self.exports.component().engine(), Data::new(limits));
        store.limiter(|data| data);
        store.set_hostcall_fuel(limits.memory.saturating_add(GIVEN_BEYOND_MEMORY));
        store.epoch_deadline_callback(|mut store| store.data_mut().within_budget().map(|()| UpdateDeadline::Continue(1)));
        // Nothing is read from the guest yet, so that nothing can be malformed.
        let instance = within(&mut store, self.ticker, |store| self.exports.instantiate(store));
        let loaded = instance.and_then(|instance| {
            let exports = self.indices.load(&mut store, &instance).map_err(|error| CallError::NoInstance(format!("{error:#}")))?;
            Ok((exports, instance))
        });
        let (exports, instance) = loaded.map_err(|error| match error {
            CallError::Malformed(message) => CallError::NoInstance(message),
            error => error,
        })?;
        Ok(Guest { store, exports, instance, ticker: self.ticker })
    }
}

impl Plugin for Compiled {
    fn about(&self) -> &About {
        &self.about
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn imports(&self) -> &[String] {
        &self.surface.imports
    }

    fn contract(&self) -> Contract {
        self.surface.contract
    }

    fn offers(&self, export: &str) -> bool {
        self.optional.offers(export)
    }

    fn describe(&self, request: &Request) -> Result<Description, DescribeError> {
        let text = as_text(request)?;
        let answer = self.start(Limits::default())?.run(|exports, store| exports.call_describe(store, &text))?;
        match answer {
            Ok(answer) => {
                let description: Description = from_text(&answer, "describe-answer.schema.json")?;
                verify::description(&description, request).map_err(|error| CallError::Malformed(format!("describe: {error}")))?;
                Ok(description)
            }
            Err(mistakes) => match from_text::<Vec<Mistake>>(&mistakes, "describe-errors.schema.json")? {
                none if none.is_empty() => Err(CallError::Malformed("describe: it failed without a mistake".to_owned()).into()),
                mistakes => Err(DescribeError::Mistakes(mistakes)),
            },
        }
    }

    fn instantiate(&self, request: &Request, description: &Description, limits: Limits) -> Result<Box<dyn Instance>, CallError> {
        let text = as_text(request)?;
        let mut guest = self.start(limits)?;
        guest.run(|exports, store| exports.call_init(store, &text))?.map_err(CallError::Failed)?;
        Ok(Box::new(Live { guest: Some(guest), optional: self.optional.clone(), description: Arc::new(description.clone()) }))
    }
}

fn as_text(request: &Request) -> Result<String, CallError> {
    serde_json::to_string(request).map_err(|error| CallError::Malformed(format!("the request cannot be written as JSON: {error}")))
}

fn from_text<T: serde::de::DeserializeOwned>(answer: &str, schema: &str) -> Result<T, CallError> {
    serde_json::from_str(answer).map_err(|error| CallError::Malformed(format!("describe: the answer is not as `{schema}` says: {error}")))
}

/// An instance, whatever it is used for.
struct Guest {
    store: Store<Data>,
    exports: Exports,
    instance: wasmtime::component::Instance,
    ticker: &'static Ticker,
}

impl Guest {
    fn run<R>(&mut self, call: impl FnOnce(&transform::Guest, &mut Store<Data>) -> wasmtime::Result<R>) -> Result<R, CallError> {
        let exports = self.exports.millstream_plugin_transform();
        within(&mut self.store, self.ticker, |store| call(exports, store))
    }
}

/// Runs something of the guest's within its limits.
fn within<R>(store: &mut Store<Data>, ticker: &Ticker, call: impl FnOnce(&mut Store<Data>) -> wasmtime::Result<R>) -> Result<R, CallError> {
    let _running = ticker.run();
    store.data_mut().begin();
    store.set_epoch_deadline(1);
    call(store).map_err(|error| failure(&error, store.data_mut()))
}

fn failure(error: &wasmtime::Error, data: &mut Data) -> CallError {
    if let Some(failure) = data.take_failure() {
        return failure;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => CallError::StackOverflow,
        Some(Trap::MemoryOutOfBounds) if in_deep_recursion(error) => CallError::StackOverflow,
        Some(trap) => {
            let trap = trap.to_string();
            let trap = trap.trim_start_matches("wasm trap: ");
            // Plugins are stripped as a rule.
            let function = frames(error).find_map(|frame| frame.func_name());
            CallError::Trapped(function.map_or_else(|| trap.to_owned(), |function| format!("{trap}, in the function `{function}`")))
        }
        // What it gave could not be read: a list beyond its memory, an unknown case of a variant, a text that is not UTF-8, more than its share.
        None => CallError::Malformed(format!("{error:#}")),
    }
}

/// From where it trapped outwards.
fn frames(error: &wasmtime::Error) -> impl Iterator<Item = &wasmtime::FrameInfo> {
    error.downcast_ref::<WasmBacktrace>().into_iter().flat_map(WasmBacktrace::frames)
}

/// Languages with a stack in linear memory put it first, growing down, so that a recursion too deep reaches outside of the memory.
fn in_deep_recursion(error: &wasmtime::Error) -> bool {
    let functions: Vec<u32> = frames(error).map(wasmtime::FrameInfo::func_index).collect();
    functions.len() == FRAMES && functions.iter().collect::<HashSet<_>>().len() <= FRAMES / 4
}

/// An instance after `init`.
struct Live {
    /// None after a failure.
    guest: Option<Guest>,
    optional: Optional,
    description: Arc<Description>,
}

impl Live {
    /// A call into the guest with the services lent for it; what it gives is checked, and the instance is gone if anything was wrong.
    fn lend<R>(
        &mut self,
        rows: usize,
        services: &mut Box<dyn Services>,
        call: impl FnOnce(&mut Guest) -> Result<Result<R, String>, CallError>,
        check: impl FnOnce(R, &Description) -> Result<Verdict, String>,
    ) -> Result<Verdict, CallError> {
        // Taken, and put back only if all went well.
        let Some(mut guest) = self.guest.take() else {
            return Err(CallError::Trapped("an earlier call failed: the instance cannot be used any more".to_owned()));
        };
        guest.store.data_mut().open(&self.description, rows);
        std::mem::swap(&mut guest.store.data_mut().services, services);
        let answer = call(&mut guest);
        std::mem::swap(&mut guest.store.data_mut().services, services);
        let verdict = check(answer?.map_err(CallError::Failed)?, &self.description).map_err(CallError::Malformed)?;
        self.guest = Some(guest);
        Ok(verdict)
    }
}

impl Instance for Live {
    fn call(&mut self, input: &Input<'_>, services: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        let fields: Vec<_> = input.fields.iter().map(|column| convert::lend_column(column)).collect();
        let no_offsets = match input.headers {
            Some(headers) if headers.offsets.is_empty() => vec![0; input.rows + 1],
            _ => Vec::new(),
        };
        let batch = convert::lend_batch(input, &fields, &no_offsets);
        let call = |guest: &mut Guest| guest.run(|exports, store| exports.call_process(store, batch));
        self.lend(input.rows, services, call, |verdict, description| {
            let mut verdict = convert::verdict(verdict);
            verify::verdict(&mut verdict, description, verify::Shape::of(input))?;
            Ok(verdict)
        })
    }

    fn emit(
        &mut self,
        store: usize,
        occasion: Occasion,
        keys: &Column,
        fields: &[Column],
        services: &mut Box<dyn Services>,
    ) -> Result<Verdict, CallError> {
        let optional = self.optional.clone();
        let rows = verify::rows(keys);
        let call = |guest: &mut Guest| optional.emit(guest, store, occasion, keys, fields);
        self.lend(rows, services, call, |verdict, description| {
            let mut verdict = convert::verdict(verdict);
            verify::emitted(&mut verdict, description, rows)?;
            Ok(verdict)
        })
    }

    fn fire(&mut self, times: &[i64], keys: &Column, services: &mut Box<dyn Services>) -> Result<Verdict, CallError> {
        let optional = self.optional.clone();
        self.lend(
            times.len(),
            services,
            |guest| optional.fire(guest, times, keys),
            |verdict, description| {
                let mut verdict = convert::verdict(verdict);
                verify::emitted(&mut verdict, description, times.len())?;
                Ok(verdict)
            },
        )
    }

    fn migrate(&mut self, store: usize, from: usize, keys: &Column, fields: &[Column]) -> Result<Vec<Column>, CallError> {
        let Some(mut guest) = self.guest.take() else {
            return Err(CallError::Trapped("an earlier call failed: the instance cannot be used any more".to_owned()));
        };
        // Not opened: it has no stores and tables here.
        let rows = self.optional.migrate(&mut guest, store, from, keys, fields)?.map_err(CallError::Failed)?;
        let rows: Vec<Column> = rows.into_iter().map(convert::column).collect();
        let described = self.description.stores.get(store).map(|store| store.fields.as_slice()).unwrap_or_default();
        verify::rows_of_store(&rows, described, verify::rows(keys)).map_err(|error| CallError::Malformed(format!("migration: {error}")))?;
        self.guest = Some(guest);
        Ok(rows)
    }
}
