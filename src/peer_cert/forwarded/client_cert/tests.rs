use proptest::{collection::vec, prelude::*};

use super::*;
use crate::peer_cert::forwarded::tests::{certificate, sequence};

#[test]
fn a_certificate_and_its_chain_are_read() {
    let [leaf, one, two] = ["leaf", "one", "two"].map(certificate);
    let [first, second] = [&one, &two].map(|der| sequence(der));
    let own = sequence(&leaf);
    assert_eq!(read(&own, None).unwrap(), vec![leaf.clone()]);
    assert_eq!(read(&own, Some(&first)).unwrap(), [leaf.clone(), one.clone()]);
    for chain in [format!("{first},{second}"), format!("{first} ,\t {second}")] {
        assert_eq!(read(&own, Some(&chain)).unwrap(), [leaf.clone(), one.clone(), two.clone()]);
    }
}

/// What a byte sequence is: RFC 9651, section 3.3.5, in the strict Base64 that section 4.1.8 has writers use.
#[test]
fn attack_09_only_a_byte_sequence_is_one() {
    let good = sequence(b"abcd");
    assert_eq!(good, ":YWJjZA==:");
    assert!(byte_sequence(&good).is_ok());
    for bad in [
        "",
        ":",
        "::",
        ":::",
        "YWJjZA==",
        ":YWJjZA==",
        "YWJjZA==:",
        ":YWJjZA:",
        ":YWJjZA=:",
        ":YWJjZB==:",
        ":YWJjZA===:",
        ":YWJj ZA==:",
        ": YWJjZA==:",
        " :YWJjZA==:",
        ":YWJjZA==: ",
        ":YWJjZA==:;a",
        ":YWJjZA==:;a=1",
        ":YWJjZA==:,:YWJjZA==:",
        ":YWJj-_==:",
        ":YWJj:YWJj:",
        "\":YWJjZA==:\"",
        ":{http.request.tls.client.certificate_der_base64}:",
        "?1",
    ] {
        assert!(read(bad, None).is_err(), "{bad}");
        assert!(
            read(&good, Some(bad)).is_err() || bad.trim() == good || bad.contains(','),
            "{bad}"
        );
    }
    for bad in [
        "",
        ",",
        ",:YWJj:",
        ":YWJj:,",
        ":YWJj:,,:YWJj:",
        ":YWJj: :YWJj:",
        ":YWJj:;a, :YWJj:",
        "(:YWJj:)",
    ] {
        assert!(read(&good, Some(bad)).is_err(), "{bad}");
    }
}

#[test]
fn attack_10_there_are_no_more_than_eight_and_none_is_large() {
    let small = sequence(&[0x30; 10]);
    let chain = |links: usize| vec![small.as_str(); links].join(", ");
    assert_eq!(read(&small, Some(&chain(7))).unwrap().len(), 8);
    assert!(read(&small, Some(&chain(8))).is_err());
    let [fits, large] = [12, 13].map(|kib| sequence(&vec![0; kib * 1024 - 6]));
    assert!(read(&fits, Some(&fits)).is_ok());
    assert!(read(&large, None).is_err() && read(&fits, Some(&large)).is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "([:,;= \t]|[A-Za-z0-9+/]{4}|\\PC){0,40}") {
        let _ = (read(&text, None), read(":YWJj:", Some(&text)));
    }

    #[test]
    fn what_is_written_is_read(ders in vec(vec(any::<u8>(), 1..300), 1..=8)) {
        let texts: Vec<_> = ders.iter().map(|der| sequence(der)).collect();
        let (leaf, chain) = texts.split_first().unwrap();
        let chain = (!chain.is_empty()).then(|| chain.join(", "));
        let found = read(leaf, chain.as_deref()).unwrap();
        prop_assert_eq!(found.iter().map(|der| der.to_vec()).collect::<Vec<_>>(), ders);
    }
}
