//! One request at a time to a destination, by HTTP or gRPC. What comes back is bounded in
//! time and size, and believed only as far as it is what the protocol has.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::uri::{PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use rustls::ClientConfig;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::serve::config::Place;
use crate::serve::http::token;
use crate::serve::trust;

/// Of an answer so much is read, bytes.
const MOST_ANSWER: usize = 64 << 10;
/// Of what a destination says of a failure so much is shown, letters.
const MOST_SAID: usize = 200;

/// Why something did not arrive.
#[derive(Debug)]
pub enum Failure {
    /// It may arrive later, but not before this time, if the destination says so.
    Later(String, Option<Duration>),
    /// The destination knows us not: somebody has to mend that.
    Forbidden(String),
    /// The destination will never have it.
    Refused(String),
}

/// A destination.
#[derive(Debug)]
pub struct Client {
    client: legacy::Client<HttpsConnector<HttpConnector>, Body>,
    url: Uri,
    headers: HeaderMap,
    timeout: Duration,
}

impl Client {
    /// One that speaks HTTP/2 for gRPC, or HTTP/1.1.
    ///
    /// # Errors
    /// A token or certificates cannot be read.
    pub fn new(place: &Place, is_grpc: bool) -> Result<Self> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(place)?)
            .https_or_http();
        let connector = match is_grpc {
            true => connector.enable_http2().build(),
            false => connector.enable_http1().build(),
        };
        let mut headers: HeaderMap = place.headers.iter().cloned().collect();
        if let Some(file) = &place.token_file {
            let mut value: HeaderValue = format!("Bearer {}", token(file, false)?)
                .parse()
                .context("the token has letters that no header may have")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Self {
            client: legacy::Client::builder(TokioExecutor::new())
                .http2_only(is_grpc)
                .pool_idle_timeout(Duration::from_secs(90))
                .build(connector),
            url: place.url.clone(),
            headers,
            timeout: place.timeout,
        })
    }

    /// Posts to the address, with this path behind it; what is answered to a request that
    /// succeeded.
    ///
    /// # Errors
    /// It did not arrive.
    pub async fn post(
        &self,
        path: &str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<Bytes, Failure> {
        let mut request = Request::post(with_path(&self.url, path))
            .body(Body::new(Full::new(Bytes::from(body))))
            .map_err(|error| Failure::Refused(error.to_string()))?;
        *request.headers_mut() = self.headers.clone();
        let content_type = HeaderValue::from_static(content_type);
        request.headers_mut().insert(CONTENT_TYPE, content_type);
        let answered = timeout(self.timeout, self.answer(request)).await;
        answered.unwrap_or_else(|_| Err(self.too_late()))
    }

    async fn answer(&self, request: Request<Body>) -> Result<Bytes, Failure> {
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| Failure::Later(whole(&error), None))?;
        let status = answer.status();
        let after = retry_after(answer.headers());
        let body = Limited::new(answer.into_body(), MOST_ANSWER)
            .collect()
            .await;
        if !status.is_success() {
            let said = body.map(|body| said(&String::from_utf8_lossy(&body.to_bytes())));
            return Err(failure(status, &said.unwrap_or_default(), after));
        }
        match body {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(Failure::Later(
                format!("its answer is no answer: {error}"),
                after,
            )),
        }
    }

    /// Calls a method by gRPC; what it answers.
    ///
    /// # Errors
    /// It did not arrive.
    pub async fn call<Q, A>(&self, method: &'static str, question: Q) -> Result<A, Failure>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::with_origin(&self.client, self.url.clone())
            .max_decoding_message_size(MOST_ANSWER);
        let mut request = tonic::Request::new(question);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(method);
        match timeout(self.timeout, grpc.unary(request, path, codec)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(of_grpc(&status)),
            Err(_) => Err(self.too_late()),
        }
    }

    fn too_late(&self) -> Failure {
        let time = humantime::format_duration(self.timeout);
        Failure::Later(format!("no answer within {time}"), None)
    }
}

/// Who is believed: of a destination without TLS nobody has to be.
fn tls(place: &Place) -> Result<ClientConfig> {
    let is_encrypted = place.url.scheme() == Some(&Scheme::HTTPS);
    match (&place.ca_file, is_encrypted) {
        (None, false) => trust::nobody(),
        (file, _) => trust::known(file.as_deref()),
    }
}

fn with_path(url: &Uri, path: &str) -> String {
    if path.is_empty() {
        return url.to_string();
    }
    let url = url.to_string();
    format!("{}{path}", url.trim_end_matches('/'))
}

/// An error with its causes, which hyper does not show.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    said(&text)
}

fn said(text: &str) -> String {
    let text: String = text.chars().take(MOST_SAID).collect();
    crate::visible::clean(text.trim()).into_owned()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse();
    seconds.ok().map(Duration::from_secs)
}

/// What a status that is no success means: what is wrong with the data is wrong for ever.
fn failure(status: StatusCode, said: &str, after: Option<Duration>) -> Failure {
    let text = match said {
        "" => format!("status {status}"),
        said => format!("status {status}: {said}"),
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Forbidden(text),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Failure::Later(text, after),
        status if status.is_client_error() || status.is_redirection() => Failure::Refused(text),
        _ => Failure::Later(text, after),
    }
}

/// The same of gRPC, as OTLP has it; what it has for no failure of the destination's own is
/// tried again, since a proxy may have said it.
fn of_grpc(status: &Status) -> Failure {
    let text = match std::error::Error::source(status) {
        Some(cause) => format!("{:?}: {}", status.code(), whole(cause)),
        None => format!("{:?}: {}", status.code(), said(status.message())),
    };
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => Failure::Forbidden(text),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Unimplemented => Failure::Refused(text),
        _ => Failure::Later(text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_for_ever_is_not_tried_again() {
        let is = |status: u16| failure(StatusCode::from_u16(status).unwrap(), "", None);
        for status in [400, 404, 413, 301] {
            assert!(matches!(is(status), Failure::Refused(_)), "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(is(status), Failure::Later(..)), "{status}");
        }
        for status in [401, 403] {
            assert!(matches!(is(status), Failure::Forbidden(_)), "{status}");
        }
        let grpc = |code| of_grpc(&Status::new(code, "a"));
        assert!(matches!(grpc(Code::Unavailable), Failure::Later(..)));
        assert!(matches!(grpc(Code::InvalidArgument), Failure::Refused(_)));
        assert!(matches!(grpc(Code::Unauthenticated), Failure::Forbidden(_)));
    }

    #[test]
    fn what_is_said_is_short_and_visible() {
        assert_eq!(said(&"a".repeat(1000)).len(), MOST_SAID);
        assert!(!said("a\u{1b}[31mb").contains('\u{1b}'));
    }

    #[test]
    fn paths_are_put_behind_the_address() {
        let url: Uri = "http://a:1/prefix/".parse().unwrap();
        assert_eq!(with_path(&url, "/v1"), "http://a:1/prefix/v1");
        let url: Uri = "http://a:1".parse().unwrap();
        assert_eq!(with_path(&url, "/v1"), "http://a:1/v1");
        assert_eq!(with_path(&url, ""), "http://a:1/");
    }
}
