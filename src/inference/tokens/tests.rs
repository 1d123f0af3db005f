use super::*;

#[test]
fn hostile_text_counts_for_at_least_half_of_its_tokens() {
    for (name, exact, text) in samples() {
        let estimate = ByteClasses.estimate(&text);
        assert!(estimate * 2 >= exact, "{name}: {estimate} of {exact}");
        assert!(estimate <= text.len() as u64, "{name}");
    }
}

#[test]
fn plain_text_counts_for_no_more_than_twice_its_tokens() {
    let plain = samples().into_iter().take(11);
    assert!(plain.clone().any(|(name, ..)| name == "thai"));
    for (name, exact, text) in plain {
        let estimate = ByteClasses.estimate(&text);
        assert!(estimate <= exact * 2, "{name}: {estimate} of {exact}");
    }
}

#[test]
fn english_and_code_are_within_a_fifth() {
    for (name, exact, text) in samples().into_iter().take(2) {
        let estimate = ByteClasses.estimate(&text);
        assert!(
            (exact * 4 / 5..=exact * 6 / 5).contains(&estimate),
            "{name}: {estimate} of {exact}"
        );
    }
}

#[test]
fn only_nothing_is_free() {
    assert_eq!(ByteClasses.estimate(""), 0);
    for text in ["a", " ", "\n", "7", "é", "\u{10ffff}"] {
        assert!((1..=text.len() as u64).contains(&ByteClasses.estimate(text)), "{text:?}");
    }
}

#[test]
fn a_longer_text_never_counts_for_less() {
    for (name, _, text) in samples() {
        let mut before = 0;
        for (at, _) in text.char_indices().take(200) {
            let estimate = ByteClasses.estimate(&text[..at]);
            assert!(estimate >= before, "{name}");
            before = estimate;
        }
    }
}

