//! Plugins as the data path sees them. `engine` alone knows wasmtime, `bindings` the generated types, `verify` checks what a guest gives.

mod bindings;
pub mod engine;
pub mod schemas;
pub mod standard;
mod verify;

use crate::column::{Column, Strings};
use crate::record::Headers;
pub use millstream_guest::describe;
pub use millstream_guest::verdict::*;

/// Rows for a plugin; the fields are those of `types.batch` in `wit/plugin.wit`.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub rows: usize,
    pub stream_time: i64,
    pub timestamps: &'a [i64],
    /// In the order of `reads`.
    pub fields: &'a [&'a Column],
    pub keys: Option<&'a Column>,
    pub values: Option<&'a Column>,
    pub headers: Option<&'a Headers>,
    pub leaves: Option<&'a Leaves>,
}

/// Every leaf of each row (texts, numbers, literals, empty objects and arrays).
#[derive(Clone, Debug, Default)]
pub struct Leaves {
    /// rows + 1 entries.
    pub offsets: Vec<u32>,
    pub paths: Strings,
    pub values: Strings,
    /// Where each leaf stands in its row's value: byte range of the literal, quotes included. The host's own; not handed to the guest.
    pub spans: Vec<(u32, u32)>,
}

/// What a guest may call while it works on a batch. An error is wrong use: the guest traps with it.
pub trait Services: Send {
    fn get_many(&mut self, store: u32, keys: &Column) -> Result<Found, String>;
    fn put_many(&mut self, store: u32, keys: Column, fields: Vec<Column>) -> Result<(), String>;
    fn delete_many(&mut self, store: u32, keys: Column) -> Result<(), String>;
    fn scan(&mut self, store: u32, low: &Column, high: &Column, limit: u32) -> Result<Page, String>;
    fn lookup(&mut self, table: u32, rows: &[u32], keys: &Column) -> Result<Found, String>;
    fn log(&mut self, level: u8, row: Option<u32>, message: &str);
    /// Stream time before each row of the batch.
    fn stream_times(&mut self) -> Result<Vec<i64>, String> {
        Err("there are no windows".to_owned())
    }
    /// Sets or deletes timers.
    fn change_timers(&mut self, times: &[i64], keys: &Column, set: bool) -> Result<(), String> {
        let _ = (times, keys, set);
        Err("there are no timers".to_owned())
    }
    /// Rows of the batch that came too late for their session.
    fn late(&mut self, rows: &[u32]) -> Result<(), String> {
        let _ = rows;
        Err("there are no windows".to_owned())
    }
}

/// Why a call failed. Whatever it wrote is void, and its instance with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// `row`: where the guest says it was.
    #[error("the plugin panicked: {message}")]
    Panicked { message: String, row: Option<u32> },
    #[error("the plugin trapped: {0}")]
    Trapped(String),
    #[error("the plugin used up its CPU budget of {0:?} for one call")]
    OutOfTime(std::time::Duration),
    #[error("the plugin asked for more than its {0} bytes of memory")]
    OutOfMemory(usize),
    #[error("the plugin's recursion is too deep")]
    StackOverflow,
    /// It broke a rule of the contract.
    #[error("malformed output: {0}")]
    Malformed(String),
    /// The host's own doing: no memory, or too many instances.
    #[error("no instance of the plugin can be made: {0}")]
    NoInstance(String),
    /// `process` answered with an error.
    #[error("the plugin gave up: {0}")]
    Failed(String),
}

/// An instance of a plugin, ready for batches.
pub trait Instance: Send {
    /// One batch. The services are lent for the time of the call.
    fn call(&mut self, input: &Input<'_>, services: &mut Box<dyn Services>) -> Result<Verdict, CallError>;
    /// Rows of a store, of which the plugin makes results. Of the export `emitting`.
    fn emit(
        &mut self,
        store: usize,
        occasion: describe::Occasion,
        keys: &Column,
        fields: &[Column],
        services: &mut Box<dyn Services>,
    ) -> Result<Verdict, CallError>;
    /// Timers that are due. Of the export `timed`.
    fn fire(&mut self, times: &[i64], keys: &Column, services: &mut Box<dyn Services>) -> Result<Verdict, CallError>;
    /// Rows of an older type of a store, the `from`-th that the description lists: the columns of the store. Of the export `migration`. It has no stores and tables.
    fn migrate(&mut self, store: usize, from: usize, keys: &Column, fields: &[Column]) -> Result<Vec<Column>, CallError> {
        let _ = (store, from, keys, fields);
        Err(CallError::Failed("it has no `migration`".to_owned()))
    }
}

/// Limits of a plugin's instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time of one call.
    pub cpu: std::time::Duration,
    /// Linear memory, bytes.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpu: std::time::Duration::from_secs(1), memory: 64 << 20 }
    }
}

/// A compiled plugin.
pub trait Plugin: Send + Sync {
    fn about(&self) -> &describe::About;
    /// SHA-256 of the component, hexadecimal.
    fn digest(&self) -> &str;
    /// The interfaces that the component imports, without versions: `state`, `tables`, `log`, `windows`, `timers` for the contract's own, else the full name
    /// (`wasi:clocks/wall-clock`). Its imports are its permissions.
    fn imports(&self) -> &[String];
    /// The version of the contract that it was built for.
    fn contract(&self) -> engine::Contract {
        engine::CONTRACT
    }
    /// Whether it has this optional export: `emitting`, `timed`, `migration`.
    fn offers(&self, export: &str) -> bool {
        let _ = export;
        false
    }
    /// Asks a throw-away instance, within the limits' budget.
    fn describe(&self, request: &describe::Request) -> Result<describe::Description, DescribeError>;
    /// A live instance, after `init`. The request holds the secrets; the description is what `describe` answered without them.
    fn instantiate(
        &self,
        request: &describe::Request,
        description: &describe::Description,
        limits: Limits,
    ) -> Result<Box<dyn Instance>, CallError>;
}

/// Why a plugin did not describe itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DescribeError {
    /// The configuration is wrong.
    #[error("the configuration has mistakes")]
    Mistakes(Vec<describe::Mistake>),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Compiles components.
pub trait Loader: Send + Sync {
    /// Err: a message for the user: no component, another contract's version, an import that nobody offers.
    fn load(&self, component: &[u8]) -> anyhow::Result<std::sync::Arc<dyn Plugin>>;
}
