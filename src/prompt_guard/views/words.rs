//! The words by which a disguised text gives itself away.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::LazyLock,
};

/// Words of requests and instructions, and the commonest words of English. Long ones carry the
/// evidence; short ones only help to find borders between words.
const WORDS: &str = "\
a abandon about above access accessible accessing account accounts act acting activated actual \
actually address admin administrator after again against ai algorithm algorithms all allowed \
alphanumeric also although always an and answer answering answers any anyone anything apologize \
are artificial as ask asked asking asks assignment assignments assistant assume at attention \
authorization authorized avoid away backdoor backwards base be because been before begin \
beginning behave behavior behind being below between beyond body bound boundaries break broken \
built bypass bypassing call can cancel cannot censorship central chains character characters \
chat chatgpt circumvent classified clue code command commands company complete compliance comply \
concerning confidential config configuration confines confirm confirmation consequences \
constrained constraint constraints content contents context contradict conversation core could \
creator creators credentials crude currently curse dan dangerous data deactivate debug debugging \
decision decline decode default delete describe detail details developer did direct directions \
directive directives directly disable disabled disabling discard disclaimer disclaimers disclose \
disclosing dismiss display displayed displaying disregard disregarded disregarding divulge do \
does doing done drop dump earlier email emails embedded emulate enable enabled enabling encode \
encoded encrypt engineer entire erase essential ethical ethics evade evaluate ever everyone \
everything evil exact exactly examine exclusively execute exfiltrate existing explain explicit \
expose exposing false fiction fictional file filter filters first flag follow following for \
foregoing forget forgetting format former forward free freedom freely from full function \
fundamental further future game generated get give given giving go going got guardrail \
guardrails guidance guide guideline guidelines guiding had harmful has have having he hello help \
her here hidden hide him hint his how however human humans hypothetical if ignore ignoring \
illegal imagine immediately immerse immoral important in inappropriate info information inherent \
initial initialization initially input inside inspired instead instruct instructed instruction \
instructions intelligence internal into is it its jailbreak json judgement judgment just keep \
key know language last later leak lecture let letter letters letting liberate liberated lifted \
like limit limitations limitless limits line list listing logic longer loyal machine made \
maintenance make making many master matter may me mean message messages mode model moderation \
moral moralize more most movie must my need needs neglect never new next no nor normal norms not \
nothing notice novel now number numbers obedient obey of off offensive omit on once one only \
openai operate operating operational operations opinions opposite or order orders other our out \
output outside over override overriding overwrite owner paragraph parameters passcode passphrase \
password passwords past people permission permissions persona personality phrase play played \
playing please poem policies policy possible preceding pretend previous previously primary \
principle principles print printing prior prioritize private procedures process processing \
produced profanity programmed programmer programming prompt prompts protected protocol provide \
provided providing put python question questions read reading really recipient recite refusal \
refuse regarding regardless regular regulations reiterate reject remove removed repeat repeating \
replay reply replying report request requests reset respond responding response responses \
restate restricted restriction restrictions return reveal revealing reverse rhyme right role \
roleplay root routine rule rules run safeguards safety said same say saying scenario secret \
secretly secrets secure security see send sending sensitive sentence servant set setting \
settings sexual shackles shall share sharing should show showing silently simulate skip so \
solely some somebody someone sorry speak spell spelled standard standards start starting state \
statement statements still stop story string strings subject such summarize summarizing summary \
suspend suspended swear switch synonym synonyms system taking task tasks tell telling text texts \
than that the their them then there therefore these they thing things this those time to token \
tokens told took tool towards trained training translate translating translation true truth \
turning typical uncensored under underlying unethical unfiltered unleash unleashed unlimited \
unlock unlocked unrestricted until up updated upon urgent use user users using usual validate \
value values variable verbatim verification verified verify very violate violence want wants \
warning warnings was way we were what whatever when where which while who whole why will wishes \
with within without word words work would write written wrote yes you your yourself";

