//! Credentials of every form are found, and what just misses the form is not.
//!
//! The forms are written here by their issuers' documentation, apart from the detector's own table; tokens are drawn
//! when the test runs, so that none stands in the repository.

use std::collections::{BTreeMap, BTreeSet};

use palisade::prompt_guard::{Category, Secrets};

use crate::vectors::{THRESHOLD, scan};

const RECALL: f64 = 0.98;
const FORMATS: usize = 80;
const DRAWS: usize = 10;

/// Words of a form: `‹an36›` is 36 letters and digits, `‹uuid›` a UUID; anything else stands for itself. `|` cuts a mark in
/// two; `…` is in front where lengths vary, so that a shorter one is one too.
#[rustfmt::skip]
const TOKENS: &[&str] = &[
    "AK|IA‹up16›", "AS|IA‹up16›", "…AB|SK‹b6128›", "AI|za‹ur35›", "…ya|29.‹ur100›", "…1//|0‹ur60›", "GOC|SPX-‹ur28›", "…‹an3›8|Q~‹an34›",
    "‹an52›JQQ|J99‹an26›", "…LT|AI‹an20›", "AK|ID‹an32›", "…AQ|VN‹ur36›", "dop|_v1_‹hx64›", "doo|_v1_‹hx64›", "dor|_v1_‹hx64›", "HR|KU-AA‹ur58›",
    "fo|1_‹ur43›", "…fm|2_‹b6400›", "v1|.0-‹hx24›-‹hx146›", "tk|-us-‹ur48›", "github|_pat_‹an22›_‹an59›", "gl|pat-‹ur20›", "gl|dt-‹ur20›",
    "gl|rt-‹ur20›", "gl|ft-‹ur20›", "gl|soat-‹ur20›", "gl|imt-‹ur25›", "gl|ptt-‹hx40›", "gl|cbt-‹an2›_‹ur20›", "gl|agent-‹ur50›", "gl|oas-‹hx64›",
    "GR|1348941‹ur20›", "AT|BB‹an32›", "…AT|ATT3‹an186›", "…py|pi-AgEIcHlwaS5vcmc‹ur120›", "ruby|gems_‹hx48›", "CLO|JARS_‹lo60›", "ci|o‹an32›",
    "dckr|_pat_‹ur27›", "AK|Cp‹an69›", "cm|Vmd‹an59›", "sq|u_‹hx40›", "sg|p_‹hx16›_‹hx40›", "…sk|-ant-api03-‹ur93›AA", "…sk|-ant-admin01-‹ur93›AA",
    "sk|-or-v1-‹hx64›", "…sk|-proj-‹ur74›T3BlbkFJ‹ur74›", "sk|-‹an20›T3BlbkFJ‹an20›", "…sk|-‹an48›", "hf|_‹an34›", "api|_org_‹an34›", "gs|k_‹an52›",
    "pp|lx-‹an48›", "r8|_‹an37›", "xa|i-‹an80›", "nv|api-‹ur64›", "lsv|2_pt_‹hx32›_‹hx10›", "…pc|sk_‹an5›_‹an63›", "…xo|xb-‹dg12›-‹dg12›-‹an24›",
    "…xo|xp-‹dg12›-‹dg12›-‹dg12›-‹an32›", "…xa|pp-1-A‹up10›-‹dg13›-‹lo64›", "…hooks.slack|.com/services/T‹up10›/B‹up10›/‹an24›",
    "…discord|.com/api/webhooks/‹dg18›/‹ur68›", "…M|Tk‹an23›.‹an6›.‹ur38›", "…‹dg10›:|AA‹ur33›",
     "S|G.‹ur22›.‹ur43›", "ke|y-‹hx32›", "‹hx32›-|us12",
    "xkey|sib-‹hx64›-‹an16›", "r|e_‹an8›_‹an24›", "S|K‹hx32›", "…sk|_live_‹an24›", "…rk|_test_‹an99›", "…wh|sec_‹an32›", "…sq0|atp-‹ur22›", "EA|AA‹ur60›",
    "shp|at_‹hx32›", "shp|ss_‹hx32›", "access_token|$production$‹lo16›$‹hx32›", "rzp|_live_‹an14›", "FLW|SECK_TEST-‹hx32›-X", "EZ|AK‹an54›",
    "shippo|_live_‹hx40›", "duffel|_test_‹ur43›", "access|-production-‹uuid›", "live|_‹hx35›", "da|pi‹hx32›", "…hv|s.‹ur100›", "…hv|b.‹ur150›",
    "…‹an14›.atlas|v1.‹ur67›", "NR|AK-‹up27›", "NR|II-‹ur32›", "NR|JS-‹hx19›", "…gl|c_‹b6100›", "sntr|yu_‹hx64›", "…sntr|ys_eyJ‹an100›_‹an43›",
    "dt0|c01.‹up24›.‹up64›", "pu|l-‹hx40›", "pn|u_‹an36›", "…dp|.pt.‹an43›", "ic|o-‹an32›", "pa|t.‹ur22›.‹an24›.‹an20›", "AP|I-‹up26›", "sha|256~‹ur43›",
    "dn|key-‹lo26›-‹lo52›", "4b|1d‹an38›", "…pscale|_tkn_‹ur43›", "sb|p_‹hx40›", "na|pi_‹lo64›", "…tskey|-auth-‹an17›-‹an32›", "…ops|_eyJ‹b6300›",
    "A3|-‹up6›-‹up11›-‹up5›-‹up5›-‹up5›", "‹an6›_‹an29›_|mmk", "…lin|_api_‹an40›", "nt|n_‹dg11›‹an35›", "secret|_‹an43›", "pa|t‹an14›.‹hx64›",
    "1/|12‹dg14›:‹hx32›", "…fig|d_‹ur43›", "PM|AK-‹hx24›-‹hx34›", "tf|p_‹ur59›", "pat|-na1-‹uuid›", "rd|me_‹lo70›", "fio|-u-‹ur64›", "p|k.‹lo60›.‹lo22›",
    "p8|e-‹an32›", "…s|l.‹ur135›", "‹lo11›AAAAA|AAAAA‹ur43›", "sm|_aat_‹an16›", "s-s4|t2ud-‹hx64›", "…EA|AC‹an160›", "…ey|J‹ur40›.eyJ‹ur90›.‹ur43›",
];

