//! A task turns to a newer generation of its pipeline: partitions, time, tables and stores stay where they are, with all that is not committed yet.
//! What plugins remember is not state: their instances are new.

use super::make::{sinks, stages};
use super::{Setting, Task};
use crate::course::Division;
use crate::flow::placement::Placement;
use crate::generation::Tried;
use crate::plugin::CallError;
use std::collections::HashMap;
use std::sync::Arc;

impl Task {
    /// Goes on by another setting, or by another beside it for some keys, which have the same sources, tables, stores and segments. Everything processed so far
    /// is of the generation before, whose transaction is begun or done. Err: the setting and stage whose plugin does not start; the task is then to be given up.
    pub fn succeed(&mut self, setting: Arc<Setting>, division: Division<'_>) -> Result<(), (Arc<Setting>, usize, CallError)> {
        let before = self.works_by();
        // They stand on stores that move.
        self.end_shadow();
        self.division = None;
        let mut kept = HashMap::new();
        for stage in &mut self.stages {
            kept.extend(stage.take_stores().into_iter().map(|store| (store.name().clone(), store)));
        }
        self.stages = stages(&setting, self.id, &self.tables, &mut kept, None);
        debug_assert!(kept.is_empty(), "a store was lost");
        self.sinks = sinks(&setting, self.id, &self.commit);
        self.placement = Placement::new(&setting.pipeline);
        self.begun = false;
        self.sweeps = true;
        self.turned = 0;
        self.taken = 0;
        self.refused.clear();
        self.buried.clear();
        self.setting = setting.clone();
        self.prepare().map_err(|(stage, error)| (setting, stage, error))?;
        self.divide(division)?;
        let now = self.works_by();
        for queue in &mut self.queues {
            queue.tried = Tried::before(before, queue.since, now);
            queue.since = queue.position.unwrap_or(0);
            queue.cut = now != before;
            queue.base_cut = now.base() != before.base();
        }
        Ok(())
    }
}
