//! `serve --listen`: figures and health of all pipelines of a host.

use super::ends::Ends;
use super::{Server, answer, code, page, told};
use crate::fleet::shown::{Board, Shown};
use crate::io::Log;
use crate::metrics::Metrics;
use crate::monitor::Health;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Map, Value, json};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// What answers while the host runs.
pub struct Listener {
    pub address: SocketAddr,
    _server: Server,
    _ends: Ends,
}

struct Shared {
    board: Arc<Board>,
    metrics: Metrics,
}

impl Listener {
    pub fn start(listener: TcpListener, board: Arc<Board>, log: Arc<dyn Log>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared { metrics: Metrics::of_host(board.clone()), board: board.clone() });
        let router = Router::new().route("/metrics", get(figures)).route("/healthz", get(health)).with_state(shared);
        let server = Server::start(listener, router)?;
        let ends = Ends::start(log, move || board.monitors())?;
        Ok(Self { address: server.address, _server: server, _ends: ends })
    }
}

async fn figures(State(shared): State<Arc<Shared>>) -> Response {
    page(&shared.metrics)
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let (health, body) = worst(&shared.board);
    answer(code(health), &body)
}

/// How a pipeline fares here.
fn of(shown: &Shown) -> Health {
    match (&shown.failure, &shown.run) {
        (Some(_), _) => Health::Failed,
        (None, Some((_, monitor))) => monitor.health(),
        (None, None) if shown.active == 0 => Health::Ended,
        (None, None) => Health::Starting,
    }
}

/// The higher, the worse.
fn rank(health: Health) -> u8 {
    match health {
        Health::Ended => 0,
        Health::Running => 1,
        Health::Paused => 2,
        Health::Restoring(..) => 3,
        Health::Starting => 4,
        Health::Waiting(_) if health.is_well() => 5,
        Health::Waiting(_) => 6,
        Health::Failed => 7,
    }
}

/// The worst of the pipelines, which it is, and all of them; a host that cannot reach the control topic is one that waits.
fn worst(board: &Board) -> (Health, Value) {
    let mut pipelines = Map::new();
    let mut worst = (board.away().map_or(Health::Running, Health::Waiting), None);
    for (name, shown) in board.pipelines() {
        let health = of(&shown);
        let mut one = told(health);
        if let Some(why) = &shown.failure {
            one["error"] = why.as_str().into();
        }
        let workers = shown.run.iter().flat_map(|(_, monitor)| monitor.workers());
        one["parked"] = workers.map(|worker| worker.figures.parked.len()).sum::<usize>().into();
        pipelines.insert(name.clone(), one);
        if rank(health) > rank(worst.0) {
            worst = (health, Some(name));
        }
    }
    let mut body = told(worst.0);
    body["pipeline"] = json!(worst.1);
    body["pipelines"] = Value::Object(pipelines);
    (worst.0, body)
}
