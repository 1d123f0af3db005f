//! The body of an answer that passed the guard.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::answer::Scan;

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
        Scanned { #[pin] body: Option<R>, scan: Box<Scan>, last: Last },
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
        let kind = Kind::Scanned { body: Some(body), scan: Box::new(scan), last: Last::default() };
        Self { kind }
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
            KindProj::Scanned { body, scan, last } => poll_scanned(body, scan, last, cx),
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
    last: &mut Last,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
    loop {
        let Some(inner) = body.as_mut().as_pin_mut() else {
            return Poll::Ready(last.next().map(Ok));
        };
        let frame = match ready!(inner.poll_frame(cx)) {
            Some(Ok(frame)) => frame.into_data().map_err(|other| other.into_trailers().ok()),
            Some(Err(error)) => {
                // What was held back was no whole event, and ends with the answer.
                body.set(None);
                return Poll::Ready(Some(Err(error)));
            }
            None => Err(None),
        };
        let step = match frame {
            Ok(data) => scan.push(data),
            Err(trailers) => {
                body.set(None);
                last.trailers = trailers;
                scan.finish()
            }
        };
        if step.cut.is_some() {
            // Stops the engine, before the client has read why.
            body.set(None);
            *last = Last { data: step.cut, trailers: None };
        }
        if !step.forward.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(step.forward))));
        }
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
