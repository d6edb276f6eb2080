//! `run --listen`: figures and health of a run over HTTP, and pausing it. In threads of its own; workers are not kept waiting.

use crate::io::{Log, TopicPartition};
use crate::metrics::{self, Metrics};
use crate::monitor::{Health, Monitor, Phase};
use crate::pipeline::Pipeline;
use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap, ORIGIN};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often the ends of partitions are looked up.
const LOOK_UP: Duration = Duration::from_secs(5);
/// How often it is looked whether partitions came that were not looked up yet.
const LOOK_ROUND: Duration = Duration::from_millis(500);
/// How long an answer to `POST /pause` waits for the workers to come to rest.
const SETTLE: Duration = Duration::from_secs(10);
/// How long the end of the run waits for a look-up under way.
const LEAVE: Duration = Duration::from_secs(2);

/// A port alone is one of the loopback address.
fn address(place: &str) -> String {
    match place.strip_prefix(':').unwrap_or(place).parse::<u16>() {
        Ok(port) => format!("127.0.0.1:{port}"),
        Err(_) => place.to_owned(),
    }
}

/// Takes the address before anything else is done.
pub fn bind(place: &str) -> anyhow::Result<TcpListener> {
    let address = address(place);
    let listener = TcpListener::bind(&address)
        .with_context(|| format!("cannot listen on {address}; name another HOST:PORT with --listen, or port 0 for any that is free"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What answers while the run lasts.
pub struct Listener {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
    stop_ends: Option<mpsc::Sender<()>>,
    ends_over: mpsc::Receiver<()>,
}

struct Shared {
    pipeline: String,
    monitor: Arc<Monitor>,
    metrics: Metrics,
}

impl Listener {
    pub fn start(listener: TcpListener, pipeline: &Pipeline, monitor: &Arc<Monitor>, log: Arc<dyn Log>) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let metrics = Metrics::new(pipeline, monitor.clone());
        let shared = Arc::new(Shared { pipeline: pipeline.name.clone(), monitor: monitor.clone(), metrics });
        let router = Router::new()
            .route("/metrics", get(figures))
            .route("/healthz", get(health))
            .route("/pause", post(pause))
            .route("/resume", post(resume))
            .with_state(shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let server = std::thread::Builder::new().name("listen".to_owned()).spawn(move || {
            runtime.block_on(async {
                // Open connections are cut off: a client that is slow must not keep the program.
                tokio::select! {
                    served = axum::serve(listener, router).into_future() => {
                        if let Err(error) = served {
                            tracing::error!("figures are served no longer: {error}");
                        }
                    }
                    _ = stopped => {}
                }
            });
        })?;
        let (stop_ends, stop_looking) = mpsc::channel();
        let (over, ends_over) = mpsc::channel();
        let monitor = monitor.clone();
        std::thread::Builder::new().name("ends".to_owned()).spawn(move || {
            look_up_ends(&monitor, &*log, &stop_looking);
            // The log first: a temporary one is removed with its last user.
            drop(log);
            drop(over);
        })?;
        Ok(Self { address, stop: Some(stop), server: Some(server), stop_ends: Some(stop_ends), ends_over })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop_ends = None;
        self.stop = None;
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        // Brokers that are away may keep a look-up for longer; it ends with the process.
        let _ = self.ends_over.recv_timeout(LEAVE);
    }
}

/// Keeps the ends of the partitions known that the run reads, until `stop` is dropped.
fn look_up_ends(monitor: &Monitor, log: &dyn Log, stop: &mpsc::Receiver<()>) {
    let mut looked = Instant::now();
    while stop.recv_timeout(LOOK_ROUND) == Err(RecvTimeoutError::Timeout) {
        let workers = monitor.workers();
        // What cannot be reached need not be asked.
        if workers.iter().any(|worker| worker.troubled.is_some()) {
            continue;
        }
        let running = workers.iter().filter(|worker| worker.phase == Phase::Running);
        let read: BTreeSet<TopicPartition> = running.flat_map(|worker| worker.figures.partitions.keys().cloned()).collect();
        let due = looked.elapsed() >= LOOK_UP;
        if due {
            looked = Instant::now();
        }
        let known = monitor.ends();
        for at in read.into_iter().filter(|at| due || !known.contains_key(at)) {
            if stop.try_recv() == Err(mpsc::TryRecvError::Disconnected) {
                return;
            }
            match log.bounds(&at) {
                Ok(bounds) => monitor.ends_at(at, bounds.end),
                Err(error) => {
                    tracing::debug!("the lag in {at} is not known: {error}");
                    break;
                }
            }
        }
    }
}

async fn figures(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the figures could not be written\n").into_response(),
    }
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let health = shared.monitor.health();
    let mut body = serde_json::json!({ "status": "", "pipeline": shared.pipeline });
    let status = match health {
        Health::Failed => "failed",
        Health::Waiting(time) => {
            body["seconds"] = time.as_secs().into();
            "waiting for the log"
        }
        Health::Starting => "starting",
        Health::Restoring(read, total) => {
            body["read"] = read.into();
            body["expected"] = total.into();
            "restoring"
        }
        Health::Paused => "paused",
        Health::Running => "running",
        Health::Ended => "ended",
    };
    body["status"] = status.into();
    json(if health.is_well() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

/// A page in a browser, of whatever site, must not steer what listens on the user's machine.
fn from_a_browser(headers: &HeaderMap) -> Option<Response> {
    let refusal = serde_json::json!({ "error": "not from a page in a browser" });
    headers.contains_key(ORIGIN).then(|| json(StatusCode::FORBIDDEN, &refusal))
}

/// Answers when every worker has come to rest, or says that some have not.
async fn pause(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if let Some(refused) = from_a_browser(&headers) {
        return refused;
    }
    shared.monitor.pause();
    tracing::info!(pipeline = shared.pipeline, "told to pause");
    let settled = tokio::time::timeout(SETTLE, shared.monitor.settled()).await.is_ok();
    let status = if settled { StatusCode::OK } else { StatusCode::ACCEPTED };
    json(status, &serde_json::json!({ "paused": shared.monitor.paused(), "settled": settled }))
}

async fn resume(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if let Some(refused) = from_a_browser(&headers) {
        return refused;
    }
    shared.monitor.resume();
    tracing::info!(pipeline = shared.pipeline, "told to go on");
    json(StatusCode::OK, &serde_json::json!({ "paused": shared.monitor.paused() }))
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn a_port_alone_is_of_the_loopback_address() {
        let cases = [
            ("9464", "127.0.0.1:9464"),
            (":9464", "127.0.0.1:9464"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("[::1]:2", "[::1]:2"),
            ("box:3", "box:3"),
        ];
        for (place, expected) in cases {
            assert_eq!(address(place), expected);
        }
    }
}
