//! Millstream: a stream processor whose transforms are WebAssembly plugins.
//!
//! A record's way: source -> task queue -> stage -> plugin instance <-> state store -> sink -> commit.
//! Imports run one way: column, field, record <- io <- share <- generation, shadow <- plugin, format, pipeline, key <- log, store <- manifest <- flow (source, stage, sink) <- task <- course, restore, tables, monitor, isolation <- worker <- runtime <- fleet <- replay, metrics, verbs <- http <- cli.

pub use millstream_guest::{column, field};

pub mod cli;
pub mod clock;
pub mod course;
pub mod dry_run;
mod explain;
mod fault;
pub mod fleet;
pub mod flow;
pub mod format;
pub mod generation;
pub mod guest_build;
mod http;
pub mod io;
mod isolation;
pub mod jsonl;
pub mod key;
pub mod log;
pub mod manifest;
mod metrics;
pub mod monitor;
pub mod pipeline;
mod planted;
pub mod plugin;
mod random;
pub mod record;
mod replay;
mod restore;
pub mod runtime;
pub mod settings;
pub mod shadow;
pub mod share;
#[cfg(test)]
mod simulation;
pub mod store;
pub mod summary;
pub mod tables;
pub mod task;
pub mod verbs;
pub mod worker;
