//! CPU budgets of calls. Epochs tick by wall time; at a tick the thread's own CPU clock decides, so that a preempted guest is not blamed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How far a call may go beyond its budget.
const TICK: Duration = Duration::from_millis(10);
/// Ticks without a call after which the ticker sleeps until there is one: an idle host does not wake a hundred times a second.
const IDLE_TICKS: u32 = 100;

/// CPU time of this thread.
pub fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Ticks while calls are under way.
#[derive(Clone)]
pub struct Ticker {
    shared: Arc<Shared>,
    thread: std::thread::Thread,
}

#[derive(Default)]
struct Shared {
    calls: AtomicUsize,
    asleep: AtomicBool,
}

/// A call under way.
pub struct Running(Arc<Shared>);

impl Ticker {
    /// A thread of the process, which ends with it.
    pub fn start(mut tick: impl FnMut() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let ours = shared.clone();
        let thread = std::thread::Builder::new().name("epochs".to_owned()).spawn(move || {
            let mut idle = 0;
            loop {
                std::thread::sleep(TICK);
                tick();
                idle = if ours.calls.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
                if idle >= IDLE_TICKS {
                    ours.asleep.store(true, Ordering::SeqCst);
                    // A call that came before the store is seen here, one that comes after it wakes us.
                    while ours.calls.load(Ordering::SeqCst) == 0 {
                        std::thread::park();
                    }
                    ours.asleep.store(false, Ordering::SeqCst);
                    idle = 0;
                }
            }
        })?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    /// Keeps it ticking until the value is dropped.
    pub fn run(&self) -> Running {
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(self.shared.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn it_sleeps_without_calls_and_wakes_for_one() {
        let (sender, ticks) = mpsc::channel();
        let ticker = Ticker::start(move || sender.send(()).unwrap_or_default()).unwrap();
        for _ in 0..IDLE_TICKS {
            ticks.recv().unwrap();
        }
        // Asleep: a whole second passes without a tick that was not on its way.
        assert!((0..3).any(|_| ticks.recv_timeout(Duration::from_secs(1)).is_err()), "it ticks without a call");
        let running = ticker.run();
        for _ in 0..IDLE_TICKS + 10 {
            ticks.recv().unwrap();
        }
        drop(running);
    }
}
