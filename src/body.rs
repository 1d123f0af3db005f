//! The bodies that the layers put around those of the server and the inner service.

mod ending;

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

pub(crate) use self::ending::{Ending, Term};

pin_project! {
    /// The body of a layer's answer: the inner service's, frame by frame, or that of a refusal.
    pub struct ResponseBody<B> {
        #[pin]
        kind: ResponseKind<B>,
    }
}

pin_project! {
    #[project = ResponseProj]
    enum ResponseKind<B> {
        Inner { #[pin] body: B },
        // `None` once it has ended: whatever the inner body holds is let go at once.
        Ending { #[pin] body: Option<B>, ending: Box<Ending> },
        Refusal { #[pin] body: Full<Bytes> },
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn inner(body: B) -> Self {
        Self { kind: ResponseKind::Inner { body } }
    }

    /// The inner service's answer, which may end before it has said all.
    pub(crate) fn until(response: Response<B>, ending: Option<Box<Ending>>) -> Response<Self> {
        let Some(mut ending) = ending else { return response.map(Self::inner) };
        ending.head(response.headers());
        response.map(|body| Self { kind: ResponseKind::Ending { body: Some(body), ending } })
    }

    pub(crate) fn refusal(body: Bytes) -> Self {
        Self { kind: ResponseKind::Refusal { body: Full::new(body) } }
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            ResponseProj::Inner { body } => body.poll_frame(cx),
            ResponseProj::Ending { body, ending } => poll_ending(body, ending, cx),
            ResponseProj::Refusal { body } => body.poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            ResponseKind::Inner { body } => body.is_end_stream(),
            ResponseKind::Ending { body, .. } => body.as_ref().is_none_or(Body::is_end_stream),
            ResponseKind::Refusal { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            ResponseKind::Inner { body } => body.size_hint(),
            ResponseKind::Ending { body, .. } => match body {
                Some(body) => body.size_hint(),
                None => SizeHint::with_exact(0),
            },
            ResponseKind::Refusal { body } => body.size_hint(),
        }
    }
}

fn poll_ending<B: Body<Data = Bytes>>(
    mut slot: Pin<&mut Option<B>>,
    ending: &mut Ending,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
    let Some(body) = slot.as_mut().as_pin_mut() else { return Poll::Ready(None) };
    if !body.is_end_stream()
        && let Poll::Ready(why) = ending.poll(cx)
    {
        slot.set(None);
        return Poll::Ready(ending.last_frame(&why).map(Ok));
    }
    let frame = ready!(body.poll_frame(cx));
    if let Some(Ok(frame)) = &frame {
        ending.saw(frame);
    }
    Poll::Ready(frame)
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            ResponseKind::Inner { .. } => "ResponseBody::Inner(..)",
            ResponseKind::Ending { .. } => "ResponseBody::Ending(..)",
            ResponseKind::Refusal { .. } => "ResponseBody::Refusal(..)",
        })
    }
}

pin_project! {
    /// The request body that a layer which reads bodies hands on: the server's, untouched, or what
    /// was read of it, whole, with its trailers.
    pub struct RequestBody<B> {
        #[pin]
        kind: RequestKind<B>,
    }
}

pin_project! {
    #[project = RequestProj]
    enum RequestKind<B> {
        Untouched { #[pin] body: B },
        Replayed { data: Option<Bytes>, trailers: Option<HeaderMap> },
    }
}

impl<B> RequestBody<B> {
    pub(crate) fn untouched(body: B) -> Self {
        Self { kind: RequestKind::Untouched { body } }
    }

    pub(crate) fn replayed(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        let data = (!data.is_empty()).then_some(data);
        Self { kind: RequestKind::Replayed { data, trailers } }
    }
}

impl<B: Body<Data = Bytes>> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            RequestProj::Untouched { body } => body.poll_frame(cx),
            RequestProj::Replayed { data, trailers } => {
                let frame = data.take().map(Frame::data);
                Poll::Ready(frame.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            RequestKind::Untouched { body } => body.is_end_stream(),
            RequestKind::Replayed { data, trailers } => data.is_none() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            RequestKind::Untouched { body } => body.size_hint(),
            RequestKind::Replayed { data, .. } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
        }
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            RequestKind::Untouched { .. } => "RequestBody::Untouched(..)",
            RequestKind::Replayed { .. } => "RequestBody::Replayed(..)",
        })
    }
}
