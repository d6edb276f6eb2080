//! A task turns to a newer generation of its pipeline: partitions, time, tables and stores stay where they are, with all that is not committed yet.
//! What plugins remember is not state: their instances are new.

use super::make::{sinks, stages};
use super::{Setting, Task};
use crate::flow::placement::Placement;
use crate::plugin::CallError;
use std::collections::HashMap;
use std::sync::Arc;

impl Task {
    /// Goes on by another setting, which has the same sources, tables, stores and segments. Everything processed so far is of the generation before, whose
    /// transaction is begun or done. Err: the stage whose plugin does not start; the task is then to be given up.
    pub fn succeed(&mut self, setting: Arc<Setting>) -> Result<(), (usize, CallError)> {
        // It stands on stores that move.
        self.end_shadow();
        let mut kept = HashMap::new();
        for stage in &mut self.stages {
            kept.extend(stage.take_stores().into_iter().map(|store| (store.name().clone(), store)));
        }
        self.stages = stages(&setting, self.id, &self.tables, &mut kept);
        debug_assert!(kept.is_empty(), "a store was lost");
        self.sinks = sinks(&setting, self.id);
        self.placement = Placement::new(&setting.pipeline);
        for queue in &mut self.queues {
            queue.since = queue.position.unwrap_or(0);
            queue.cut = setting.generation_number() != self.setting.generation_number();
        }
        self.begun = false;
        self.sweeps = true;
        self.turned = 0;
        self.taken = 0;
        self.refused.clear();
        self.buried.clear();
        self.setting = setting;
        self.prepare()
    }
}
