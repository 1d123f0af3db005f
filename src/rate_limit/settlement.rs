//! What a request pays in the end: the rules of the reservation, as one function.

use crate::reservation::{Observed, TokenUsage};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Answered to the end.
    Answered,
    /// The answer had begun and was dropped, or broke off.
    Aborted,
    /// Dropped before there was an answer.
    Abandoned,
    /// Refused within: blocked by the guard, or a 4xx of the handler.
    Refused,
    /// A 5xx, or an error of the inner service.
    Failed,
    /// Never served, for want of capacity: refused, or broken off before anything of the answer had come.
    Unserved,
}

/// What is known of a request's use of tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// What is reserved: the estimate of the admission, or the guard's better one.
    pub(super) estimate: TokenUsage,
    /// The handler's report of all so far.
    pub(super) reported: Option<TokenUsage>,
    /// The handler's charges for the answer since.
    pub(super) charged: Option<u64>,
    /// What the answer states.
    pub(super) stated: Option<TokenUsage>,
    /// What the answer has so far, by estimate.
    pub(super) output_so_far: u64,
    /// Whether that is an estimate by its text, not by the bytes that it came in.
    pub(super) by_text: bool,
    /// What the guard let through of an answer that it cut.
    pub(super) let_through: Option<u64>,
    /// The guard withheld a whole answer.
    pub(super) withheld: bool,
}

/// What is chosen by the application.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) keep_reservation_on_abort: bool,
    pub(super) refund_failed_requests: bool,
    /// The fewest tokens of an answer that are granted in the place of more.
    pub(super) least_output: Option<u64>,
}

/// What a request pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) requests: u64,
    pub(super) tokens: TokenUsage,
}

/// The table of the reservation: what is due, by how the request ended and what is known of it.
pub(super) fn due(outcome: Outcome, known: &Known, options: Options) -> Due {
    if outcome == Outcome::Unserved {
        return Due { requests: 0, tokens: TokenUsage::default() };
    }
    let requests = u64::from(!(outcome == Outcome::Failed && options.refund_failed_requests));
    // The handler runs the engine: its word is the truth, however the request ended.
    let tokens = known.by_handler().unwrap_or_else(|| tokens(outcome, known, options));
    Due { requests, tokens }
}

fn tokens(outcome: Outcome, known: &Known, options: Options) -> TokenUsage {
    let reserved = known.estimate;
    let at_least_reserved = |usage: TokenUsage| {
        let input = usage.input.max(reserved.input);
        TokenUsage { input, output: usage.output.max(reserved.output), ..usage }
    };
    // The caller sees a refusal, but the model has answered.
    let outcome = if known.withheld { Outcome::Answered } else { outcome };
    match outcome {
        Outcome::Refused | Outcome::Failed | Outcome::Unserved => TokenUsage::default(),
        Outcome::Abandoned => reserved,
        Outcome::Aborted if options.keep_reservation_on_abort => {
            at_least_reserved(known.by_output(known.output_so_far))
        }
        Outcome::Aborted => known.by_output(known.output_so_far),
        Outcome::Answered => match (known.let_through, known.stated) {
            (Some(let_through), _) => known.by_output(let_through),
            (None, Some(_)) => known.by_output(0),
            // A long stream that states nothing is not cheaper read to its end than left before it.
            (None, None) if known.by_text => {
                at_least_reserved(known.by_output(known.output_so_far))
            }
            (None, None) => reserved,
        },
    }
}

impl Known {
    pub(super) fn observe(&mut self, observed: Observed) {
        match observed {
            Observed::Stated(usage) => self.stated = Some(usage),
            Observed::OutputSoFar(output) => self.output_so_far = output,
            Observed::LetThrough(output) => self.let_through = Some(output),
            Observed::Withheld(usage) => {
                self.withheld = true;
                self.stated = usage.or(self.stated);
            }
        }
    }

    /// What the handler says, if it has spoken.
    fn by_handler(&self) -> Option<TokenUsage> {
        let charged = self.charged.unwrap_or(0);
        match self.reported {
            Some(all) => Some(TokenUsage { output: all.output.saturating_add(charged), ..all }),
            None => Some(TokenUsage::new(self.estimate.input, self.charged?)),
        }
    }

    /// The handler adds to what it says was used.
    pub(super) fn charge(&mut self, output: u64) {
        self.charged = Some(self.charged.unwrap_or(0).saturating_add(output));
    }

    /// The handler says what was used in all.
    pub(super) fn report(&mut self, usage: TokenUsage) {
        (self.reported, self.charged) = (Some(usage), None);
    }

    /// What is used so far, for all that is known now.
    pub(super) fn so_far(&self) -> TokenUsage {
        self.by_handler().unwrap_or_else(|| self.by_output(self.output_so_far))
    }

