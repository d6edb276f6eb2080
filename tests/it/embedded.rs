//! The embedded log: the contract of logs, and what only it promises.

use crate::log_contract::contract_tests;
use millstream::io::Log;
use millstream::log::embedded::{EmbeddedLog, Options};

mod contract {
    use super::*;

    fn open() -> Option<Box<dyn Log>> {
        Some(Box::new(EmbeddedLog::temporary(Options::default()).unwrap()))
    }

    contract_tests!(open);
}
