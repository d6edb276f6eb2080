//! A stage's own way from older types of its rows: an instance of its plugin apart from the one that works, since rows are read while that one is called.

use crate::column::Column;
use crate::plugin::describe::{Description, Request};
use crate::plugin::{Instance, Limits, Plugin};
use crate::store::Migrate;
use std::sync::Arc;

/// The export `migration` of a stage's plugin, for one of its stores.
pub struct ByPlugin {
    pub plugin: Arc<dyn Plugin>,
    pub request: Arc<Request>,
    pub description: Arc<Description>,
    pub limits: Limits,
    /// The store's place in the description.
    pub store: usize,
    /// Made when it is needed first, gone after a failure.
    pub instance: Option<Box<dyn Instance>>,
}

impl Migrate for ByPlugin {
    fn migrate(&mut self, from: usize, keys: &Column, fields: &[Column]) -> Result<Vec<Column>, String> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                let made = self.plugin.instantiate(&self.request, &self.description, self.limits);
                made.map_err(|error| format!("its plugin does not start: {error}"))?
            }
        };
        let columns = instance.migrate(self.store, from, keys, fields).map_err(|error| error.to_string())?;
        self.instance = Some(instance);
        Ok(columns)
    }
}
