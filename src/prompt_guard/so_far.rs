//! Texts of which each event says all that came so far, as SGLang's do unless it is told otherwise.

/// What came of such a text. Whether its events say all of it or only what is new, the first of them doesn't tell.
#[derive(Debug, Default)]
pub(crate) struct SoFar {
    text: String,
    /// One has said more than the one before, and all of that.
    sure: bool,
}

/// What an event says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Says<'t> {
    /// All of the text: this of it is new.
    All(&'t str),
    /// What is new alone, and so did the events before it.
    New,
}

impl SoFar {
    pub(crate) fn next<'t>(&mut self, text: &'t str) -> Says<'t> {
        if let Some(new) = text.strip_prefix(self.text.as_str()) {
            self.sure |= !self.text.is_empty() && !new.is_empty();
            self.text.push_str(new);
            return Says::All(new);
        }
        // Its end may be taken back, where it was the beginning of a stop string.
        if self.sure && self.text.starts_with(text) { Says::All("") } else { Says::New }
    }

    /// Whether the events so far may still be either.
    pub(crate) fn is_open(&self) -> bool {
        !self.sure
    }

    /// The text of an event that said the first `length` bytes.
    pub(crate) fn up_to(&self, length: usize) -> &str {
        self.text.get(..length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_says_all_of_it() {
        let mut so_far = SoFar::default();
        let mut next = |text: &'static str| {
            let says = so_far.next(text);
            (says, so_far.is_open())
        };
        assert_eq!(next("a"), (Says::All("a"), true));
        assert_eq!(next("a"), (Says::All(""), true));
        assert_eq!(next("a b"), (Says::All(" b"), false));
        assert_eq!(next("a bcd"), (Says::All("cd"), false));
        assert_eq!(next("a b"), (Says::All(""), false));
        assert_eq!(next("x"), (Says::New, false));
        let mut so_far = SoFar::default();
        assert_eq!(so_far.next("ha"), Says::All("ha"));
        assert_eq!(so_far.next("!"), Says::New);
    }
}
