//! How a command that goes on is told to stop.

use super::Exit;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// A stop takes no longer, whatever it waits for: brokers that are gone for good, above all. Whoever supervises processes kills them after 30 s or so, and a
/// process that is killed tells nothing.
const PATIENCE: Duration = Duration::from_secs(25);

/// The folder of a log that is gone with the process.
static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// The folder is removed when the process ends, also at once.
pub fn removes(folder: &Path) {
    *FOLDER.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder.to_owned());
}

/// Removes it when this goes.
pub struct Removed;

impl Drop for Removed {
    fn drop(&mut self) {
        remove();
    }
}

fn remove() {
    if let Some(folder) = FOLDER.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // Its last user may have been first.
        drop(std::fs::remove_dir_all(folder));
    }
}

fn exit(code: Exit) -> ! {
    remove();
    std::process::exit(code as i32)
}

/// Raised by SIGINT and SIGTERM: the command commits what it has done and leaves. The process ends at a second signal, or when its patience does.
pub fn on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let raised = Arc::new(AtomicBool::new(false));
    let told = raised.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let listen = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        told.store(true, Ordering::Relaxed);
        tracing::info!("stopping: what is processed is committed first; a second signal ends at once");
        tokio::select! {
            _ = interrupt.recv() => exit(Exit::Interrupted),
            _ = terminate.recv() => exit(Exit::Interrupted),
            () = tokio::time::sleep(PATIENCE) => {}
        }
        tracing::error!(
            "told to stop {} s ago, and the log has not answered since: the process ends without it. What is not committed is done again by whoever goes on",
            PATIENCE.as_secs()
        );
        exit(Exit::Log)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(listen))?;
    Ok(raised)
}
