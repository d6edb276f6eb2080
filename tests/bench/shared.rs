//! What benchmarks of plugins have in common.

use millstream::column::Column;
use millstream::plugin::{Found, Page, Services};
use std::time::Duration;

/// CPU time of this thread.
pub fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

pub fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

/// The plugins measured use no state and no tables.
pub struct NoServices;

impl Services for NoServices {
    fn get_many(&mut self, _: u32, _: &Column) -> Result<Found, String> {
        Err("no state".to_owned())
    }
    fn put_many(&mut self, _: u32, _: Column, _: Vec<Column>) -> Result<(), String> {
        Err("no state".to_owned())
    }
    fn delete_many(&mut self, _: u32, _: Column) -> Result<(), String> {
        Err("no state".to_owned())
    }
    fn scan(&mut self, _: u32, _: &Column, _: &Column, _: u32) -> Result<Page, String> {
        Err("no state".to_owned())
    }
    fn lookup(&mut self, _: u32, _: &[u32], _: &Column) -> Result<Found, String> {
        Err("no tables".to_owned())
    }
    fn log(&mut self, _: u8, _: Option<u32>, _: &str) {}
}
