//! How a command that goes on is told to stop.

use super::{Exit, Failure, Output, tell};
use crate::log::embedded::EmbeddedLog;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// A stop takes no longer, whatever it waits for: brokers that are gone for good, above all. Whoever supervises processes kills them after 30 s or so, and a
/// process that is killed tells nothing.
const PATIENCE: Duration = Duration::from_secs(25);

/// At once, wherever the other threads are.
fn exit(code: i32) -> ! {
    EmbeddedLog::remove_temporary();
    std::process::exit(code)
}

/// Raised by SIGINT and SIGTERM: the command commits what it has done and leaves. The process ends at a second signal, or when its patience does.
pub fn on_signals(output: Output) -> anyhow::Result<Arc<AtomicBool>> {
    let raised = Arc::new(AtomicBool::new(false));
    let told = raised.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let mut one_of_both = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let listen = async move {
        one_of_both().await;
        told.store(true, Ordering::Relaxed);
        tracing::info!("stopping: what is processed is committed first; a second signal ends at once");
        if tokio::time::timeout(PATIENCE, one_of_both()).await.is_ok() {
            exit(Exit::Interrupted as i32);
        }
        let error = anyhow::anyhow!(
            "told to stop {} s ago, and what the command waits for has not ended: it ends without it. What is not committed is done again by whoever goes on; what was \
             being deployed or reset is shown by `millstream status`",
            PATIENCE.as_secs()
        );
        exit(tell(output, &Failure { exit: Exit::Log, error }))
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(listen))?;
    Ok(raised)
}
