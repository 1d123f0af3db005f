//! The estimate beside the exact counts of both vocabularies.

use proptest::{collection::vec, sample::select};

use super::*;

const BOTH: [Bpe; 2] = [Bpe::Cl100k, Bpe::O200k];

#[test]
fn exact_counts_are_those_of_other_tokenizers() {
    let counts = |text| BOTH.map(|bpe| bpe.estimate(text));
    assert_eq!(counts(""), [0, 0]);
    assert_eq!(counts("hello world"), [2, 2]);
    assert_eq!(counts("tiktoken is great!"), [6, 6]);
    assert_eq!(counts("<|endoftext|>"), [7, 7]);
    assert_eq!([ENGLISH, CODE, JSON].map(|text| Bpe::O200k.estimate(text)), [95, 95, 82]);
}

#[test]
fn a_bound_is_held_to_exactly() {
    for (_, _, text) in ordinary() {
        for bpe in BOTH {
            let exact = bpe.estimate(&text);
            for limit in [exact, exact + 1, u64::MAX] {
                assert_eq!(bpe.count_within(&text, limit), Some(exact));
            }
            for limit in [0, exact / 2, exact - 1] {
                assert_eq!(bpe.count_within(&text, limit), None);
            }
        }
    }
    assert_eq!(Bpe::O200k.count_within("", 0), Some(0));
}

#[test]
fn short_text_is_counted_on_the_executor_once_the_vocabulary_is_loaded() {
    for bpe in BOTH {
        bpe.load();
        assert_eq!(bpe.max_on_executor(), 32 << 10);
    }
}

/// The ratios that the documentation states, in percent.
const PLAIN: [u64; 2] = [90, 130];
const LATIN: [u64; 2] = [75, 150];
const WIDE: [u64; 2] = [75, 210];
const OTHER: [u64; 2] = [40, 300];
const RANDOM: [u64; 2] = [40, 150];

#[test]
fn ordinary_text_counts_for_what_is_stated() {
    for (name, stated, text) in ordinary() {
        assert_within(name, stated, &text);
    }
}

#[test]
fn random_text_counts_for_what_is_stated() {
    for (name, text) in random_texts() {
        assert_within(name, RANDOM, &text);
    }
}

fn assert_within(name: &str, [least, most]: [u64; 2], text: &str) {
    let estimate = ByteClasses.estimate(text);
    let ratios = BOTH.map(|bpe| estimate * 100 / bpe.estimate(text));
    let [cl100k, o200k] = ratios;
    println!("{name:20} {estimate:5} tokens: {cl100k:3} % of cl100k, {o200k:3} % of o200k");
    assert!(ratios.iter().all(|ratio| (least..=most).contains(ratio)), "{name}: {ratios:?}");
}

/// A text that is changed wherever that makes it count for less beside its exact count.
#[test]
fn a_search_finds_nothing_that_counts_for_too_little() {
    for (at, alphabet) in alphabets().iter().enumerate() {
        for bpe in BOTH {
            let mut pick = dice(at as u64);
            let mut text: Vec<char> = (0..100).map(|_| *choose(alphabet, &mut pick)).collect();
            let mut worst = 0.0;
            for _ in 0..ROUNDS {
                let changed = change(text.clone(), alphabet, &mut pick);
                let read: String = changed.iter().collect();
                let (exact, estimate) = (bpe.estimate(&read), ByteClasses.estimate(&read));
                assert!(exact <= estimate * ByteClasses::FACTOR, "{exact}, not {estimate}: {read}");
                let ratio = exact as f64 / estimate as f64;
                if ratio >= worst {
                    (worst, text) = (ratio, changed);
                }
            }
            println!("{bpe:?}, {}..: {worst:.2}", alphabet[0].escape_default());
            assert!(worst > 1.0, "it did not climb");
        }
    }
}

/// More take longer and find little more: 30000 found 3.3.
const ROUNDS: usize = 2000;

