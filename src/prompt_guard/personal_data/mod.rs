//! Personal data that can be told by its form: addresses of e-mail and network, telephone numbers,
//! payment cards, bank accounts, national identifiers.
//!
//! What has check digits is checked; what has a register of prefixes is held against it. Names and
//! postal addresses have no form: finding them takes a model (`AsyncDetector`).

mod card;
mod email;
mod iban;
mod national;
mod network;
mod phone;
mod social_security;
mod stretches;
mod words;

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

use self::{stretches::Stretches, words::Words};
use super::{
    Category, Detector, Finding, ViewKind, Views, injection::DFA_CACHE, spans::Spans,
    views::on_borders,
};
use crate::{BuildError, inference::Segment};

/// A kind of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PersonalDataKind {
    /// An e-mail address (RFC 5321, in ASCII).
    Email,
    /// A telephone number: international (E.164), North American, or national by its grouping or the
    /// words before it.
    Phone,
    /// A payment card's number: issuer's prefix, length and check digit (ISO/IEC 7812).
    Card,
    /// A bank account's number: country, length and check digits (ISO 13616).
    Iban,
    /// A United States social security number, by the rules for its three parts.
    UsSocialSecurity,
    /// An address of IPv4 or IPv6, other than loopback and unspecified ones.
    IpAddress,
    /// What a state gives its people to tell them by, of more than forty states: check digits and dates
    /// where it has them, and next to a word that names it where that is not enough. Each has a rule of its
    /// own below this one's, `personal_data.national_id.de_tax_id`.
    NationalId,
}

impl PersonalDataKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Email,
        Self::Phone,
        Self::Card,
        Self::Iban,
        Self::UsSocialSecurity,
        Self::IpAddress,
        Self::NationalId,
    ];

    /// The rule that its findings name, `personal_data.email`.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Email => "personal_data.email",
            Self::Phone => "personal_data.phone",
            Self::Card => "personal_data.card",
            Self::Iban => "personal_data.iban",
            Self::UsSocialSecurity => "personal_data.us_social_security",
            Self::IpAddress => "personal_data.ip_address",
            Self::NationalId => "personal_data.national_id",
        }
    }
}

/// Finds personal data by its form.
///
/// A finding's span covers the value alone. Scores: 0.9 and more where check digits or an
/// unmistakable form tell, 0.75 to 0.85 for a usual form, less for a form that other things have too.
///
/// ```
/// use palisade::{
///     inference::{Origin, Segment},
///     prompt_guard::{Detector, PersonalData, PersonalDataKind, Views},
/// };
///
/// # fn main() -> Result<(), palisade::BuildError> {
/// let data = PersonalData::builder().without(PersonalDataKind::IpAddress).build()?;
/// let text = "I am ann@example.org, my PESEL is 44051401458.";
/// let mut findings = Vec::new();
/// data.scan(&Segment::new(0, text, Origin::User, 0), &Views::of(text), &mut findings);
/// assert_eq!(findings[0].rule, "personal_data.email");
/// assert_eq!(findings[1].rule, "personal_data.national_id.pl_pesel");
/// assert_eq!(findings[1].span, Some(34..45));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PersonalData {
    patterns: Vec<(PersonalDataKind, Regex)>,
    national: Option<national::Index>,
}

impl PersonalData {
    /// Options, all kinds enabled.
    pub fn builder() -> PersonalDataBuilder {
        PersonalDataBuilder { kinds: PersonalDataKind::ALL.to_vec() }
    }

    /// All values in a text: the kind, how sure, where. No two overlap.
    fn find(&self, text: &str) -> Vec<Value> {
        let mut values: Vec<Value> = Vec::new();
        let (digits, colons) = text.bytes().fold((false, false), |(digits, colons), byte| {
            (digits || byte.is_ascii_digit(), colons || byte == b':')
        });
        if let Some(index) = self.national.as_ref().filter(|_| digits) {
            index.scan(text, |rule, score, range| values.push(Value { rule, score, range }));
        }
        let stretches = if digits || colons { Stretches::of(text) } else { Stretches::default() };
        for (kind, regex) in &self.patterns {
            let mut find = Find { kind: *kind, regex, text, at: 0, values: &mut values };
            find.each(&stretches);
        }
        // Who is surer takes a stretch first; of two that are alike, the longer.
        values.sort_by(|one, other| {
            let length = |value: &Value| value.range.len();
            other.score.total_cmp(&one.score).then(length(other).cmp(&length(one)))
        });
        let mut taken = Spans::default();
        values.retain(|value| taken.take(&value.range));
        values.sort_by_key(|value| value.range.start);
        values
    }
}

