//! `run --listen`: figures and health of a run, and pausing it.

use super::ends::Ends;
use super::{Server, answer, code, from_a_browser, page, told};
use crate::io::Log;
use crate::metrics::Metrics;
use crate::monitor::Monitor;
use crate::pipeline::Pipeline;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// How long an answer to `POST /pause` waits for the workers to come to rest.
const SETTLE: Duration = Duration::from_secs(10);

/// What answers while the run lasts.
pub struct Listener {
    pub address: SocketAddr,
    _server: Server,
    _ends: Ends,
}

struct Shared {
    pipeline: String,
    monitor: Arc<Monitor>,
    metrics: Metrics,
}

impl Listener {
    pub fn start(listener: TcpListener, pipeline: &Pipeline, monitor: &Arc<Monitor>, log: Arc<dyn Log>) -> anyhow::Result<Self> {
        let metrics = Metrics::new(pipeline, monitor.clone());
        let shared = Arc::new(Shared { pipeline: pipeline.name.clone(), monitor: monitor.clone(), metrics });
        let router = Router::new()
            .route("/metrics", get(figures))
            .route("/healthz", get(health))
            .route("/pause", post(pause))
            .route("/resume", post(resume))
            .with_state(shared);
        let server = Server::start(listener, router)?;
        let monitor = monitor.clone();
        let ends = Ends::start(log, move || vec![monitor.clone()])?;
        Ok(Self { address: server.address, _server: server, _ends: ends })
    }
}

async fn figures(State(shared): State<Arc<Shared>>) -> Response {
    page(&shared.metrics)
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let health = shared.monitor.health();
    let mut body = told(health);
    body["pipeline"] = shared.pipeline.as_str().into();
    answer(code(health), &body)
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
    answer(status, &serde_json::json!({ "paused": shared.monitor.paused(), "settled": settled }))
}

async fn resume(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if let Some(refused) = from_a_browser(&headers) {
        return refused;
    }
    shared.monitor.resume();
    tracing::info!(pipeline = shared.pipeline, "told to go on");
    answer(StatusCode::OK, &serde_json::json!({ "paused": shared.monitor.paused() }))
}
