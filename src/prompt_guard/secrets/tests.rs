//! Every format, on a token built here from its parts, and on one that just misses it.

use super::*;
use crate::inference::Origin;

/// A fixed pseudo-random sequence, so that failures repeat.
fn random(alphabet: &str, length: usize) -> String {
    let alphabet = alphabet.as_bytes();
    let mut state = 0x2545_f491_4f6c_dd1d_u64 ^ length as u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(alphabet[(state % alphabet.len() as u64) as usize])
        })
        .collect()
}

const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const HEX: &str = "0123456789abcdef";
const DIGIT: &str = "123456789";

fn an(length: usize) -> String {
    random(ALNUM, length)
}

fn up(length: usize) -> String {
    random(UPPER, length)
}

fn hx(length: usize) -> String {
    random(HEX, length)
}

fn dg(length: usize) -> String {
    random(DIGIT, length)
}

/// Joins the parts of a token, so that no token stands in the source.
fn t(parts: &[&str]) -> String {
    parts.concat()
}

/// The rule, a text that holds it, and one that does not.
fn cases() -> Vec<(&'static str, String, String)> {
    let uuid = || format!("{}-{}-{}-{}-{}", hx(8), hx(4), hx(4), hx(4), hx(12));
    let pem =
        |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----");
    vec![
        ("private_key", pem("RSA PRIVATE KEY", &an(300)), pem("PUBLIC KEY", &an(300))),
        (
            "putty_key",
            t(&[
                "PuTTY-User-Key-File-2: ssh-rsa\nEncryption: none\nComment: a\nPrivate-Lines: 14\n",
                &an(64),
            ]),
            t(&["PuTTY-User-Key-File-2: ssh-rsa\nEncryption: none\nPublic-Lines: 6\n", &an(64)]),
        ),
        (
            "age_key",
            t(&["AGE-SECRET", "-KEY-1", &random("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58)]),
            t(&["AGE-SECRET", "-KEY-1", &random("QPZRY9X8", 50)]),
        ),
        ("aws_access_key", t(&["AK", "IA", &up(16)]), t(&["AK", "IA", &up(12)])),
        (
            "aws_secret_key",
            t(&["aws_secret_access_key = ", &an(40)]),
            t(&["aws_secret_access_key = ", &"a".repeat(40)]),
        ),
        ("aws_bedrock_key", t(&["AB", "SK", &an(120)]), t(&["AB", "SK", &an(40)])),
        ("google_api_key", t(&["AI", "za", &an(35)]), t(&["AI", "za", &an(30)])),
        ("google_oauth_token", t(&["ya", "29.", &an(60)]), t(&["ya", "29.", &an(10)])),
        ("google_oauth_secret", t(&["GOC", "SPX-", &an(28)]), t(&["GOC", "SPX-", &an(20)])),
        (
            "azure_storage_key",
            t(&["Account", "Key=", &an(86), "=="]),
            t(&["Account", "Key=", &an(40), "=="]),
        ),
        (
            "azure_shared_access_key",
            t(&["SharedAccess", "Key=", &an(43), "="]),
            t(&["SharedAccess", "Key=", &an(20), "="]),
        ),
        (
            "azure_sas",
            t(&["https://a.blob.core.windows.net/c?sv=2023-01-03&se=2030&sig=", &an(44)]),
            t(&["https://a.example/c?sv=2023-01-03&se=2030&sig=", &an(10)]),
        ),
        (
            "azure_client_secret",
            t(&[" ", &an(3), "8", "Q~", &an(34)]),
            t(&[" ", &an(3), "8", "Q~", &an(10)]),
        ),
        ("alibaba_access_key", t(&["LT", "AI", &an(20)]), t(&["LT", "AI", &an(8)])),
        ("digitalocean_token", t(&["dop", "_v1_", &hx(64)]), t(&["dop", "_v1_", &hx(60)])),
        ("heroku_key", t(&["HRKU", "-", &uuid()]), t(&["HRKU", "-", &hx(8)])),
        ("fly_token", t(&["fo", "1_", &an(43)]), t(&["fo", "1_", &an(20)])),
        (
            "cloudflare_origin_key",
            t(&["v1.", "0-", &hx(24), "-", &hx(146)]),
            t(&["v1.", "0-", &hx(24), "-", &hx(20)]),
        ),
        ("github_token", t(&["gh", "p_", &an(36)]), t(&["gh", "p_", &an(30)])),
        (
            "github_fine_grained",
            t(&["github", "_pat_", &an(22), "_", &an(59)]),
            t(&["github", "_pat_", &an(10)]),
        ),
        ("gitlab_token", t(&["gl", "pat-", &an(20)]), t(&["gl", "pat-", &an(12)])),
        ("bitbucket_token", t(&["AT", "BB", &an(32)]), t(&["AT", "BB", &an(20)])),
        ("atlassian_token", t(&["AT", "ATT3", &an(180)]), t(&["AT", "ATT3", &an(20)])),
        ("npm_token", t(&["np", "m_", &an(36)]), t(&["np", "m_", &an(20)])),
        ("pypi_token", t(&["py", "pi-AgEIcHlwaS5vcmc", &an(100)]), t(&["py", "pi-AgE", &an(20)])),
        ("rubygems_key", t(&["ruby", "gems_", &hx(48)]), t(&["ruby", "gems_", &hx(30)])),
        ("cargo_token", t(&["ci", "o", &an(32)]), t(&["ci", "o", &an(20)])),
        ("docker_token", t(&["dckr", "_pat_", &an(27)]), t(&["dckr", "_pat_", &an(10)])),
        ("anthropic_key", t(&["sk-", "ant-api03-", &an(95)]), t(&["sk-", "ant-api03-", &an(10)])),
        ("openrouter_key", t(&["sk-", "or-v1-", &hx(64)]), t(&["sk-", "or-v1-", &hx(20)])),
        ("openai_key", t(&["sk-", "proj-", &an(120)]), t(&["sk-", "proj-", &an(10)])),
        ("api_key_sk", t(&["sk", "-", &an(48)]), t(&["sk", "-", &"ab".repeat(24)])),
        ("huggingface_token", t(&["hf", "_", &an(34)]), t(&["hf", "_", &an(20)])),
        ("groq_key", t(&["gs", "k_", &an(52)]), t(&["gs", "k_", &an(20)])),
        ("perplexity_key", t(&["pp", "lx-", &an(48)]), t(&["pp", "lx-", &an(20)])),
        ("replicate_token", t(&["r", "8_", &an(37)]), t(&["r", "8_", &an(20)])),
        ("xai_key", t(&["xa", "i-", &an(80)]), t(&["xa", "i-", &an(20)])),
        (
            "langsmith_key",
            t(&["lsv", "2_pt_", &hx(32), "_", &hx(10)]),
            t(&["lsv", "2_pt_", &hx(32)]),
        ),
        (
            "pinecone_key",
            t(&["pc", "sk_", &an(5), "_", &an(62)]),
            t(&["pc", "sk_", &an(5), "_", &an(20)]),
        ),
        (
            "slack_token",
            t(&["xo", "xb-", &dg(12), "-", &dg(12), "-", &an(24)]),
            t(&["xo", "xb-", &dg(5)]),
        ),
        (
            "slack_webhook",
            t(&["https://hooks.slack", ".com/services/T", &up(8), "/B", &up(8), "/", &an(24)]),
            t(&["https://hooks.slack", ".com/services/T"]),
        ),
        (
            "discord_webhook",
            t(&["https://discord", ".com/api/webhooks/", &dg(18), "/", &an(68)]),
            t(&["https://discord", ".com/api/webhooks/", &dg(18), "/", &an(20)]),
        ),
        (
            "discord_token",
            t(&["M", &an(24), ".", &an(6), ".", &an(30)]),
            t(&["M", &an(24), ".", &an(4), ".", &an(30)]),
        ),
        ("telegram_token", t(&[&dg(9), ":A", "A", &an(33)]), t(&[&dg(9), ":A", "A", &an(20)])),
        (
            "teams_webhook",
            t(&[
                "https://acme.webhook",
                ".office.com/webhookb2/",
                &uuid(),
                "@",
                &uuid(),
                "/IncomingWebhook/",
                &hx(32),
                "/",
                &uuid(),
            ]),
            t(&["https://acme.webhook", ".office.com/webhookb2/", &uuid()]),
        ),
        (
            "sendgrid_key",
            t(&["S", "G.", &an(22), ".", &an(43)]),
            t(&["S", "G.", &an(22), ".", &an(10)]),
        ),
        ("mailgun_key", t(&["ke", "y-", &hx(32)]), t(&["ke", "y-", &hx(20)])),
        ("mailchimp_key", t(&[&hx(32), "-u", "s12"]), t(&[&hx(20), "-u", "s12"])),
        ("brevo_key", t(&["xkey", "sib-", &hx(64), "-", &an(16)]), t(&["xkey", "sib-", &hx(64)])),
        ("twilio_key", t(&["S", "K", &hx(32)]), t(&["S", "K", &hx(20)])),
        ("stripe_key", t(&["sk", "_live_", &an(24)]), t(&["pk", "_live_", &an(24)])),
        ("stripe_webhook_secret", t(&["wh", "sec_", &an(32)]), t(&["wh", "sec_", &an(10)])),
        ("square_token", t(&["sq0", "atp-", &an(22)]), t(&["sq0", "atp-", &an(10)])),
        ("shopify_token", t(&["shp", "at_", &hx(32)]), t(&["shp", "at_", &hx(20)])),
        (
            "braintree_token",
            t(&["access_token", "$production$", &hx(16), "$", &hx(32)]),
            t(&["access_token", "$production$", &hx(16)]),
        ),
        ("razorpay_key", t(&["rzp", "_live_", &an(14)]), t(&["rzp", "_live_", &an(8)])),
        (
            "flutterwave_key",
            t(&["FLW", "SECK-", &hx(32), "-X"]),
            t(&["FLW", "SECK-", &hx(20), "-X"]),
        ),
        ("databricks_token", t(&["da", "pi", &hx(32)]), t(&["da", "pi", &hx(20)])),
        ("vault_token", t(&["hv", "s.", &an(90)]), t(&["hv", "s.", &an(10)])),
        (
            "terraform_token",
            t(&[&an(14), ".atlas", "v1.", &an(67)]),
            t(&[&an(14), ".atlas", "v1.", &an(20)]),
        ),
        ("datadog_key", t(&["DD_API_KEY=", &hx(32)]), t(&["DD_API_KEY=", &hx(20)])),
        ("new_relic_key", t(&["NR", "AK-", &up(27)]), t(&["NR", "AK-", &up(10)])),
        ("grafana_token", t(&["gl", "sa_", &an(32), "_", &hx(8)]), t(&["gl", "sa_", &an(32)])),
        ("sentry_token", t(&["sntr", "yu_", &hx(64)]), t(&["sntr", "yu_", &hx(20)])),
        (
            "dynatrace_token",
            t(&["dt0", "c01.", &up(24), ".", &up(64)]),
            t(&["dt0", "c01.", &up(24), ".", &up(20)]),
        ),
        ("pulumi_token", t(&["pu", "l-", &hx(40)]), t(&["pu", "l-", &hx(20)])),
        ("doppler_token", t(&["dp", ".pt.", &an(43)]), t(&["dp", ".pt.", &an(20)])),
        ("linear_key", t(&["lin", "_api_", &an(40)]), t(&["lin", "_api_", &an(20)])),
        ("notion_token", t(&["nt", "n_", &an(46)]), t(&["nt", "n_", &an(20)])),
        (
            "airtable_token",
            t(&["pa", "t", &an(14), ".", &hx(64)]),
            t(&["pa", "t", &an(14), ".", &hx(20)]),
        ),
        (
            "asana_token",
            t(&["1/", "12", &dg(14), ":", &hx(32)]),
            t(&["1/", "12", &dg(10), ":", &hx(32)]),
        ),
        ("figma_token", t(&["fig", "d_", &an(44)]), t(&["fig", "d_", &an(20)])),
        ("postman_key", t(&["PM", "AK-", &hx(24), "-", &hx(34)]), t(&["PM", "AK-", &hx(24)])),
        ("planetscale_token", t(&["pscale", "_tkn_", &an(43)]), t(&["pscale", "_tkn_", &an(10)])),
        ("supabase_key", t(&["sb", "p_", &hx(40)]), t(&["sb", "p_", &hx(20)])),
        ("typeform_token", t(&["tf", "p_", &an(59)]), t(&["tf", "p_", &an(20)])),
        ("onepassword_token", t(&["ops_", "eyJ", &an(260)]), t(&["ops_", "eyJ", &an(40)])),
        ("facebook_token", t(&["EA", "AC", &an(160)]), t(&["EA", "AC", &an(20)])),
        (
            "jwt",
            t(&["ey", "J", &an(30), ".ey", "J", &an(80), ".", &an(43)]),
            t(&["ey", "J", &an(30), ".ey", "J", &an(80)]),
        ),
        (
            "url_password",
            t(&["postgres://app:", &an(12), "@db.internal:5432/x"]),
            t(&["postgres://app:", "password", "@db.internal:5432/x"]),
        ),
        (
            "bearer_token",
            t(&["Authorization: Bearer ", &an(40)]),
            t(&["Authorization: Bearer ", &"a".repeat(40)]),
        ),
        (
            "basic_authorization",
            t(&["Authorization: Basic ", &an(24), "=="]),
            t(&["Authorization: Basic ", &"a".repeat(24)]),
        ),
        (
            "generic_key",
            t(&["api_key = \"", &an(32), "\""]),
            t(&["api_key = \"", "your-api-key-goes-here-1234", "\""]),
        ),
        ("password", t(&["password: '", &an(14), "'"]), t(&["password: '", "aaaaaaaaaa", "'"])),
    ]
}

#[test]
fn every_format_finds_its_own_and_not_its_neighbour() {
    let secrets = Secrets::builtin().unwrap();
    for (name, holds, misses) in cases() {
        let rule = format!("secret.{name}");
        let text = format!("see this: {holds} and go on");
        let found = secrets.find(&text);
        assert!(found.iter().any(|(found, ..)| *found == rule), "{rule} not found: {found:?}");
        let missed = secrets.find(&format!("see this: {misses} and go on"));
        assert!(missed.iter().all(|(found, ..)| *found != rule), "{rule} found in its near miss");
    }
}

#[test]
fn every_format_has_a_case() {
    let mut tested: Vec<_> =
        cases().into_iter().map(|(name, ..)| format!("secret.{name}")).collect();
    let mut all: Vec<_> = FORMATS.iter().map(|format| format.rule.to_owned()).collect();
    tested.sort();
    all.sort();
    assert_eq!(tested, all);
    assert!(all.len() >= 70, "{}", all.len());
}

#[test]
fn a_span_covers_the_secret_alone() {
    let secrets = Secrets::builtin().unwrap();
    let key = an(12);
    let text = format!("postgres://app:{key}@db.internal/x");
    let found = secrets.find(&text);
    assert_eq!(found.len(), 1);
    assert_eq!(&text[found[0].2.clone()], key);
}

#[test]
fn an_encoded_secret_is_found_where_it_stands() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let encoded = STANDARD.encode(t(&["key ", "gh", "p_", &an(36)]));
    let text = format!("decode {encoded} please");
    let mut findings = Vec::new();
    let segment = Segment::new(3, &text, Origin::User, 0);
    Secrets::builtin().unwrap().scan(&segment, &Views::of(&text), &mut findings);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].rule, "secret.github_token");
    assert_eq!(findings[0].segment, 3);
    let span = findings[0].span.clone().unwrap();
    assert!(encoded.contains(text[span.clone()].trim()), "{span:?}");
}

#[test]
fn ordinary_text_holds_no_secret() {
    let secrets = Secrets::builtin().unwrap();
    for text in [
        "The token is sent in the Authorization header as a Bearer token.",
        "api_key = os.environ['API_KEY']",
        "password: ${DB_PASSWORD}",
        "See https://user@example.org/path and http://example.org:8080/a@b",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b fixes task-1234 and risk-5678",
        "secret = internationalization_of_components",
        "uuid 123e4567-e89b-12d3-a456-426614174000",
        "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    ] {
        assert_eq!(secrets.find(text), [], "{text}");
    }
}