fn alphabets() -> Vec<Vec<char>> {
    let spaced = |chars: &str| chars.chars().chain("      ".chars()).collect();
    let block = |from: char, to: char| (from..=to).chain([' '; 20]).collect();
    vec![
        ('a'..='z').collect(),
        spaced("abcdefghijklmnopqrstuvwxyz"),
        spaced("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        spaced("0123456789,.-"),
        (' '..='~').collect(),
        ('\0'..='\u{7f}').collect(),
        " \n\t\r.a".chars().collect(),
        spaced("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\n"),
        block('a', 'ÿ'),
        block('\u{100}', '\u{24f}'),
        block('\u{370}', '\u{3ff}'),
        block('\u{400}', '\u{52f}'),
        block('\u{590}', '\u{6ff}'),
        block('\u{900}', '\u{dff}'),
        block('\u{e00}', '\u{fff}'),
        block('\u{1000}', '\u{1fff}'),
        block('\u{2000}', '\u{2bff}'),
        block('\u{3000}', '\u{30ff}'),
        block('\u{4e00}', '\u{9fff}'),
        block('\u{ac00}', '\u{d7a3}'),
        block('\u{1f300}', '\u{1faff}'),
        (' '..='\u{10ffff}').collect(),
        (' '..='~').chain("éüßñøšżабвгжЖαβγξاحطअकขあア的是가나😀“…".chars()).collect(),
    ]
}

fn change(
    mut text: Vec<char>,
    alphabet: &[char],
    pick: &mut impl FnMut(usize) -> usize,
) -> Vec<char> {
    let (from, to, length) = (pick(text.len()), pick(text.len()), 1 + pick(12));
    match pick(3) {
        0 => text[to] = *choose(alphabet, pick),
        1 => {
            let moved = text.remove(from);
            text.insert(to, moved);
        }
        _ => {
            for at in 0..length {
                let all = text.len();
                text[(to + at) % all] = text[(from + at) % all];
            }
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn hostile_text_has_at_most_the_factor_of_its_estimate(text in hostile()) {
        let estimate = ByteClasses.estimate(&text);
        for bpe in BOTH {
            let exact = bpe.estimate(&text);
            prop_assert!(exact <= estimate * ByteClasses::FACTOR, "{bpe:?}: {exact}, not {estimate}");
            prop_assert!(exact <= text.len() as u64, "more than one for each byte");
        }
    }

    /// Where it is not made of few characters.
    #[test]
    fn long_random_text_has_at_most_two_and_a_half_times_its_estimate(text in random_plane(300..400)) {
        let estimate = ByteClasses.estimate(&text);
        for bpe in BOTH {
            let exact = bpe.estimate(&text);
            prop_assert!(exact * 2 <= estimate * 5, "{bpe:?}: {exact}, not {estimate}");
        }
    }
}

fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        random_plane(1..60),
        vec(any::<u8>(), 1..80).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        "[A-Za-z0-9+/]{1,80}={0,2}",
        "[A-Za-z0-9_-]{1,80}",
        "[0-9a-f]{1,80}",
        "[0-9]{1,40}",
        "( [0-9]){1,40}",
        "[a-z]{1,40}",
        "( [a-z]{1,6}){1,20}",
        "( [b-df-hj-np-tv-z]{1,6}){1,20}",
        "([A-Z][a-z]{0,4}){1,20}",
        "[!-/:-@\\[-`{-~]{1,60}",
        "[ \t\r\n]{1,40}",
        "(  ?[ -~]){1,30}",
        "([a-z][\u{300}-\u{36f}]{1,4}){1,20}",
        // One character again and again.
        (any::<char>(), 1..200_usize).prop_map(|(c, times)| c.to_string().repeat(times)),
        // Few characters that stand together.
        (any::<char>(), vec(0..64_u32, 1..60)).prop_map(|(from, steps)| {
            steps.iter().filter_map(|step| char::from_u32(from as u32 + step)).collect()
        }),
    ];
    vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

/// Characters of one plane, or of its first thousands, which are the commoner ones.
fn random_plane(length: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let ranges: Vec<(u32, u32)> = vec![
        (0, 0x7f),
        (0x20, 0x24f),
        (0x80, 0x7ff),
        (0x800, 0x1fff),
        (0x2000, 0x33ff),
        (0x80, 0xffff),
        (0x3400, 0x9fff),
        (0xa000, 0xd7ff),
        (0xe000, 0xffff),
        (0x1_0000, 0x1_ffff),
        (0x1_f000, 0x1_ffff),
        (0x2_0000, 0x2_ffff),
        (0x3_0000, 0x3_ffff),
        (0xe_0000, 0xe_ffff),
        (0xf_0000, 0x10_ffff),
        (0, 0x10_ffff),
    ];
    (select(ranges), vec(any::<u32>(), length)).prop_map(|((from, to), picks)| {
        picks.iter().filter_map(|pick| char::from_u32(from + pick % (to - from + 1))).collect()
    })
}

/// Texts of our own.
fn ordinary() -> Vec<(&'static str, [u64; 2], String)> {
    let texts: &[(&str, [u64; 2], &str)] = &[
        ("english", PLAIN, ENGLISH),
        (
            "a question",
            PLAIN,
            "What is the weather like in Lisbon tomorrow, and should I take an umbrella?",
        ),
        ("code", PLAIN, CODE),
        ("python", PLAIN, PYTHON),
        ("json", PLAIN, JSON),
        ("markdown", PLAIN, MARKDOWN),
        (
            "german",
            LATIN,
            "Der Server prüft jede Anfrage: wer ruft auf, von welchem Arbeitsplatz, wie viel darf er verbrauchen und wonach darf er fragen.",
        ),
        (
            "french",
            LATIN,
            "Le serveur vérifie chaque requête : qui appelle, d'où, combien il lui reste et ce qu'il a le droit de demander à l'intérieur.",
        ),
        (
            "spanish",
            LATIN,
            "El servidor comprueba cada petición: quién llama, desde dónde, cuánto le queda y qué se le permite preguntar esta mañana.",
        ),
        (
            "polish",
            LATIN,
            "Serwer sprawdza każde żądanie: kto wywołuje, skąd, ile może jeszcze zużyć i o co wolno mu zapytać.",
        ),
        (
            "turkish",
            LATIN,
            "Sunucu her isteği denetler: kim çağırıyor, nereden, ne kadar kullanabilir ve ne sorabilir.",
        ),
        (
            "vietnamese",
            WIDE,
            "Máy chủ kiểm tra mọi yêu cầu: ai gọi, từ đâu, được dùng bao nhiêu và được phép hỏi điều gì.",
        ),
        (
            "finnish",
            LATIN,
            "Palvelin tarkistaa jokaisen pyynnön: kuka kysyy, mistä, kuinka paljon hän saa käyttää ja mitä hän saa kysyä.",
        ),
        (
            "chinese",
            WIDE,
            "推理服务器在自己的进程里检查每一个请求：谁在调用，来自哪个工作负载，可以使用多少，以及可以问什么。",
        ),
        (
            "japanese",
            WIDE,
            "このサーバーはすべてのリクエストを検査し、誰が呼び出しているのか、どれだけ使えるのかを確認します。",
        ),
        (
            "korean",
            OTHER,
            "이 서버는 모든 요청을 검사하여 누가 호출하는지, 얼마나 사용할 수 있는지 확인합니다.",
        ),
        (
            "russian",
            WIDE,
            "Сервер проверяет каждый запрос: кто вызывает, откуда, сколько ему можно и о чём он вправе спросить.",
        ),
        (
            "ukrainian",
            WIDE,
            "Сервер перевіряє кожен запит: хто викликає, звідки, скільки йому можна і про що він має право запитати.",
        ),
        (
            "greek",
            OTHER,
            "Ο διακομιστής ελέγχει κάθε αίτημα: ποιος καλεί, από πού, πόσα μπορεί να χρησιμοποιήσει.",
        ),
        (
            "hebrew",
            OTHER,
            "השרת בודק כל בקשה: מי קורא, מאיפה, כמה מותר לו להשתמש ומה מותר לו לשאול.",
        ),
        (
            "arabic",
            OTHER,
            "يفحص الخادم كل طلب: من المتصل، ومن أين، وكم يجوز له أن يستخدم، وعمّ يجوز له أن يسأل.",
        ),
        (
            "hindi",
            OTHER,
            "सर्वर हर अनुरोध की जाँच करता है: कौन बुला रहा है, कहाँ से, और वह कितना उपयोग कर सकता है।",
        ),
        (
            "bengali",
            OTHER,
            "সার্ভার প্রতিটি অনুরোধ পরীক্ষা করে: কে ডাকছে, কোথা থেকে, এবং কতটা ব্যবহার করতে পারে।",
        ),
        ("tamil", OTHER, "சேவையகம் ஒவ்வொரு கோரிக்கையையும் சரிபார்க்கிறது: யார் அழைக்கிறார், எங்கிருந்து."),
        (
            "georgian",
            OTHER,
            "სერვერი ამოწმებს ყველა მოთხოვნას: ვინ იძახებს, საიდან და რამდენის გამოყენება შეუძლია.",
        ),
        (
            "armenian",
            OTHER,
            "Սերվերը ստուգում է ամեն հարցում՝ ով է կանչում, որտեղից և որքան կարող է օգտագործել։",
        ),
        ("thai", OTHER, "เซิร์ฟเวอร์ตรวจสอบทุกคำขอ ใครเป็นผู้เรียก มาจากที่ใด และใช้ได้เท่าไร"),
    ];
    texts.iter().map(|(name, stated, text)| (*name, *stated, text.repeat(3))).collect()
}

/// Each of many characters of an alphabet.
fn random_texts() -> Vec<(&'static str, String)> {
    let of = |alphabet: &str| random(800, &alphabet.chars().collect::<Vec<_>>());
    let between = |from: char, to: char| random(400, &(from..=to).collect::<Vec<_>>());
    vec![
        ("emoji", of("😀🚀🔥🎉👩🦀🧪🇫🇷🥝🪿🏴")),
        ("base64", of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")),
        ("hex", of("0123456789abcdef")),
        ("digits", of("0123456789")),
        ("spaced digits", of("0123456789 ")),
        ("punctuation", of("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")),
        ("random letters", of("abcdefghijklmnopqrstuvwxyz")),
        ("random words", of("abcdefghijklmnopqrstuvwxyz      ")),
        ("common letters", of("etaoinshr")),
        ("common letters in words", of("etaoinshr  ")),
        ("capitals", of("ABCDEFGHIJKLMNOPQRSTUVWXYZ")),
        ("single letters", "a b c d e f g h i j k l m n o p q r s t u v w x y z ".repeat(16)),
        ("printable", between(' ', '~')),
        ("controls", between('\u{1}', '\u{1f}')),
        ("devanagari letters", between('अ', 'ह')),
        ("thai letters", between('ก', 'ฮ')),
        ("combining", between('\u{300}', '\u{36f}')),
        ("extended latin", between('\u{180}', '\u{24f}')),
        ("cyrillic letters", between('а', 'я')),
        ("greek letters", between('α', 'ω')),
        ("hangul", between('가', '힣')),
        ("rare hanzi", between('\u{4e00}', '\u{9fff}')),
        ("extension hanzi", between('\u{3400}', '\u{4dbf}')),
        ("kana", between('ぁ', 'ヺ')),
        ("symbols", between('\u{2190}', '\u{2bff}')),
        ("indic letters", between('\u{900}', '\u{d7f}')),
        ("cherokee", between('\u{13a0}', '\u{13f4}')),
        ("syriac", between('\u{710}', '\u{74a}')),
        ("arabic letters", between('\u{621}', '\u{64a}')),
        ("hebrew letters", between('א', 'ת')),
        ("armenian letters", between('ա', 'ֆ')),
        ("fullwidth", between('\u{ff01}', '\u{ff5e}')),
        ("arabic forms", between('\u{fb50}', '\u{fbb1}')),
        ("private use", between('\u{e000}', '\u{e0ff}')),
        ("math letters", between('\u{1d400}', '\u{1d433}')),
        ("cuneiform", between('\u{12000}', '\u{12399}')),
        ("tags", between('\u{e0020}', '\u{e007e}')),
        ("plane two", between('\u{20000}', '\u{200ff}')),
        ("digits in lines", of("0123456789\n")),
        ("urls", of("abcdefghijklmnopqrstuvwxyz0123456789%/?&=.-_")),
        ("ethiopic", between('\u{1200}', '\u{135a}')),
        ("bidi and zero width", between('\u{200b}', '\u{202e}')),
    ]
}

fn random(length: usize, alphabet: &[char]) -> String {
    let mut pick = dice(12_345);
    (0..length).map(|_| *choose(alphabet, &mut pick)).collect()
}

fn choose<'a>(alphabet: &'a [char], pick: &mut impl FnMut(usize) -> usize) -> &'a char {
    &alphabet[pick(alphabet.len())]
}

/// Numbers below what is asked for, the same for the same seed.
fn dice(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |sides| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % sides
    }
}

