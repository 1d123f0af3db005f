//! Matching a token by its parts: no regular expression, no going back, so a try costs at most the token's length.

/// A set of ASCII characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set(u16);

impl Set {
    pub(super) const DIGIT: Self = Self(0b1);
    /// `0-9a-f`
    pub(super) const HEX: Self = Self(0b11);
    /// Hexadecimal in either case.
    pub(super) const ANY_HEX: Self = Self(0b1011);
    pub(super) const LOWER: Self = Self(0b111);
    pub(super) const UPPER: Self = Self(0b1_1001);
    pub(super) const ALNUM: Self = Self(0b1_1111);
    /// `0-9A-Za-z_`
    pub(super) const WORD: Self = Self(0b11_1111);
    /// The alphabet of base64 for addresses.
    pub(super) const URL: Self = Self(0b111_1111);
    /// The same with padding.
    pub(super) const URL_PADDED: Self = Self(0b1111_1111);
    /// The alphabet of base64.
    pub(super) const BASE64: Self = Self(0b1_0000_0000 | Self::ALNUM.0);
    /// The same with padding.
    pub(super) const BASE64_PADDED: Self = Self(0b1000_0000 | Self::BASE64.0);
    /// `URL_PADDED` and the full stop.
    pub(super) const DOTTED: Self = Self(0b10_0000_0000 | Self::URL_PADDED.0);
    /// Hexadecimal digits and the hyphens of a UUID.
    pub(super) const UUID: Self = Self(0b100_0011);
    /// What a value without quotes is made of.
    pub(super) const VALUE: Self = Self(0b111_1111_1111);

    pub(super) fn has(self, byte: u8) -> bool {
        self.0 & class(byte) != 0
    }
}

const fn class(byte: u8) -> u16 {
    match byte {
        b'0'..=b'9' => 1,
        b'a'..=b'f' => 1 << 1,
        b'g'..=b'z' => 1 << 2,
        b'A'..=b'F' => 1 << 3,
        b'G'..=b'Z' => 1 << 4,
        b'_' => 1 << 5,
        b'-' => 1 << 6,
        b'=' => 1 << 7,
        b'+' | b'/' => 1 << 8,
        b'.' => 1 << 9,
        b'~' | b'%' => 1 << 10,
        _ => 0,
    }
}

/// A part of a token.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Literal(&'static str),
    /// So many characters of a set, at least and at most.
    Run(Set, usize, usize),
    /// Eight, four, four, four and twelve hexadecimal digits.
    Uuid,
}

/// No upper bound worth a name: where a run is longer, the token ends in its middle.
pub(super) const MANY: usize = 8192;

/// Where the parts end that begin at `at`. The error is where their first run ends.
pub(super) fn ahead(text: &[u8], at: usize, parts: &[Part]) -> Result<usize, usize> {
    let mut at = at;
    let mut first = None;
    for part in parts {
        match part {
            Part::Literal(literal) => {
                if !text.get(at..).is_some_and(|rest| rest.starts_with(literal.as_bytes())) {
                    return Err(first.unwrap_or(at));
                }
                at += literal.len();
            }
            Part::Run(set, least, most) => {
                let rest = text.get(at..).unwrap_or_default();
                let length = rest.iter().take(*most).take_while(|byte| set.has(**byte)).count();
                at += length;
                first.get_or_insert(at);
                if length < *least {
                    return Err(first.unwrap_or(at));
                }
            }
            Part::Uuid => {
                if !text.get(at..at + UUID).is_some_and(is_uuid) {
                    return Err(first.unwrap_or(at));
                }
                at += UUID;
            }
        }
    }
    match parts.last() {
        Some(Part::Run(set, _, most)) if *most != MANY && !ends(text, at, *set) => {
            Err(first.unwrap_or(at))
        }
        Some(Part::Uuid) if !ends(text, at, Set::HEX) => Err(first.unwrap_or(at)),
        _ => Ok(at),
    }
}

fn is_uuid(text: &[u8]) -> bool {
    text.iter().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

const UUID: usize = 36;

/// Where the parts begin that end at `at`.
pub(super) fn behind(text: &[u8], at: usize, parts: &[Part]) -> Option<usize> {
    let mut at = at;
    for part in parts.iter().rev() {
        let before = text.get(..at)?;
        at -= match part {
            Part::Literal(literal) => {
                before.ends_with(literal.as_bytes()).then_some(literal.len())?
            }
            Part::Run(set, least, most) => {
                let run = before.iter().rev().take(*most).take_while(|byte| set.has(**byte));
                Some(run.count()).filter(|length| length >= least)?
            }
            Part::Uuid => return None,
        };
    }
    Some(at)
}

/// Whether a token may begin here: not in the middle of a word, but after a line break or a character
/// that was written as an escape.
pub(super) fn begins(text: &[u8], at: usize) -> bool {
    match text.get(..at) {
        Some([.., b'\\', b'n' | b'r' | b't']) => true,
        Some([.., b'%', high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => true,
        Some([.., before, b'_']) => !before.is_ascii_alphanumeric(),
        Some([.., before]) => !before.is_ascii_alphanumeric(),
        _ => true,
    }
}

/// Whether a run of this set ends here: a mark of the sentence that it stands in may follow.
fn ends(text: &[u8], at: usize, set: Set) -> bool {
    let mut rest = text.get(at..).unwrap_or_default().iter();
    match (rest.next(), rest.next()) {
        (Some(byte), _) if byte.is_ascii_alphanumeric() => false,
        (Some(byte), Some(next)) if *byte == b'_' || set.has(*byte) => {
            !next.is_ascii_alphanumeric() && !set.has(*next)
        }
        _ => true,
    }
}
