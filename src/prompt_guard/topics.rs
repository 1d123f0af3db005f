//! What may be talked about, by phrases that the application supplies.

use std::{borrow::Cow, collections::HashSet, fmt, ops::Range};

use aho_corasick::AhoCorasick;

use super::{
    Category, Detector, Finding, Views, hold::is_unspaced, system_prompt::units, views::plain,
};
use crate::{
    BuildError,
    inference::{Origin, Prompt, Segment},
};

/// Finds topics that are not to be talked about, and requests that touch none of those that are, by phrases.
///
/// - A **denied** topic is found where one of its phrases stands, in any text of a request or an answer: rule
///   `topics.denied.weapons`, score 1. Where the application writes the system prompt, which may name what it forbids,
///   [`insecure_skip`](super::Rule::insecure_skip) leaves that out.
/// - If there are **allowed** topics, the newest message of the user must have a phrase of one of them. One of fewer than 40
///   letters ("yes, the second one") may go on with what earlier ones of the user were about. Each prompt of a list is judged
///   alone. Otherwise the request as a whole is off topic: rule `topics.off_topic`, score 1. Answers are not held to that.
///
/// Phrases are found as whole words, whatever the case, in what [`Views`] undo: full-width letters, base64, letters
/// spaced out. Ideographs and others that are written without spaces are found anywhere.
///
/// What it can't do: know what is meant. It misses every word that is not listed, inflections, synonyms and other languages
/// among them, and finds listed ones in innocent company ("shoot a photo"). A caller can put in an allowed word. Where
/// that is not enough, let a model judge in its place: an
/// [`async_detector`](super::PromptGuardLayerBuilder::async_detector) with a classifier that was trained on your topics, behind
/// text-embeddings-inference (`remote::TextClassifier`), or an [`AsyncDetector`](super::AsyncDetector) of your own.
///
/// ```
/// use palisade::{inference::Origin, prompt_guard::{Action, PromptGuardLayer, Topics}};
///
/// let topics = Topics::builder()
///     .allow("catalogue", ["book", "books", "author", "borrow"])
///     .allow("visits", ["opening hours", "open", "address"])
///     .deny("politics", ["election", "vote for"])
///     .build()?;
/// let guard = PromptGuardLayer::builder()
///     .detector(topics, Action::Block.insecure_skip(Origin::System))
///     .build()?;
/// # Ok::<(), palisade::BuildError>(())
/// ```
pub struct Topics {
    /// All phrases, each as it reads in a view.
    phrases: AhoCorasick,
    /// The rule of each phrase. `None`: it is of an allowed topic.
    rules: Vec<Option<Cow<'static, str>>>,
    allows: bool,
}

impl Topics {
    /// No topics yet.
    pub fn builder() -> TopicsBuilder {
        TopicsBuilder { phrases: Vec::new(), error: None }
    }

    /// The phrases that stand in a text as whole words, each with its rule, and where.
    fn each<'t>(&'t self, text: &str, mut found: impl FnMut(Option<&'t str>, Range<usize>)) {
        // Words may be apart by a line break, too.
        let lines = text.replace('\n', " ");
        for at in self.phrases.find_overlapping_iter(&lines) {
            if let Some(rule) = self.rules.get(at.pattern().as_usize())
                && is_whole(&lines, &at.range())
            {
                found(rule.as_deref(), at.range());
            }
        }
    }

    fn is_on_topic(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| {
            Views::of(text).iter().any(|view| {
                let mut touched = false;
                self.each(view.text(), |rule, _| touched |= rule.is_none());
                touched
            })
        })
    }
}