const ENGLISH: &str = "Every request is held to the rules before the model sees it. The server asks who is \
    calling, from which machine, and how much the caller may still use this minute. A prompt that tries to \
    talk the model out of its instructions is refused, and the answer is read as it streams back, so that a \
    secret which should never leave the building does not. None of this needs a second process, although \
    one may be used when the server is written in another language.";

const CODE: &str = "fn take(&mut self, cost: u64) -> Result<(), Refused> {\n    let now = self.clock.monotonic();\n    \
    for bucket in self.buckets.iter_mut() {\n        bucket.drain(now);\n        if bucket.level + cost > \
    bucket.capacity {\n            return Err(Refused { retry_after: bucket.wait(cost) });\n        }\n    }\n    \
    self.buckets.iter_mut().for_each(|bucket| bucket.level += cost);\n    Ok(())\n}\n";

const JSON: &str = r#"{"type":"function","function":{"name":"get_weather","description":"The weather at a place","parameters":{"type":"object","properties":{"city":{"type":"string","description":"Name of the city"},"days":{"type":"integer","minimum":1,"maximum":14},"units":{"type":"string","enum":["metric","imperial"]}},"required":["city"],"additionalProperties":false}}}"#;

const PYTHON: &str = "\
def mean(values: list[float]) -> float:
    if not values:
        raise ValueError('no values')
    return sum(values) / len(values)

class Meter:
    def __init__(self, limit=100):
        self.limit = limit
        self.used = 0
";

const MARKDOWN: &str = "\
## How it works

1. The **caller** sends a request with its [token](https://example.com/tokens).
2. The server looks at `Authorization`, then at the *certificate*.
3. What is over the limit gets a `429`.

| limit | default |
|---|---|
| requests | 60 a minute |
";
