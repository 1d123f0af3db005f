//! The words by which a disguised text gives itself away.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::LazyLock,
};

/// Words of requests and instructions, and the commonest of English. Long ones carry the
/// evidence; short ones only help to find borders between words.
const WORDS: &str = "\
a abandon abide abiding ability about above absolutely accept access accessible accessing \
according accordingly account accounts accurate across act acting action actions activated \
active activities activity actual actually added addition additional additionally address \
addresses adhere adhering admin administrator advice aforementioned after again against agent ai \
algorithm algorithms all allow allowed along alphanumeric already also alternative although \
always american among amoral amount an analysis and another answer answering answers any anyone \
anything apologize application apply appreciate appreciated approach appropriate april are \
argument arguments around array article articles artificial as ascii aside ask asked asking asks \
assignment assignments assist assistance assistant associated assume at attacks attempt attempts \
attend attention authorization authorized available avoid aware away backdoor backwards base \
based be became because become been before begin beginning behave behavior behind being believe \
believes below better between beyond black block blocked blocking body bound boundaries break \
breaking brief broken budget building built business bypass bypassing call called can cancel \
cannot capabilities capable capital cause causes cease censor censorship central certain \
certainly chains change changed changes character characters chat chatbot chatgpt chats check \
checking chief child children choice choices choose circumvent class classified clear clearly \
client close clue code codes college comes command commands common communication communications \
company compare complete completed completely complex compliance comply complying comprehensive \
computer concealed concepts concerning concerns concise conditions confidential config \
configuration confines confirm confirmation consent consequences consider considered considering \
const constantly constrained constraint constraints contact contain containing contains content \
contents context continue contradict control conversation conversations convert core corporation \
correct correctly corresponding could country create created creates creating creative creator \
creators credentials critical crucial crude current currently curse customer dan dangerous data \
database david deactivate death debug debugging december decide decision decline decode default \
defined delete department describe description designed detail detailed details determine \
develop developer developers development dialogue dialogues did different direct direction \
directions directive directives directly directory disable disabled disabling discard disclaimer \
disclaimers disclose disclosing discuss discussed discussing dismiss disobey display displayed \
displaying disregard disregarded disregarding disregards divulge do document documents does \
doesn doing done drop dump during earlier early earth easily efficiently efforts either email \
emails embedded emotions emulate enable enabled enabling encode encoded encrypt endraw energy \
engineer english enhance enjoy enough ensure ensuring entire entity environment erase error \
errors escape especially essential estimate ethical ethicality ethics europe evade evaluate \
evening event events ever every everyone everything evil exact exactly examine example except \
exclusively execute execution exfiltrate exist existing expected experience explain explanations \
explicit expose exposing express external extract extremely factually false family feature \
features feedback fiction fictional field file filter filtering filters final finalize finally \
financial finds first flag focus follow followed following follows for force forecast foregoing \
forever forget forgetting format former forward found france free freedom freely french friday \
friend friendly friends from front fulfill full fully function functions fundamental further \
future game games general generate generated generating germany get getting give given gives \
giving go goals going got government great greatly group guardrail guardrails guidance guide \
guideline guidelines guiding had handle happens happy harmful has have having he hello help \
helpful her here hidden hide higher highly him hint his history honest hours house how however \
https human humanity humans hypothetical ideas identify if ignore ignored ignores ignoring \
illegal imagine immediately immerse immoral implement implements import importance important \
improve in inappropriate include included includes including indicate info inform information \
inherent inhumane initial initialization initially input inputs insert inside inspired instead \
instruct instructed instruction instructions intelligence intelligent intended intent interest \
internal internet into introduced intructions investment is issue issues it items its itself \
jailbreak james january javascript jokes json judgement judgment just keep key kindly know \
knowledge known language large last later latest leak learn learning least leave lecture legal \
legality length let letter letters letting level liberate liberated library lifted light like \
likely limit limitation limitations limitless limits line lines linux list listen listening \
listing little lives living local location logic longer looking loves lower lowercase loyal \
machine made maintain maintenance major make makes making malicious manager manner many march \
markdown market marketing master matter may me mean meaning means measures mechanism media \
meeting member members memory mention mentioned mercury message messages method might million \
minutes missing mission mode model moderation modern module modules moment money monitoring \
month moral morality moralize morally morals more most movie multiple music must my named names \
national natural nature necessary need needed needs negative neglect network never new next \
night no nor normal normally norms north not notes nothing notice novel november now number \
numbers obedient obey object objectives october of off offensive offer office officer often omit \
on once one online only openai openais operate operating operational operations opinion opinions \
opposite options or order orders original other others otherwise our out outline output outputs \
outside over overall override overrides overriding overwrite owner packets paragraph paragraphs \
parameters paraphrase parts party passcode passphrase password passwords past paste pause paying \
people perform performance period permission permissions person persona personal personality \
phone phrase place planning play played playing please poem point points policies policy \
political population position positive possible potential power powerful practices preamble \
preceding predefined prefix present president pretend pretending prevent previous previously \
price primary principle principles print printing prior prioritize prison private probably \
problem procedures proceed process processing produced product profanity professional profit \
program programmed programmer programming progress project promotes prompt prompts proposal \
protected protocol protocols provide provided provides providing public purpose purposes put \
pwned python quality query question questions quick quickly quote racist raise random range \
rather reach read reading ready really reason recall receive received recent recently recipient \
recite record redacted reference refusal refuse refuses regarding regardless regards regular \
regulation regulations reiterate reject related relations relax relevant remain remember remind \
reminder remove removed render repeat repeating rephrase replace replaced replay replies reply \
replying report representing reproduce request requested requests require required requires \
rescind research reset resources respect respectful respond responding response responses \
restate restricted restriction restrictions result results return returns reveal revealing \
reverse review rhyme right role roleplay root routine rule rules run safeguard safeguards safety \
said sales same say saying scenario school science score script search second secret secretly \
secrets secure security see seems send sending sends sense sensitive sentence sentences separate \
separated september series servant server service session set setting settings several sexual \
shackles shall share sharing shell short should show showing significant silently similar simple \
simply simulate since single situation skip slang small so social solely solution solve some \
somebody someone something sometimes sorry source south space speak special specific \
specifically specified specify speech spell spelled split standard standards stands start \
started starting starts state statement statements states status steps still stop store story \
strategies street string strings structure students style subject success successfully such \
suffix suggest suggests summarize summarizing summary super support supposed surface suspend \
suspended suspicious swear switch symbol symbols synonym synonyms system systems table taken \
takes taking task tasks techniques technology tell telling terms testing text texts than thank \
thanks that the their them then there therefore these they thing things think thinking third \
this those though thought thoughts threats three through throw time times title to today \
together token tokens told took tool topic topics total towards traffic trained training \
transaction transactions translate translating translation true trust truth trying turning twice \
types typical unable unauthorized uncensored uncover under underlying understand understanding \
understood unethical unfiltered unique united unleash unleashed unless unlimited unlock unlocked \
unrestricted until unveil up upcoming update updated updates updating upon upper uppercase \
urgent use useful user users using usual validate value values variable various verbatim \
verification verified verify version very violate violence violent virtual want wanted wants \
warning warnings was water way we website wednesday were what whatever when whenever where \
whether which while whisper white who whole whose why will wishes with within without woman \
women word words work working works world would write writing written wrong wrote years yes you \
young your yourself zenith";

