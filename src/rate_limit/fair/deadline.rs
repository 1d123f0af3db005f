//! For how long a request may wait, by its own word.

use std::time::Duration;

use http::HeaderMap;

/// How long its client will wait, if it says so: the least of `x-request-timeout` and `grpc-timeout`. What can't be read
/// says nothing.
pub(super) fn patience(headers: &HeaderMap) -> Option<Duration> {
    let read = |name: &str, parse: fn(&str) -> Option<Duration>| {
        headers.get_all(name).iter().filter_map(|value| parse(value.to_str().ok()?)).min()
    };
    let said = [read("x-request-timeout", request_timeout), read("grpc-timeout", grpc_timeout)];
    said.into_iter().flatten().min()
}

/// Seconds, or with a unit: `20`, `1.5`, `20s`, `1500ms`, `2m`.
fn request_timeout(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let seconds = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

/// The gRPC protocol's: at most eight digits, and a unit of one letter.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&'static str, &'static str)]) -> Option<u128> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        patience(&headers).map(|patience| patience.as_nanos())
    }

    #[test]
    fn a_client_says_how_long_it_waits() {
        const SECOND: u128 = 1_000_000_000;
        for (text, expected) in [
            ("20", Some(20 * SECOND)),
            (" 1.5 ", Some(SECOND * 3 / 2)),
            ("20s", Some(20 * SECOND)),
            ("1500ms", Some(SECOND * 3 / 2)),
            ("2m", Some(120 * SECOND)),
            ("0", Some(0)),
            ("", None),
            (".", None),
            ("s", None),
            ("-1", None),
            ("1e9", None),
            ("inf", None),
            ("NaN", None),
            ("1.2.3", None),
            ("20 s", None),
            ("1h", None),
            ("99999999999999999999999999", None),
        ] {
            assert_eq!(said(&[("x-request-timeout", text)]), expected, "{text:?}");
        }
        for (text, expected) in [
            ("1H", Some(3600 * SECOND)),
            ("2M", Some(120 * SECOND)),
            ("3S", Some(3 * SECOND)),
            ("100m", Some(SECOND / 10)),
            ("5u", Some(5000)),
            ("99999999n", Some(99_999_999)),
            ("99999999H", Some(99_999_999 * 3600 * SECOND)),
            ("123456789n", None),
            ("S", None),
            ("", None),
            ("3", None),
            ("-3S", None),
            ("3s", None),
            ("3é", None),
        ] {
            assert_eq!(said(&[("grpc-timeout", text)]), expected, "{text:?}");
        }
    }

    #[test]
    fn the_least_of_what_is_said_counts() {
        assert_eq!(said(&[]), None);
        let both = [("x-request-timeout", "2"), ("grpc-timeout", "1S")];
        assert_eq!(said(&both), Some(1_000_000_000));
        let twice = [("x-request-timeout", "3"), ("x-request-timeout", "2"), ("grpc-timeout", "x")];
        assert_eq!(said(&twice), Some(2_000_000_000));
    }
}
