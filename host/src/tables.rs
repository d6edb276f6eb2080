//! Global tables: read to their ends before the first record of a source, then kept current, by one worker for all of a host.

use crate::io::{Event, FetchLimit, Log, LogError, Reader, TopicPartition, partitions_of};
use crate::store::GlobalTable;
use crate::task::Setting;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Keeps the global tables current.
pub struct TableReader {
    reader: Box<dyn Reader>,
    tables: Vec<(Arc<str>, Arc<RwLock<GlobalTable>>)>,
    told: u64,
}

/// Records of tables that do not decode are told one by one up to here, then counted.
const TOLD: u64 = 10;

impl TableReader {
    /// Reads every table to its end. None if there are none.
    pub fn new(setting: &Setting, log: &dyn Log, stop: &AtomicBool) -> Result<Option<Self>, LogError> {
        let described = setting.pipeline.tables.iter().map(|table| table.topic.clone()).zip(&setting.tables);
        let tables: Vec<_> = described.filter_map(|(topic, table)| Some((topic, table.clone()?))).collect();
        if tables.is_empty() {
            return Ok(None);
        }
        let mut starts = Vec::new();
        let mut left: HashMap<TopicPartition, i64> = HashMap::new();
        for (topic, _) in &tables {
            for partition in partitions_of(log, topic)? {
                let bounds = log.bounds(&partition)?;
                if starts.iter().any(|(known, _)| *known == partition) {
                    continue;
                }
                starts.push((partition.clone(), bounds.begin));
                if bounds.end > bounds.begin {
                    left.insert(partition, bounds.end);
                }
            }
        }
        let mut reader = log.reader()?;
        reader.assign(&starts)?;
        let mut tables = Self { reader, tables, told: 0 };
        while !left.is_empty() && !stop.load(Ordering::Relaxed) {
            match tables.poll(Duration::from_millis(100), &left)? {
                Some((at, offset)) if left.get(&at).is_some_and(|end| offset >= *end) => drop(left.remove(&at)),
                _ => {}
            }
        }
        Ok(Some(tables))
    }

    /// Takes over what has come, without waiting.
    pub fn follow(&mut self) -> Result<(), LogError> {
        while self.poll(Duration::ZERO, &HashMap::new())?.is_some() {}
        Ok(())
    }

    /// One poll; answers with the partition that moved and its next offset. Records at or past a captured end are left out.
    fn poll(&mut self, wait: Duration, ends: &HashMap<TopicPartition, i64>) -> Result<Option<(TopicPartition, i64)>, LogError> {
        match self.reader.poll(FetchLimit { rows: 1000, bytes: 1 << 20 }, wait)? {
            Event::Records(fetched) => {
                for (topic, table) in &self.tables {
                    if *topic == fetched.from.topic {
                        for message in table.write().unwrap_or_else(PoisonError::into_inner).apply(&fetched) {
                            self.told += 1;
                            if self.told <= TOLD {
                                tracing::warn!("{message}");
                            }
                        }
                    }
                }
                let next = fetched.offsets.last().map_or(0, |offset| offset + 1);
                Ok(Some((fetched.from, next)))
            }
            Event::End { at, offset } if ends.contains_key(&at) => Ok(Some((at, offset))),
            _ => Ok(None),
        }
    }
}