/// What is a secret by the words around it.
#[rustfmt::skip]
const AROUND: &[&str] = &[
    "https://acme.webhook.|office.com/webhookb2/‹uuid›@‹uuid›/IncomingWebhook/‹hx32›/‹uuid›",
    "aws_secret_access_key = ‹an40›", "DD_API_KEY=‹hx32›", "\"algolia_api_key\": \"‹lo32›\"", "COHERE_API_KEY=‹an40›", "heroku api key is ‹uuid›",
    "snyk_token: ‹uuid›", "okta_token='00‹ur40›'", "wandb_api_key: ‹hx40›", "FASTLY_API_TOKEN=‹ur32›", "netlify_access_token: ‹ur43›",
    "Account|Key=‹an86›==;", "SharedAccess|Key=‹an43›=", "https://a.blob.example/c?sv=2023-01-03&se=2030-01-01&sig=‹an43›%3D",
    "-----BEGIN RSA PRIV|ATE KEY-----\n‹an64›\n‹an64›\n-----END RSA PRIV|ATE KEY-----", "-----BEGIN OPENSSH PRIV|ATE KEY-----\\n‹an64›\\n-----END OPENSSH PRIV|ATE KEY-----",
    "postgres://app:‹an16›@db.internal:5432/x", "redis://:‹an16›@cache:6379/0", "mongodb+srv://u:‹an12›@c0.example.net/x",
    "Server=db;Database=x;User Id=app;Password=‹an14›;", "curl -u admin:‹an14› https://host.example", "Authorization: Bearer ‹an40›",
    "Authorization: Basic ‹an28›==", "api_key = \"‹an32›\"", "{\"client_secret\": \"‹an40›\"}", "<accessToken>‹an40›</accessToken>", "password: '‹an14›'",
];

