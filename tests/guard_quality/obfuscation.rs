//! A disguise does not hide a known attack, and does not make one of an ordinary text.

use crate::vectors::{files, is_flagged, lines, percent};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use palisade::prompt_guard::InjectionRules;

/// How many attacks and ordinary texts each disguise is tried on.
const SAMPLE: usize = 200;
/// Percent of the attacks found in clear that must be found in disguise.
const RETAINED: f64 = 90.0;
/// How many disguises must hold that.
const DISGUISES: usize = 22;

type Disguise = fn(&str) -> String;

const ALL: [(&str, Disguise); 24] = [
    ("none", str::to_owned),
    ("zero-width", |text| between(text, '\u{200b}')),
    ("soft hyphen", |text| between(text, '\u{ad}')),
    ("tag characters", |text| text.chars().map(|c| shifted(c, ' ', '~', 0xe0020)).collect()),
    ("direction controls", |text| format!("\u{202e}{}\u{202c}", text.replace(' ', " \u{2066}"))),
    ("Cyrillic look-alikes", |text| {
        replaced(text, "aceopxyiABCEHKMOPTXjs", "асеорхуіАВСЕНКМОРТХјѕ")
    }),
    ("full width", |text| text.chars().map(|c| shifted(c, '!', '~', 0xff01)).collect()),
    ("mathematical bold", |text| {
        text.chars().map(|c| shifted(shifted(c, 'a', 'z', 0x1d41a), 'A', 'Z', 0x1d400)).collect()
    }),
    ("leet", |text| replaced(text, "aeiostAEIOST", "431057431057")),
    ("base64", |text| STANDARD.encode(text)),
    ("base64 twice", |text| STANDARD.encode(STANDARD.encode(text))),
    ("hexadecimal", |text| text.bytes().map(|byte| format!("{byte:02x}")).collect()),
    ("rot13", rot13),
    ("reversed", |text| text.chars().rev().collect()),
    ("percent", |text| text.bytes().map(|byte| format!("%{byte:02X}")).collect()),
    ("HTML entities", |text| text.chars().map(|c| format!("&#{};", u32::from(c))).collect()),
    ("Unicode escapes", |text| text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()),
    ("letter spacing", |text| between(text, ' ')),
    ("line breaks", |text| text.replace(' ', "\n")),
    ("strikethrough", |text| between(text, '\u{336}')),
    ("dots in words", |text| words(text, |word| between(word, '.'))),
    ("hyphens in words", |text| words(text, |word| split(word, "-"))),
    ("jumbled letters", |text| words(text, jumbled)),
    ("small capitals", |text| {
        replaced(&text.to_lowercase(), "abcdefghijklmnoprstuvwyz", "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ")
    }),
];

#[test]
fn known_attacks_are_found_in_disguise() {
    let rules = InjectionRules::builtin().unwrap();
    let (mut attacks, mut ordinary) = (Vec::new(), Vec::new());
    for file in files("prompts") {
        // A share of each set, so that no set decides alone.
        let lines = lines(&file);
        for line in lines.iter().step_by(7) {
            let text = line["text"].as_str().unwrap();
            if text.len() > 600 || !text.is_ascii() {
                continue;
            }
            match (line["label"].as_u64() == Some(1), is_flagged(&rules, text)) {
                (true, true) => attacks.push(text.to_owned()),
                (false, false) => ordinary.push(text.to_owned()),
                _ => {}
            }
        }
    }
    if attacks.is_empty() {
        return;
    }
    let thin = |texts: Vec<String>| -> Vec<String> {
        let step = (texts.len() / SAMPLE).max(1);
        texts.into_iter().step_by(step).collect()
    };
    let (attacks, ordinary) = (thin(attacks), thin(ordinary));
    let mut held = 0;
    let mut raised = Vec::new();
    for (name, disguise) in ALL {
        let found = attacks.iter().filter(|text| is_flagged(&rules, &disguise(text))).count();
        let wrong = ordinary.iter().filter(|text| is_flagged(&rules, &disguise(text))).count();
        let share = percent(found, attacks.len());
        println!(
            "{name:22} found {found:4}/{} {share:5.1} %   ordinary {wrong}/{}",
            attacks.len(),
            ordinary.len()
        );
        held += usize::from(share >= RETAINED);
        if wrong > 0 {
            raised.push(name);
        }
    }
    println!("{held} of {} disguises hold {RETAINED} %", ALL.len());
    assert!(held >= DISGUISES, "{held}");
    assert!(raised.is_empty(), "false positives rose under {raised:?}");
}

/// Writes `mark` after every character but the last.
fn between(text: &str, mark: char) -> String {
    let mut out: String = text.chars().flat_map(|character| [character, mark]).collect();
    out.pop();
    out
}

fn shifted(character: char, first: char, last: char, to: u32) -> char {
    if (first..=last).contains(&character) {
        char::from_u32(u32::from(character) - u32::from(first) + to).unwrap()
    } else {
        character
    }
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    let pairs: Vec<_> = from.chars().zip(to.chars()).collect();
    text.chars()
        .map(|character| {
            pairs.iter().find(|(from, _)| *from == character).map_or(character, |(_, to)| *to)
        })
        .collect()
}

fn rot13(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            'a'..='m' | 'A'..='M' => char::from(character as u8 + 13),
            'n'..='z' | 'N'..='Z' => char::from(character as u8 - 13),
            other => other,
        })
        .collect()
}

fn words(text: &str, change: impl Fn(&str) -> String) -> String {
    text.split(' ').map(change).collect::<Vec<_>>().join(" ")
}

/// Splits a longer word in the middle.
fn split(word: &str, mark: &str) -> String {
    if word.len() < 5 {
        return word.to_owned();
    }
    let (left, right) = word.split_at(word.len() / 2);
    format!("{left}{mark}{right}")
}

/// Turns the inner letters of a longer word round, and leaves its ends.
fn jumbled(word: &str) -> String {
    let end = word.trim_end_matches(|character: char| !character.is_ascii_alphabetic());
    if end.len() < 5 {
        return word.to_owned();
    }
    let inner: String = end[1..end.len() - 1].chars().rev().collect();
    format!("{}{inner}{}", &end[..1], &word[end.len() - 1..])
}
