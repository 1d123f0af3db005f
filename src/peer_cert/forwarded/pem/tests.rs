use proptest::{collection::vec, prelude::*};

use super::*;
use crate::peer_cert::forwarded::tests::{certificate, escaped, pem};

#[test]
fn certificates_are_read_in_their_order() {
    let [leaf, other] = ["gateway", "other"].map(certificate);
    let text = escaped(&format!("{}{}", pem(&leaf), pem(&other)));
    assert_eq!(several(&text).unwrap(), [leaf.clone(), other]);
    assert_eq!(one(&escaped(&pem(&leaf))).unwrap(), leaf);
    assert_eq!(several(&escaped(&pem(&leaf))).unwrap(), vec![leaf.clone()]);
    // As AWS writes it, with some marks left as they are.
    let aws = pem(&leaf).replace('\n', "%0A").replace(' ', "%20");
    assert!(aws.contains('+') || aws.contains('/') || aws.contains('='));
    assert_eq!(one(&aws).unwrap(), leaf);
    // Line ends of another kind, and space around it.
    let crlf = format!("\n {}\t\n", pem(&leaf).replace('\n', "\r\n"));
    let crlf = escaped(&crlf).replace('\r', "%0d").replace('\t', "%09");
    assert_eq!(one(&crlf).unwrap(), leaf);
}

#[test]
fn attack_09_a_text_holds_one_certificate_and_nothing_else() {
    let leaf = certificate("gateway");
    let good = pem(&leaf);
    let lines: Vec<&str> = good.lines().collect();
    for bad in [
        String::new(),
        "\n".into(),
        format!("{good}x"),
        format!("x{good}"),
        format!("Subject: CN=x\n{good}"),
        format!("{good}{good}"),
        format!("{good}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        good.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
        good.replace("END CERTIFICATE", "END X509 CERTIFICATE"),
        good.replace("-----END CERTIFICATE-----", ""),
        good.replace("-----BEGIN CERTIFICATE-----", ""),
        good.replace("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----"),
        good.replace("\n-----END", "-----END"),
        good.replace("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nA: b\n\n"),
        good.replacen(lines[1], &format!(" {}", lines[1]), 1),
        good.replacen(lines[1], &format!("{}=", lines[1]), 1),
        good.replacen(lines[1], &lines[1][1..], 1),
        good.replacen(lines[1], &lines[1].replace('M', "-"), 1),
        format!("{}\n{}\n", lines[0], lines[lines.len() - 1]),
        format!("{good}\0"),
    ] {
        let escaped = escaped(&bad).replace('\0', "%00");
        assert!(one(&escaped).is_err(), "{bad}");
    }
    assert!(several(&escaped(&format!("{good}\n \n{good}"))).is_ok());
    for between in ["x", "\0", "-----BEGIN CERTIFICATE-----\n", "\u{b}"] {
        let escaped = escaped(&format!("{good}{between}{good}")).replace(['\0', '\u{b}'], "%00");
        assert!(several(&escaped).is_err(), "{between:?}");
    }
}

#[test]
fn attack_09_percent_encoding_is_undone_once_and_to_the_letter() {
    assert_eq!(unescape("a%20b+c%2Bd%2bE").as_deref(), Ok("a b+c+d+E"));
    assert_eq!(unescape("%2520").as_deref(), Ok("%20"));
    for bad in ["%", "%2", "%2g", "%+2", "% 2", "%%20", "a b", "a\tb", "%80", "%C3%A9", "é"] {
        assert!(unescape(bad).is_err(), "{bad}");
    }
    let twice = escaped(&pem(&certificate("gateway"))).replace('%', "%25");
    assert!(one(&twice).is_err());
    let plus = escaped(&pem(&certificate("gateway"))).replace("%20", "+");
    assert!(one(&plus).is_err());
}

#[test]
fn attack_10_there_are_no_more_than_eight_and_none_is_large() {
    let small = escaped(&pem(&[0x30; 10]));
    assert_eq!(several(&small.repeat(8)).unwrap().len(), 8);
    assert!(several(&small.repeat(9)).is_err());
    let of = |bytes: usize| escaped(&pem(&vec![0; bytes]));
    assert!(one(&of(11 * 1024)).is_ok() && several(&of(11 * 1024)).is_ok());
    assert!(one(&of(13 * 1024)).is_err() && several(&of(13 * 1024)).is_err());
    assert!(several(&format!("{small}{}", of(13 * 1024))).is_err());
    // What counts of a single one is how it is written.
    assert!(one(&of(12_000)).is_err() && several(&of(12_000)).is_ok());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(
        text in "(%0A|%20|%|[A-Za-z0-9+/=-]|-----BEGIN%20CERTIFICATE-----%0A|%0A-----END%20CERTIFICATE-----|\\PC){0,40}",
    ) {
        let _ = (one(&text), several(&text));
    }

    #[test]
    fn what_is_written_is_read(ders in vec(vec(any::<u8>(), 1..300), 1..=8)) {
        let text: String = ders.iter().map(|der| pem(der)).collect();
        let read = several(&escaped(&text)).unwrap();
        prop_assert_eq!(read.iter().map(|der| der.to_vec()).collect::<Vec<_>>(), ders);
    }
}