/// What a word is, by its hash.
#[derive(Clone, Copy, Default)]
pub(super) struct Known {
    /// It stands in the list, and how long it is.
    pub(super) plain: u8,
    /// Shifted by thirteen it would.
    pub(super) rotated: bool,
    /// Read backwards it would.
    pub(super) reversed: bool,
}

/// A table that is looked up by hash alone. Two words with one hash cost a needless view, no more.
type Table<V> = HashMap<u64, V, BuildHasherDefault<Identity>>;

struct Vocabulary {
    known: Table<Known>,
    jumbled: Table<&'static str>,
}

static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| {
    let mut known = Table::<Known>::default();
    let mut jumbled = Table::default();
    for word in WORDS.split(' ') {
        known.entry(hash(word.bytes())).or_default().plain =
            u8::try_from(word.len()).unwrap_or(u8::MAX);
        if word.len() >= 4 {
            known.entry(hash(word.bytes().map(rotate))).or_default().rotated = true;
            let palindrome = word.bytes().eq(word.bytes().rev());
            known.entry(hash(word.bytes().rev())).or_default().reversed |= !palindrome;
        }
        if word.len() >= 5 {
            jumbled.insert(Signature::of(word), word);
        }
    }
    Vocabulary { known, jumbled }
});

/// What is known of the word with this hash.
pub(super) fn known(hash: u64) -> Known {
    VOCABULARY.known.get(&hash).copied().unwrap_or_default()
}

/// Whether a folded word stands in the list.
pub(super) fn is_word(word: &str) -> bool {
    known(hash(word.bytes())).plain > 0
}

/// The listed word with the same first and last letter and the same letters between.
pub(super) fn unjumbled(signature: u64) -> Option<&'static str> {
    VOCABULARY.jumbled.get(&signature).copied()
}

/// The longest listed word that `text` begins with.
pub(super) fn longest_prefix(text: &str) -> Option<usize> {
    let mut state = Fnv::default();
    let mut best = None;
    for (index, byte) in text.bytes().take(16).enumerate() {
        state.push(byte);
        if known(state.value()).plain > 0 {
            best = Some(index + 1);
        }
    }
    best
}

/// The hash of a word.
pub(super) fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let mut state = Fnv::default();
    bytes.for_each(|byte| state.push(byte));
    state.value()
}

/// Shifts a folded letter by thirteen.
pub(super) const fn rotate(byte: u8) -> u8 {
    match byte {
        b'a'..=b'm' | b'A'..=b'M' => byte + 13,
        b'n'..=b'z' | b'N'..=b'Z' => byte - 13,
        other => other,
    }
}

/// FNV-1a: cheap byte by byte, and the hash of two joined words comes for free.
#[derive(Clone, Copy)]
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(super) const fn push(&mut self, byte: u8) {
        self.0 = (self.0 ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
    }

    pub(super) const fn value(self) -> u64 {
        self.0
    }
}

/// The same for all orders of a word's inner letters.
#[derive(Clone, Copy, Default)]
pub(super) struct Signature {
    first: u64,
    last: u64,
    sum: u64,
    length: u64,
}

impl Signature {
    fn of(word: &str) -> u64 {
        let mut signature = Self::default();
        word.bytes().for_each(|byte| signature.push(byte));
        signature.value()
    }

    pub(super) const fn push(&mut self, byte: u8) {
        let letter = (byte as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let letter = (letter ^ (letter >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        if self.length == 0 {
            self.first = letter;
        }
        self.last = letter;
        self.sum = self.sum.wrapping_add(letter);
        self.length += 1;
    }

    pub(super) const fn value(self) -> u64 {
        self.sum
            .wrapping_add(self.first.rotate_left(17))
            .wrapping_add(self.last.rotate_left(41))
            .wrapping_add(self.length)
    }
}

/// Takes a hash for what it is.
#[derive(Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes.iter().copied());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
