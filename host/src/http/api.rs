//! The API of a host: what the command line does, for whoever has no shell. Work is done in threads that may wait for brokers and compile; the thread that
//! answers does not.

use super::tokens::{Holder, Role};
use super::{answer, bodies, query};
use crate::fleet::{Control, Kind, State as Wanted, machine};
use crate::io::Log;
use crate::plugin::Loader;
use crate::verbs::{self, Answer, Back, Caller, Candidate, Exit, Failure, How, Means, NotThere, Step};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, FromRequest, Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The largest body, bytes: a component of some megabytes in base64.
const BODY: usize = 64 << 20;
/// How long a body may take to come.
const COMES: Duration = Duration::from_secs(60);
/// How many changes are brought about at once; each holds a thread for as long as hosts take. Below the number of threads, so that others are answered.
const CHANGES: usize = 8;
/// Control topics that were read, kept for the next request.
const KEPT: usize = 4;

const OPENAPI: &str = include_str!("openapi.json");

/// What requests need.
pub struct Api {
    pub log: Arc<dyn Log>,
    pub fleet: String,
    /// Where components are kept.
    pub cache: Option<PathBuf>,
    pub kafka: bool,
    pub loader: Arc<dyn Loader>,
    /// Raised when the host is told to stop.
    pub stop: Arc<AtomicBool>,
    idle: Mutex<Vec<Control>>,
    changes: Arc<Semaphore>,
}

impl Api {
    pub fn new(
        (log, fleet, cache): (Arc<dyn Log>, String, Option<PathBuf>),
        kafka: bool,
        loader: Arc<dyn Loader>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self { log, fleet, cache, kafka, loader, stop, idle: Mutex::default(), changes: Arc::new(Semaphore::new(CHANGES)) }
    }

    /// The control topic, read to its end. One that could not be read is not used again.
    fn with<T>(&self, work: impl FnOnce(&mut Control) -> Result<T, Failure>) -> Result<T, Failure> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let mut control = match kept {
            Some(control) => control,
            None => Control::open(self.log.clone(), &self.fleet, self.cache.as_deref()).map_err(verbs::failed)?,
        };
        control.refresh()?;
        let done = work(&mut control);
        if !matches!(&done, Err(failure) if failure.exit == Exit::Log) {
            let mut idle = idle();
            if idle.len() < KEPT {
                idle.push(control);
            }
        }
        done
    }
}

/// Whoever asked, over HTTP.
#[derive(Clone, Debug)]
struct Client {
    holder: Option<Holder>,
    stop: Arc<AtomicBool>,
}

impl Caller for Client {
    fn by(&self) -> String {
        let name = self.holder.as_ref().and_then(|holder| holder.name.as_deref());
        name.map_or_else(|| format!("API of {}", machine()), |name| format!("{name} by the API of {}", machine()))
    }

    fn stop(&self) -> anyhow::Result<Arc<AtomicBool>> {
        Ok(self.stop.clone())
    }

    fn tell(&self, step: &Step<'_>) {
        match step {
            Step::Compared { pipeline, base, diff } => tracing::info!(pipeline, base, class = diff.class.name(), "compared"),
            Step::Rollout { pipeline, told, .. } => tracing::info!(pipeline, "{told:?}"),
        }
    }
}

/// Every route; `openapi.json` describes each, which a test demands.
pub fn routes() -> Vec<(&'static str, &'static str, MethodRouter<Arc<Api>>)> {
    vec![
        ("GET", "/v1/openapi.json", get(openapi)),
        ("GET", "/v1/status", get(status)),
        ("POST", "/v1/pipelines", post(deploy)),
        ("GET", "/v1/pipelines/{name}", get(pipeline)),
        ("DELETE", "/v1/pipelines/{name}", delete(remove)),
        ("GET", "/v1/pipelines/{name}/history", get(history)),
        ("POST", "/v1/pipelines/{name}/swap", post(swap)),
        ("POST", "/v1/pipelines/{name}/rollback", post(roll_back)),
        ("POST", "/v1/pipelines/{name}/promote", post(promote)),
        ("POST", "/v1/pipelines/{name}/pause", post(pause)),
        ("POST", "/v1/pipelines/{name}/resume", post(resume)),
    ]
}

pub fn router(api: Arc<Api>) -> axum::Router {
    let mut router = axum::Router::new();
    for (_, path, methods) in routes() {
        router = router.route(path, methods);
    }
    router.layer(DefaultBodyLimit::max(BODY)).with_state(api)
}

/// What a failure is over HTTP.
fn code(failure: &Failure) -> StatusCode {
    if failure.error.is::<NotThere>() {
        return StatusCode::NOT_FOUND;
    }
    match failure.exit {
        Exit::Manifest | Exit::Refused | Exit::Plugin | Exit::Record | Exit::Test => StatusCode::UNPROCESSABLE_ENTITY,
        // It cannot be as things stand, or as the request has it.
        Exit::Failure | Exit::Usage => StatusCode::BAD_REQUEST,
        Exit::Conflict => StatusCode::CONFLICT,
        Exit::Denied => StatusCode::FORBIDDEN,
        Exit::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Exit::Log | Exit::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
    }
}

pub fn refused(failure: &Failure) -> Response {
    answer(code(failure), &failure.to_json())
}

