//! The pages of a run, for those who watch it: `/metrics`, `/status`, `/healthz`, `/readyz`.
//!
//! Receives what the run says of itself ([`Progress`]). Promises that nothing here waits for the stream or makes it wait:
//! a page is made of copied numbers, connections are few and end by themselves. Never changes anything, knows no stage, and
//! on a loopback address answers nobody who came under a name of another machine: a page in a browser could otherwise make
//! its own name mean this one (DNS rebinding) and read what is told here.
//!
//! - `/healthz`: 200 as long as the process answers. Ending it mends nothing that a stopped table says.
//! - `/readyz`: 200 when the run is ready as [`Status`](crate::pipeline::Status) defines it, else 503 with the reasons, a
//!   line each. What has stopped is told in both, and is no reason.
//! - `/status`: all that is known, as JSON.
//! - `/metrics`: the numbers, for Prometheus.

mod connections;
mod metrics;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Progress;
use connections::Connections;

/// How long answers that are under way may take when the run has ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens, and answers from then on with what `progress` knows.
    ///
    /// # Errors
    /// `Unavailable` where the address cannot be had.
    pub async fn start(settings: &config::Server, progress: Arc<Progress>) -> Result<Server> {
        let taken = |e: std::io::Error| {
            let hint = match e.kind() {
                std::io::ErrorKind::AddrInUse => {
                    "another program listens there, perhaps another run; give another port in `[server]` or by `--listen`"
                }
                _ => "give an address of this machine in `[server]` or by `--listen`",
            };
            Error::new(ErrorKind::Unavailable, format!("cannot listen on `{}`", settings.listen))
                .caused_by(e)
                .hint(hint)
        };
        let listener = TcpListener::bind(settings.listen).await.map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        tracing::info!(%address, "listening; see /status and /metrics");
        let (stop, stopped) = oneshot::channel();
        let serving = axum::serve(Connections::of(listener), pages(progress, address.ip().is_loopback()))
            .with_graceful_shutdown(async { drop(stopped.await) });
        let task = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::warn!(%error, "nobody is answered any more");
            }
        });
        Ok(Server { stop, task })
    }

    /// Closes the port; answers that are under way have a moment.
    pub async fn stop(self) {
        let Server { stop, mut task } = self;
        drop(stop);
        if tokio::time::timeout(STOP_TIMEOUT, &mut task).await.is_err() {
            task.abort();
        }
    }
}

fn pages(progress: Arc<Progress>, local_names_only: bool) -> Router {
    let pages = Router::new()
        .route("/", get(index))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(progress);
    let pages = if local_names_only { pages.layer(middleware::from_fn(refuse_other_names)) } else { pages };
    pages.layer(middleware::map_response(finish))
}

async fn index() -> &'static str {
    "lode\n\n/status   how the run stands, as JSON\n/metrics  for Prometheus\n/healthz  alive\n/readyz   caught up\n"
}

async fn health() -> &'static str {
    "alive\n"
}

async fn readiness(State(progress): State<Arc<Progress>>) -> (StatusCode, String) {
    let status = progress.status();
    let code = if status.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = String::from(if status.ready { "ready\n" } else { "not ready\n" });
    let reasons = status.waiting_for.iter().map(|reason| format!("waiting: {reason}\n"));
    text.extend(reasons.chain(status.stopped.iter().map(|name| format!("stopped: {name}, see /status\n"))));
    (code, text)
}

async fn status(State(progress): State<Arc<Progress>>) -> Response {
    match serde_json::to_vec(&progress.status()) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn metrics(State(progress): State<Arc<Progress>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::page(&progress.status())).into_response()
}

async fn refuse_other_names(request: Request, next: Next) -> Response {
    if names_this_machine(request.uri(), request.headers()) {
        return next.run(request).await;
    }
    let refused = "this address is answered as `localhost` or by number only\n\nhint: open http://localhost:<port>/\n";
    (StatusCode::FORBIDDEN, refused).into_response()
}

/// True where every name that the request gives to whom it asks is one of this machine, and there is one.
fn names_this_machine(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut given = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (given.next(), given.next()) else { return false };
    let host = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    host.is_some_and(|host| is_local(host.host())) && uri.host().is_none_or(is_local)
}

fn is_local(host: &str) -> bool {
    let number = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || number.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What every answer has: nothing is kept by anybody, and the connection ends with it.
async fn finish(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(uri: &str, hosts: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_static(host));
        }
        names_this_machine(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for host in ["localhost", "LocalHost:9464", "127.0.0.1:9464", "127.9.9.9", "[::1]", "[::1]:9464"] {
            assert!(answered("/status", &[host]), "{host}");
        }
        let others = [
            "example.org",
            "example.org:9464",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "10.0.0.1:9464",
            "[::2]:9464",
            "localhost@example.org",
            "",
            "\"",
        ];
        for host in others {
            assert!(!answered("/status", &[host]), "{host}");
        }
        assert!(!answered("/status", &[]), "no name");
        assert!(!answered("/status", &["localhost", "localhost"]), "two names");
        assert!(!answered("http://example.org/status", &["localhost"]), "another name in the first line");
        assert!(answered("http://localhost:1/status", &["localhost"]));
    }
}