#[test]
fn every_form_is_found_and_nothing_that_just_misses_it() {
    let secrets = Secrets::builtin().unwrap();
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let (mut found, mut all, mut wrong) = (0, 0, Vec::new());
    let mut missed = BTreeMap::<&str, usize>::new();
    let checked = CHECKED.iter().copied();
    let forms: Vec<_> = TOKENS
        .iter()
        .map(|form| (*form, None))
        .chain(checked.map(|(form, end)| (form, Some(end))))
        .collect();
    for (form, end) in &forms {
        for round in 0..DRAWS {
            let (token, runs) = draw.token(form, *end);
            let text = around(round, &token);
            all += 1;
            let start = text.find(&token).unwrap();
            let whole = |span: &std::ops::Range<usize>| {
                span.start <= start && span.end >= start + token.len()
            };
            if flagged(&secrets, &text).iter().any(whole) {
                found += 1;
            } else {
                *missed.entry(form).or_default() += 1;
            }
            for near in near_misses(&token, &runs, end.is_some(), form.starts_with('…')) {
                let text = format!("Please look at {near} and explain.");
                if !flagged(&secrets, &text).is_empty() {
                    wrong.push((*form, near));
                }
            }
        }
    }
    for form in AROUND {
        for _ in 0..DRAWS {
            let (text, runs) = draw.token(form, None);
            all += 1;
            if flagged(&secrets, &text).is_empty() {
                *missed.entry(form).or_default() += 1;
            } else {
                found += 1;
            }
            let same = replaced(&text, &runs, |_| b'x');
            if !flagged(&secrets, &same).is_empty() {
                wrong.push((*form, same));
            }
        }
    }
    let forms = forms.len() + AROUND.len();
    let recall = found as f64 / all as f64;
    println!(
        "{forms} forms, {all} drawn: recall {recall:.3}, near misses flagged {}; missed {missed:?}",
        wrong.len()
    );
    assert!(forms >= FORMATS);
    assert!(recall >= RECALL, "{missed:?}");
    wrong.dedup_by_key(|(form, _)| *form);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Forms with check digits, and how those are made.
const CHECKED: &[(&str, End)] = &[
    ("gh|p_‹an30›", base62),
    ("gh|o_‹an30›", base62),
    ("gh|u_‹an30›", base62),
    ("gh|s_‹an30›", base62),
    ("np|m_‹an30›", base62),
    ("gl|sa_‹an32›", grafana),
];

/// What follows the rest of a token.
type End = fn(&str) -> String;

/// As GitHub and npm document it.
fn base62(token: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut sum = crc32(&token.as_bytes()[4..]);
    let mut end = [b'0'; 6];
    for digit in end.iter_mut().rev() {
        *digit = DIGITS[(sum % 62) as usize];
        sum /= 62;
    }
    String::from_utf8(end.to_vec()).unwrap()
}

/// As Grafana's server does it.
fn grafana(token: &str) -> String {
    crc32(token.as_bytes())
        .to_le_bytes()
        .iter()
        .fold("_".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    })
}

fn flagged(secrets: &Secrets, text: &str) -> Vec<std::ops::Range<usize>> {
    scan(secrets, text)
        .into_iter()
        .filter(|finding| finding.score >= THRESHOLD)
        .map(|finding| {
            assert_eq!(finding.category, Category::Secret);
            finding.span.unwrap()
        })
        .collect()
}

