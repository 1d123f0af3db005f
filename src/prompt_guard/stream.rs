//! Scanning an event stream as it passes: whole events go on byte for byte, or the stream ends.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use super::{
    Outcome,
    answer::{self, Step, too_large},
    layer::Config,
    policy::{Gathered, Subject, answer_blocked, decide},
    scan::scan_segment,
};
use crate::{
    inference::{
        ByteClasses, Event, EventReader, Origin, Segment, TokenEstimator as _,
        answer::texts_of_event,
    },
    observe,
    reject::Rejection,
    reservation::{Observed, UsageMeter},
    route::Endpoint,
};

/// The scan of one event stream.
pub(crate) struct EventScan {
    config: Arc<Config>,
    endpoint: Endpoint,
    meter: Option<UsageMeter>,
    reader: EventReader,
    /// Bytes that came of the event that is not whole yet.
    unended: usize,
    windows: Vec<Window>,
    /// Output tokens that were let through, by estimate.
    tokens: u64,
    action: Outcome,
    done: bool,
}

/// The end of one text of the stream.
struct Window {
    channel: u64,
    text: String,
}

impl EventScan {
    pub(crate) fn new(config: Arc<Config>, endpoint: Endpoint, meter: Option<UsageMeter>) -> Self {
        let reader = EventReader::new().max_event(config.max_answer);
        Self {
            config,
            endpoint,
            meter,
            reader,
            unended: 0,
            windows: Vec::new(),
            tokens: 0,
            action: Outcome::Allow,
            done: false,
        }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn push(&mut self, data: Bytes) -> Step {
        let mut reader = std::mem::take(&mut self.reader);
        // What is forwarded is what came, unless an event began before.
        let mut joined = (!reader.held().is_empty()).then(Vec::new);
        let (mut passed, mut refused) = (0, None);
        reader.push(&data, |event| {
            if refused.is_none() {
                match self.event(&event) {
                    Ok(()) => passed += event.length,
                    Err(rejection) => refused = Some(rejection),
                }
                if let (Some(joined), None) = (&mut joined, &refused) {
                    joined.extend_from_slice(event.raw);
                }
            }
        });
        self.unended = (self.unended + data.len()).saturating_sub(passed);
        self.reader = reader;
        if !self.config.enforced {
            return Step { forward: data, cut: None };
        }
        if refused.is_none() && self.unended > self.config.max_answer {
            refused = Some(too_large());
        }
        let forward = match joined {
            Some(joined) => joined.into(),
            None => data.slice(..passed.min(data.len())),
        };
        Step { forward, cut: refused.map(|rejection| self.cut(&rejection)) }
    }

    /// The stream has ended. What is left is no whole event, but there are clients that read it.
    pub(crate) fn finish(&mut self) -> Step {
        let mut step = Step { forward: Bytes::new(), cut: None };
        let mut reader = std::mem::take(&mut self.reader);
        reader.finish(|event| match self.event(&event) {
            Ok(()) if self.config.enforced => step.forward = Bytes::copy_from_slice(event.raw),
            Ok(()) => {}
            Err(rejection) => step.cut = Some(self.cut(&rejection)),
        });
        self.end();
        step
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Rejection> {
        if event.oversized && self.config.enforced {
            return Err(too_large());
        }
        let Some(data) = event.data() else { return Ok(()) };
        let mut tokens = 0_u64;
        texts_of_event(self.endpoint, data, |channel, origin, text| {
            tokens = tokens.saturating_add(ByteClasses.estimate(text));
            self.text(channel, origin, text)
        })?;
        self.tokens = self.tokens.saturating_add(tokens);
        Ok(())
    }

    /// Scans what was added to one of the texts, with the end of what went before.
    fn text(&mut self, channel: u64, origin: Origin, added: &str) -> Result<(), Rejection> {
        if added.is_empty() {
            return Ok(());
        }
        let config = Arc::clone(&self.config);
        let mut window = self.take_window(channel);
        let mut gathered = Gathered { seen: window.text.len(), ..Gathered::default() };
        window.text.push_str(added);
        scan_segment(&config.output, &Segment::new(0, &window.text, origin, 0), &mut gathered);
        window.shrink_to(config.stream_window);
        self.windows.push(window);
        let decision = decide(gathered, Subject::Answer, config.enforced);
        self.action = self.action.max(decision.verdict.action);
        match (decision.rejection, decision.verdict.action) {
            _ if !config.enforced => Ok(()),
            (Some(rejection), _) => Err(rejection),
            // What went before may be on the wire already: a mask would come too late.
            (None, Outcome::Sanitize) => Err(answer_blocked()),
            (None, _) => Ok(()),
        }
    }

    /// The one of this channel, or room for it. The one that was last added to stands last.
    fn take_window(&mut self, channel: u64) -> Window {
        if let Some(at) = self.windows.iter().position(|window| window.channel == channel) {
            return self.windows.remove(at);
        }
        if self.windows.len() >= MAX_WINDOWS {
            self.windows.remove(0);
        }
        Window { channel, text: String::new() }
    }

    /// The event that ends the stream. The limiter hears what was let through.
    fn cut(&mut self, rejection: &Rejection) -> Bytes {
        self.action = Outcome::Block;
        self.end();
        observe::count("palisade_guard_cut_total", &[("code", rejection.code())]);
        if let Some(meter) = &self.meter {
            meter.observe(Observed::LetThrough(self.tokens));
        }
        self.endpoint.error_format().stream_event(rejection)
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.done, true) {
            answer::count(self.action);
        }
    }
}

impl fmt::Debug for EventScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventScan").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Window {
    fn shrink_to(&mut self, bytes: usize) {
        let mut cut = self.text.len().saturating_sub(bytes);
        while !self.text.is_char_boundary(cut) {
            cut += 1;
        }
        self.text.drain(..cut);
    }
}

/// Texts that are followed at a time: choices, content blocks, tool calls.
const MAX_WINDOWS: usize = 128;
