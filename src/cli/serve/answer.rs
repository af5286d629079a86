//! What is answered to a request.

use super::access::{Access, Refusal};
use super::body::Sent;
use super::looks::{Look, Looks};
use super::page::{self, PAGE};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Clients that may follow at once.
const STREAMS: usize = 32;
/// Reports that may be on their way at once: with many keys each is some megabytes.
const REPORTS: usize = 4;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All that answers are made of.
pub(super) struct Service {
    access: Access,
    looks: Rc<Looks>,
    policy: String,
    streams: Arc<Semaphore>,
    reports: Arc<Semaphore>,
}

impl Service {
    /// Answers those who have access with looks.
    pub(super) fn new(access: Access, looks: Rc<Looks>) -> Self {
        Self {
            access,
            looks,
            policy: page::policy(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            reports: Arc::new(Semaphore::new(REPORTS)),
        }
    }

    /// Answers a request.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Sent> {
        let path = request.uri().path();
        if let Some(refusal) = self.access.refusal(request, path == "/") {
            return refused(refusal);
        }
        let head = request.method() == Method::HEAD;
        match path {
            "/" | "/api/frame" | "/api/report" | "/api/stream" | "/metrics"
                if !head && request.method() != Method::GET =>
            {
                let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD");
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                answer
            }
            "/" => self.page(),
            "/api/frame" => seen(&self.looks.frame(), JSON, None),
            "/api/report" => match self.reports.clone().try_acquire_owned() {
                Ok(place) => seen(&self.looks.report(), JSON, Some(place)),
                Err(_) => busy("too many reports are on their way"),
            },
            "/metrics" => seen(&self.looks.metrics(), METRICS, None),
            "/api/stream" if head => whole(StatusCode::OK, EVENTS, ""),
            "/api/stream" => match self.streams.clone().try_acquire_owned() {
                Ok(place) => {
                    with_headers(StatusCode::OK, EVENTS, Sent::frames(self.looks.frames(), place))
                }
                Err(_) => busy("too many clients follow already"),
            },
            _ => plain(
                StatusCode::NOT_FOUND,
                "there are /, /api/frame, /api/stream, /api/report and /metrics",
            ),
        }
    }

    fn page(&self) -> Response<Sent> {
        let mut answer = whole(StatusCode::OK, "text/html; charset=utf-8", PAGE);
        if let Ok(policy) = HeaderValue::from_str(&self.policy) {
            answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
        }
        answer
    }
}

fn seen(
    look: &Look,
    kind: &'static str,
    place: Option<tokio::sync::OwnedSemaphorePermit>,
) -> Response<Sent> {
    let status = if look.there { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let kind = if look.there { kind } else { JSON };
    with_headers(status, kind, Sent::whole(look.text.clone(), place))
}

fn refused(refusal: Refusal) -> Response<Sent> {
    let mut answer = plain(refusal.status, refusal.reason);
    if refusal.status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

fn busy(reason: &'static str) -> Response<Sent> {
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, reason);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    answer
}

fn plain(status: StatusCode, text: &str) -> Response<Sent> {
    whole(status, TEXT, format!("{text}\n"))
}

fn whole(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<hyper::body::Bytes>,
) -> Response<Sent> {
    with_headers(status, kind, Sent::whole(body, None))
}

fn with_headers(status: StatusCode, kind: &'static str, body: Sent) -> Response<Sent> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
