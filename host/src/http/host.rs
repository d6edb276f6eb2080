//! `serve --listen`: figures and health of all pipelines of a host, and its API; who is let in.

use super::api::{self, Api, turned_away};
use super::ends::Ends;
use super::tokens::Tokens;
use super::{Server, answer, code, from_a_browser, page, told};
use crate::fleet::shown::{Board, Shown};
use crate::io::Log;
use crate::metrics::Metrics;
use crate::monitor::Health;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{HOST, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use serde_json::{Map, Value, json};
use std::net::{IpAddr, SocketAddr, TcpListener};
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
    tokens: Tokens,
}

/// Err: whoever reaches the address could steer the fleet.
pub fn check_address(address: SocketAddr, tokens: &Tokens, figures_only: bool) -> Result<(), String> {
    if address.ip().is_loopback() || figures_only || !tokens.is_empty() {
        return Ok(());
    }
    Err(format!(
        "whoever reaches {address} could deploy and delete pipelines: name tokens by --tokens FILE (or {}), serve figures and health alone by --figures-only, \
         or listen on 127.0.0.1",
        super::tokens::ENVIRONMENT
    ))
}

impl Listener {
    /// `api`: None = figures and health alone.
    pub fn start(listener: TcpListener, board: Arc<Board>, log: Arc<dyn Log>, tokens: Tokens, api: Option<Api>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared { metrics: Metrics::of_host(board.clone()), board: board.clone(), tokens });
        let mut router = Router::new().route("/metrics", get(figures)).with_state(shared.clone());
        if let Some(api) = api {
            let api = api::router(Arc::new(api)).layer(from_fn(not_from_a_browser));
            router = router.merge(api);
        }
        let router = router
            .fallback(async || {
                turned_away(StatusCode::NOT_FOUND, "there is nothing under this path; GET /v1/openapi.json tells what there is")
            })
            .method_not_allowed_fallback(async || turned_away(StatusCode::METHOD_NOT_ALLOWED, "this path knows no such method"))
            .layer(from_fn_with_state(shared.clone(), admitted))
            // Whoever watches whether it lives needs no token.
            .merge(Router::new().route("/healthz", get(health)).with_state(shared));
        let server = Server::start(listener, router)?;
        let ends = Ends::start(log, move || board.monitors())?;
        Ok(Self { address: server.address, _server: server, _ends: ends })
    }
}

/// A page in a browser must not steer what listens on the user's machine.
async fn not_from_a_browser(request: Request, next: Next) -> Response {
    match from_a_browser(request.headers()) {
        Some(refused) => refused,
        None => next.run(request).await,
    }
}

/// Lets through who has a token, if there are any; handlers find there whose it is.
async fn admitted(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let mut holder = None;
    if shared.tokens.is_empty() {
        if !is_of_this_machine(request.headers()) {
            return turned_away(
                StatusCode::FORBIDDEN,
                "without tokens, this host answers to `localhost` and to addresses, not to other names",
            );
        }
    } else {
        holder = shared.tokens.holder(request.headers());
        match &holder {
            None => {
                let mut refused =
                    turned_away(StatusCode::UNAUTHORIZED, "send a token that this host knows, as `Authorization: Bearer TOKEN`");
                refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return refused;
            }
            Some(holder) if !api::may(holder.role, request.method()) => {
                return turned_away(StatusCode::FORBIDDEN, "this token may look and change nothing: its role is `read`");
            }
            Some(_) => {}
        }
    }
    request.extensions_mut().insert(holder);
    next.run(request).await
}

/// A name of somebody else that was made to lead here is what a page in a browser would have asked for.
fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

async fn figures(State(shared): State<Arc<Shared>>) -> Response {
    page(&shared.metrics)
}

/// What there is to know; where there are tokens, whoever has none learns whether all is well.
async fn health(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let (health, body) = worst(&shared.board);
    if !shared.tokens.is_empty() && shared.tokens.holder(&headers).is_none() {
        return answer(code(health), &json!({ "status": body["status"] }));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_needs_no_token() {
        let none = Tokens::default();
        for (address, well) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("0.0.0.0:1", false),
            ("10.0.0.1:1", false),
            ("[::]:1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(check_address(address, &none, false).is_ok(), well, "{address}");
            assert!(check_address(address, &none, true).is_ok());
        }
        let why = check_address("0.0.0.0:1".parse().unwrap(), &none, false).unwrap_err();
        assert!(why.contains("--tokens") && why.contains("MILLSTREAM_TOKENS") && why.contains("127.0.0.1"), "{why}");
    }

    #[test]
    fn other_names_are_not_answered_without_tokens() {
        let is = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            is_of_this_machine(&headers)
        };
        for host in ["localhost:1", "LOCALHOST", "127.0.0.1:80", "[::1]:80", "10.1.2.3"] {
            assert!(is(host), "{host}");
        }
        for host in ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert!(!is(host), "{host}");
        }
        assert!(is_of_this_machine(&HeaderMap::new()));
    }
}
