//! The steps of an answer, between the waits.

use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderMap, Response, header, response};
use http_body::Body;

use super::{
    AnswerVerdict, ScannedBody, Vault,
    answer::{self, Kind},
    policy::{Decision, Gathered, Subject, answer_blocked, unavailable},
    read::{Reader, Unreadable, Whole},
    scan::{ON_EXECUTOR, run},
    turn::{LAYER, Turn, fix_head},
};
use crate::{
    body::ResponseBody,
    future::ReadyOr,
    inference::{Edit, UsageReader, answer::Answer},
    reject::{ErrorFormat, Rejection, RejectionKind},
    reservation::{Observed, TokenUsage},
    route::Endpoint,
};

/// What an answer does next.
pub(crate) enum Answered<R> {
    Pass(Response<ResponseBody<ScannedBody<R>>>),
    Refuse(Rejection),
    Collect(response::Parts, Kind, R, Reader),
}

/// A whole answer, and what was found in it.
pub(crate) type Judged = ReadyOr<Option<(Answer, Gathered)>>;

impl Turn {
    /// The inner service has answered.
    pub(crate) fn answered<R: Body<Data = Bytes>>(&mut self, response: Response<R>) -> Answered<R> {
        let (mut head, body) = response.into_parts();
        let Some(endpoint) = self.endpoint.filter(|_| self.reads_answer()) else {
            return Answered::Pass(self.pass(head, ScannedBody::passed(body)));
        };
        let kind = match &self.adapted {
            Some(adapted) => answer::adapted_kind(adapted, &head, &body),
            None => answer::kind(endpoint, &head, &body),
        };
        let kind = match kind {
            Ok(kind) => kind,
            Err(rejection) => match self.policy.excuse(rejection) {
                Ok(_) => None,
                Err(rejection) => {
                    self.withhold(None);
                    return Answered::Refuse(rejection);
                }
            },
        };
        let Some(kind) = kind else {
            return Answered::Pass(self.pass(head, ScannedBody::passed(body)));
        };
        if self.policy.enforced {
            if !matches!(kind, Kind::Stream(_)) {
                let reader = Reader::new(self.policy.max_answer, None);
                return Answered::Collect(head, kind, body, reader);
            }
            // It may be cut short.
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let (policy, vault) = (Arc::clone(&self.policy), self.restoring().cloned());
        let scan = answer::Scan::new(policy, endpoint, kind, self.meter.take(), vault);
        Answered::Pass(self.pass(head, ScannedBody::scanned(body, scan)))
    }

    /// Whether anything is looked for or put back in the answer.
    pub(super) fn reads_answer(&self) -> bool {
        !self.policy.output.is_empty() || self.restoring().is_some()
    }

    fn pass<R>(
        &mut self,
        mut head: response::Parts,
        body: ScannedBody<R>,
    ) -> Response<ResponseBody<ScannedBody<R>>> {
        self.tell(&mut head.extensions);
        Response::from_parts(head, ResponseBody::inner(body))
    }

    /// The answer was read whole, or could not be.
    pub(crate) fn collected(
        &mut self,
        kind: Kind,
        read: Result<Whole, Unreadable>,
    ) -> Result<(Judged, Option<HeaderMap>), Rejection> {
        let whole = read.map_err(|unreadable| {
            if matches!(unreadable, Unreadable::TooLarge) {
                self.withhold(None);
            }
            answer::lost(&unreadable)
        })?;
        let answer = answer::read(self.endpoint.unwrap_or(Endpoint::Other), &kind, whole.data)
            .inspect_err(|_| self.withhold(None))?;
        let policy = Arc::clone(&self.policy);
        let judged = run(answer.raw().len(), ON_EXECUTOR, move |_| {
            let gathered = answer::scan(&policy, &answer);
            (answer, gathered)
        });
        Ok((judged, whole.trailers))
    }

    /// The detectors have looked at the whole answer.
    pub(crate) fn judged<R>(
        &mut self,
        mut head: response::Parts,
        trailers: Option<HeaderMap>,
        judged: Option<(Answer, Gathered)>,
    ) -> Result<Response<ResponseBody<ScannedBody<R>>>, Rejection> {
        let (answer, mut gathered) = judged.ok_or_else(unavailable)?;
        if let Some(vault) = self.restoring() {
            let segments: Vec<_> = answer.segments().collect();
            gathered.overlook(vault, |segment| segments.get(segment).map_or("", |it| it.text));
        }
        if answer.repeats() {
            // Its tokens would still say what a mask hides.
            gathered.forget_places();
        }
        let mut edits = Vec::new();
        if !self.policy.output.is_empty() {
            let Decision { verdict, masks, rejection, .. } = self.decide(gathered, Subject::Answer);
            self.answer_verdict = Some(AnswerVerdict(verdict));
            if let Some(rejection) = rejection {
                self.withhold(stated(&head.headers, answer.raw()));
                return Err(rejection);
            }
            edits = self.edits(masks, answer.segments(), None);
        }
        let mut data = answer.raw().clone();
        if !edits.is_empty() {
            let Some(edited) = answer.rewritten(&edits) else {
                self.withhold(stated(&head.headers, answer.raw()));
                return Err(answer_blocked());
            };
            data = edited;
        }
        if let Some(restored) = self.restoring().and_then(|vault| restored(vault, &answer, edits)) {
            data = restored;
        }
        if data != answer.raw() {
            fix_head(&mut head.headers, data.len());
        }
        Ok(self.pass(head, ScannedBody::whole(data, trailers)))
    }

    /// The model has answered, and is paid for, though the caller does not see it.
    fn withhold(&mut self, usage: Option<TokenUsage>) {
        if let Some(meter) = self.meter.take() {
            meter.observe(Observed::Withheld(usage));
        }
    }

    /// The answer that refuses.
    pub(crate) fn refuse<R>(
        &mut self,
        rejection: Rejection,
    ) -> Response<ResponseBody<ScannedBody<R>>> {
        let format = self.endpoint.map_or(ErrorFormat::Problem, Endpoint::error_format);
        let layer = match rejection.kind() {
            RejectionKind::RateLimited => "rate_limit",
            _ => LAYER,
        };
        let mut response = rejection.into_response(layer, format, &self.config.routes);
        self.tell(response.extensions_mut());
        response
    }

    /// Leaves the verdicts for outer layers.
    fn tell(&mut self, extensions: &mut Extensions) {
        if let Some(verdict) = self.verdict.take() {
            extensions.insert(verdict);
        }
        if let Some(verdict) = self.answer_verdict.take() {
            extensions.insert(verdict);
        }
        if let Some(vault) = self.vault.take() {
            extensions.insert(vault);
        }
    }
}

/// The answer with its masks and with values in the place of placeholders, unless there are none.
fn restored(vault: &Vault, answer: &Answer, masks: Vec<Edit>) -> Option<Bytes> {
    let values: Vec<Edit> = answer.segments().flat_map(|segment| vault.edits(&segment)).collect();
    if values.is_empty() {
        return None;
    }
    let mut edits = masks;
    let masked = edits.len();
    for value in values {
        let (segment, span) = (value.segment, &value.span);
        // Masks are in order, and don't overlap.
        let masks = edits.get(..masked).unwrap_or_default();
        let next =
            masks.partition_point(|mask| (mask.segment, mask.span.end) <= (segment, span.start));
        let hidden = masks
            .get(next)
            .is_some_and(|mask| mask.segment == segment && mask.span.start < span.end);
        if !hidden {
            edits.push(value);
        }
    }
    edits.sort_by_key(|edit| (edit.segment, edit.span.start));
    // Two names of members may have the same value. Then they keep their placeholders.
    answer.rewritten(&edits)
}

/// The usage that a whole answer states.
fn stated(headers: &HeaderMap, answer: &Bytes) -> Option<TokenUsage> {
    let mut reader = UsageReader::new(headers);
    reader.push(answer);
    reader.finish();
    reader.usage()
}