/// Finds all values of one kind.
struct Find<'a> {
    kind: PersonalDataKind,
    regex: &'a Regex,
    text: &'a str,
    /// How far it has looked.
    at: usize,
    values: &'a mut Vec<Value>,
}

impl Find<'_> {
    /// Looks wherever one may stand.
    fn each(&mut self, stretches: &Stretches) {
        match self.kind {
            PersonalDataKind::Email if self.text.contains('@') => self.within(0..self.text.len()),
            PersonalDataKind::Email | PersonalDataKind::NationalId => {}
            // A plus sign, a blank and a bracket may stand before it.
            PersonalDataKind::Phone => stretches.of_digits(7, 3).for_each(|it| self.within(it)),
            PersonalDataKind::Card => stretches.of_digits(12, 0).for_each(|it| self.within(it)),
            PersonalDataKind::UsSocialSecurity => {
                stretches.of_digits(9, 0).for_each(|it| self.within(it));
            }
            PersonalDataKind::Iban => {
                stretches.account.into_iter().for_each(|at| self.within(at..self.text.len()));
            }
            PersonalDataKind::IpAddress => {
                stretches.addresses.iter().for_each(|it| self.within(it.clone()));
            }
        }
    }

    /// Looks at a stretch, the next one. No pattern asks what comes after its match.
    fn within(&mut self, stretch: Range<usize>) {
        let Some(text) = self.text.as_bytes().get(..stretch.end) else { return };
        self.at = self.at.max(stretch.start);
        while let Some(candidate) = self.regex.find_at(text, self.at) {
            let around = Candidate { text: self.text, range: candidate.range() };
            let found = match self.kind {
                PersonalDataKind::Email => email::check(&around),
                PersonalDataKind::Phone => phone::check(&around),
                PersonalDataKind::Card => card::check(&around),
                PersonalDataKind::Iban => iban::check(&around),
                PersonalDataKind::UsSocialSecurity => social_security::check(&around),
                PersonalDataKind::IpAddress => network::check(&around),
                PersonalDataKind::NationalId => None,
            };
            self.at = match found {
                Some((range, score)) => {
                    let end = range.end;
                    self.values.push(Value { rule: self.kind.rule(), score, range });
                    end.max(candidate.start() + 1)
                }
                // What is no value as a whole may hold one further on, in its next group.
                None => candidate.start() + around.first_group(),
            };
        }
    }
}

/// Something found in a text.
#[derive(Debug)]
struct Value {
    rule: &'static str,
    score: f32,
    range: Range<usize>,
}

impl Detector for PersonalData {
    fn name(&self) -> &'static str {
        "personal_data"
    }

    fn scan(&self, segment: &Segment<'_>, views: &Views<'_>, findings: &mut Vec<Finding>) {
        let mut taken = Spans::default();
        let mut add = |value: Value, span: Range<usize>| {
            if taken.take(&span) {
                let Value { rule, score, .. } = value;
                findings.push(Finding::new(
                    rule,
                    Category::PersonalData,
                    score,
                    segment.index,
                    Some(span),
                ));
            }
        };
        for value in self.find(views.original()) {
            let span = value.range.clone();
            add(value, span);
        }
        for view in views.iter() {
            let look = match view.kind() {
                // Plain ASCII reads the same in the canonical view.
                ViewKind::Canonical => !views.original().is_ascii(),
                ViewKind::Decoded => true,
                ViewKind::Folded => false,
            };
            if look {
                for value in self.find(view.cased()) {
                    let span = view.origin_span(value.range.clone());
                    add(value, span);
                }
            }
        }
    }
}

