//! What is done with an answer: which kind it is, and what refuses it.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{StatusCode, header, response};
use http_body::Body;

use super::{
    Vault, adapters,
    head::is_utf8,
    policies::Policy,
    policy::{Gathered, Subject, decide},
    read::Unreadable,
    service::plain_encoding,
    stream::{EventScan, Task},
};
use crate::{
    inference::{
        adapter::Adapted,
        answer::{Answer, Pieces},
        lines::is_lines,
    },
    reject::{Rejection, RejectionKind},
    reservation::UsageMeter,
    route::Endpoint,
};

/// How an answer is read.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// An event stream, or lines, as they pass.
    Stream(Pieces),
    /// JSON, whole.
    Json,
    /// One text, whole.
    Text,
    /// Whole, by an adapter of the application.
    Adapted(Adapted),
}

/// How to read the answer to a request of this endpoint. `None`: there is nothing to read.
pub(crate) fn kind<R: Body>(
    endpoint: Endpoint,
    head: &response::Parts,
    body: &R,
) -> Result<Option<Kind>, Rejection> {
    // Vectors are no text.
    if is_empty(head, body) || endpoint == Endpoint::OpenAiEmbeddings {
        return Ok(None);
    }
    let media_type = head.headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    let essence = media_type.and_then(|value| value.split(|byte| *byte == b';').next());
    let essence = essence.unwrap_or_default().trim_ascii().to_ascii_lowercase();
    // The caller says that it is gRPC, which only gets here when it may pass unseen. What is something else is read.
    let is_unknown = matches!(endpoint, Endpoint::Other | Endpoint::Grpc);
    let kind = match &*essence {
        b"text/event-stream" => Kind::Stream(Pieces::Events),
        b"application/json" => Kind::Json,
        other if other.ends_with(b"+json") => Kind::Json,
        other if is_lines(other) => Kind::Stream(Pieces::Lines),
        // A page or a file that the server offers besides, not a model's answer.
        _ if is_unknown => return Ok(None),
        other if other.starts_with(b"text/") => Kind::Text,
        _ => return Err(unreadable()),
    };
    plain_encoding(&head.headers).map_err(|_| unreadable())?;
    if !is_utf8(media_type.unwrap_or_default()) {
        return Err(unreadable());
    }
    Ok(Some(kind))
}

/// The same for a request that an adapter reads: events go on as they come, and what else it can read is its own.
pub(crate) fn adapted_kind<R: Body>(
    adapted: &Adapted,
    head: &response::Parts,
    body: &R,
) -> Result<Option<Kind>, Rejection> {
    if is_empty(head, body) {
        return Ok(None);
    }
    // Of any other service every text is read, too.
    let by_type =
        if adapted.framed { Err(unreadable()) } else { kind(Endpoint::Generate, head, body) };
    if matches!(by_type, Ok(Some(Kind::Stream(_)))) || !adapted.reads_answers() {
        return by_type;
    }
    plain_encoding(&head.headers).map_err(|_| unreadable())?;
    Ok(Some(Kind::Adapted(adapted.clone())))
}

fn is_empty<R: Body>(head: &response::Parts, body: &R) -> bool {
    let bare = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    bare || head.status.is_informational() || body.is_end_stream()
}

/// Reads a whole answer. Without a byte it says nothing, whatever its kind.
pub(crate) fn read(endpoint: Endpoint, kind: &Kind, data: Bytes) -> Result<Answer, Rejection> {
    match kind {
        Kind::Json if !data.is_empty() => Answer::json(endpoint, data).map_err(|_| unreadable()),
        Kind::Adapted(adapted) if !data.is_empty() => {
            Answer::adapted(adapted, data).map_err(|error| {
                adapters::count(error);
                unreadable()
            })
        }
        _ => Answer::plain(data).map_err(|_| unreadable()),
    }
}

/// The refusal in the place of an answer that did not come whole.
pub(crate) fn lost(unreadable: &Unreadable) -> Rejection {
    match unreadable {
        Unreadable::TooLarge => too_large(),
        Unreadable::TimedOut | Unreadable::Failed => Rejection::new(
            RejectionKind::Unavailable,
            "answer_failed",
            "The answer broke off before its end. Try again.",
        ),
    }
}

pub(crate) fn too_large() -> Rejection {
    Rejection::new(
        RejectionKind::Unavailable,
        "answer_too_large",
        "The answer is too large to be checked. Ask for a shorter one, or for a stream.",
    )
}

pub(crate) fn unreadable() -> Rejection {
    Rejection::new(
        RejectionKind::Unavailable,
        "unreadable_answer",
        "The answer has a form or an encoding that can't be checked here.",
    )
}

/// A scan of an answer while it passes.
#[derive(Debug)]
pub(crate) enum Scan {
    Events(EventScan),
    /// Placeholders are restored in what the detectors, if there are any, let go on.
    Restored {
        looked: Option<EventScan>,
        restored: Box<EventScan>,
    },
    Copy(CopyScan),
}

/// What is passed on, and the last words of a stream that is cut short after it.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) forward: Bytes,
    pub(crate) cut: Option<Bytes>,
}

