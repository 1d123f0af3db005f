//! The end of an answer whose time is up before it is.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;

use crate::{
    clock::Clock,
    reject::{ErrorFormat, Rejection},
    runtime,
};

/// When a running answer ends, and how.
pub(crate) struct Ending {
    over: Over,
    format: ErrorFormat,
    how: How,
    /// Whether what was sent so far is made of whole events.
    whole: bool,
}

/// What ends an answer.
enum Over {
    Term(Term, Rejection),
    Told(Box<Told>),
}

/// Ready when the answer is over, with why.
type Told = dyn FnMut(&mut Context<'_>) -> Poll<Rejection> + Send + Sync;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// With an error event.
    Event,
    /// With trailers.
    Grpc,
    /// Without a word, since the answer has none for it.
    Cut,
}

impl Ending {
    /// An answer that ends when its term does.
    pub(crate) fn after(term: Term, why: Rejection, format: ErrorFormat) -> Self {
        Self::of(Over::Term(term, why), format)
    }

    /// An answer that ends when `told` is ready.
    pub(crate) fn when(
        told: impl FnMut(&mut Context<'_>) -> Poll<Rejection> + Send + Sync + 'static,
        format: ErrorFormat,
    ) -> Self {
        Self::of(Over::Told(Box::new(told)), format)
    }

    fn of(over: Over, format: ErrorFormat) -> Self {
        Self { over, format, how: How::Cut, whole: true }
    }

    /// Learns from the answer's head how it can be ended.
    pub(crate) fn head(&mut self, headers: &HeaderMap) {
        let of_type = |prefix: &str| {
            let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
            let start = value.and_then(|value| value.get(..prefix.len()));
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        self.how = if of_type("application/grpc") && !of_type("application/grpc-web") {
            How::Grpc
        } else if of_type("text/event-stream") && !headers.contains_key(header::CONTENT_ENCODING) {
            How::Event
        } else {
            How::Cut
        };
    }

    /// Ready with why the answer is over, whether it has said all or not.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Rejection> {
        match &mut self.over {
            Over::Term(term, why) => term.poll(cx).map(|()| why.clone()),
            Over::Told(told) => told(cx),
        }
    }

    /// Sees what the answer says.
    pub(crate) fn saw(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) {
            self.whole = data.ends_with(b"\n\n") || data.ends_with(b"\r\n\r\n");
        }
    }

    /// The last frame, which says why, if the answer has a form for it.
    pub(crate) fn last_frame(&self, why: &Rejection) -> Option<Frame<Bytes>> {
        match self.how {
            How::Event => {
                let event = self.format.stream_event(why);
                if self.whole {
                    return Some(Frame::data(event));
                }
                let mut data = BytesMut::with_capacity(event.len() + 2);
                data.put_slice(b"\n\n");
                data.put_slice(&event);
                Some(Frame::data(data.freeze()))
            }
            How::Grpc => Some(Frame::trailers(trailers(why))),
            How::Cut => None,
        }
    }
}

fn trailers(why: &Rejection) -> HeaderMap {
    let refused = ErrorFormat::Grpc.respond(why);
    let mut trailers = HeaderMap::new();
    for name in ["grpc-status", "grpc-message"] {
        if let Some(value) = refused.headers().get(name) {
            trailers.insert(name, value.clone());
        }
    }
    trailers
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending").field("how", &self.how).finish_non_exhaustive()
    }
}

/// For how long an answer may run: to a time, or as long as what it was admitted for holds.
pub(crate) struct Term {
    at: Duration,
    clock: Arc<dyn Clock>,
    timer: Option<Timer>,
    /// Whether what it was admitted for still holds, asked whenever the answer is polled and every few seconds.
    held: Option<Held>,
    look: Option<Timer>,
}

type Timer = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// Told the time, since the Unix epoch.
type Held = Box<dyn FnMut(Duration) -> bool + Send + Sync>;

impl Term {
    /// To `at`, since the Unix epoch.
    pub(crate) fn until(at: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { at, clock, timer: None, held: None, look: None }
    }

    /// Which ends before that when `held` says no. To be quick.
    pub(crate) fn while_held(
        mut self,
        held: impl FnMut(Duration) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.held = Some(Box::new(held));
        self
    }

    /// Ready when the time is up: by the clock whenever the answer is asked for more, and by a timer
    /// while it has nothing to say.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = self.clock.unix();
            let left = self.at.saturating_sub(now);
            if left.is_zero() || self.held.as_mut().is_some_and(|held| !held(now)) {
                return Poll::Ready(());
            }
            if self.timer.is_none() && runtime::is_here() {
                self.timer = Some(Box::pin(runtime::sleep(left)));
            }
            if self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(());
            }
            if self.held.is_none() || !runtime::is_here() {
                return Poll::Pending;
            }
            let look = self.look.get_or_insert_with(|| Box::pin(runtime::sleep(LOOK_EVERY)));
            ready!(look.as_mut().poll(cx));
            self.look = None;
        }
    }
}

/// How often an answer that has nothing to say is held against what it was admitted for.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn how(headers: &[(&'static str, &'static str)]) -> How {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        let why = Rejection::new(crate::RejectionKind::Unauthenticated, "token_expired", "Over.");
        let clock = Arc::new(crate::clock::SystemClock);
        let term = Term::until(Duration::ZERO, clock);
        let mut ending = Ending::after(term, why, ErrorFormat::OpenAi);
        ending.head(&map);
        ending.how
    }

    #[test]
    fn an_answer_ends_in_its_own_form() {
        assert_eq!(how(&[("content-type", "text/event-stream; charset=utf-8")]), How::Event);
        assert_eq!(how(&[("content-type", "application/grpc+proto")]), How::Grpc);
        assert_eq!(how(&[("content-type", "application/grpc-web")]), How::Cut);
        assert_eq!(how(&[("content-type", "application/json")]), How::Cut);
        assert_eq!(how(&[]), How::Cut);
        let encoded = [("content-type", "text/event-stream"), ("content-encoding", "gzip")];
        assert_eq!(how(&encoded), How::Cut);
    }
}