/// A token where people put them.
fn around(round: usize, token: &str) -> String {
    match round % 6 {
        0 => token.to_owned(),
        1 => format!("My key is {token}."),
        2 => format!("{{\"value\":\"{token}\"}}"),
        3 => format!("export THING={token}\nrun"),
        4 => format!("line one\\n{token}\\nline two"),
        _ => format!("鍵は「{token}」です"),
    }
}

/// One character too short, one of another alphabet, in the middle of a word, a stand-in, a wrong check digit.
fn near_misses(
    token: &str,
    runs: &[std::ops::Range<usize>],
    is_checked: bool,
    is_open: bool,
) -> Vec<String> {
    let longest = runs.iter().max_by_key(|run| run.len()).unwrap();
    let mut short = token.to_owned();
    short.remove(longest.start + 1);
    let mut foreign = token.to_owned();
    foreign.replace_range(longest.start + 5..longest.start + 6, "*");
    let mut misses =
        vec![replaced(token, runs, |byte| if byte.is_ascii_digit() { b'0' } else { b'X' })];
    if !is_open {
        misses.extend([short, foreign]);
    }
    misses.push(format!("q{token}"));
    if is_checked {
        let body = longest.start + 3;
        let other = if token.as_bytes()[body] == b'a' { "b" } else { "a" };
        let mut wrong = token.to_owned();
        wrong.replace_range(body..=body, other);
        misses.push(wrong);
    }
    misses
}

fn replaced(token: &str, runs: &[std::ops::Range<usize>], with: impl Fn(u8) -> u8) -> String {
    let mut bytes = token.as_bytes().to_vec();
    for index in runs.iter().cloned().flatten() {
        bytes[index] = with(bytes[index]);
    }
    String::from_utf8(bytes).unwrap()
}

/// Draws by a fixed sequence, so that failures repeat.
struct Draw(u64);

impl Draw {
    /// A token of a form, and where its drawn runs are.
    fn token(&mut self, form: &str, end: Option<End>) -> (String, Vec<std::ops::Range<usize>>) {
        let (mut token, mut runs) = (String::new(), Vec::new());
        for (index, part) in form.replace(['|', '…'], "").split(['‹', '›']).enumerate() {
            if index % 2 == 0 {
                token.push_str(part);
                continue;
            }
            let start = token.len();
            if part == "uuid" {
                let groups: Vec<_> =
                    [8, 4, 4, 4, 12].iter().map(|length| self.run("hx", *length)).collect();
                token.push_str(&groups.join("-"));
            } else {
                token.push_str(&self.run(&part[..2], part[2..].parse().unwrap()));
            }
            runs.push(start..token.len());
        }
        token.push_str(&end.map_or_else(String::new, |end| end(&token)));
        (token, runs)
    }

    fn run(&mut self, alphabet: &str, length: usize) -> String {
        let (upper, lower, digits) =
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789");
        let alphabet: Vec<char> = match alphabet {
            "dg" => digits.to_owned(),
            "hx" => format!("{digits}abcdef"),
            "up" => format!("{digits}{upper}"),
            "lo" => format!("{digits}{lower}"),
            "an" => format!("{digits}{upper}{lower}"),
            "ur" => format!("{digits}{upper}{lower}-_"),
            "b6" => format!("{digits}{upper}{lower}+/"),
            other => panic!("{other}"),
        }
        .chars()
        .collect();
        let drawn = (0..length).map(|index| {
            loop {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                let drawn = alphabet[(self.0 % alphabet.len() as u64) as usize];
                // A mark at an end may as well be the sentence's.
                if drawn.is_ascii_alphanumeric() || (index > 0 && index + 1 < length) {
                    break drawn;
                }
            }
        });
        drawn.collect()
    }
}

#[test]
fn forms_are_told_apart() {
    let forms: BTreeSet<_> = TOKENS.iter().chain(AROUND).collect();
    assert_eq!(forms.len(), TOKENS.len() + AROUND.len());
}
