//! What holds of any header.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

/// What the rules say, one after the other over the whole header: slower, and without a word in common with the reader.
fn model(header: &str) -> Option<CertificateDer<'static>> {
    #[derive(PartialEq)]
    enum At {
        Key,
        Value,
        Bare,
        Quoted,
        Escaped,
        Behind,
    }
    let mut parts = vec![(String::new(), String::new(), false)];
    let mut at = At::Key;
    for c in header.chars() {
        let (key, value, is_quoted) = parts.last_mut()?;
        at = match (at, c) {
            (At::Key, '=') => At::Value,
            (At::Key, c) => {
                key.push(c);
                At::Key
            }
            (At::Value, '"') => {
                *is_quoted = true;
                At::Quoted
            }
            (At::Value | At::Bare | At::Behind, ';') => {
                parts.push(Default::default());
                At::Key
            }
            (At::Value | At::Bare, '"' | ',' | '=' | '\\') | (At::Behind, _) => return None,
            (At::Value | At::Bare, '!'..='~') => {
                value.push(c);
                At::Bare
            }
            (At::Quoted, '"') => At::Behind,
            (at @ (At::Quoted | At::Escaped), ' '..='~') => {
                value.push(c);
                if c == '\\' && at == At::Quoted { At::Escaped } else { At::Quoted }
            }
            _ => return None,
        };
    }
    let is_whole = matches!(at, At::Value | At::Bare | At::Behind);
    let quoted = ["Cert", "Chain", "Subject", "Issuer"];
    let bare = ["By", "Hash", "URI", "DNS"];
    let fits = |(key, _, is_quoted): &(String, String, bool)| {
        if *is_quoted { quoted.contains(&&**key) } else { bare.contains(&&**key) }
    };
    let all = |name: &str| {
        parts.iter().filter(|(key, ..)| key == name).map(|(_, value, _)| value).collect::<Vec<_>>()
    };
    let once = quoted.into_iter().chain(["Hash", "URI"]).all(|name| all(name).len() <= 1);
    let by = parts.iter().take_while(|(key, ..)| key == "By").count();
    let by_leads = all("By").len() == by || (by == 0 && all("By").len() == 1);
    if !(is_whole && parts.iter().all(fits) && once && by_leads) {
        return None;
    }
    let clients = [&*BILLING, &*GATEWAY];
    let client = clients.into_iter().find(|client| all("Cert") == [&client.cert])?;
    let chain = all("Chain");
    let chain_fits = chain.is_empty() || chain == [&client.chain] || chain == [&client.cert];
    (all("Hash") == [&client.hash] && chain_fits).then(|| client.leaf.clone())
}

/// A part of a header: mostly what Envoy could write of one client, at times another's or none at all.
fn part() -> impl Strategy<Value = String> {
    let of = |client: &'static Client| {
        let Client { hash, cert, chain, .. } = client;
        vec![
            format!("Hash={hash}"),
            format!("Cert=\"{cert}\""),
            format!("Chain=\"{chain}\""),
            format!("Chain=\"{cert}\""),
        ]
    };
    let names = [
        "By=spiffe://a/b",
        "URI=spiffe://a/b",
        "URI=",
        "DNS=a.svc",
        "Subject=\"CN=a\\\"b\\\\\"",
        "Issuer=\"O=A\\, B\"",
    ];
    let strays = [
        "",
        "x",
        "By",
        "By=",
        "URI=a,b",
        "URI=a=b",
        "DNS=a\"",
        "Subject=\"a",
        "Subject=a",
        "SAN=a",
        "Cert=\"\"",
        "Hash=00",
        "Cert=\"a\\\"",
        "Issuer=\"a\"b",
        "DNS=\\",
        "uri=a",
        " URI=a",
    ];
    prop_oneof![
        20 => select(of(&BILLING)),
        2 => select(of(&GATEWAY)),
        10 => select(names.map(str::to_owned).to_vec()),
        1 => select(strays.map(str::to_owned).to_vec()),
    ]
}

/// Of one client what it takes, and more, in any order.
fn parts() -> impl Strategy<Value = Vec<String>> {
    let Client { hash, cert, .. } = &*BILLING;
    let needed = vec![format!("Hash={hash}"), format!("Cert=\"{cert}\"")];
    let all = vec(part(), 0..3).prop_map(move |more| [needed.clone(), more].concat());
    prop_oneof![4 => all.prop_shuffle(), 1 => vec(part(), 0..7)]
}

