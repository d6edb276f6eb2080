//! What crosses crates, through the public surface: the command, real Kafka, hostile guests, the examples.

mod cli;
mod cluster;
mod contract;
mod dev;
mod embedded;
mod examples;
mod fleet;
mod guests;
mod hostile;
mod kafka;
mod log_contract;
mod manifest;
mod members;
mod new_plugin;
mod peer;
mod pipelines;
mod program;
mod schema;
mod serve;
mod standard;
mod trials;
