//! A record's way between log and log: source, stages, sinks. `task` walks it top-down.

pub mod batch;
pub mod kept;
pub mod migrate;
pub mod placement;
pub mod plan;
pub mod provenance;
pub mod reject;
pub mod repartition;
pub mod sink;
pub mod source;
pub mod stage;
pub mod window;
