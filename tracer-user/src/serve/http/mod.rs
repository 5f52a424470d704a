//! What others may ask, over HTTP, on a thread that holds no rights and cannot get any.

#[expect(unused_qualifications, reason = "utoipa's macros name types so")]
mod api;
mod auth;
mod blocking;
#[expect(unused_qualifications, reason = "utoipa's macros name types so")]
mod curves;
mod holders;
mod limit;
mod metrics;
mod page;
#[expect(unused_qualifications, reason = "utoipa's macros name types so")]
mod profiles;
#[expect(unused_qualifications, reason = "utoipa's macros name types so")]
mod reports;
mod tls;
#[expect(unused_qualifications, reason = "utoipa's macros name types so")]
mod trees;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::{TcpListener, UnixListener};

use self::auth::Peer;
pub use self::auth::{Auth, token};
pub use self::holders::WantedSearch;
use self::limit::{LONGEST, Limited, MOST_CONNECTIONS};
use self::tls::Encrypted;
pub use self::tls::{Certificate, Identity};
use super::listen::Listener;
use super::powerless;
use super::status::{Host, Status};
use super::store::Store;
use super::wanted::Wanted;

/// What answers are made of.
#[derive(Debug)]
pub struct Answers {
    /// What is known now.
    pub status: Arc<Status>,
    /// What was kept.
    pub store: Arc<Store>,
    /// Who may ask.
    pub auth: RwLock<Auth>,
    /// Whether tracing has begun.
    pub is_ready: AtomicBool,
    /// Services whose memory is to be searched.
    pub wanted: Wanted,
}

/// Answers that take longer are made on so many threads at once; further ones wait.
const THREADS: usize = 2;

type Shared = State<Arc<Answers>>;

/// Answers from now on, until the program ends; with TLS if there is a certificate. Returns once
/// the thread has given up all rights.
///
/// # Errors
/// The kernel refuses that.
pub fn start(
    listener: Listener,
    certificate: Option<Arc<Certificate>>,
    answers: Arc<Answers>,
) -> Result<()> {
    powerless::start("http", "nobody is answered any more", move || {
        answer(listener, certificate, answers)
    })
}

fn answer(
    listener: Listener,
    certificate: Option<Arc<Certificate>>,
    answers: Arc<Answers>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .thread_name("http")
        .build()?;
    runtime.block_on(async {
        let service = router(answers).into_make_service_with_connect_info::<Peer>();
        match listener {
            Listener::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                let limited = Limited::new(listener, MOST_CONNECTIONS, LONGEST);
                match certificate {
                    Some(certificate) => {
                        let encrypted = Encrypted::new(limited, certificate)?;
                        axum::serve(encrypted, service).await?;
                    }
                    None => axum::serve(limited, service).await?,
                }
            }
            Listener::Unix(listener) => {
                let listener = UnixListener::from_std(listener)?;
                let limited = Limited::new(listener, MOST_CONNECTIONS, LONGEST);
                axum::serve(limited, service).await?;
            }
        }
        Ok(())
    })
}

fn router(answers: Arc<Answers>) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/debug/pprof/growth", get(profiles::growth))
        .route("/debug/pprof/heap", get(profiles::heap))
        .route("/debug/pprof/allocs", get(profiles::allocs))
        .route("/api/openapi.json", get(api::description))
        .route("/api/services", get(api::services))
        .route("/api/services/{service}/windows", get(api::windows))
        .route("/api/services/{service}/findings", get(api::findings))
        .route("/api/services/{service}/look", get(api::look))
        .route("/api/services/{service}/holders", post(holders::search))
        .route("/api/services/{service}/curve", get(curves::curve))
        .route("/api/services/{service}/tree", get(trees::tree))
        .route("/api/services/{service}/path", post(trees::path))
        .route("/api/curves", get(curves::curves))
        .route("/api/services/{service}/report", get(reports::report))
        .layer(from_fn_with_state(Arc::clone(&answers), auth::check));
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .merge(page::routes())
        .merge(guarded)
        .with_state(answers)
}

async fn ready(State(answers): Shared) -> Response {
    match answers.is_ready.load(Ordering::Acquire) {
        true => "ready\n".into_response(),
        false => Refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "tracing has not begun".to_owned(),
        )
        .into_response(),
    }
}

/// Why there is no answer: a status and a sentence.
#[derive(Debug)]
pub struct Refusal(StatusCode, String);

impl Refusal {
    fn unknown(service: &str) -> Self {
        Self(
            StatusCode::NOT_FOUND,
            format!("nothing is known of a service {service:?}; /api/services has all"),
        )
    }
}

impl Refusal {
    /// Why there is nothing that closer looks have seen.
    fn no_look(host: &Host, service: &str) -> Self {
        let look = host.looks.get(service).map(|looked| &looked.look);
        let failure = look.and_then(|look| look.failure.as_ref());
        let sentence = match (host.service(service), look, failure) {
            (None, None, _) => return Self::unknown(service),
            (_, Some(_), Some(reason)) => {
                format!("a closer look at {service:?} failed: {reason}")
            }
            (_, Some(_), None) => format!(
                "a closer look at {service:?} has just begun: ask when the next window has ended"
            ),
            (Some(_), None, _) => format!(
                "nobody has looked closer at {service:?} yet: that is done when it grows for some windows, or always with mode = \"overhead\" in its [[service]]; /debug/pprof/growth has what page faults tell"
            ),
        };
        Self(StatusCode::NOT_FOUND, sentence)
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1 + "\n").into_response()
    }
}
