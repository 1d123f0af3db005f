//! Pins: SHA-256 of a certificate or of a key.

use std::fmt;

use crate::BuildError;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pin(pub(super) [u8; 32]);

impl Pin {
    /// Reads 64 hexadecimal digits, alone or in pairs with colons between them. `what` is for the error.
    pub(super) fn parse(what: &'static str, text: &str) -> Result<Self, BuildError> {
        let reason = "it must be SHA-256, with 64 hexadecimal digits";
        bytes(text.as_bytes()).map(Self).ok_or_else(|| BuildError::invalid(what, reason))
    }
}

/// In lower case, without colons.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn bytes(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = if text.contains(&b':') {
        text.split(|&separator| separator == b':').map(byte).collect()
    } else {
        text.chunks(2).map(byte).collect()
    };
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_22_a_pin_has_32_bytes_exactly() {
        let hex = "07".repeat(32);
        let colons = ["07"; 32].join(":");
        for good in [&hex, &colons] {
            let pin = Pin::parse("pin", good).unwrap();
            assert_eq!((pin.0, pin.to_string()), ([7; 32], hex.clone()), "{good}");
        }
        assert_eq!(Pin::parse("pin", &"aB".repeat(32)).unwrap().0, [0xAB; 32]);
        let sha1 = "07".repeat(20);
        let sha1_colons = ["07"; 20].join(":");
        let sha512 = "07".repeat(64);
        let odd = format!("{}0", "07".repeat(31));
        let spaced = format!("{} ", "07".repeat(32));
        let signed = format!("+7{}", "07".repeat(31));
        let long = "07".repeat(33);
        let loose = format!("0:7:{}", ["07"; 31].join(":"));
        let trailing = format!("{colons}:");
        let mixed = format!("07:{}", "07".repeat(31));
        let prefixed = format!("0x{hex}");
        let other = "zz".repeat(32);
        let base64 = format!("{}=", "B".repeat(43));
        for bad in [
            "",
            &sha1,
            &sha1_colons,
            &sha512,
            &odd,
            &spaced,
            &signed,
            &long,
            &loose,
            &trailing,
            &mixed,
            &prefixed,
            &other,
            &base64,
        ] {
            let error = Pin::parse("pin", bad).err().map(|error| error.to_string());
            let expected = "pin is invalid: it must be SHA-256, with 64 hexadecimal digits";
            assert_eq!(error.as_deref(), Some(expected), "{bad}");
        }
    }
}
