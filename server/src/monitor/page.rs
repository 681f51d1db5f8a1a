//! The page that shows a node and its cluster to people: static files, and what is new as it comes.

use super::Monitor;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// For how long one answer goes on. A browser asks again then, from where it was: so nobody keeps one of the few places.
const STREAM: Duration = Duration::from_secs(10);

/// What waits for a browser that does not read.
const WAITING: usize = 4;

const HTML: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const ICON: &str = include_str!("page/icon.svg");
/// uPlot draws. Its licence is beside it.
const PLOT: &str = include_str!("page/uPlot.iife.min.js");
const PLOT_STYLE: &str = include_str!("page/uPlot.min.css");

/// Nothing comes from elsewhere, and nothing is put into a page of somebody else's.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

pub(super) fn routes() -> Router<Arc<Monitor>> {
    Router::new()
        .route("/", get(async || file("text/html; charset=utf-8", HTML)))
        .route("/page.css", get(async || file("text/css", STYLE)))
        .route("/page.js", get(async || file("text/javascript", SCRIPT)))
        .route("/icon.svg", get(async || file("image/svg+xml", ICON)))
        .route("/uPlot.js", get(async || file("text/javascript", PLOT)))
        .route("/uPlot.css", get(async || file("text/css", PLOT_STYLE)))
        .route("/live", get(live))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let mut response =
        ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What is new since the second that the browser names, and then each second as it comes.
async fn live(State(monitor): State<Arc<Monitor>>, headers: HeaderMap) -> Response {
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok()).unwrap_or(0);
    let (tell, told) = mpsc::channel(WAITING);
    tokio::spawn(tell_news(monitor, seen, tell));
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (kind, Body::new(Stream(told))).into_response()
}

async fn tell_news(monitor: Arc<Monitor>, mut seen: u64, tell: mpsc::Sender<String>) {
    let (mut seconds, until) = (monitor.seconds.subscribe(), Instant::now() + STREAM);
    let mut retry = "retry: 500\n";
    loop {
        let (newest, json) = monitor.history().after(seen);
        let event = format!("{retry}id: {newest}\ndata: {json}\n\n");
        (seen, retry) = (newest, "");
        if !matches!(timeout_at(until, tell.send(event)).await, Ok(Ok(())))
            || !matches!(timeout_at(until, seconds.changed()).await, Ok(Ok(())))
        {
            return;
        }
    }
}

/// What is told, as the body of an answer.
struct Stream(mpsc::Receiver<String>);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let event = ready!(self.0.poll_recv(context));
        Poll::Ready(event.map(|event| Ok(Frame::data(event.into()))))
    }
}
