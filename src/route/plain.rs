//! How else a path may be read.

use std::borrow::Cow;

/// How servers further on might understand the path: percent-decoded, without empty, `.` and `..` segments and without
/// parameters. `/x/%61dmin;a=b/` must not get past a rule for `/admin`. None where it can be read in one way only.
///
/// That is done in every order in which servers do it. For RFC 3986, section 5.2.4, `/admin//..` and `/admin/x%2Fy/..`
/// are `/admin/`; for who merges slashes or decodes them before that, they are `/` and `/admin/x`.
pub(crate) fn readings(path: &str) -> Vec<String> {
    if !is_odd(path) {
        return Vec::new();
    }
    // Where nothing is taken back, the order makes no difference.
    let first = if decoded(path.as_bytes()).contains("..") { 0 } else { ALL };
    let orders = (first..=ALL).map(|order| [1, 2, 4].map(|bit| order & bit != 0));
    orders.map(|[decodes, merges, turns]| Order { decodes, merges, turns }.read(path)).collect()
}

/// A server that does all of it.
const ALL: u8 = 7;

fn is_odd(path: &str) -> bool {
    let odd = |byte: u8| matches!(byte, b'%' | b';' | b'\\');
    path.bytes().any(odd) || path.contains("//") || path.contains("/.")
}

/// What a server does before it takes `..` and what stands before it away.
struct Order {
    /// Decodes the path, slashes too.
    decodes: bool,
    /// Takes slashes side by side for one.
    merges: bool,
    /// Takes `\` for `/`, as WHATWG's URLs do.
    turns: bool,
}

impl Order {
    fn read(&self, path: &str) -> String {
        let path = if self.decodes { decoded(path.as_bytes()) } else { path.into() };
        let mut segments: Vec<String> = Vec::new();
        for segment in path.split(|mark| mark == '/' || self.turns && mark == '\\') {
            let segment = segment.split(';').next().unwrap_or_default();
            match &*decoded(segment.as_bytes()) {
                "" if self.merges => {}
                "." => {}
                ".." => drop(segments.pop()),
                segment => segments.push(segment.to_owned()),
            }
        }
        segments.retain(|segment| !segment.is_empty());
        format!("/{}", segments.join("/"))
    }
}

fn decoded(path: &[u8]) -> Cow<'_, str> {
    let mut decoded = Cow::Borrowed(path);
    for _ in 0..MAX_DECODINGS {
        let next = percent_decoded(&decoded);
        if *next == *decoded {
            break;
        }
        decoded = Cow::Owned(next);
    }
    match decoded {
        Cow::Borrowed(path) => String::from_utf8_lossy(path),
        Cow::Owned(path) => Cow::Owned(String::from_utf8_lossy(&path).into_owned()),
    }
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let pair = after.split_first_chunk::<2>().filter(|_| *first == b'%');
        let byte = pair.and_then(|([high, low], tail)| Some((hex(*high)? << 4 | hex(*low)?, tail)));
        let (byte, tail) = byte.unwrap_or((*first, after));
        out.push(byte);
        rest = tail;
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// How often a path may have been encoded over by the servers on the way.
const MAX_DECODINGS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_path_reads_as_one_without_odd_segments(path in "(/|\\.|%2e|%2F|%25|;|a|\\PC){0,30}") {
            let readings = readings(&path);
            proptest::prop_assert!(readings.iter().all(|reading| reading.starts_with('/')));
            if let Some(plain) = readings.last() {
                proptest::prop_assert!(!plain.contains("//"));
                proptest::prop_assert!(plain.split('/').all(|segment| segment != ".."));
            }
        }
    }
}
