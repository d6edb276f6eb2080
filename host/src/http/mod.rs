//! What a run or a host tells and takes over HTTP. In threads of its own; workers are not kept waiting.

pub mod api;
mod bodies;
mod ends;
pub mod host;
mod query;
pub mod run;
pub mod tokens;

use crate::metrics::{self, Metrics};
use crate::monitor::Health;
use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap, ORIGIN};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the end of the server waits for what it does in threads.
const LEAVE: Duration = Duration::from_secs(2);
/// How many requests are worked on in threads at once; others wait.
const THREADS: usize = 16;

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

/// Answers until it is dropped.
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(listener: TcpListener, router: Router) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_io().enable_time().max_blocking_threads(THREADS).build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("listen".to_owned()).spawn(move || {
            runtime.block_on(async {
                // Open connections are cut off: a client that is slow must not keep the program.
                tokio::select! {
                    served = axum::serve(listener, router).into_future() => {
                        if let Err(error) = served {
                            tracing::error!("nothing is served any longer: {error}");
                        }
                    }
                    _ = stopped => {}
                }
            });
            runtime.shutdown_timeout(LEAVE);
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

fn page(metrics: &Metrics) -> Response {
    match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the figures could not be written\n").into_response(),
    }
}

/// A page in a browser, of whatever site, must not steer what listens on the user's machine.
fn from_a_browser(headers: &HeaderMap) -> Option<Response> {
    let refusal = json!({ "error": "not from a page in a browser" });
    headers.contains_key(ORIGIN).then(|| answer(StatusCode::FORBIDDEN, &refusal))
}

/// As JSON, without saying whose.
fn told(health: Health) -> Value {
    match health {
        Health::Failed => json!({ "status": "failed" }),
        Health::Waiting(time) => json!({ "status": "waiting for the log", "seconds": time.as_secs() }),
        Health::Starting => json!({ "status": "starting" }),
        Health::Restoring(read, total) => json!({ "status": "restoring", "read": read, "expected": total }),
        Health::Paused => json!({ "status": "paused" }),
        Health::Running => json!({ "status": "running" }),
        Health::Ended => json!({ "status": "ended" }),
    }
}

fn code(health: Health) -> StatusCode {
    if health.is_well() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
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