/// Options of [`PersonalData`].
#[derive(Clone, Debug)]
#[must_use]
pub struct PersonalDataBuilder {
    kinds: Vec<PersonalDataKind>,
}

impl PersonalDataBuilder {
    /// Looks for these kinds only. Default: [`PersonalDataKind::ALL`].
    pub fn only(mut self, kinds: impl IntoIterator<Item = PersonalDataKind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// Does not look for this kind.
    pub fn without(mut self, kind: PersonalDataKind) -> Self {
        self.kinds.retain(|other| *other != kind);
        self
    }

    /// Compiles the patterns: about a millisecond.
    ///
    /// # Errors
    /// [`BuildError::Empty`] if no kind is left.
    pub fn build(self) -> Result<PersonalData, BuildError> {
        if self.kinds.is_empty() {
            return Err(BuildError::Empty("kinds of personal data"));
        }
        let patterns = PersonalDataKind::ALL
            .into_iter()
            .filter(|kind| *kind != PersonalDataKind::NationalId && self.kinds.contains(kind))
            .map(|kind| {
                let pattern = match kind {
                    PersonalDataKind::Email => email::PATTERN,
                    PersonalDataKind::Phone => phone::PATTERN,
                    PersonalDataKind::Card => card::PATTERN,
                    PersonalDataKind::Iban => iban::PATTERN,
                    PersonalDataKind::UsSocialSecurity => social_security::PATTERN,
                    PersonalDataKind::IpAddress => network::PATTERN,
                    PersonalDataKind::NationalId => "",
                };
                let regex =
                    RegexBuilder::new(pattern).unicode(false).dfa_size_limit(DFA_CACHE).build();
                let regex =
                    regex.map_err(|error| BuildError::invalid(kind.rule(), error.to_string()))?;
                Ok((kind, regex))
            })
            .collect::<Result<_, BuildError>>()?;
        Ok(PersonalData {
            patterns,
            national: self.kinds.contains(&PersonalDataKind::NationalId).then(national::Index::new),
        })
    }
}

/// A stretch of text that may be a value, and what is around it.
struct Candidate<'a> {
    text: &'a str,
    range: Range<usize>,
}