impl Detector for Topics {
    fn name(&self) -> &'static str {
        "topics"
    }

    fn scan(&self, segment: &Segment<'_>, views: &Views<'_>, findings: &mut Vec<Finding>) {
        let mut seen = HashSet::new();
        for view in views.iter() {
            self.each(view.text(), |rule, range| {
                let Some(rule) = rule else { return };
                let span = view.origin_span(range);
                if seen.insert((rule, span.clone())) {
                    let (rule, span) = (rule.to_owned(), Some(span));
                    findings.push(Finding::new(rule, Category::Topic, 1.0, segment.index, span));
                }
            });
        }
    }

    fn scan_prompt(&self, prompt: &Prompt, findings: &mut Vec<Finding>) {
        if !self.allows {
            return;
        }
        let said: Vec<Segment<'_>> =
            prompt.segments().filter(|segment| segment.origin == Origin::User).collect();
        let of = |turn: u32| -> Vec<&str> {
            said.iter().filter(|segment| segment.turn == turn).map(|it| it.text).collect()
        };
        let newest = said.iter().map(|segment| segment.turn).max();
        let is_on_topic = if prompt.is_list() {
            said.chunk_by(|one, next| one.turn == next.turn).all(|texts| {
                self.is_on_topic(&texts.iter().map(|segment| segment.text).collect::<Vec<_>>())
            })
        } else {
            let newest = newest.map(of).unwrap_or_default();
            let letters = newest.iter().flat_map(|text| units(text)).take(FOLLOW_UP).count();
            let all = || said.iter().map(|segment| segment.text).collect::<Vec<_>>();
            self.is_on_topic(&newest) || (letters < FOLLOW_UP && self.is_on_topic(&all()))
        };
        if !is_on_topic {
            let whole = usize::MAX;
            findings.push(Finding::new("topics.off_topic", Category::Topic, 1.0, whole, None));
        }
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("phrases", &self.rules.len()).finish_non_exhaustive()
    }
}

/// Builds [`Topics`].
#[derive(Clone, Debug)]
#[must_use]
pub struct TopicsBuilder {
    phrases: Vec<(String, Option<Cow<'static, str>>)>,
    error: Option<&'static str>,
}

impl TopicsBuilder {
    /// A topic that is not to be talked about, and phrases that tell it. Its name stands in verdicts and in the rules of policies, as
    /// `topics.denied.name`: 1 to 64 lower-case ASCII letters, digits, dashes or underscores. May be called for several.
    pub fn deny(self, name: &str, phrases: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let rule = Cow::Owned(format!("topics.denied.{name}"));
        self.add(name, phrases, Some(rule))
    }

    /// A topic of which a request may be. With none, all are.
    pub fn allow(self, name: &str, phrases: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.add(name, phrases, None)
    }

    fn add(
        mut self,
        name: &str,
        phrases: impl IntoIterator<Item = impl AsRef<str>>,
        rule: Option<Cow<'static, str>>,
    ) -> Self {
        let fits =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(fits) {
            self.error =
                Some("a name is not 1 to 64 lower-case letters, digits, dashes or underscores");
        }
        let before = self.phrases.len();
        for phrase in phrases {
            let phrase = plain(phrase.as_ref()).replace('\n', " ").trim().to_owned();
            if !phrase.contains(char::is_alphanumeric) {
                self.error = Some("a phrase has no letter or digit");
            }
            self.phrases.push((phrase, rule.clone()));
        }
        if self.phrases.len() == before {
            self.error = Some("a topic has no phrases");
        }
        self
    }

    /// The detector.
    ///
    /// # Errors
    /// [`BuildError::Empty`] without topics, and [`BuildError::Invalid`] for a name that can't be used, a topic without phrases, a
    /// phrase without letters, or more phrases than fit.
    pub fn build(self) -> Result<Topics, BuildError> {
        if let Some(error) = self.error {
            return Err(BuildError::invalid("topics", error));
        }
        if self.phrases.is_empty() {
            return Err(BuildError::Empty("topics"));
        }
        let (phrases, rules): (Vec<_>, Vec<_>) = self.phrases.into_iter().unzip();
        let phrases = AhoCorasick::new(phrases)
            .map_err(|_| BuildError::invalid("topics", "there are too many phrases"))?;
        let allows = rules.iter().any(Option::is_none);
        Ok(Topics { phrases, rules, allows })
    }
}

/// Whether a stretch of a text begins and ends where words do.
fn is_whole(text: &str, range: &Range<usize>) -> bool {
    let inside = text.get(range.clone()).unwrap_or_default();
    let goes_on = |one: Option<char>, other: Option<char>| {
        let is_part = |letter: char| letter.is_alphanumeric() && !is_unspaced(letter);
        one.is_some_and(is_part) && other.is_some_and(is_part)
    };
    let before = text.get(..range.start).and_then(|before| before.chars().next_back());
    let after = text.get(range.end..).and_then(|after| after.chars().next());
    !goes_on(before, inside.chars().next()) && !goes_on(inside.chars().next_back(), after)
}

/// Letters and digits of the shortest message that must be on topic by itself.
const FOLLOW_UP: usize = 40;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{inference::ReadLimits, route::Endpoint};

    fn topics() -> Topics {
        Topics::builder()
            .allow("library", ["book", "books", "opening\nhours", "图书"])
            .deny("politics", ["election", "vote  for", "PARTY", "选举"])
            .build()
            .unwrap()
    }