/// Texts of our own, and random ones, each with the exact count of its o200k tokens.
fn samples() -> Vec<(&'static str, u64, String)> {
    vec![
        ("english", 95, ENGLISH.into()),
        ("code", 95, CODE.into()),
        ("json", 82, JSON.into()),
        ("chinese", 120, "推理服务器在自己的进程里检查每一个请求：谁在调用，来自哪个工作负载，可以使用多少，以及可以问什么。".repeat(4)),
        ("japanese", 153, "このサーバーはすべてのリクエストを検査し、誰が呼び出しているのか、どれだけ使えるのかを確認します。".repeat(4)),
        ("korean", 88, "이 서버는 모든 요청을 검사하여 누가 호출하는지, 얼마나 사용할 수 있는지 확인합니다.".repeat(4)),
        ("russian", 105, "Сервер проверяет каждый запрос: кто вызывает, откуда, сколько ему можно и о чём он вправе спросить.".repeat(4)),
        ("german", 90, "Der Server prüft jede Anfrage: wer ruft auf, von welchem Arbeitsplatz, wie viel darf er verbrauchen und wonach darf er fragen.".repeat(3)),
        ("arabic", 120, "يفحص الخادم كل طلب: من المتصل، ومن أين، وكم يجوز له أن يستخدم، وعمّ يجوز له أن يسأل.".repeat(4)),
        ("hindi", 116, "सर्वर हर अनुरोध की जाँच करता है: कौन बुला रहा है, कहाँ से, और वह कितना उपयोग कर सकता है।".repeat(4)),
        ("thai", 116, "เซิร์ฟเวอร์ตรวจสอบทุกคำขอ ใครเป็นผู้เรียก มาจากที่ใด และใช้ได้เท่าไร".repeat(4)),
        ("emoji", 831, random(400, &['😀', '🚀', '🔥', '🎉', '👩', '🦀', '🧪', '🇫', '🇷', '🥝', '🪿', '🏴'])),
        ("base64", 552, random_ascii(800, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")),
        ("hex", 447, random_ascii(800, b"0123456789abcdef")),
        ("digits", 267, random_ascii(800, b"0123456789")),
        ("spaced digits", 328, random_ascii(800, b"0123456789 ")),
        ("punctuation", 534, random_ascii(800, b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")),
        ("random letters", 409, random_ascii(800, b"abcdefghijklmnopqrstuvwxyz")),
        ("random words", 387, random_ascii(800, b"abcdefghijklmnopqrstuvwxyz      ")),
        ("common letters", 322, random_ascii(800, b"etaoinshr")),
        ("common letters in words", 328, random_ascii(800, b"etaoinshr  ")),
        ("capitals", 456, random_ascii(800, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")),
        ("single letters", 417, "a b c d e f g h i j k l m n o p q r s t u v w x y z ".repeat(16)),
        ("printable", 591, random_ascii(800, &(b' '..=b'~').collect::<Vec<_>>())),
        ("controls", 399, random_ascii(400, &(1..0x20).collect::<Vec<_>>())),
        ("lines", 25, "\n".repeat(400)),
        ("spaces", 4, " ".repeat(400)),
        ("devanagari letters", 316, random(300, &('अ'..='ह').collect::<Vec<_>>())),
        ("thai letters", 324, random(300, &('ก'..='ฮ').collect::<Vec<_>>())),
        ("camel case", 113, "getUserIdFromHttpRequestBodyOrNull parseXMLHttpRequestURL ".repeat(8)),
        ("combining", 563, random(300, &('\u{300}'..='\u{36f}').collect::<Vec<_>>())),
        ("extended latin", 581, random(300, &('\u{180}'..='\u{24f}').collect::<Vec<_>>())),
        ("cyrillic letters", 217, random(300, &('а'..='я').collect::<Vec<_>>())),
        ("greek letters", 246, random(300, &('α'..='ω').collect::<Vec<_>>())),
        ("hangul", 671, random(300, &('가'..='힣').collect::<Vec<_>>())),
        ("rare hanzi", 579, random(300, &('\u{4e00}'..='\u{9fff}').collect::<Vec<_>>())),
        ("extension hanzi", 896, random(300, &('\u{3400}'..='\u{4dbf}').collect::<Vec<_>>())),
        ("kana", 344, random(300, &('ぁ'..='ヺ').collect::<Vec<_>>())),
        ("symbols", 744, random(300, &('\u{2190}'..='\u{2bff}').collect::<Vec<_>>())),
        ("indic letters", 471, random(300, &('\u{900}'..='\u{d7f}').collect::<Vec<_>>())),
        ("cherokee", 900, random(300, &('\u{13a0}'..='\u{13f4}').collect::<Vec<_>>())),
        ("syriac", 600, random(300, &('\u{710}'..='\u{74a}').collect::<Vec<_>>())),
        ("arabic letters", 272, random(300, &('\u{621}'..='\u{64a}').collect::<Vec<_>>())),
        ("hebrew letters", 219, random(300, &('א'..='ת').collect::<Vec<_>>())),
        ("armenian letters", 269, random(300, &('ա'..='ֆ').collect::<Vec<_>>())),
        ("fullwidth", 420, random(300, &('\u{ff01}'..='\u{ff5e}').collect::<Vec<_>>())),
        ("arabic forms", 888, random(300, &('\u{fb50}'..='\u{fbb1}').collect::<Vec<_>>())),
        ("private use", 816, random(300, &('\u{e000}'..='\u{e0ff}').collect::<Vec<_>>())),
        ("math letters", 600, random(300, &('\u{1d400}'..='\u{1d433}').collect::<Vec<_>>())),
        ("cuneiform", 1193, random(300, &('\u{12000}'..='\u{12399}').collect::<Vec<_>>())),
        ("tags", 1082, random(300, &('\u{e0020}'..='\u{e007e}').collect::<Vec<_>>())),
        ("plane two", 1116, random(300, &('\u{20000}'..='\u{200ff}').collect::<Vec<_>>())),
    ]
}

fn random_ascii(length: usize, alphabet: &[u8]) -> String {
    random(length, &alphabet.iter().map(|byte| char::from(*byte)).collect::<Vec<_>>())
}

fn random(length: usize, alphabet: &[char]) -> String {
    let mut state = 12_345u64;
    let step = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        alphabet[(state >> 33) as usize % alphabet.len()]
    };
    std::iter::repeat_with(step).take(length).collect()
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
