//! Reading a body once, under a cap and a time limit.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::LengthLimitError;

use crate::{BoxError, runtime};

/// Reads a body to its end. A body of one frame is not copied.
pub(crate) struct Reader {
    cap: usize,
    limit: Option<Duration>,
    /// Set when the body first keeps us waiting: most don't.
    deadline: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    read: Whole,
    /// The frames from the second on, the first one before them.
    joined: BytesMut,
}

/// A body that was read to its end.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    pub(crate) data: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

/// Why a body could not be read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// It is larger than the cap.
    TooLarge,
    /// It did not arrive in time.
    TimedOut,
    /// It broke off.
    Failed,
}

impl Reader {
    /// Reads at most `cap` bytes, for at most `limit` from the first wait on.
    pub(crate) fn new(cap: usize, limit: Option<Duration>) -> Self {
        Self { cap, limit, deadline: None, read: Whole::default(), joined: BytesMut::new() }
    }

    /// Ready when `body` has ended. `why` tells an error's reason.
    pub(crate) fn poll<B: Body<Data = Bytes>>(
        &mut self,
        cx: &mut Context<'_>,
        mut body: Pin<&mut B>,
        why: impl Fn(B::Error) -> Unreadable,
    ) -> Poll<Result<Whole, Unreadable>> {
        for _ in 0..FRAMES_PER_POLL {
            match body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.take(frame)?,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(why(error))),
                Poll::Ready(None) => return Poll::Ready(Ok(self.finish())),
                Poll::Pending => return self.poll_deadline(cx).map(Err),
            }
            if body.is_end_stream() {
                return Poll::Ready(Ok(self.finish()));
            }
        }
        // Empty frames count towards no cap: a flood of them must not keep the executor.
        cx.waker().wake_by_ref();
        self.poll_deadline(cx).map(Err)
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Unreadable> {
        match frame.into_data() {
            Ok(data) => self.take_data(data),
            Err(other) => {
                if let Ok(trailers) = other.into_trailers() {
                    self.read.trailers.get_or_insert_default().extend(trailers);
                }
                Ok(())
            }
        }
    }

    fn take_data(&mut self, data: Bytes) -> Result<(), Unreadable> {
        let so_far = self.read.data.len() + self.joined.len();
        if data.len() > self.cap.saturating_sub(so_far) {
            return Err(Unreadable::TooLarge);
        }
        if so_far == 0 {
            self.read.data = data;
        } else {
            self.joined.extend_from_slice(&std::mem::take(&mut self.read.data));
            self.joined.extend_from_slice(&data);
        }
        Ok(())
    }

    fn finish(&mut self) -> Whole {
        if !self.joined.is_empty() {
            self.read.data = std::mem::take(&mut self.joined).freeze();
        }
        std::mem::take(&mut self.read)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Unreadable> {
        let Some(limit) = self.limit else { return Poll::Pending };
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(runtime::sleep(limit)));
        deadline.as_mut().poll(cx).map(|()| Unreadable::TimedOut)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("cap", &self.cap).finish_non_exhaustive()
    }
}

/// A limit that an outer layer set is the same to the caller as ours.
pub(crate) fn why(error: impl Into<BoxError>) -> Unreadable {
    let error = error.into();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return Unreadable::TooLarge;
        }
        cause = error.source();
    }
    Unreadable::Failed
}

const FRAMES_PER_POLL: usize = 128;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::{BodyExt, Full, Limited, StreamBody};

    use super::*;

    fn read<B>(cap: usize, body: B) -> Poll<Result<Whole, Unreadable>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let body = std::pin::pin!(body);
        Reader::new(cap, None).poll(&mut Context::from_waker(Waker::noop()), body, why)
    }

    fn frames(parts: &'static [&'static str]) -> impl Body<Data = Bytes, Error = BoxError> {
        let frames = parts.iter().map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
        StreamBody::new(futures_util::stream::iter(frames))
    }

    #[test]
    fn one_frame_is_not_copied() {
        let data = Bytes::from_static(b"hello");
        let Poll::Ready(Ok(whole)) = read(5, Full::new(data.clone())) else { panic!() };
        assert_eq!(whole.data.as_ptr(), data.as_ptr());
    }

    #[test]
    fn frames_are_joined_and_trailers_kept() {
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
        let sent = trailers.clone();
        let body =
            frames(&["", "a", "", "b", "c"]).with_trailers(std::future::ready(Some(Ok(trailers))));
        let Poll::Ready(Ok(whole)) = read(3, body) else { panic!() };
        assert_eq!((&*whole.data, whole.trailers), (&b"abc"[..], Some(sent)));
    }

    #[test]
    fn the_cap_holds_over_all_frames() {
        assert!(matches!(read(2, frames(&["a", "bc"])), Poll::Ready(Err(Unreadable::TooLarge))));
        assert!(matches!(read(2, frames(&["abc"])), Poll::Ready(Err(Unreadable::TooLarge))));
        assert!(matches!(read(3, frames(&["a", "bc"])), Poll::Ready(Ok(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_empty_frames_ends_with_its_time() {
        let flood =
            futures_util::stream::repeat_with(|| Ok::<_, BoxError>(Frame::data(Bytes::new())));
        let mut body = std::pin::pin!(StreamBody::new(flood));
        let mut reader = Reader::new(9, Some(Duration::from_secs(1)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(reader.poll(&mut cx, body.as_mut(), why).is_pending());
        tokio::time::advance(Duration::from_secs(2)).await;
        let read = reader.poll(&mut cx, body.as_mut(), why);
        assert!(matches!(read, Poll::Ready(Err(Unreadable::TimedOut))));
    }

    #[test]
    fn an_outer_limit_reads_as_too_large() {
        let body = Limited::new(Full::new(Bytes::from_static(b"abc")), 2);
        assert!(matches!(read(9, body), Poll::Ready(Err(Unreadable::TooLarge))));
    }
}