impl<'a> Candidate<'a> {
    fn as_str(&self) -> &'a str {
        self.text.get(self.range.clone()).unwrap_or_default()
    }

    /// The last character before the value.
    fn before(&self) -> Option<char> {
        self.text.get(..self.range.start)?.chars().next_back()
    }

    /// What follows byte `end` of the text.
    fn after(&self, end: usize) -> &'a str {
        self.text.get(end..).unwrap_or_default()
    }

    /// Whether the value is the middle of a longer word or number.
    fn is_inside_word(&self, end: usize) -> bool {
        let mut after = self.after(end).chars();
        let next = after.next();
        let joined = |mark: char| mark.is_ascii_alphanumeric() || mark == '_';
        self.before().is_some_and(joined)
            || next.is_some_and(joined)
            || matches!((next, after.next()), (Some('.' | '-' | '/' | ','), Some(digit)) if digit.is_ascii_digit())
    }

    /// Whether one of these words stands in the forty bytes before.
    fn follows(&self, words: &Words) -> bool {
        self.has_word(self.range.start.saturating_sub(40), self.range.start, words)
    }

    /// Whether one of them stands in the forty bytes before or the sixteen after.
    fn is_near(&self, words: &Words) -> bool {
        self.follows(words) || self.has_word(self.range.end, self.range.end + 16, words)
    }

    fn has_word(&self, from: usize, until: usize, words: &Words) -> bool {
        words.stand_in(self.text, on_borders(self.text, from..until.min(self.text.len())))
    }

    /// The length of the first run of letters and digits, at least 1.
    fn first_group(&self) -> usize {
        self.as_str().bytes().take_while(u8::is_ascii_alphanumeric).count().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Origin;

    /// What is found in a text, as `rule:value`.
    pub(super) fn values(text: &str) -> Vec<String> {
        scan(&PersonalData::builder().build().unwrap(), text)
    }

    fn scan(detector: &PersonalData, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        detector.scan(&Segment::new(0, text, Origin::User, 0), &Views::of(text), &mut findings);
        findings
            .into_iter()
            .map(|finding| format!("{}:{}", finding.rule, &text[finding.span.unwrap()]))
            .collect()
    }

    #[test]
    fn kinds_are_chosen() {
        let text = "ann@example.org, 203.0.113.9";
        let only = PersonalData::builder().only([PersonalDataKind::Email]).build().unwrap();
        assert_eq!(scan(&only, text), ["personal_data.email:ann@example.org"]);
        let without = PersonalData::builder().without(PersonalDataKind::Email).build().unwrap();
        assert_eq!(scan(&without, text), ["personal_data.ip_address:203.0.113.9"]);
        assert!(matches!(PersonalData::builder().only([]).build(), Err(BuildError::Empty(_))));
    }

    #[test]
    fn disguised_values_are_found_where_they_stand() {
        assert_eq!(
            values("mail ａnn＠example．org now"),
            ["personal_data.email:ａnn＠example．org"]
        );
        assert_eq!(values("mail ann&#64;example.org now").len(), 1);
    }

    #[test]
    fn the_surer_of_two_that_overlap_is_taken() {
        let text = "card 4111 1111 1111 1111 and DE89 3704 0044 0532 0130 00, CPF 111.444.777-35";
        assert_eq!(
            values(text),
            [
                "personal_data.card:4111 1111 1111 1111",
                "personal_data.iban:DE89 3704 0044 0532 0130 00",
                "personal_data.national_id.br_cpf:111.444.777-35",
            ]
        );
    }

    #[test]
    fn cards_stand_in_lists_and_before_their_dates() {
        for text in [
            "4111111111111111,5500000000000004",
            "4111111111111111/12/29,5500000000000004",
            "4111 1111 1111 1111 5500 0000 0000 0004",
            "4111111111111111|12|29;5500000000000004",
        ] {
            assert_eq!(values(text).len(), 2, "{text}");
        }
        for text in ["4111111111111111.5", "x4111111111111111,5", "4111111111111111-2"] {
            assert!(values(text).is_empty(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_found_outside_of_the_stretches(text in r"([0-9]{1,4}|[0-9a-f:.]{2,9}|[A-Za-z]{2}[0-9]{2}|4111 ?1111 ?1111 ?1111|\+44[ ()./-]{1,4}20[ ./-]{1,4}79460018|::1|[a-zé+_ ()./-]{1,4}|536-90-4399){0,30}") {
            static DETECTOR: std::sync::LazyLock<PersonalData> =
                std::sync::LazyLock::new(|| PersonalData::builder().build().unwrap());
            let stretches = Stretches::of(&text);
            for (kind, regex) in &DETECTOR.patterns {
                let [mut all, mut found] = [Vec::new(), Vec::new()];
                Find { kind: *kind, regex, text: &text, at: 0, values: &mut all }.within(0..text.len());
                let mut find = Find { kind: *kind, regex, text: &text, at: 0, values: &mut found };
                find.each(&stretches);
                let places = |values: &[Value]| -> Vec<_> {
                    values.iter().map(|value| (value.range.clone(), value.score)).collect()
                };
                proptest::prop_assert_eq!(places(&found), places(&all), "{:?}", kind);
            }
        }

        #[test]
        fn any_text_is_read(text in r"(?s)([0-9]{1,20}|[A-Z0-9]{1,18}|.|[ +().:/@-]|card|tel|BSN ){0,40}") {
            static DETECTOR: std::sync::LazyLock<PersonalData> =
                std::sync::LazyLock::new(|| PersonalData::builder().build().unwrap());
            let mut spans = Spans::default();
            for value in DETECTOR.find(&text) {
                proptest::prop_assert!(text.get(value.range.clone()).is_some_and(|value| !value.is_empty()));
                proptest::prop_assert!(spans.take(&value.range));
            }
        }
    }
}
