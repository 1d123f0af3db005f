//! Letters that look like Latin ones. Normalisation (NFKC) leaves them as they are, rightly: they
//! are other letters. They are folded only where they stand among Latin letters.

/// The Latin letter that a Cyrillic, Greek, Armenian or Cherokee letter passes for, lower case.
pub(super) const fn latin(letter: char) -> Option<char> {
    Some(match letter {
        'а' | 'А' | 'α' | 'Α' | 'Ꭺ' => 'a',
        'в' | 'В' | 'β' | 'Β' | 'Ь' | 'ь' | 'Ᏼ' => 'b',
        'с' | 'С' | 'ϲ' | 'Ϲ' | 'Ꮯ' => 'c',
        'ԁ' | 'Ԁ' | 'Ꭰ' => 'd',
        'е' | 'Е' | 'ё' | 'Ё' | 'ε' | 'Ε' | 'є' | 'Є' | 'ҽ' | 'Ꭼ' => 'e',
        'ғ' | 'Ғ' | 'ϝ' | 'Ϝ' => 'f',
        'ԍ' | 'Ԍ' | 'ց' | 'Ꮐ' => 'g',
        'һ' | 'Һ' | 'н' | 'Н' | 'Η' | 'հ' | 'Ꮋ' => 'h',
        'і' | 'І' | 'ї' | 'Ї' | 'ι' | 'Ι' | 'ӏ' | 'Ӏ' | 'Ꭵ' => 'i',
        'ј' | 'Ј' | 'Ꭻ' => 'j',
        'к' | 'К' | 'κ' | 'Κ' | 'Ꮶ' => 'k',
        'Ꮮ' => 'l',
        'м' | 'М' | 'Μ' | 'Ꮇ' => 'm',
        'η' | 'ո' | 'п' | 'Ν' | 'ռ' => 'n',
        'о' | 'О' | 'ο' | 'Ο' | 'օ' | 'Օ' | 'σ' => 'o',
        'р' | 'Р' | 'ρ' | 'Ρ' | 'Ꮲ' => 'p',
        'ԛ' | 'Ԛ' | 'զ' => 'q',
        'г' | 'Г' | 'Ꮢ' => 'r',
        'ѕ' | 'Ѕ' | 'Տ' | 'Ꮪ' => 's',
        'т' | 'Т' | 'τ' | 'Τ' | 'Ꭲ' => 't',
        'υ' | 'ս' | 'Ս' | 'μ' => 'u',
        'ѵ' | 'Ѵ' | 'ν' | 'Ꮩ' => 'v',
        'ѡ' | 'Ѡ' | 'ԝ' | 'Ԝ' | 'ω' | 'ա' | 'ш' | 'Ꮃ' => 'w',
        'х' | 'Х' | 'χ' | 'Χ' => 'x',
        'у' | 'У' | 'ү' | 'Ү' | 'γ' | 'Υ' => 'y',
        'Ζ' | 'Ꮓ' => 'z',
        _ => return None,
    })
}

/// Latin letters drawn another way that have no compatibility mapping: small capitals and the
/// white-on-black letters. Folded wherever they stand.
pub(super) fn drawn(letter: char) -> Option<char> {
    let offset = match letter {
        '\u{1F150}'..='\u{1F169}' => u32::from(letter) - 0x1F150,
        '\u{1F170}'..='\u{1F189}' => u32::from(letter) - 0x1F170,
        _ => return small_capital(letter),
    };
    u8::try_from(offset).ok().map(|offset| char::from(b'A' + offset))
}

const fn small_capital(letter: char) -> Option<char> {
    Some(match letter {
        'ᴀ' | 'ɑ' => 'a',
        'ʙ' => 'b',
        'ᴄ' => 'c',
        'ᴅ' => 'd',
        'ᴇ' => 'e',
        'ꜰ' => 'f',
        'ɢ' | 'ɡ' => 'g',
        'ʜ' => 'h',
        'ɪ' | 'ı' | 'ɩ' => 'i',
        'ᴊ' | 'ȷ' => 'j',
        'ᴋ' => 'k',
        'ʟ' => 'l',
        'ᴍ' => 'm',
        'ɴ' => 'n',
        'ᴏ' => 'o',
        'ᴘ' => 'p',
        'ꞯ' => 'q',
        'ʀ' => 'r',
        'ꜱ' => 's',
        'ᴛ' => 't',
        'ᴜ' => 'u',
        'ᴠ' => 'v',
        'ᴡ' => 'w',
        'ʏ' => 'y',
        'ᴢ' => 'z',
        _ => return None,
    })
}

/// Latin letters with a part that no normalisation takes off, and typographic quotes and dashes,
/// as they are typed.
pub(super) const fn plain(letter: char) -> Option<&'static str> {
    Some(match letter {
        'ß' | 'ẞ' => "ss",
        'æ' | 'Æ' => "ae",
        'œ' | 'Œ' => "oe",
        'ø' | 'Ø' => "o",
        'ł' | 'Ł' => "l",
        'đ' | 'Đ' | 'ð' | 'Ð' => "d",
        'ħ' | 'Ħ' => "h",
        'ŧ' | 'Ŧ' => "t",
        'þ' | 'Þ' => "th",
        '\u{2018}'..='\u{201b}' | '\u{2032}' | '\u{2bc}' | '\u{b4}' => "'",
        '\u{201c}'..='\u{201f}' | '\u{2033}' | '«' | '»' => "\"",
        '\u{2010}'..='\u{2015}' | '\u{2212}' => "-",
        _ => return None,
    })
}
