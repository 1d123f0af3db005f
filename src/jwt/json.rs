//! JSON that means one thing only.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A JSON object in which no member name stands twice, at any depth. Of two, one reader takes the
/// first and another the last: RFC 7515 (section 4) and RFC 7519 (section 4) let us refuse both.
///
/// Nesting is bounded by `serde_json`'s 128.
pub(crate) fn parse_object(text: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice::<Unambiguous>(text).ok()?;
    match serde_json::from_slice(text).ok()? {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// Reads anything, keeps nothing, and errs at a member name's second use.
///
/// Two passes, not one that builds a `Value` too: `serde_json`'s `arbitrary_precision`, which any
/// other crate may turn on, shows numbers as maps to every visitor but its own.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate member names")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = Seen::default();
        while let Some(Name(name)) = map.next_key()? {
            if !seen.insert(name) {
                return Err(A::Error::custom("duplicate member name"));
            }
            map.next_value::<Self>()?;
        }
        Ok(self)
    }
}

/// A member's name, borrowed where nothing in it is escaped.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

/// The names of one object so far: a list while they are few, as they are in tokens.
#[derive(Default)]
struct Seen<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Seen<'de> {
    /// Whether it is there for the first time.
    fn insert(&mut self, name: Cow<'de, str>) -> bool {
        if self.few.contains(&name) {
            return false;
        }
        if self.few.len() < FEW {
            self.few.push(name);
            return true;
        }
        self.many.insert(name)
    }
}

const FEW: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_without_duplicates_pass() {
        for good in ["{}", r#"{"a":1,"b":[{"a":1},{"a":-1.5e3}]}"#, " {\"a\" : null}\n"] {
            assert!(parse_object(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "",
            "[]",
            "1",
            "null",
            r#""x""#,
            "{} {}",
            "{}x",
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":[[{"scope":"read","scope":"admin"}]]}"#,
            "\u{feff}{}",
        ] {
            assert!(parse_object(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(parse_object(b"{\"a\":\"\xff\"}").is_none());
    }

    #[test]
    fn of_many_names_none_may_stand_twice() {
        let object = |names: &[usize]| {
            let members: Vec<_> = names.iter().map(|name| format!("\"{name}\":0")).collect();
            parse_object(format!("{{{}}}", members.join(",")).as_bytes())
        };
        let all: Vec<usize> = (0..100).collect();
        assert!(object(&all).is_some());
        for again in all.clone() {
            assert!(object(&[&all[..], &[again]].concat()).is_none(), "{again}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse_object(deep.as_bytes()).is_none());
    }
}