    /// The prompt and at least this much output. An answer that states its output alone, or none
    /// yet, leaves the prompt to the estimate.
    fn by_output(&self, output: u64) -> TokenUsage {
        let stated = self.stated.unwrap_or_default();
        let input = if stated.input == 0 { self.estimate.input } else { stated.input };
        let output = match self.let_through {
            Some(let_through) => let_through,
            None => output.max(stated.output),
        };
        TokenUsage::new(input, output)
            .with_cached_input(stated.cached_input)
            .with_reasoning(stated.reasoning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTIMATE: TokenUsage = TokenUsage::new(30, 70);

    fn known() -> Known {
        Known { estimate: ESTIMATE, ..Known::default() }
    }

    fn tokens_due(outcome: Outcome, known: Known) -> u64 {
        due(outcome, &known, Options::default()).tokens.total()
    }

    #[test]
    fn end_without_a_word_keeps_the_reservation() {
        let seen = Known { output_so_far: 5, ..known() };
        assert_eq!(tokens_due(Outcome::Answered, seen), 100);
    }

    #[test]
    fn a_stream_without_a_word_pays_at_least_what_it_streamed() {
        let long = Known { output_so_far: 5000, by_text: true, ..known() };
        assert_eq!(tokens_due(Outcome::Answered, long), 5030);
        assert_eq!(tokens_due(Outcome::Answered, Known { output_so_far: 5, ..long }), 100);
    }

    #[test]
    fn end_with_stated_usage_pays_that() {
        let stated = Known { stated: Some(TokenUsage::new(10, 20)), output_so_far: 90, ..known() };
        assert_eq!(tokens_due(Outcome::Answered, stated), 30);
        let output_only = Known { stated: Some(TokenUsage::new(0, 20)), ..known() };
        assert_eq!(tokens_due(Outcome::Answered, output_only), 50);
        let overrun = Known { stated: Some(TokenUsage::new(30, 900)), ..known() };
        assert_eq!(tokens_due(Outcome::Answered, overrun), 930);
    }

    #[test]
    fn the_handlers_word_goes_before_all() {
        let mut charged = Known { stated: Some(TokenUsage::new(1, 1)), ..known() };
        charged.charge(5);
        charged.charge(2);
        let mut reported = charged;
        reported.report(TokenUsage::new(3, 4));
        let mut both = reported;
        both.charge(10);
        for outcome in [Outcome::Answered, Outcome::Aborted, Outcome::Abandoned, Outcome::Failed] {
            assert_eq!(tokens_due(outcome, charged), 37);
            assert_eq!(tokens_due(outcome, reported), 7);
            assert_eq!(tokens_due(outcome, both), 17);
        }
    }

    #[test]
    fn an_answer_cut_by_the_guard_pays_what_was_let_through() {
        let cut = Known { let_through: Some(4), output_so_far: 60, ..known() };
        assert_eq!(tokens_due(Outcome::Answered, cut), 34);
        assert_eq!(tokens_due(Outcome::Aborted, cut), 34);
    }

    #[test]
    fn an_answer_withheld_by_the_guard_is_paid_though_it_looks_refused() {
        let mut withheld = known();
        withheld.observe(Observed::Withheld(None));
        assert_eq!(tokens_due(Outcome::Refused, withheld), 100);
        withheld.observe(Observed::Withheld(Some(TokenUsage::new(10, 20))));
        assert_eq!(tokens_due(Outcome::Refused, withheld), 30);
    }

    #[test]
    fn what_was_never_served_pays_nothing_whatever_is_said_of_it() {
        let mut charged = known();
        charged.charge(5);
        for known in [known(), charged] {
            let nothing = Due { requests: 0, tokens: TokenUsage::default() };
            assert_eq!(due(Outcome::Unserved, &known, Options::default()), nothing);
        }
    }

    #[test]
    fn a_drop_mid_stream_pays_prompt_and_output_so_far() {
        let seen = Known { output_so_far: 5, ..known() };
        assert_eq!(tokens_due(Outcome::Aborted, seen), 35);
        let begun = Known { stated: Some(TokenUsage::new(12, 1)), ..seen };
        assert_eq!(tokens_due(Outcome::Aborted, begun), 17);
        let keep = Options { keep_reservation_on_abort: true, ..Options::default() };
        assert_eq!(due(Outcome::Aborted, &seen, keep).tokens.total(), 100);
        let beyond = Known { output_so_far: 500, ..known() };
        assert_eq!(due(Outcome::Aborted, &beyond, keep).tokens.total(), 530);
    }

    #[test]
    fn what_was_cached_or_reasoned_stays_so_however_the_request_ends() {
        let usage = TokenUsage::new(20, 10).with_cached_input(15).with_reasoning(8);
        let stated = Known { stated: Some(usage), ..known() };
        let tokens = |outcome, known| due(outcome, &known, Options::default()).tokens;
        assert_eq!(tokens(Outcome::Answered, stated), usage);
        assert_eq!(tokens(Outcome::Aborted, stated), usage);
        let cut = Known { let_through: Some(5), ..stated };
        assert_eq!(tokens(Outcome::Answered, cut), TokenUsage { output: 5, reasoning: 5, ..usage });
        let mut reported = known();
        reported.report(usage);
        reported.charge(3);
        assert_eq!(tokens(Outcome::Failed, reported), TokenUsage { output: 13, ..usage });
    }

    #[test]
    fn a_drop_before_the_head_keeps_the_reservation() {
        assert_eq!(tokens_due(Outcome::Abandoned, known()), 100);
    }

    #[test]
    fn refusals_and_failures_give_tokens_back_and_requests_by_option() {
        let refund = Options { refund_failed_requests: true, ..Options::default() };
        for outcome in [Outcome::Refused, Outcome::Failed] {
            let kept = due(outcome, &known(), Options::default());
            assert_eq!(kept, Due { requests: 1, tokens: TokenUsage::default() });
        }
        assert_eq!(due(Outcome::Failed, &known(), refund).requests, 0);
        assert_eq!(due(Outcome::Refused, &known(), refund).requests, 1);
    }
}
