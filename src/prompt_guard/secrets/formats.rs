//! What credentials look like, from their issuers' documentation.

/// One kind of credential.
#[derive(Debug)]
pub(super) struct Format {
    pub(super) rule: &'static str,
    pub(super) score: f32,
    /// One of them is in every text that holds the format; in any case.
    pub(super) prefixes: &'static [&'static str],
    /// The first group is the secret, where there is one.
    pub(super) pattern: &'static str,
    pub(super) check: Check,
}

/// What a match must pass besides.
#[derive(Clone, Copy, Debug)]
pub(super) enum Check {
    None,
    /// At least so many bits a byte, and no placeholder.
    Entropy(f64),
    /// The same, and both letters and digits.
    Mixed(f64),
    /// No placeholder.
    Password,
}

const fn token(
    rule: &'static str,
    prefixes: &'static [&'static str],
    pattern: &'static str,
) -> Format {
    Format { rule, score: 0.95, prefixes, pattern, check: Check::None }
}

const fn random(
    rule: &'static str,
    prefixes: &'static [&'static str],
    pattern: &'static str,
    bits: f64,
) -> Format {
    Format { rule, score: 0.9, prefixes, pattern, check: Check::Mixed(bits) }
}

#[rustfmt::skip]
pub(super) static FORMATS: &[Format] = &[
    // Keys in armour: to the end mark, or as much of the body as there is.
    token("secret.private_key", &["private key"], r"-----BEGIN[ A-Z0-9]{0,40} PRIVATE KEY(?: BLOCK)?-----[\sA-Za-z0-9+/=:,.\\-]{40,8192}?(?:-----END[ A-Z0-9]{0,40} PRIVATE KEY(?: BLOCK)?-----|\z)"),
    token("secret.putty_key", &["putty-user-key-file"], r"PuTTY-User-Key-File-[23]: [a-z0-9-]+\s+Encryption: [a-z0-9-]+[^\x00]{0,4000}?Private-Lines: \d+\s+[A-Za-z0-9+/=\s]{40,4000}"),
    token("secret.age_key", &["age-secret-key-1"], r"\bAGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}\b"),
    // Clouds
    token("secret.aws_access_key", &["akia", "asia", "abia", "acca", "a3t"], r"\b((?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})\b"),
    random("secret.aws_secret_key", &["aws", "secret_access", "secretaccess"], r#"(?i)(?:aws|secret_?access)[a-z0-9_ .-]{0,25}["']?\s{0,3}(?:=>|[:=]{1,2}|\bis\b)\s{0,3}["'`]?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|\z)"#, 3.8),
    token("secret.aws_bedrock_key", &["absk", "bedrock-api-key-"], r"\b(ABSK[A-Za-z0-9+/]{109,}={0,2}|bedrock-api-key-[A-Za-z0-9+/_-]{40,})"),
    token("secret.google_api_key", &["aiza"], r"\b(AIza[A-Za-z0-9_-]{35})(?:[^A-Za-z0-9_-]|\z)"),
    token("secret.google_oauth_token", &["ya29."], r"\b(ya29\.[A-Za-z0-9_-]{30,})"),
    token("secret.google_oauth_secret", &["gocspx-"], r"\b(GOCSPX-[A-Za-z0-9_-]{28})(?:[^A-Za-z0-9_-]|\z)"),
    token("secret.azure_storage_key", &["accountkey="], r"(?i)AccountKey=([A-Za-z0-9+/]{86}==)"),
    token("secret.azure_shared_access_key", &["sharedaccesskey="], r"(?i)SharedAccessKey=([A-Za-z0-9+/]{43}=)"),
    token("secret.azure_sas", &["sig="], r"[?&]sv=20\d\d-\d\d-\d\d&[^\s]{0,300}?sig=([A-Za-z0-9%+/=]{43,100})"),
    random("secret.azure_client_secret", &["8q~", "7q~"], r"(?:^|[^A-Za-z0-9_~.-])([A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34})(?:[^A-Za-z0-9_~.-]|\z)", 3.5),
    token("secret.alibaba_access_key", &["ltai"], r"\b(LTAI[A-Za-z0-9]{17,21})\b"),
    token("secret.digitalocean_token", &["dop_v1_", "doo_v1_", "dor_v1_"], r"\b(do[opr]_v1_[a-f0-9]{64})\b"),
    token("secret.heroku_key", &["hrku-"], r"\b(HRKU-(?:AA[A-Za-z0-9_-]{58}|[0-9a-fA-F-]{36}))"),
    token("secret.fly_token", &["fo1_", "fm1", "fm2_"], r"\b(fo1_[\w-]{43}|fm[12][ar]?_[A-Za-z0-9+/]{100,}={0,3})"),
    token("secret.cloudflare_origin_key", &["v1.0-"], r"\b(v1\.0-[a-f0-9]{24}-[a-f0-9]{146})\b"),
    // Source code and packages
    token("secret.github_token", &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], r"\b(gh[pousr]_[A-Za-z0-9]{36,})\b"),
    token("secret.github_fine_grained", &["github_pat_"], r"\b(github_pat_[A-Za-z0-9_]{22,})\b"),
    token("secret.gitlab_token", &["glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glsoat-", "glft-", "glagent-", "gloas-", "glimt-", "glffct-"], r"\b(gl(?:pat|dt|rt|cbt|soat|ft|imt|ffct)-[A-Za-z0-9_=.-]{20,}|glptt-[a-f0-9]{40}|glagent-[A-Za-z0-9_-]{50}|gloas-[a-f0-9]{64})"),
    token("secret.bitbucket_token", &["atbb", "atctt3"], r"\b(ATBB[A-Za-z0-9]{32}|ATCTT3[A-Za-z0-9_=-]{24,})\b"),
    token("secret.atlassian_token", &["atatt3"], r"\b(ATATT3[A-Za-z0-9_=-]{60,})"),
    token("secret.npm_token", &["npm_"], r"\b(npm_[A-Za-z0-9]{36})\b"),
    token("secret.pypi_token", &["pypi-ageicheqawiu", "pypi-"], r"\b(pypi-AgE[A-Za-z0-9_-]{50,})"),
    token("secret.rubygems_key", &["rubygems_"], r"\b(rubygems_[a-f0-9]{48})\b"),
    token("secret.cargo_token", &["cio"], r"\b(cio[A-Za-z0-9]{32})\b"),
    token("secret.docker_token", &["dckr_pat_", "dckr_oat_"], r"\b(dckr_[po]at_[A-Za-z0-9_-]{27,32})"),
    // Models
    token("secret.anthropic_key", &["sk-ant-"], r"\b(sk-ant-[a-z]{2,8}[0-9]{2}-[A-Za-z0-9_-]{40,})"),
    token("secret.openrouter_key", &["sk-or-v1-"], r"\b(sk-or-v1-[a-f0-9]{64})\b"),
    token("secret.openai_key", &["sk-"], r"\b(sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,}|sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20})"),
    random("secret.api_key_sk", &["sk-"], r"\b(sk-[A-Za-z0-9]{32,64})\b", 3.5),
    token("secret.huggingface_token", &["hf_", "api_org_"], r"\b(hf_[A-Za-z0-9]{34,40}|api_org_[A-Za-z0-9]{34})\b"),
    token("secret.groq_key", &["gsk_"], r"\b(gsk_[A-Za-z0-9]{48,56})\b"),
    token("secret.perplexity_key", &["pplx-"], r"\b(pplx-[A-Za-z0-9]{48,56})\b"),
    token("secret.replicate_token", &["r8_"], r"\b(r8_[A-Za-z0-9]{37})\b"),
    token("secret.xai_key", &["xai-"], r"\b(xai-[A-Za-z0-9]{70,90})\b"),
    token("secret.langsmith_key", &["lsv2_"], r"\b(lsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10})\b"),
    token("secret.pinecone_key", &["pcsk_"], r"\b(pcsk_[A-Za-z0-9]{4,8}_[A-Za-z0-9]{50,70})\b"),
    // Messages and mail
    token("secret.slack_token", &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe", "xapp-", "xoxo-"], r"\b(xox[abeoprs](?:\.xox[bp])?-[0-9A-Za-z-]{20,}|xapp-\d-[A-Z0-9]+-\d+-[a-z0-9]{20,100})\b"),
    token("secret.slack_webhook", &["hooks.slack.com"], r"(hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{40,80})"),
    token("secret.discord_webhook", &["/api/webhooks/"], r"(discord(?:app)?\.com/api/webhooks/\d{17,20}/[A-Za-z0-9_-]{60,72})"),
    random("secret.discord_token", &["m", "n", "o"], r"\b([MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38})(?:[^A-Za-z0-9_-]|\z)", 4.0),
    token("secret.telegram_token", &[":aa"], r"\b(\d{8,10}:AA[A-Za-z0-9_-]{33})(?:[^A-Za-z0-9_-]|\z)"),
    token("secret.teams_webhook", &[".webhook.office.com"], r"(\w+\.webhook\.office\.com/webhookb2/[a-f0-9-]{36}@[a-f0-9-]{36}/IncomingWebhook/[a-f0-9]{32}/[a-f0-9-]{36})"),
    token("secret.sendgrid_key", &["sg."], r"\b(SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50})(?:[^A-Za-z0-9_-]|\z)"),
    token("secret.mailgun_key", &["key-", "pubkey-"], r"\b((?:pub)?key-[a-f0-9]{32})\b"),
    token("secret.mailchimp_key", &["-us"], r"\b([a-f0-9]{32}-us\d{1,2})\b"),
    token("secret.brevo_key", &["xkeysib-"], r"\b(xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16})\b"),
    token("secret.twilio_key", &["sk", "ac"], r"\b((?:SK|AC)[a-f0-9]{32})\b"),
    // Payment and shops
    token("secret.stripe_key", &["sk_live", "sk_test", "rk_live", "rk_test", "sk_prod", "rk_prod"], r"\b([sr]k_(?:live|test|prod)_[A-Za-z0-9]{16,})\b"),
    token("secret.stripe_webhook_secret", &["whsec_"], r"\b(whsec_[A-Za-z0-9+/]{32,60}={0,2})"),
    token("secret.square_token", &["sq0atp-", "sq0csp-", "eaaa"], r"\b(sq0(?:atp|csp)-[A-Za-z0-9_-]{22,60}|EAAA[A-Za-z0-9_-]{60})(?:[^A-Za-z0-9_-]|\z)"),
    token("secret.shopify_token", &["shpat_", "shpca_", "shppa_", "shpss_"], r"\b(shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32})\b"),
    token("secret.braintree_token", &["access_token$production$"], r"(access_token\$production\$[a-z0-9]{16}\$[a-f0-9]{32})\b"),
    token("secret.razorpay_key", &["rzp_live_"], r"\b(rzp_live_[A-Za-z0-9]{14})\b"),
    token("secret.flutterwave_key", &["flwseck"], r"\b(FLWSECK(?:_TEST)?-[a-fA-F0-9]{32}-X)\b"),
    // Operations
    token("secret.databricks_token", &["dapi"], r"\b(dapi[a-f0-9]{32}(?:-\d)?)\b"),
    token("secret.vault_token", &["hvs.", "hvb.", "hvr."], r"\b(hv[bsr]\.[A-Za-z0-9_-]{24,})"),
    token("secret.terraform_token", &["atlasv1"], r"\b([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70})"),
    random("secret.datadog_key", &["datadog", "dd_api", "dd-api", "dd_app"], r#"(?i)(?:datadog|\bdd)[a-z0-9_ .-]{0,20}["']?\s{0,3}[:=]\s{0,3}["']?([a-f0-9]{40}|[a-f0-9]{32})\b"#, 2.8),
    token("secret.new_relic_key", &["nrak-", "nrii-", "nrjs-", "nraa-"], r"\b(NR(?:AK|AA)-[A-Z0-9]{27}|NRII-[A-Za-z0-9_-]{32}|NRJS-[a-f0-9]{19})(?:[^A-Za-z0-9]|\z)"),
    token("secret.grafana_token", &["glc_", "glsa_", "eyjrijoi"], r"\b(glc_[A-Za-z0-9+/]{32,}={0,2}|glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}|eyJrIjoi[A-Za-z0-9]{70,}={0,2})"),
    token("secret.sentry_token", &["sntrys_", "sntryu_"], r"\b(sntrys_eyJ[A-Za-z0-9+/=_]{80,}|sntryu_[a-f0-9]{64})"),
    token("secret.dynatrace_token", &["dt0c01."], r"\b(dt0c01\.[A-Z0-9]{24}\.[A-Z0-9]{64})\b"),
    token("secret.pulumi_token", &["pul-"], r"\b(pul-[a-f0-9]{40})\b"),
    token("secret.doppler_token", &["dp."], r"\b(dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,44})\b"),
    token("secret.linear_key", &["lin_api_", "lin_oauth_"], r"\b(lin_(?:api|oauth)_[A-Za-z0-9]{40,64})\b"),
    token("secret.notion_token", &["ntn_", "secret_"], r"\b(ntn_[A-Za-z0-9]{40,50}|secret_[A-Za-z0-9]{43})\b"),
    token("secret.airtable_token", &["pat"], r"\b(pat[A-Za-z0-9]{14}\.[a-f0-9]{64})\b"),
    token("secret.asana_token", &["/12"], r"\b([12]/12\d{14}(?:/\d{16})?:[a-f0-9]{32})\b"),
    token("secret.figma_token", &["figd_"], r"\b(figd_[A-Za-z0-9_-]{40,60})"),
    token("secret.postman_key", &["pmak-"], r"\b(PMAK-[a-f0-9]{24}-[a-f0-9]{34})\b"),
    token("secret.planetscale_token", &["pscale_"], r"\b(pscale_(?:tkn|oauth|pw)_[A-Za-z0-9_.=-]{32,64})"),
    token("secret.supabase_key", &["sbp_", "sb_secret_"], r"\b(sbp_[a-f0-9]{40}|sb_secret_[A-Za-z0-9_-]{22,40})\b"),
    token("secret.typeform_token", &["tfp_"], r"\b(tfp_[A-Za-z0-9_.=-]{59})"),
    token("secret.onepassword_token", &["ops_eyj", "a3-"], r"\b(ops_eyJ[A-Za-z0-9+/]{250,}={0,3}|A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5})"),
    token("secret.facebook_token", &["eaa"], r"\b(EAA[MC][A-Za-z0-9]{100,})\b"),
    // General
    token("secret.jwt", &["eyj"], r"\b(eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"),
    Format { rule: "secret.url_password", score: 0.9, prefixes: &["://"], pattern: r#"\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s:/?#@"'<>]{1,128}:([^\s:/?#@"'<>]{3,256})@[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]{1,255}"#, check: Check::Password },
    Format { rule: "secret.bearer_token", score: 0.85, prefixes: &["bearer "], pattern: r"(?i)\bauthorization\b.{0,12}\bbearer ([A-Za-z0-9._~+/-]{20,}={0,2})", check: Check::Entropy(3.3) },
    Format { rule: "secret.basic_authorization", score: 0.85, prefixes: &["basic "], pattern: r"(?i)\bauthorization\b.{0,12}\bbasic ([A-Za-z0-9+/]{16,}={0,2})", check: Check::Entropy(3.0) },
    Format { rule: "secret.generic_key", score: 0.82, prefixes: &["key", "token", "secret", "credential", "auth"], pattern: r#"(?i)(?:api[_ -]?key|access[_ -]?key|secret[_ -]?key|client[_ -]?secret|app[_ -]?secret|auth[_ -]?token|access[_ -]?token|refresh[_ -]?token|api[_ -]?token|api[_ -]?secret|encryption[_ -]?key|signing[_ -]?key|private[_ -]?key|secret|token|credentials?)["'`]?\]?\s{0,3}(?:=>|:=|[:=]{1,3}|\bis\b)\s{0,3}["'`]?([A-Za-z0-9_+/.=~-]{16,200})(?:[^A-Za-z0-9_+/.=~-]|\z)"#, check: Check::Mixed(3.5) },
    Format { rule: "secret.password", score: 0.8, prefixes: &["passw", "pwd"], pattern: r#"(?i)\b[a-z0-9_]{0,20}(?:password|passwd|pwd)["'`]?\]?\s{0,3}(?:=>|:=|[:=]{1,2})\s{0,3}["'`]([^\s"'`]{8,128})["'`]"#, check: Check::Entropy(2.5) },
];
