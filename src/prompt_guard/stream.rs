//! Scanning an event stream as it passes: an event goes on, byte for byte or with masks, once all of
//! its texts may, and after all that came before it.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::{
    Outcome, Vault,
    answer::{Step, too_large, unreadable},
    hold::{Hold, Stop},
    mask::Mask,
    policies::Policy,
    policy::{Gathered, Subject, answer_blocked, decide},
    so_far::{Says, SoFar},
};
use crate::{
    inference::{
        ByteClasses, Edit, Event, Origin, Segment, TokenEstimator as _,
        answer::{EventTexts, PieceReader, Pieces, Place},
    },
    observe,
    reject::Rejection,
    reservation::{Observed, UsageMeter},
    route::Endpoint,
};

/// The scan of one event stream, or of an answer in lines, of which each counts as an event.
pub(crate) struct EventScan {
    policy: Arc<Policy>,
    task: Task,
    endpoint: Endpoint,
    meter: Option<UsageMeter>,
    pieces: Pieces,
    reader: PieceReader,
    /// Bytes that came of the event that is not whole yet.
    unended: usize,
    /// Nothing has come yet.
    at_start: bool,
    channels: Vec<Channel>,
    queue: VecDeque<Queued>,
    /// Bytes in the queue, but for text that earlier events have said.
    queued: usize,
    /// How many there were when what could go on of it last did.
    relieved_at: usize,
    /// Bytes of such text in the queue.
    repeated: usize,
    /// Events that were ever in the queue.
    numbered: u64,
    /// What went on would not be what the handler sent.
    broken: bool,
    out: Vec<u8>,
    /// Output tokens that were let through, by estimate.
    tokens: u64,
    action: Outcome,
    done: bool,
}

/// What is done with the texts.
pub(crate) enum Task {
    /// The output detectors look. They overlook the request's own placeholders, which are restored after them.
    Look { own: Option<Vault> },
    /// Values are put back.
    Restore(Vault),
}

/// Why a text is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It has grown.
    Advance,
    /// It is late.
    Flush,
    /// It has ended.
    Finish,
}

/// One text of the stream, and what it is part of.
struct Channel {
    place: Place,
    hold: Hold,
    /// Where events may say all of it so far.
    so_far: Option<SoFar>,
    /// Nothing more of it is to come.
    ended: bool,
}

/// An event that waits.
struct Queued {
    number: u64,
    raw: Bytes,
    /// It only keeps the connection alive, and has no place among the others.
    idle: bool,
    /// It is the first of the stream.
    first: bool,
    parts: Vec<Part>,
    /// The edits of texts that stand alone.
    edits: Vec<Edit>,
    tokens: u64,
    /// Bytes of text that earlier events have said.
    repeated: usize,
}

/// A part of a channel's text in an event.
struct Part {
    /// Which of the event's texts.
    segment: usize,
    channel: u64,
    range: Range<usize>,
}