/// What a client could have as the names in its certificate.
fn hostile() -> impl Strategy<Value = String> {
    let Client { hash, cert, chain, .. } = &*GATEWAY;
    let pieces = [
        ",".to_owned(),
        ";".into(),
        "\"".into(),
        "\\".into(),
        "=".into(),
        " ".into(),
        "By=x".into(),
        "URI=spiffe://prod.example/gateway".into(),
        "DNS=x".into(),
        "x".into(),
        format!("Hash={hash}"),
        format!("Cert=\"{cert}\""),
        format!("Chain=\"{chain}\""),
        format!("Hash={}", BILLING.hash),
        format!("Cert=\"{}\"", BILLING.cert),
    ];
    vec(select(pieces.to_vec()), 0..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_envoy_writes_of_any_certificate_is_read(
        by in vec("[a-z:/.]{1,20}", 0..3),
        with_chain: bool,
        subject in option::of("([ -!#-\\[\\]-~]|\\\\[ -~]){0,30}"),
        uri in option::of("[!#-+\\-./0-:<>-\\[\\]-~]{0,30}"),
        dns in vec("[a-z*.-]{1,20}", 0..4),
        issuer in option::of("[ -!#-\\[\\]-~]{0,30}"),
    ) {
        let Client { leaf, hash, cert, chain } = &*BILLING;
        let mut parts: Vec<String> = by.iter().map(|by| format!("By={by}")).collect();
        parts.push(format!("Hash={hash}"));
        parts.push(format!("Cert=\"{cert}\""));
        parts.extend(with_chain.then(|| format!("Chain=\"{chain}\"")));
        parts.extend(subject.map(|subject| format!("Subject=\"{subject}\"")));
        parts.extend(uri.map(|uri| format!("URI={uri}")));
        parts.extend(dns.iter().map(|dns| format!("DNS={dns}")));
        parts.extend(issuer.map(|issuer| format!("Issuer=\"{issuer}\"")));
        let expected = [leaf, &AUTHORITY].map(CertificateDer::clone);
        prop_assert_eq!(read(&parts.join(";")).unwrap(), expected[..=usize::from(with_chain)].to_vec());
    }

    #[test]
    fn the_reader_and_the_model_agree(parts in parts()) {
        let header = parts.join(";");
        prop_assert_eq!(leaf(&header), model(&header), "{}", header);
    }

    /// Envoy writes hash and certificate before, or only the hash, or the hash and the client the rest.
    #[test]
    fn attack_05_no_names_make_another_client(uri in hostile(), dns in hostile(), has_cert: bool) {
        let Client { hash, cert, .. } = &*BILLING;
        let cert = if has_cert { format!("Cert=\"{cert}\";") } else { String::new() };
        let header = format!("By=a;Hash={hash};{cert}URI={uri};DNS={dns};Issuer=\"CN=a\"");
        let read = leaf(&header);
        prop_assert!(read.is_none_or(|read| read == BILLING.leaf), "{}", header);
    }

    #[test]
    fn any_change_is_refused_or_changes_nothing(
        changes in vec((any::<prop::sample::Index>(), 0..4_usize, "[ -~]{0,2}"), 1..4),
    ) {
        let mut header = BILLING.header();
        for (at, length, text) in changes {
            let at = at.index(header.len());
            let end = header.len().min(at + length);
            header.replace_range(at..end, &text);
        }
        prop_assert!(leaf(&header).is_none_or(|read| read == BILLING.leaf), "{}", header);
    }

    /// All that counts of the second is still there, or nothing of it counts.
    #[test]
    fn two_spliced_headers_make_no_third(
        cut in any::<prop::sample::Index>(), paste in any::<prop::sample::Index>(),
    ) {
        let (one, other) = (BILLING.header(), GATEWAY.header());
        let header = format!("{}{}", &one[..cut.index(one.len())], &other[paste.index(other.len())..]);
        let is_other = header.ends_with(&other[other.find("Hash=").unwrap()..]);
        let expected = if is_other { &GATEWAY.leaf } else { &BILLING.leaf };
        prop_assert!(leaf(&header).is_none_or(|read| read == *expected), "{}", header);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "([;,=\"\\\\]|By|Hash|Cert|URI|DNS|\\PC){0,40}") {
        prop_assert_eq!(leaf(&text), None);
    }
}
