//! The embedded log.

use crate::io::Log;
use std::path::Path;
use std::sync::Arc;

pub fn open(_folder: &Path) -> anyhow::Result<Arc<dyn Log>> {
    anyhow::bail!("not here yet")
}
