//! The page at `/`, as it was built by `cargo xtask setup`, in the binary.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Nothing comes from elsewhere, no script or style is in the page itself, and nobody frames
/// it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'";

/// A file of the page.
#[derive(Debug, Clone, Copy)]
struct File {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! file {
    ($path:literal, $name:literal, $kind:literal) => {
        File {
            path: $path,
            kind: $kind,
            bytes: include_bytes!(concat!(env!("UNFREED_PAGE"), "/", $name)),
        }
    };
}

/// What it has; see `build.rs`.
const FILES: [File; 4] = [
    file!("/", "index.html", "text/html; charset=utf-8"),
    file!("/page.js", "page.js", "text/javascript; charset=utf-8"),
    file!("/page.css", "page.css", "text/css; charset=utf-8"),
    file!("/licences.txt", "licences.txt", "text/plain; charset=utf-8"),
];

/// Answers with the page's files. They hold nothing of the host, so nobody needs a token.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new();
    for file in FILES {
        router = router.route(
            file.path,
            get(move |headers: HeaderMap| async move { file.answer(&headers) }),
        );
    }
    router
}

impl File {
    fn answer(self, asked: &HeaderMap) -> Response {
        let tag = format!("\"{:08x}\"", crc32fast::hash(self.bytes));
        let headers = [
            (CONTENT_TYPE, self.kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            // Another version may answer next time.
            (CACHE_CONTROL, "no-cache"),
        ];
        let is_known = asked
            .get(IF_NONE_MATCH)
            .is_some_and(|it| it == tag.as_str());
        let mut response = match is_known {
            true => (StatusCode::NOT_MODIFIED, headers).into_response(),
            false => (headers, self.bytes).into_response(),
        };
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_page_is_inline_and_it_is_sent_once() {
        let html = String::from_utf8_lossy(FILES[0].bytes);
        for inline in ["<style", " style=", " onload=", "javascript:"] {
            assert!(!html.contains(inline), "{html}");
        }
        for script in html.split("<script").skip(1) {
            assert!(script.contains("src=\"/page.js\""), "{html}");
        }
        let first = FILES[0].answer(&HeaderMap::new());
        let policy = &first.headers()[CONTENT_SECURITY_POLICY];
        assert!(!policy.to_str().unwrap().contains("unsafe"), "{policy:?}");
        let mut again = HeaderMap::new();
        again.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        assert_eq!(FILES[0].answer(&again).status(), StatusCode::NOT_MODIFIED);
    }
}
