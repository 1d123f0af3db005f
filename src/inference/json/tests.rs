use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { depth: 100, nodes: 10_000 };

fn read(source: &str) -> Result<Document<'_>, JsonError> {
    Document::read(source.as_bytes(), BOUNDS)
}

#[test]
fn what_rfc_8259_does_not_allow_is_refused() {
    for source in [
        "",
        " ",
        "nul",
        "nulll",
        "tru",
        "True",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "1 2",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[",
        "]",
        "[}",
        "{",
        "}",
        "{]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{a:1}",
        "{1:1}",
        "{'a':1}",
        "'a'",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800x\"",
        "\"\\udc00\\ud800\"",
        "\"\n\"",
        "\"\t\"",
        "\"\u{0}\"",
        "\u{feff}1",
        "// x\n1",
        "/**/1",
        "1\u{a0}",
        "[1]]",
        "\u{c}1",
        "--1",
        "1e1.5",
    ] {
        assert_eq!(read(source).unwrap_err(), JsonError::NotJson, "{source:?}");
        assert!(serde_json::from_str::<serde_json::Value>(source).is_err(), "{source:?}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_refused() {
    for source in [&b"\"\xff\""[..], b"\"\xc0\x80\"", b"\"\xed\xa0\x80\"", b"{\0\"\0"] {
        let error = Document::read(source, BOUNDS).unwrap_err();
        let expected = if source == b"{\0\"\0" { JsonError::NotJson } else { JsonError::NotUtf8 };
        assert_eq!(error, expected);
    }
}

#[test]
fn a_repeated_name_is_refused_at_every_depth_however_it_is_written() {
    for source in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"b":2,"\u0061":3}"#,
        r#"{"a":1,"b":{"a":1},"a":2}"#,
        r#"[{"x":[{"":1,"":2}]}]"#,
        r#"{"\ud83d\ude00":1,"😀":2}"#,
    ] {
        assert_eq!(read(source).unwrap_err(), JsonError::DuplicateKey, "{source}");
    }
    for source in [
        r#"{"a":1,"A":2}"#,
        r#"{"a":{"a":{"a":1}}}"#,
        r#"[{"a":1},{"a":1}]"#,
        r#"{"é":1,"e\u0301":2}"#,
    ] {
        assert!(read(source).is_ok(), "{source}");
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(&deep(100)).is_ok());
    assert_eq!(read(&deep(101)).unwrap_err(), JsonError::TooDeep);
    assert_eq!(read(&"[".repeat(1_000_000)).unwrap_err(), JsonError::TooDeep);
    assert_eq!(read(&"{\"a\":".repeat(1_000_000)).unwrap_err(), JsonError::TooDeep);
    let wide = |items: usize| format!("[{}1]", "1,".repeat(items - 1));
    assert!(read(&wide(9_999)).is_ok());
    assert_eq!(read(&wide(10_000)).unwrap_err(), JsonError::TooMany);
}

#[test]
fn an_object_of_many_members_takes_no_quadratic_time() {
    let members: Vec<_> = (0..200_000).map(|n| format!("\"\\u006b{n}\":0")).collect();
    let source = format!("{{{}}}", members.join(","));
    let bounds = Bounds { depth: 8, nodes: 1 << 20 };
    // Pairwise comparison would take minutes.
    assert!(Document::read(source.as_bytes(), bounds).is_ok());
}

#[test]
fn numbers_are_whole_or_nothing_and_saturate() {
    for (source, expected) in [
        ("0", Some(0)),
        ("-7", Some(-7)),
        ("1e3", Some(1000)),
        ("100.0", Some(100)),
        ("1.5", None),
        ("18446744073709551615", Some(i64::MAX)),
        ("99999999999999999999999999", Some(i64::MAX)),
        ("-99999999999999999999999999", Some(i64::MIN)),
        ("1e999", Some(i64::MAX)),
        ("-1e999", Some(i64::MIN)),
        ("\"5\"", None),
        ("true", None),
        ("null", None),
    ] {
        assert_eq!(read(source).unwrap().root().whole(), expected, "{source}");
    }
}

#[test]
fn a_place_in_the_text_is_found_in_the_source() {
    let inside = r"a\n\u00e9\ud83d\ude00b\\c";
    let text = "a\né😀b\\c";
    let mut offsets = SourceOffsets::new(inside);
    let mut reference = 0;
    for (at, character) in text.char_indices() {
        assert_eq!(offsets.of(at), reference, "{at}");
        let run = inside[reference..].strip_prefix(character).filter(|_| character != '\\');
        reference += match run {
            Some(_) => character.len_utf8(),
            None if character == '😀' => 12,
            None if character == 'é' => 6,
            None => 2,
        };
    }
    assert_eq!((offsets.of(text.len()), offsets.of(99)), (inside.len(), inside.len()));
    assert_eq!(SourceOffsets::new(inside).of(6), 9, "within a character");
    assert_eq!(string::unescape(inside), text);
}

/// What serde_json makes of the same value, read out of ours.
fn value(value: Value<'_>) -> serde_json::Value {
    match value.kind() {
        Kind::Null => serde_json::Value::Null,
        Kind::Bool => (value.source() == "true").into(),
        Kind::Number => serde_json::from_str(value.source()).unwrap(),
        Kind::String | Kind::Name => {
            let text = value.text().unwrap();
            let span = value.span();
            assert_eq!(span.start + 1..span.end - 1, value.inside());
            assert_eq!(serde_json::from_str::<String>(value.source()).unwrap(), text);
            text.into()
        }
        Kind::Array => value.items().map(self::value).collect(),
        Kind::Object => {
            let members = value.members();
            members
                .map(|(name, own)| (name.text().unwrap().into_owned(), self::value(own)))
                .collect()
        }
    }
}

fn documents() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f32>().prop_map(|number| f64::from(number).into()),
        any::<String>().prop_map(Into::into),
        "[a-z\"\\\\\n\u{1}é😀]{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map("[a-c\"\\\\é]{0,3}", inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn valid_documents_mean_the_same_as_to_serde_json(expected in documents(), pretty: bool) {
        let source = if pretty { serde_json::to_string_pretty(&expected) } else { serde_json::to_string(&expected) };
        let source = source.unwrap();
        let document = read(&source).unwrap();
        // Read again: serde_json does not keep every number it writes.
        prop_assert_eq!(value(document.root()), serde_json::from_str::<serde_json::Value>(&source).unwrap());
        prop_assert_eq!(document.root().span(), 0..source.len());
        prop_assert_eq!(document.root().all().count(), document.nodes.len());
    }

    #[test]
    fn mutated_documents_are_accepted_exactly_when_serde_json_accepts_them(
        document in documents(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            prop::sample::select(b"{}[],:\"\\u0123456789abcdefDd-+.eE tfn\n\0\xff".to_vec()).prop_map(Some),
            Just(None),
        ]), 1..4),
    ) {
        let mut source = serde_json::to_vec(&document).unwrap();
        for (at, byte) in changes {
            if source.is_empty() {
                break;
            }
            let at = at.index(source.len());
            match byte {
                Some(byte) => source[at] = byte,
                None => drop(source.remove(at)),
            }
        }
        let ours = Document::read(&source, BOUNDS);
        match (serde_json::from_slice::<serde_json::Value>(&source), &ours) {
            (Ok(expected), Ok(document)) => prop_assert_eq!(value(document.root()), expected),
            // The grammar has no largest number.
            (Err(error), Ok(_)) => prop_assert!(error.to_string().contains("out of range"), "{error}"),
            (Ok(_), Err(error)) => prop_assert_eq!(*error, JsonError::DuplicateKey),
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn escaped_text_reads_back(text: String) {
        let mut source = vec![b'"'];
        escape_into(&text, &mut source);
        source.push(b'"');
        prop_assert_eq!(serde_json::from_slice::<String>(&source).unwrap(), text);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(source: Vec<u8>) {
        let _ = Document::read(&source, BOUNDS);
    }
}