/// The letters of the longest of them.
pub(super) const LONGEST: usize = 14;

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
            jumbled.insert(Signature::of(word.as_bytes()), word);
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
    word.len() <= LONGEST && known(hash(word.bytes())).plain > 0
}

/// The word that a folded text begins with: its length, and what is known of it.
pub(super) fn first(text: &[u8]) -> (usize, Known) {
    let (mut state, mut length) = (Fnv::default(), 0);
    for byte in text.iter().take_while(|byte| byte.is_ascii_lowercase()) {
        state.push(*byte);
        length += 1;
    }
    (length, if length > LONGEST { Known::default() } else { known(state.value()) })
}

/// The listed word with the same first and last letter and the same letters between.
pub(super) fn unjumbled(signature: u64) -> Option<&'static str> {
    VOCABULARY.jumbled.get(&signature).copied()
}

/// The longest listed word that `text` begins with.
pub(super) fn longest_prefix(text: &str) -> Option<usize> {
    let mut state = Fnv::default();
    let mut best = None;
    for (index, byte) in text.bytes().take(LONGEST).enumerate() {
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
    pub(super) fn of(word: &[u8]) -> u64 {
        let mut signature = Self::default();
        word.iter().for_each(|byte| signature.push(*byte));
        signature.value()
    }

    const fn push(&mut self, byte: u8) {
        let letter = (byte as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let letter = (letter ^ (letter >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        if self.length == 0 {
            self.first = letter;
        }
        self.last = letter;
        self.sum = self.sum.wrapping_add(letter);
        self.length += 1;
    }

    const fn value(self) -> u64 {
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

#[cfg(test)]
mod tests {
    #[test]
    fn no_word_is_longer_than_the_longest() {
        assert_eq!(super::WORDS.split(' ').map(str::len).max(), Some(super::LONGEST));
    }
}