impl EventScan {
    pub(crate) fn new(
        policy: Arc<Policy>,
        endpoint: Endpoint,
        pieces: Pieces,
        meter: Option<UsageMeter>,
        task: Task,
    ) -> Self {
        let reader = pieces.reader(policy.max_answer);
        Self {
            policy,
            task,
            endpoint,
            meter,
            pieces,
            reader,
            unended: 0,
            at_start: true,
            channels: Vec::new(),
            queue: VecDeque::new(),
            queued: 0,
            relieved_at: 0,
            repeated: 0,
            numbered: 0,
            broken: false,
            out: Vec::new(),
            tokens: 0,
            action: Outcome::Allow,
            done: false,
        }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn push(&mut self, data: Bytes) -> Step {
        let mut reader = std::mem::take(&mut self.reader);
        let (mut passed, mut refused) = (0, None);
        reader.push(&data, |event| {
            if refused.is_none() {
                passed += event.length;
                refused = self.event(&event).err();
            }
        });
        self.unended = (self.unended + data.len()).saturating_sub(passed);
        self.reader = reader;
        if !self.policy.enforced {
            return Step { forward: data, cut: None };
        }
        if refused.is_none() && self.unended > self.policy.max_answer {
            refused = Some(too_large());
        }
        self.step(refused)
    }

    /// What is held is late: what of it can't be the beginning of something goes on, or all.
    pub(crate) fn flush(&mut self, all: bool) -> Step {
        let flushed = self.all(if all { Look::Finish } else { Look::Flush });
        self.pass_on();
        // What keeps the connection alive does not wait behind a text that has come to a halt.
        let (idle, queue): (VecDeque<_>, _) = self.queue.drain(..).partition(|queued| queued.idle);
        self.queue = queue;
        idle.into_iter().for_each(|queued| self.emit(queued));
        self.step(flushed.err())
    }

    /// The oldest event that waits, and how many there were until now.
    pub(crate) fn waits(&self) -> Option<(u64, u64)> {
        self.queue.front().map(|queued| (queued.number, self.numbered))
    }

    pub(crate) fn max_delay(&self) -> Duration {
        self.policy.max_delay
    }

    /// The stream has ended. What is left is no whole event, but there are clients that read it.
    pub(crate) fn finish(&mut self) -> Step {
        let mut reader = std::mem::take(&mut self.reader);
        let mut refused = None;
        reader.finish(|event| refused = self.event(&event).err());
        let refused = refused.or_else(|| self.all(Look::Finish).err());
        if !self.policy.enforced {
            self.end();
            return Step { forward: Bytes::new(), cut: None };
        }
        let step = self.step(refused);
        self.end();
        step
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Rejection> {
        if event.oversized && self.policy.enforced {
            return Err(too_large());
        }
        let first = std::mem::replace(&mut self.at_start, false);
        self.numbered += 1;
        let mut queued = Queued {
            number: self.numbered,
            raw: Bytes::new(),
            idle: true,
            first,
            parts: Vec::new(),
            edits: Vec::new(),
            tokens: 0,
            repeated: 0,
        };
        let Some(data) = event.data() else {
            self.wait(queued, event);
            self.pass_on();
            return Ok(());
        };
        let texts = EventTexts::read(self.endpoint, data);
        queued.idle = texts.is_ping();
        for (segment, (place, origin, text)) in texts.each(data).enumerate() {
            if text.is_empty() {
                continue;
            }
            let segment = Segment::new(segment, text, origin, 0);
            let mut new = text;
            if place.whole {
                queued.edits.extend(self.whole(&segment)?);
            } else {
                self.pass_over(place)?;
                let (part, grown) = self.part(place, &segment, texts.may_repeat())?;
                new = text.get(text.len() - grown..).unwrap_or_default();
                queued.repeated += text.len() - grown;
                queued.parts.push(part);
            }
            queued.tokens = queued.tokens.saturating_add(ByteClasses.estimate(new));
        }
        let channels: Vec<u64> = queued.parts.iter().map(|part| part.channel).collect();
        self.wait(queued, event);
        if self.repeated > MAX_REPEATED {
            return Err(too_large());
        }
        self.each(|place| channels.contains(&place.channel), Look::Advance)?;
        if texts.ends_all() {
            self.all(Look::Finish)?;
        } else {
            let ends = texts.ends();
            self.each(|place| ends.contains(&place.group), Look::Finish)?;
        }
        self.pass_on();
        if self.queued > self.relieved_at + MAX_QUEUED {
            self.all(Look::Flush)?;
            self.pass_on();
            self.relieved_at = self.queued;
        }
        self.relieved_at = self.relieved_at.min(self.queued);
        if self.queued > self.policy.max_answer {
            return Err(too_large());
        }
        self.forget_ended()
    }

    /// Where too many texts are followed, those that have ended and gone on are followed no more.
    fn forget_ended(&mut self) -> Result<(), Rejection> {
        if self.channels.len() <= MAX_CHANNELS {
            return Ok(());
        }
        let parts = self.queue.iter().flat_map(|queued| &queued.parts);
        let waiting: HashSet<u64> = parts.map(|part| part.channel).collect();
        self.channels.retain(|it| !it.ended || waiting.contains(&it.place.channel));
        if self.channels.len() <= MAX_CHANNELS {
            return Ok(());
        }
        if self.policy.enforced {
            return Err(too_large());
        }
        self.all(Look::Finish)?;
        self.channels.clear();
        Ok(())
    }

    fn wait(&mut self, mut queued: Queued, event: &Event<'_>) {
        if self.policy.enforced {
            queued.raw = Bytes::copy_from_slice(event.raw);
            queued.repeated = queued.repeated.min(queued.raw.len());
            self.queued += queued.raw.len() - queued.repeated;
            self.repeated += queued.repeated;
            self.queue.push_back(queued);
        }
    }

    /// A choice says one thing after another: when its next text begins, the one before has ended.
    fn pass_over(&mut self, next: Place) -> Result<(), Rejection> {
        if !matches!(self.endpoint, Endpoint::OpenAiChat | Endpoint::AnthropicMessages) {
            return Ok(());
        }
        self.each(|place| place.group == next.group && place.channel != next.channel, Look::Finish)
    }

    /// The part of its channel's text that this is, and how many bytes of that are new.
    fn part(
        &mut self,
        place: Place,
        text: &Segment<'_>,
        may_repeat: bool,
    ) -> Result<(Part, usize), Rejection> {
        let of_place = |channel: &Channel| channel.place.channel == place.channel;
        let at = self.channels.iter().position(of_place).unwrap_or(self.channels.len());
        if at == self.channels.len() {
            let (hold, so_far) = (self.new_hold(text.origin), may_repeat.then(SoFar::default));
            self.channels.push(Channel { place, hold, so_far, ended: false });
        }
        let so_far = self.channels.get_mut(at).and_then(|channel| channel.so_far.as_mut());
        let says = so_far.map(|so_far| so_far.next(text.text));
        if says == Some(Says::New) {
            self.take_apart(at, text.origin)?;
        }
        let Some(Channel { hold, ended, .. }) = self.channels.get_mut(at) else {
            return Err(unreadable());
        };
        *ended = false;
        let (range, new) = match says {
            Some(Says::All(new)) => {
                hold.push(new);
                (0..text.text.len(), new.len())
            }
            _ => (hold.push(text.text), text.text.len()),
        };
        Ok((Part { segment: text.index, channel: place.channel, range }, new))
    }

    fn new_hold(&self, origin: Origin) -> Hold {
        match &self.task {
            Task::Look { .. } => Hold::new(origin),
            Task::Restore(_) => Hold::restoring(origin),
        }
    }

    /// Each event of this text has said what is new, though the first of them looked as if they said all of it. If any of it
    /// has gone on, it was decided on by another text than its client reads.
    fn take_apart(&mut self, at: usize, origin: Origin) -> Result<(), Rejection> {
        let mut hold = self.new_hold(origin);
        let Some(channel) = self.channels.get_mut(at) else { return Ok(()) };
        let so_far = channel.so_far.take().unwrap_or_default();
        if channel.hold.released() > 0 && self.policy.enforced {
            return Err(unreadable());
        }
        for part in self.queue.iter_mut().flat_map(|queued| &mut queued.parts) {
            if part.channel == channel.place.channel {
                part.range = hold.push(so_far.up_to(part.range.end));
            }
        }
        channel.hold = hold;
        Ok(())
    }

    /// Scans a text that stands alone.
    fn whole(&mut self, text: &Segment<'_>) -> Result<Vec<Edit>, Rejection> {
        let own = match &self.task {
            Task::Look { own } => own,
            Task::Restore(vault) => return Ok(vault.edits(text)),
        };
        let mut gathered = Gathered::of(&self.policy);
        self.policy.output_scanner().segment(text, &mut gathered);
        if let Some(own) = own {
            gathered.overlook(own, |_| text.text);
        }
        let decision = decide(gathered, Subject::Answer);
        self.action = self.action.max(decision.verdict.action);
        match decision.rejection.filter(|_| self.policy.enforced) {
            Some(rejection) => Err(rejection),
            None => Ok(decision.masks.into_iter().map(Mask::plain).collect()),
        }
    }

    fn all(&mut self, look: Look) -> Result<(), Rejection> {
        self.each(|_| true, look)
    }

    /// Looks at some of the texts.
    fn each(&mut self, which: impl Fn(&Place) -> bool, look: Look) -> Result<(), Rejection> {
        for channel in self.channels.iter_mut().filter(|channel| which(&channel.place)) {
            let is_open = channel.so_far.as_ref().is_some_and(SoFar::is_open);
            if is_open && look != Look::Finish {
                // The next event tells what its text is.
                continue;
            }
            channel.ended = look == Look::Finish;
            let hold = &mut channel.hold;
            let own = match &self.task {
                Task::Look { own } => own.as_ref(),
                Task::Restore(vault) => {
                    hold.restore(vault, look == Look::Finish);
                    continue;
                }
            };
            let looked = match look {
                Look::Advance => hold.advance(&self.policy, own),
                Look::Flush => hold.flush(&self.policy, own),
                Look::Finish => hold.finish(&self.policy, own),
            };
            match looked {
                Ok(action) => self.action = self.action.max(action),
                Err(Stop(rejection)) => return Err(rejection),
            }
        }
        Ok(())
    }

    /// Lets the events go on that may, in their order.
    fn pass_on(&mut self) {
        while !self.broken && self.queue.front().is_some_and(|queued| self.may_go(queued)) {
            if let Some(queued) = self.queue.pop_front() {
                self.emit(queued);
            }
        }
    }

    fn may_go(&self, queued: &Queued) -> bool {
        queued.parts.iter().all(|part| part.range.end <= self.released(part))
    }

    fn released(&self, part: &Part) -> usize {
        let channel = self.channels.iter().find(|channel| channel.place.channel == part.channel);
        channel.map_or(usize::MAX, |channel| channel.hold.released())
    }

    fn emit(&mut self, queued: Queued) {
        self.queued = self.queued.saturating_sub(queued.raw.len() - queued.repeated);
        self.repeated = self.repeated.saturating_sub(queued.repeated);
        self.tokens = self.tokens.saturating_add(queued.tokens);
        let mut edits = queued.edits;
        for part in &queued.parts {
            let hold = self.channels.iter_mut().find(|c| c.place.channel == part.channel);
            let Some(Channel { hold, .. }) = hold else { continue };
            edits.extend(hold.changes(&part.range).into_iter().map(|(span, mask)| {
                let within = span.start - part.range.start..span.end - part.range.start;
                Edit::new(part.segment, within, mask)
            }));
        }
        if edits.is_empty() {
            return self.out.extend_from_slice(&queued.raw);
        }
        self.action = self.action.max(Outcome::Sanitize);
        match self.pieces.rewrite(self.endpoint, &queued.raw, queued.first, &edits) {
            Some(event) => self.out.extend_from_slice(&event),
            // Two names of members became alike.
            None => match self.task {
                Task::Look { .. } => self.broken = true,
                Task::Restore(_) => self.out.extend_from_slice(&queued.raw),
            },
        }
    }

    /// What goes on now, and how the stream ends if something is refused.
    fn step(&mut self, refused: Option<Rejection>) -> Step {
        self.pass_on();
        if refused.is_some() {
            self.pass_on_before_cut();
        }
        let refused = refused.or_else(|| self.broken.then(answer_blocked));
        let cut = refused.map(|rejection| self.cut(&rejection));
        Step { forward: std::mem::take(&mut self.out).into(), cut }
    }

    /// Of the events that wait, those before the cut go on, and of the one in which it is what stands before it. Other
    /// texts may wait longer than the one that blocks: then the cut is where they do.
    fn pass_on_before_cut(&mut self) {
        for mut queued in std::mem::take(&mut self.queue) {
            let is_whole = self.may_go(&queued);
            let (mut shows, mut rest) = (queued.parts.is_empty(), Vec::new());
            for part in &mut queued.parts {
                let released = self.released(part).clamp(part.range.start, part.range.end);
                shows |= released > part.range.start;
                let cut = released - part.range.start..part.range.end - part.range.start;
                part.range.end = released;
                if !cut.is_empty() {
                    rest.push(Edit::new(part.segment, cut, ""));
                }
            }
            if shows && !self.broken {
                queued.edits.extend(rest);
                self.emit(queued);
            }
            if !is_whole {
                break;
            }
        }
    }

    /// The event that ends the stream. The limiter hears what was let through.
    fn cut(&mut self, rejection: &Rejection) -> Bytes {
        self.action = Outcome::Block;
        self.end();
        let code = [("code", rejection.code())];
        observe::count_by_policy("palisade_guard_cut_total", &self.policy.name, &code);
        if let Some(meter) = &self.meter {
            meter.observe(Observed::LetThrough(self.tokens));
        }
        let format = self.endpoint.error_format();
        match self.pieces {
            Pieces::Events => format.stream_event(rejection),
            Pieces::Lines => format.stream_line(rejection),
        }
    }

    fn end(&mut self) {
        let looks = matches!(self.task, Task::Look { .. });
        if !std::mem::replace(&mut self.done, true) && looks {
            self.policy.count(Subject::Answer, self.action);
        }
    }
}

impl fmt::Debug for EventScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventScan").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

/// Texts that are followed at a time: choices, content blocks, tool calls.
const MAX_CHANNELS: usize = 128;

/// Bytes of events that wait for what is held of their texts: then, as when these are late, what can't be the beginning of
/// something goes on.
const MAX_QUEUED: usize = 64 * 1024;

/// Bytes of text that was said before, in events that wait while more of it is looked at: an answer of 100 KiB in tokens.
const MAX_REPEATED: usize = 8 * 1024 * 1024;
