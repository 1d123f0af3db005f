//! The body that meters: reads the usage as the answer passes, and settles when it ends.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{fair::Pace, reservation::SettleOnDrop, settlement::Outcome};
use crate::{inference::UsageReader, reservation::TokenUsage};

pin_project! {
    /// The inner service's body, every frame as it comes. What the request reserved is settled at
    /// its end, its error or its drop; the inner body is dropped first.
    pub struct MeteredBody<R> {
        #[pin]
        inner: R,
        metering: Option<Metering>,
    }
}

/// Reads usage, and settles when it is dropped.
struct Metering {
    settle: SettleOnDrop,
    /// What the end of the body means.
    at_end: Outcome,
    reader: UsageReader,
    /// Whether any data has passed.
    begun: bool,
    /// Times the engine, where its capacity goes by that.
    pace: Option<Box<Pace>>,
}

impl<R: Body<Data = Bytes>> MeteredBody<R> {
    /// A body that is counted nowhere: of an exempt route, or of a connection that is something else from now on.
    pub(super) fn unmetered(inner: R) -> Self {
        Self { inner, metering: None }
    }

    /// A metered body. One that has no frames to come (`HEAD`, 204, empty) is complete at once.
    pub(super) fn new(
        inner: R,
        settle: SettleOnDrop,
        reader: UsageReader,
        status: StatusCode,
        head_only: bool,
    ) -> Self {
        let mut this = Self { inner, metering: Some(Metering::new(settle, reader)) };
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if head_only || bodiless || this.inner.is_end_stream() {
            Metering::end(&mut this.metering);
        }
        this
    }
}

impl<R> MeteredBody<R> {
    /// Whether anything is held until it ends.
    pub(super) fn is_metered(&self) -> bool {
        self.metering.is_some()
    }
}

impl<R: Body<Data = Bytes>> Body for MeteredBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let mut this = self.project();
        let Some(metering) = this.metering else { return this.inner.poll_frame(cx) };
        if let Some(pace) = &mut metering.pace {
            pace.asks();
        }
        let Poll::Ready(frame) = this.inner.as_mut().poll_frame(cx) else {
            if let Some(pace) = &mut metering.pace {
                pace.waits();
            }
            return Poll::Pending;
        };
        match &frame {
            Some(Ok(frame)) => {
                metering.read(frame);
                // Servers do not poll on when the body says that it has ended.
                if this.inner.is_end_stream() {
                    Metering::end(this.metering);
                }
            }
            // Settled as an answer that broke off.
            Some(Err(_)) => *this.metering = None,
            None => Metering::end(this.metering),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<R> fmt::Debug for MeteredBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredBody").finish_non_exhaustive()
    }
}

impl Metering {
    fn new(settle: SettleOnDrop, reader: UsageReader) -> Self {
        // An answer that was not refused is aborted until it ends.
        let at_end = match settle.outcome() {
            Outcome::Aborted => Outcome::Answered,
            outcome => outcome,
        };
        // The frames of a whole JSON text are no tokens.
        let pace = if reader.reads_whole() { None } else { settle.reservation().pace() };
        Self { settle, at_end, reader, begun: false, pace: pace.map(Box::new) }
    }

    fn read(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            match &mut self.pace {
                None => self.reader.push(data),
                Some(pace) => {
                    let before = self.reader.output_estimate();
                    self.reader.push(data);
                    // Of a comment or a role the answer is no longer.
                    pace.came(self.reader.output_estimate() > before);
                }
            }
            if !self.begun && !data.is_empty() {
                self.begun = true;
                self.settle.reservation().begin_answer(self.reader.reads_text());
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.reader.trailers(trailers);
            self.at_end = match outcome_of_grpc(trailers) {
                // A stream that failed after it had begun is paid like one that broke off.
                Some(Outcome::Refused | Outcome::Failed) if self.begun => Outcome::Aborted,
                Some(outcome) => outcome,
                None => self.at_end,
            };
            self.settle.set(self.at_end);
        }
    }

    /// The whole answer has passed.
    fn end(metering: &mut Option<Self>) {
        if let Some(metering) = metering {
            metering.reader.finish();
            metering.settle.set(metering.at_end);
        }
        *metering = None;
    }
}

impl Drop for Metering {
    fn drop(&mut self) {
        let reader = &self.reader;
        // The prompt is left to the estimate where only the output is stated.
        let output_alone = || reader.stated_output().map(|output| TokenUsage::new(0, output));
        let stated = reader.usage().or_else(output_alone);
        let (estimate, by_text) = (reader.output_estimate(), reader.estimates_text());
        self.settle.reservation().read(stated, estimate, by_text);
    }
}

/// How a request has ended, by the head of its answer alone: an answer is aborted until it ends.
pub(super) fn outcome_of_head(status: StatusCode, headers: &HeaderMap) -> Outcome {
    if status.is_client_error() {
        return Outcome::Refused;
    }
    if status.is_server_error() {
        return Outcome::Failed;
    }
    // An answer of trailers only has its gRPC status in the head.
    match outcome_of_grpc(headers) {
        Some(outcome @ (Outcome::Refused | Outcome::Failed)) => outcome,
        _ => Outcome::Aborted,
    }
}

/// By the status of the gRPC protocol: which codes are the caller's fault is told by what they
/// stand for over HTTP.
fn outcome_of_grpc(headers: &HeaderMap) -> Option<Outcome> {
    let code: u8 = headers.get(&GRPC_STATUS)?.to_str().ok()?.parse().ok()?;
    Some(match code {
        0 => Outcome::Answered,
        // INVALID_ARGUMENT, NOT_FOUND to FAILED_PRECONDITION and ABORTED to UNIMPLEMENTED, UNAUTHENTICATED.
        3 | 5..=12 | 16 => Outcome::Refused,
        // CANCELLED: the caller left.
        1 => Outcome::Aborted,
        _ => Outcome::Failed,
    })
}

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