/// An answer to what never came to be asked.
pub fn turned_away(status: StatusCode, message: &str) -> Response {
    let mut told = Failure::new(Exit::Usage, message.to_owned()).to_json();
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        told["exit"] = (Exit::Denied as i32).into();
        told["name"] = Exit::Denied.name().into();
    }
    answer(status, &told)
}

async fn look(api: Arc<Api>, work: impl FnOnce(&mut Control) -> Result<Answer, Failure> + Send + 'static) -> Response {
    in_a_thread(move || api.with(work)).await
}

async fn in_a_thread(work: impl FnOnce() -> Result<Answer, Failure> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => answer(StatusCode::OK, &done.json),
        Ok(Err(failure)) => refused(&failure),
        Err(error) => {
            tracing::error!("a request was not answered: {error}");
            let failure = Failure::new(Exit::Failure, "a thread panicked: a mistake in the program; see the host's log".to_owned());
            answer(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_json())
        }
    }
}

/// A change, by a client that goes on being worked for if it goes away: what it asked for is then done, or not, as a whole.
async fn change(
    api: Arc<Api>,
    holder: Option<Holder>,
    work: impl FnOnce(&mut Control, &Means<'_>) -> Result<Answer, Failure> + Send + 'static,
) -> Response {
    let Ok(permit) = api.changes.clone().try_acquire_owned() else {
        let message = format!("{CHANGES} changes are being brought about by this host at this moment: try again later");
        return turned_away(StatusCode::SERVICE_UNAVAILABLE, &message);
    };
    in_a_thread(move || {
        let client = Client { holder, stop: api.stop.clone() };
        let done = api.with(|control| work(control, &Means { kafka: api.kafka, loader: &*api.loader, caller: &client }));
        drop(permit);
        done
    })
    .await
}

/// The body, of a size and within a time that are borne.
async fn body(request: Request) -> Result<Bytes, Response> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = length.filter(|length| *length > BODY as u64) {
        // What is known to be too large is not waited for.
        let message = format!("the body has {length} bytes, {} MiB are taken at most", BODY >> 20);
        return Err(turned_away(StatusCode::PAYLOAD_TOO_LARGE, &message));
    }
    match tokio::time::timeout(COMES, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) => Err(turned_away(rejection.status(), &rejection.body_text())),
        Err(_) => Err(turned_away(StatusCode::REQUEST_TIMEOUT, &format!("the body did not come in {} s", COMES.as_secs()))),
    }
}

/// How a change is to be made, and the body.
async fn asked(query: Option<String>, request: Request) -> Result<(How, Bytes), Response> {
    let how = query::flags(query.as_deref()).map_err(|failure| refused(&failure))?;
    Ok((how, body(request).await?))
}

type Whose = Extension<Option<Holder>>;

async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn status(State(api): State<Arc<Api>>) -> Response {
    look(api, |control| verbs::status(control, None)).await
}

async fn pipeline(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Response {
    look(api, move |control| verbs::status(control, Some(&name))).await
}

async fn history(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Response {
    look(api, move |control| verbs::history(control, &name)).await
}

async fn deploy(State(api): State<Arc<Api>>, Extension(holder): Whose, RawQuery(query): RawQuery, request: Request) -> Response {
    let (how, body) = match asked(query, request).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    change(api, holder, move |control, means| {
        let (bundle, loaded) = bodies::json::<bodies::Deploy>(&body)?.load(means.loader)?;
        let log = control.log().clone();
        Candidate { bundle, loaded, kind: Kind::Deploy }.go(Some(control), Some(&*log), &how, means)
    })
    .await
}

async fn swap(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Extension(holder): Whose,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let (how, body) = match asked(query, request).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    change(api, holder, move |control, means| {
        let wanted: bodies::Swap = bodies::json(&body)?;
        let component = wanted.component(means.loader)?;
        verbs::swap(control, &name, &wanted.stage, (&wanted.plugin, component), &how, means)
    })
    .await
}

async fn roll_back(State(api): State<Arc<Api>>, Path(name): Path<String>, Extension(holder): Whose, RawQuery(query): RawQuery) -> Response {
    match query::flags::<Back>(query.as_deref()) {
        Ok(back) => change(api, holder, move |control, means| verbs::roll_back(control, &name, &back, means)).await,
        Err(failure) => refused(&failure),
    }
}

async fn promote(State(api): State<Arc<Api>>, Path(name): Path<String>, Extension(holder): Whose) -> Response {
    change(api, holder, move |control, means| verbs::promote(control, &name, means.caller)).await
}

async fn pause(State(api): State<Arc<Api>>, Path(name): Path<String>, Extension(holder): Whose) -> Response {
    steer(api, name, holder, Wanted::Paused).await
}

async fn resume(State(api): State<Arc<Api>>, Path(name): Path<String>, Extension(holder): Whose) -> Response {
    steer(api, name, holder, Wanted::Running).await
}

async fn remove(State(api): State<Arc<Api>>, Path(name): Path<String>, Extension(holder): Whose) -> Response {
    steer(api, name, holder, Wanted::Deleted).await
}

async fn steer(api: Arc<Api>, name: String, holder: Option<Holder>, wanted: Wanted) -> Response {
    change(api, holder, move |control, means| verbs::steer(control, &name, wanted, means.caller)).await
}

/// Whether a holder may do what a method is for.
pub fn may(role: Role, method: &axum::http::Method) -> bool {
    role == Role::Admin || method.is_safe()
}

#[cfg(test)]
mod tests;
