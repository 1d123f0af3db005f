//! What is kept of a JSON answer that is too long to be held.

/// The objects of a JSON text without the content of their arrays and of their long strings: what an answer says, and
/// states of each token, is left out, and what it states of itself stays in its place: `[0]` for an array that had something
/// in it, and a number that no other has for a long string. An array of answers is kept.
#[derive(Default)]
pub(super) struct Skeleton {
    kept: Vec<u8>,
    string: Option<Text>,
    /// How deep within an array that is left out.
    left_out: u64,
    /// Something of that array was seen: that it has something in it, or that it ends.
    is_seen: bool,
    /// There is more than is worth to be kept.
    is_too_long: bool,
}

/// A string that has begun.
#[derive(Default)]
struct Text {
    /// Where it stands in what is kept.
    at: usize,
    is_escaped: bool,
    is_long: bool,
}

impl Skeleton {
    pub(super) fn push(&mut self, data: &[u8]) {
        for &byte in data {
            if self.is_too_long {
                return;
            }
            match &mut self.string {
                Some(text) => {
                    if text.goes_on(byte) {
                        self.keep_text(byte);
                    } else {
                        self.end_text();
                    }
                }
                None => self.structure(byte),
            }
        }
    }

    /// The text, if it was kept to its end.
    pub(super) fn text(&self) -> Option<&[u8]> {
        (!self.is_too_long).then_some(&self.kept)
    }

    fn structure(&mut self, byte: u8) {
        if self.left_out > 0 && !self.is_seen && !byte.is_ascii_whitespace() {
            self.is_seen = true;
            self.kept.extend_from_slice(if byte == b']' { b"]" } else { b"0]" });
        }
        match byte {
            b'"' => {
                self.string = Some(Text { at: self.kept.len(), ..Text::default() });
                self.keep(b"\"");
            }
            b'[' | b'{' if self.left_out > 0 => self.left_out += 1,
            b']' | b'}' if self.left_out > 0 => self.left_out -= 1,
            b'[' if !self.kept.is_empty() => {
                self.keep(b"[");
                (self.left_out, self.is_seen) = (1, false);
            }
            byte if byte.is_ascii_whitespace() => {}
            byte => self.keep(&[byte]),
        }
    }

    fn keep_text(&mut self, byte: u8) {
        let Some(text) = self.string.as_mut().filter(|text| !text.is_long) else { return };
        text.is_long = self.kept.len() - text.at > LONGEST;
        self.keep(&[byte]);
    }

    fn end_text(&mut self) {
        let Some(text) = self.string.take() else { return };
        if text.is_long {
            self.kept.truncate(text.at + 1);
            self.keep(text.at.to_string().as_bytes());
        }
        self.keep(b"\"");
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.left_out > 0 {
            return;
        }
        self.kept.extend_from_slice(bytes);
        if self.kept.len() > MOST {
            self.is_too_long = true;
            self.kept = Vec::new();
        }
    }
}

impl Text {
    /// Whether it does not end with this byte.
    fn goes_on(&mut self, byte: u8) -> bool {
        let ends = byte == b'"' && !self.is_escaped;
        self.is_escaped = byte == b'\\' && !self.is_escaped;
        !ends
    }
}

/// The most that is kept, in bytes.
const MOST: usize = 64 * 1024;
/// The longest string that is kept, in bytes: no name of a member that counts is longer.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// However it is cut.
    fn skeleton(source: &str) -> String {
        let mut whole = Skeleton::default();
        whole.push(source.as_bytes());
        let mut bytewise = Skeleton::default();
        source.as_bytes().iter().for_each(|byte| bytewise.push(&[*byte]));
        assert_eq!(whole.text(), bytewise.text());
        String::from_utf8(whole.text().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn what_an_answer_says_is_left_out() {
        let long = "x".repeat(LONGEST + 1);
        for (source, kept) in [
            (
                r#"{ "a": [1, {"usage": 1}, "]"], "usage": {"b": 2} }"#,
                r#"{"a":[0],"usage":{"b":2}}"#,
            ),
            (r#"[{"a": [[]], "b": [ ]}, {"b": 2}]"#, r#"[{"a":[0],"b":[]},{"b":2}]"#),
            (r#"{"a": "\"]}\\", "b": ["]"], "c": -1.5}"#, r#"{"a":"\"]}\\","b":[0],"c":-1.5}"#),
            (&format!(r#"{{"{long}\"": "{long}\\", "{long}": 1}}"#), r#"{"1":"5","9":1}"#),
            (&format!(r#"{{"a": [{{"b": "{long}"}}]}}"#), r#"{"a":[0]}"#),
        ] {
            assert_eq!(skeleton(source), kept);
        }
    }

    #[test]
    fn it_keeps_no_more_than_it_may() {
        let mut skeleton = Skeleton::default();
        for _ in 0..MOST {
            skeleton.push(b"{\"a\":");
        }
        assert_eq!(skeleton.text(), None);
        assert_eq!(skeleton.kept.capacity(), 0);
    }

    proptest! {
        #[test]
        fn it_never_panics_and_a_string_never_gets_out(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in ".*",
        ) {
            Skeleton::default().push(&bytes);
            let said = serde_json::json!({ "choices": [{ "text": text }], "say": text, "n": 1 });
            let kept: serde_json::Value = serde_json::from_str(&skeleton(&said.to_string())).unwrap();
            prop_assert_eq!(&kept["n"], 1);
            prop_assert_eq!(kept.as_object().unwrap().len(), 3);
        }
    }
}
