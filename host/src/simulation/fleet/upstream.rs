//! What comes into the sources.

use super::shape::Shape;
use super::{Fleet, fleet};
use crate::io::{TopicPartition, partition_for};
use crate::simulation::broker::Record;
use crate::simulation::workload::{self, INPUT, ROWS};
use crate::simulation::world::{World, with};

/// Some records come in.
pub fn produce() {
    fleet(|fleet| with(|world| fleet.produce(world)));
}

impl Fleet {
    fn produce(&mut self, world: &mut World) {
        let Shape { kind, gated, runs, .. } = self.shape;
        let gated = gated && runs == 0;
        let consumed = |topic: &str, world: &World| kind.table() && world.broker.consumed(&topic.into());
        if consumed(ROWS, world) {
            self.met.clone_from(&self.versions);
        }
        let rows = kind.table() && world.random.once_in(3);
        if kind.table() && gated && !(consumed(ROWS, world) && (!rows || consumed(INPUT, world))) {
            return;
        }
        let id = "upstream".into();
        let (transactional, aborted) = (world.random.once_in(2), world.random.once_in(4));
        for _ in 0..1 + world.random.below(6) {
            let user = world.random.below(self.produced.len());
            let seq = self.produced[user] + 1;
            if seq > self.goal[user] {
                continue;
            }
            let lost = transactional && aborted;
            let record = self.record(world, user, if lost { -1 } else { seq }, rows);
            let to = TopicPartition::new(
                if rows { ROWS } else { INPUT },
                partition_for(record.key.as_deref().unwrap_or_default(), self.shape.partitions),
            );
            if !transactional {
                world.broker.produce(&to, &[record]);
            } else if world.broker.append(&id, self.upstream, world.now, &to, &[record]).is_err() {
                // The transaction before is being ended.
                return;
            }
            match (lost, rows) {
                (true, _) => {}
                (false, true) => self.versions[user] += 1,
                (false, false) => self.produced[user] = seq,
            }
        }
        if transactional {
            // Err: nothing was left to produce.
            let _ = world.broker.end(&id, self.upstream, !aborted);
        }
    }

    fn record(&mut self, world: &mut World, user: usize, seq: i64, rows: bool) -> Record {
        if !self.shape.kind.timed() {
            return workload::record(user, seq, self.shape.kind, world.now.as_millis() as i64);
        }
        self.time += world.random.of(&[0, 0, 3, 10, 40]);
        let time = self.time - world.random.below(30) as i64;
        if rows {
            return workload::row(user, self.versions[user] + 1, time);
        }
        let due = world.random.of(&[0, 0, 5, 20, 60, 200]);
        let most = if self.shape.gated { self.met[user] } else { i64::MAX };
        workload::timed_record(user, seq, time, due, (self.met[user], most))
    }
}
