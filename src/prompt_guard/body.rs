//! The body of an answer that passed the guard.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::answer::{Scan, Step};
use crate::runtime;

pin_project! {
    /// The body of an answer. Without output detectors the inner one's, frame by frame, nothing held.
    /// With them, an event stream that is forwarded event by event and may end early, or a JSON
    /// answer that was read whole.
    ///
    /// Dropping it drops the inner body at once. So does cutting a stream short.
    pub struct ScannedBody<R> {
        #[pin]
        kind: Kind<R>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<R> {
        Passed { #[pin] body: R },
        Whole { data: Option<Bytes>, trailers: Option<HeaderMap> },
        // `body` is gone once the stream has ended or was cut short.
        Scanned { #[pin] body: Option<R>, scan: Box<Scan>, late: Late, last: Last },
    }
}

/// What is still to come after the frame that is being given out.
#[derive(Debug, Default)]
struct Last {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl<R> ScannedBody<R> {
    pub(crate) fn passed(body: R) -> Self {
        Self { kind: Kind::Passed { body } }
    }

    pub(crate) fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { kind: Kind::Whole { data: (!data.is_empty()).then_some(data), trailers } }
    }

    pub(crate) fn scanned(body: R, scan: Scan) -> Self {
        let (scan, late, last) = (Box::new(scan), Late::default(), Last::default());
        Self { kind: Kind::Scanned { body: Some(body), scan, late, last } }
    }
}

impl<R: Body<Data = Bytes>> Body for ScannedBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        match self.project().kind.project() {
            KindProj::Passed { body } => body.poll_frame(cx),
            KindProj::Whole { data, trailers } => {
                let frame = data.take().map(Frame::data);
                Poll::Ready(frame.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            KindProj::Scanned { body, scan, late, last } => {
                poll_scanned(body, scan, late, last, cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed { body } => body.is_end_stream(),
            Kind::Whole { data, trailers } => data.is_none() && trailers.is_none(),
            // While the inner body is there, what it held back or found at its end may still come.
            Kind::Scanned { body, last, .. } => body.is_none() && last.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed { body } => body.size_hint(),
            Kind::Whole { data, .. } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
            Kind::Scanned { body: Some(body), scan, .. } if scan.forwards_all() => body.size_hint(),
            Kind::Scanned { body: None, last, .. } => {
                SizeHint::with_exact(last.data.as_ref().map_or(0, |data| data.len() as u64))
            }
            Kind::Scanned { .. } => SizeHint::default(),
        }
    }
}

fn poll_scanned<R: Body<Data = Bytes>>(
    mut body: Pin<&mut Option<R>>,
    scan: &mut Scan,
    late: &mut Late,
    last: &mut Last,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
    loop {
        let Some(inner) = body.as_mut().as_pin_mut() else {
            return Poll::Ready(last.next().map(Ok));
        };
        let frame = match inner.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Some(frame.into_data()),
            Poll::Ready(Some(Err(error))) => {
                // What is held was not decided on, and ends with the answer.
                body.set(None);
                return Poll::Ready(Some(Err(error)));
            }
            Poll::Ready(None) => None,
            Poll::Pending => {
                let all = ready!(late.poll(scan, cx));
                let step = scan.flush(all);
                if let Some(frame) = go_on(step, &mut body, last) {
                    return Poll::Ready(Some(Ok(frame)));
                }
                continue;
            }
        };
        let step = match frame {
            Some(Ok(data)) => {
                late.more = true;
                scan.push(data)
            }
            other => {
                body.set(None);
                last.trailers = other.and_then(|frame| frame.err()?.into_trailers().ok());
                scan.finish()
            }
        };
        if let Some(frame) = go_on(step, &mut body, last) {
            return Poll::Ready(Some(Ok(frame)));
        }
    }
}

/// The frame that goes on. The answer may end after it.
fn go_on<R>(step: Step, body: &mut Pin<&mut Option<R>>, last: &mut Last) -> Option<Frame<Bytes>> {
    if step.cut.is_some() {
        // Stops the engine, before the client has read why.
        body.set(None);
        *last = Last { data: step.cut, trailers: None };
    }
    (!step.forward.is_empty()).then(|| Frame::data(step.forward))
}

/// Ready when what is held has been held for long enough: for half of the longest delay at least.
#[derive(Default)]
struct Late {
    timer: Option<Timer>,
    /// Something came since the last time.
    more: bool,
}

struct Timer {
    sleep: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    /// The newest event when it began.
    newest: u64,
    /// It is for what was left the last time.
    last: bool,
}

impl Late {
    /// Ready with whether all that is held is to go on.
    fn poll(&mut self, scan: &Scan, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            let Some((oldest, newest)) = scan.waits() else {
                self.timer = None;
                return Poll::Pending;
            };
            if self.more && self.timer.as_ref().is_some_and(|timer| timer.last) {
                self.timer = None;
            }
            let Some(timer) = &mut self.timer else {
                if !runtime::is_here() {
                    return Poll::Ready(!std::mem::take(&mut self.more));
                }
                let delay = if self.more {
                    scan.max_delay() / 2
                } else {
                    scan.max_delay().saturating_mul(10)
                };
                let sleep = Box::pin(runtime::sleep(delay));
                self.timer = Some(Timer { sleep, newest, last: !self.more });
                continue;
            };
            ready!(timer.sleep.as_mut().poll(cx));
            let (is_late, last) = (oldest <= timer.newest, timer.last);
            self.timer = None;
            if is_late {
                self.more = false;
                return Poll::Ready(last);
            }
        }
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late").field("more", &self.more).finish_non_exhaustive()
    }
}

impl Last {
    fn next(&mut self) -> Option<Frame<Bytes>> {
        let data = self.data.take().map(Frame::data);
        data.or_else(|| self.trailers.take().map(Frame::trailers))
    }

    fn is_empty(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }
}

impl<R> fmt::Debug for ScannedBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Passed { .. } => "ScannedBody::Passed(..)",
            Kind::Whole { .. } => "ScannedBody::Whole(..)",
            Kind::Scanned { .. } => "ScannedBody::Scanned(..)",
        })
    }
}