impl Step {
    /// The step, with values put back in what goes on.
    fn restored(self, restored: &mut EventScan) -> Self {
        let mut step = restored.push(self.forward);
        if self.cut.is_some() && step.cut.is_none() {
            step = restored.finish().after(Some(step));
            step.cut = self.cut;
        }
        step
    }

    /// The step, after another one that ends nothing.
    fn after(mut self, before: Option<Self>) -> Self {
        if let Some(before) = before.filter(|before| !before.forward.is_empty()) {
            self.forward = [before.forward, self.forward].concat().into();
        }
        self
    }
}

impl Scan {
    pub(crate) fn new(
        policy: Arc<Policy>,
        endpoint: Endpoint,
        kind: Kind,
        meter: Option<UsageMeter>,
        vault: Option<Vault>,
    ) -> Self {
        match (kind, vault) {
            (Kind::Stream(pieces), Some(vault)) => {
                let looks = !policy.output.is_empty();
                let scan = |meter, task| {
                    EventScan::new(Arc::clone(&policy), endpoint, pieces, meter, task)
                };
                let (meter, rest) = if looks { (meter, None) } else { (None, meter) };
                let own = Some(vault.clone());
                let looked = looks.then(|| scan(meter, Task::Look { own }));
                Self::Restored { looked, restored: Box::new(scan(rest, Task::Restore(vault))) }
            }
            (Kind::Stream(pieces), None) => {
                let task = Task::Look { own: None };
                Self::Events(EventScan::new(policy, endpoint, pieces, meter, task))
            }
            (kind, _) => {
                Self::Copy(CopyScan { policy, endpoint, kind, copy: Some(BytesMut::new()) })
            }
        }
    }

    pub(crate) fn push(&mut self, data: Bytes) -> Step {
        match self {
            Self::Events(events) => events.push(data),
            Self::Restored { looked, restored } => match looked {
                Some(looked) => looked.push(data).restored(restored),
                None => restored.push(data),
            },
            Self::Copy(copy) => {
                copy.push(&data);
                Step { forward: data, cut: None }
            }
        }
    }

    pub(crate) fn finish(&mut self) -> Step {
        match self {
            Self::Events(events) => events.finish(),
            Self::Restored { looked, restored } => {
                let step = looked.as_mut().map(|looked| looked.finish().restored(restored));
                match step {
                    Some(step) if step.cut.is_some() => step,
                    step => restored.finish().after(step),
                }
            }
            Self::Copy(copy) => {
                copy.finish();
                Step { forward: Bytes::new(), cut: None }
            }
        }
    }

    /// The oldest event that waits, and how many there were until now.
    pub(crate) fn waits(&self) -> Option<(u64, u64)> {
        match self {
            Self::Events(events) => events.waits(),
            Self::Restored { looked, restored } => {
                looked.as_ref().and_then(EventScan::waits).or_else(|| restored.waits())
            }
            Self::Copy(_) => None,
        }
    }

    /// Lets what is held go on as far as it may without more of it, or all of it.
    pub(crate) fn flush(&mut self, all: bool) -> Step {
        match self {
            Self::Events(events) => events.flush(all),
            Self::Restored { looked, restored } => {
                let step = looked.as_mut().map(|looked| looked.flush(all).restored(restored));
                match step {
                    Some(step) if step.cut.is_some() => step,
                    step => restored.flush(all).after(step),
                }
            }
            Self::Copy(_) => Step { forward: Bytes::new(), cut: None },
        }
    }

    /// How long anything is held.
    pub(crate) fn max_delay(&self) -> Duration {
        match self {
            Self::Events(events) => events.max_delay(),
            Self::Restored { restored, .. } => restored.max_delay(),
            Self::Copy(_) => Duration::ZERO,
        }
    }

    /// Whether every byte goes on as it comes.
    pub(crate) fn forwards_all(&self) -> bool {
        matches!(self, Self::Copy(_))
    }
}

/// Looks at a copy of a whole answer, after the fact: for a guard that only reports.
pub(crate) struct CopyScan {
    policy: Arc<Policy>,
    endpoint: Endpoint,
    kind: Kind,
    /// `None` once it is too large.
    copy: Option<BytesMut>,
}

impl CopyScan {
    fn push(&mut self, data: &[u8]) {
        match &mut self.copy {
            Some(copy) if copy.len() + data.len() <= self.policy.max_answer => {
                copy.extend_from_slice(data);
            }
            _ => self.copy = None,
        }
    }

    fn finish(&mut self) {
        let copy = self.copy.take().ok_or_else(too_large);
        match copy.and_then(|copy| read(self.endpoint, &self.kind, copy.freeze())) {
            Ok(answer) => {
                let gathered = scan(&self.policy, &answer);
                let action = decide(gathered, Subject::Answer).verdict.action;
                self.policy.count(Subject::Answer, action);
            }
            Err(rejection) => self.policy.count_excused(&rejection),
        }
    }
}

impl fmt::Debug for CopyScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyScan").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Runs the output detectors over a whole answer.
pub(crate) fn scan(policy: &Policy, answer: &Answer) -> Gathered {
    let mut gathered = Gathered::of(policy);
    for segment in answer.segments() {
        policy.output_scanner().segment(&segment, &mut gathered);
    }
    gathered
}