    fn denied(text: &str) -> Vec<&str> {
        let mut findings = Vec::new();
        topics().scan(&Segment::new(0, text, Origin::User, 0), &Views::of(text), &mut findings);
        for finding in &findings {
            assert_eq!(finding.rule, "topics.denied.politics");
            assert_eq!(finding.category, Category::Topic);
        }
        findings.iter().map(|finding| &text[finding.span.clone().unwrap()]).collect()
    }

    fn is_off_topic(endpoint: Endpoint, body: &Value) -> bool {
        let prompt = Prompt::read(endpoint, body.to_string().into(), &ReadLimits::default());
        let mut findings = Vec::new();
        topics().scan_prompt(&prompt.unwrap(), &mut findings);
        findings.iter().any(|finding| finding.rule == "topics.off_topic")
    }

    fn conversation(texts: &[&str]) -> Value {
        let roles = ["user", "assistant"].into_iter().cycle();
        let messages = roles.zip(texts).map(|(role, text)| json!({"role": role, "content": text}));
        json!({"messages": messages.collect::<Vec<_>>()})
    }

    #[test]
    fn denied_phrases_are_found_as_whole_words_in_every_form() {
        for (text, expected) in [
            ("Who won the Election?", &["Election"][..]),
            ("whom to vote\nfor, party-wise", &["vote\nfor", "party"]),
            ("ｅｌｅｃｔｉｏｎ", &["ｅｌｅｃｔｉｏｎ"]),
            ("about ZWxlY3Rpb24gcmVzdWx0cw== now", &["ZWxlY3Rpb24gcmVzdWx0cw=="]),
            ("上次选举结果", &["选举"]),
            ("selections, electioneering, parties", &[]),
            ("a vote on four", &[]),
            ("", &[]),
        ] {
            assert_eq!(denied(text), expected, "{text}");
        }
    }

    #[test]
    fn the_newest_message_must_be_on_topic_unless_it_follows_up() {
        let recipe = "Write a long recipe for an apple pie with cinnamon and raisins.";
        for (texts, expected) in [
            (&["Which books do you have?"][..], false),
            (&["OPENING  HOURS?"], false),
            (&["我想借图书"], false),
            (&[recipe], true),
            (&["Hi"], true),
            (&["Which books do you have?", "Many.", "Yes, the second one."], false),
            (&["Hello.", "Hi.", "Yes, the second one."], true),
            (&["Which books do you have?", "Many.", recipe], true),
            (&["Hello.", "Talk about books.", "Yes"], true),
        ] {
            let body = conversation(texts);
            assert_eq!(is_off_topic(Endpoint::OpenAiChat, &body), expected, "{texts:?}");
        }
        let parts =
            json!([{"type": "text", "text": recipe}, {"type": "text", "text": "from a book"}]);
        let parts = json!({"messages": [{"role": "user", "content": parts}]});
        assert!(!is_off_topic(Endpoint::OpenAiChat, &parts));
        // Only the user is asked what it is about.
        let system = json!({"role": "system", "content": "Talk about books."});
        let user = json!({"role": "user", "content": recipe});
        assert!(is_off_topic(Endpoint::OpenAiChat, &json!({"messages": [system, user]})));
        assert!(is_off_topic(Endpoint::OpenAiChat, &json!({"messages": [system]})));
    }

    #[test]
    fn each_prompt_of_a_list_is_judged_alone() {
        for (prompts, expected) in [(["a book", "books"], false), (["a pie", "books"], true)] {
            let body = json!({"prompt": prompts});
            assert_eq!(is_off_topic(Endpoint::OpenAiCompletions, &body), expected);
        }
    }

    #[test]
    fn without_allowed_topics_none_is_off_topic() {
        let topics = Topics::builder().deny("politics", ["election"]).build().unwrap();
        let body = conversation(&["How do I bake an apple pie with cinnamon?"]).to_string();
        let prompt = Prompt::read(Endpoint::OpenAiChat, body.into(), &ReadLimits::default());
        let mut findings = Vec::new();
        topics.scan_prompt(&prompt.unwrap(), &mut findings);
        assert!(findings.is_empty());
        assert_eq!(format!("{topics:?}"), "Topics { phrases: 1, .. }");
    }

    #[test]
    fn topics_that_make_no_sense_are_errors() {
        let none: [&str; 0] = [];
        assert!(Topics::builder().build().is_err());
        assert!(Topics::builder().deny("a", none).build().is_err());
        assert!(Topics::builder().deny("a", ["x", " !"]).build().is_err());
        assert!(Topics::builder().deny("A b", ["x"]).allow("b", ["y"]).build().is_err());
    }
}
