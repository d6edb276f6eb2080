//! Where the partitions end that are read: looked up now and then, so that lags are known.

use crate::io::{Log, TopicPartition};
use crate::monitor::{Monitor, Phase};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often the ends of partitions are looked up.
const LOOK_UP: Duration = Duration::from_secs(5);
/// How often it is looked whether partitions came that were not looked up yet.
const LOOK_ROUND: Duration = Duration::from_millis(500);

/// Looks ends up until it is dropped.
pub struct Ends {
    stop: Option<mpsc::Sender<()>>,
    over: mpsc::Receiver<()>,
}

impl Ends {
    /// `monitors`: of what runs at the moment.
    pub fn start(log: Arc<dyn Log>, monitors: impl Fn() -> Vec<Arc<Monitor>> + Send + 'static) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (done, over) = mpsc::channel();
        std::thread::Builder::new().name("ends".to_owned()).spawn(move || {
            look_up(&monitors, &*log, &stopped);
            // The log first: a temporary one is removed with its last user.
            drop(log);
            drop(monitors);
            drop(done);
        })?;
        Ok(Self { stop: Some(stop), over })
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.stop = None;
        // Brokers that are away may keep a look-up for longer; it ends with the process.
        let _ = self.over.recv_timeout(super::LEAVE);
    }
}

fn look_up(monitors: &dyn Fn() -> Vec<Arc<Monitor>>, log: &dyn Log, stop: &mpsc::Receiver<()>) {
    let mut looked = Instant::now();
    while stop.recv_timeout(LOOK_ROUND) == Err(RecvTimeoutError::Timeout) {
        let due = looked.elapsed() >= LOOK_UP;
        if due {
            looked = Instant::now();
        }
        for monitor in monitors() {
            if !look_up_one(&monitor, log, due, stop) {
                return;
            }
        }
    }
}

/// `due`: what is known is looked up anew. False: it is time to stop.
fn look_up_one(monitor: &Monitor, log: &dyn Log, due: bool, stop: &mpsc::Receiver<()>) -> bool {
    let workers = monitor.workers();
    // What cannot be reached need not be asked.
    if workers.iter().any(|worker| worker.troubled.is_some()) {
        return true;
    }
    let running = workers.iter().filter(|worker| worker.phase == Phase::Running);
    let read: BTreeSet<TopicPartition> = running.flat_map(|worker| worker.figures.partitions.keys().cloned()).collect();
    let known = monitor.ends();
    for at in read.into_iter().filter(|at| due || !known.contains_key(at)) {
        if stop.try_recv() == Err(mpsc::TryRecvError::Disconnected) {
            return false;
        }
        match log.bounds(&at) {
            Ok(bounds) => monitor.ends_at(at, bounds.end),
            Err(error) => {
                tracing::debug!("the lag in {at} is not known: {error}");
                break;
            }
        }
    }
    true
}
