//! What credentials look like, by their issuers' documentation.

use super::{
    check::Check,
    shape::{
        MANY,
        Part::{self, Literal as L, Run, Uuid},
        Set,
    },
};

/// Tokens of one form, told by what their issuer puts into each.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) rule: &'static str,
    /// One of these is in each.
    pub(super) marks: &'static [&'static str],
    pub(super) before: &'static [Part],
    pub(super) after: &'static [Part],
    pub(super) check: Check,
}

/// Values without a form of their own, told by who is named before them.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) rule: &'static str,
    /// In small letters.
    pub(super) names: &'static [&'static str],
    pub(super) value: Part,
}

const fn token(
    rule: &'static str,
    marks: &'static [&'static str],
    after: &'static [Part],
) -> Token {
    Token { rule, marks, before: &[], after, check: Check::None }
}

const fn checked(
    rule: &'static str,
    marks: &'static [&'static str],
    after: &'static [Part],
    check: Check,
) -> Token {
    Token { rule, marks, before: &[], after, check }
}

/// Of a form that other things have too.
const fn loose(
    rule: &'static str,
    marks: &'static [&'static str],
    after: &'static [Part],
) -> Token {
    Token { rule, marks, before: &[], after, check: Check::Mixed }
}

const fn middle(
    rule: &'static str,
    before: &'static [Part],
    marks: &'static [&'static str],
    after: &'static [Part],
) -> Token {
    Token { rule, marks, before, after, check: Check::None }
}

const fn digits(count: usize) -> Part {
    Run(Set::DIGIT, count, count)
}

const fn hex(count: usize) -> Part {
    Run(Set::HEX, count, count)
}

const fn lower(count: usize) -> Part {
    Run(Set::LOWER, count, count)
}

const fn upper(count: usize) -> Part {
    Run(Set::UPPER, count, count)
}

const fn alnum(count: usize) -> Part {
    Run(Set::ALNUM, count, count)
}

const fn url(count: usize) -> Part {
    Run(Set::URL, count, count)
}

const fn base64(count: usize) -> Part {
    Run(Set::BASE64, count, count)
}

const DOT: Part = L(".");
const DASH: Part = L("-");

/// Those that say more stand before those that say less.
#[rustfmt::skip]
pub(super) static TOKENS: &[Token] = &[
    checked("secret.age_key", &["AGE-SECRET-KEY-1"], &[upper(58)], Check::Bech32),
    // Clouds
    token("secret.aws_access_key", &["AKIA", "ASIA", "ABIA", "ACCA"], &[upper(16)]),
    loose("secret.aws_access_key", &["A3T"], &[upper(17)]),
    token("secret.aws_bedrock_key", &["ABSK"], &[Run(Set::BASE64_PADDED, 109, 270)]),
    token("secret.aws_bedrock_key", &["bedrock-api-key-"], &[Run(Set::BASE64_PADDED, 40, MANY)]),
    token("secret.google_api_key", &["AIza"], &[url(35)]),
    token("secret.google_oauth_token", &["ya29."], &[Run(Set::URL, 30, MANY)]),
    token("secret.google_refresh_token", &["1//0"], &[Run(Set::URL, 40, 140)]),
    token("secret.google_oauth_secret", &["GOCSPX-"], &[url(28)]),
    token("secret.azure_storage_key", &["AccountKey="], &[base64(86), L("==")]),
    token("secret.azure_shared_access_key", &["SharedAccessKey="], &[base64(43), L("=")]),
    middle("secret.azure_client_secret", &[Run(Set::VALUE, 3, 3)], &["7Q~", "8Q~"], &[Run(Set::VALUE, 31, 34)]),
    middle("secret.azure_devops_token", &[alnum(76)], &["AZDO"], &[alnum(4)]),
    middle("secret.azure_resource_key", &[alnum(52)], &["JQQJ99"], &[alnum(26)]),
    token("secret.alibaba_access_key", &["LTAI"], &[Run(Set::ALNUM, 16, 20)]),
    loose("secret.tencent_key", &["AKID"], &[alnum(32)]),
    token("secret.yandex_api_key", &["AQVN"], &[Run(Set::URL, 35, 38)]),
    loose("secret.yandex_access_key", &["YCAJE", "YCM", "YCO", "YCN"], &[Run(Set::URL, 36, 38)]),
    loose("secret.yandex_token", &["t1."], &[Run(Set::URL_PADDED, 10, 1000), DOT, Run(Set::URL_PADDED, 86, 88)]),
    token("secret.digitalocean_token", &["dop_v1_", "doo_v1_", "dor_v1_"], &[hex(64)]),
    token("secret.heroku_key", &["HRKU-AA"], &[url(58)]),
    token("secret.heroku_key", &["HRKU-"], &[Uuid]),
    token("secret.fly_token", &["fo1_"], &[url(43)]),
    token("secret.fly_token", &["fm1_", "fm1a_", "fm1r_", "fm2_"], &[Run(Set::BASE64_PADDED, 100, MANY)]),
    token("secret.cloudflare_origin_key", &["v1.0-"], &[hex(24), DASH, hex(146)]),
    token("secret.scalingo_token", &["tk-us-"], &[url(48)]),
    token("secret.ibm_iam_key", &["ApiKey-"], &[Uuid]),
    token("secret.linode_token", &["lin_pat_"], &[hex(64)]),
    // Source code and packages
    checked("secret.github_token", &["ghp_", "gho_", "ghu_", "ghs_"], &[alnum(36)], Check::Base62),
    checked("secret.github_token", &["ghr_"], &[alnum(36)], Check::Base62),
    token("secret.github_token", &["ghr_"], &[alnum(76)]),
    // Tokens of installations carry data since 2026.
    token("secret.github_token", &["ghs_"], &[Run(Set::DOTTED, 80, MANY)]),
    token("secret.github_fine_grained", &["github_pat_"], &[Run(Set::WORD, 82, 82)]),
    token("secret.gitlab_token", &["glpat-", "glrt-", "gldt-"], &[Run(Set::URL, 27, 300), DOT, lower(2), Run(Set::DOTTED, 7, 9)]),
    token("secret.gitlab_token", &["glpat-", "gldt-", "glrt-", "glft-", "glsoat-", "glffct-"], &[url(20)]),
    token("secret.gitlab_token", &["glimt-"], &[url(25)]),
    token("secret.gitlab_token", &["glptt-"], &[hex(40)]),
    token("secret.gitlab_token", &["glcbt-"], &[Run(Set::ALNUM, 1, 5), L("_"), url(20)]),
    token("secret.gitlab_token", &["glagent-"], &[url(50)]),
    token("secret.gitlab_token", &["gloas-"], &[hex(64)]),
    token("secret.gitlab_token", &["GR1348941"], &[url(20)]),
    token("secret.gitlab_session", &["_gitlab_session="], &[lower(32)]),
    token("secret.bitbucket_token", &["ATBB"], &[alnum(32)]),
    token("secret.bitbucket_token", &["ATCTT3"], &[Run(Set::URL_PADDED, 24, MANY)]),
    token("secret.atlassian_token", &["ATATT3"], &[Run(Set::URL_PADDED, 170, 200)]),
    checked("secret.npm_token", &["npm_"], &[alnum(36)], Check::Base62),
    token("secret.pypi_token", &["pypi-AgEIcHlwaS5vcmc", "pypi-AgENdGVzdC5weXBpLm9yZw"], &[Run(Set::URL, 50, MANY)]),
    token("secret.rubygems_key", &["rubygems_"], &[hex(48)]),
    loose("secret.nuget_key", &["oy2"], &[lower(43)]),
    token("secret.clojars_token", &["CLOJARS_"], &[lower(60)]),
    checked("secret.cargo_token", &["cio_tp_"], &[alnum(32)], Check::ExclusiveOr),
    loose("secret.cargo_token", &["cio"], &[alnum(32)]),
    token("secret.docker_token", &["dckr_pat_"], &[url(27)]),
    token("secret.docker_token", &["dckr_oat_"], &[url(32)]),
    loose("secret.artifactory_key", &["AKCp"], &[alnum(69)]),
    token("secret.artifactory_key", &["cmVmd"], &[alnum(59)]),
    token("secret.sonar_token", &["squ_", "sqp_", "sqa_"], &[hex(40)]),
    token("secret.sourcegraph_token", &["sgp_"], &[hex(16), L("_"), hex(40)]),
    token("secret.sourcegraph_token", &["sgp_local_", "sgp_"], &[hex(40)]),
    token("secret.buildkite_token", &["bkua_"], &[hex(40)]),
    token("secret.circleci_token", &["CCIPAT_"], &[Run(Set::ALNUM, 22, 22), L("_"), hex(40)]),
    token("secret.snyk_token", &["snyk_uat.", "snyk_sat."], &[Run(Set::DOTTED, 60, MANY)]),
    // Models
    token("secret.anthropic_key", &["sk-ant-api03-", "sk-ant-admin01-", "sk-ant-oat01-", "sk-ant-ort01-", "sk-ant-sid01-"], &[Run(Set::URL, 80, 120)]),
    token("secret.openrouter_key", &["sk-or-v1-"], &[hex(64)]),
    token("secret.openai_key", &["sk-proj-", "sk-svcacct-", "sk-admin-", "sk-None-"], &[Run(Set::URL, 40, 180)]),
    middle("secret.openai_key", &[L("sk-"), alnum(20)], &["T3BlbkFJ"], &[alnum(20)]),
    loose("secret.api_key_sk", &["sk-"], &[alnum(48)]),
    loose("secret.api_key_sk", &["sk-"], &[alnum(32)]),
    token("secret.elevenlabs_key", &["sk_"], &[hex(48)]),
    token("secret.huggingface_token", &["hf_", "api_org_"], &[alnum(34)]),
    token("secret.groq_key", &["gsk_"], &[alnum(52)]),
    token("secret.perplexity_key", &["pplx-"], &[alnum(48)]),
    loose("secret.replicate_token", &["r8_"], &[alnum(37)]),
    token("secret.xai_key", &["xai-"], &[alnum(80)]),
    token("secret.nvidia_key", &["nvapi-"], &[url(64)]),
    loose("secret.fireworks_key", &["fw_"], &[alnum(24)]),
    loose("secret.tavily_key", &["tvly-dev-", "tvly-prod-", "tvly-"], &[alnum(32)]),
    token("secret.langsmith_key", &["lsv2_pt_", "lsv2_sk_"], &[hex(32), L("_"), hex(10)]),
    token("secret.langfuse_key", &["sk-lf-"], &[Uuid]),
    token("secret.pinecone_key", &["pcsk_"], &[Run(Set::ALNUM, 4, 8), L("_"), Run(Set::ALNUM, 50, 70)]),
    token("secret.jina_key", &["jina_"], &[Run(Set::URL, 60, 62)]),
    loose("secret.llama_cloud_key", &["llx-"], &[alnum(48)]),
    token("secret.firecrawl_key", &["fc-"], &[hex(32)]),
    // Messages and mail
    token("secret.slack_token", &["xoxb-"], &[Run(Set::DIGIT, 8, 14), DASH, Run(Set::URL, 18, 60)]),
    token("secret.slack_token", &["xoxp-", "xoxe-"], &[Run(Set::DIGIT, 10, 13), DASH, Run(Set::DIGIT, 10, 13), DASH, Run(Set::DIGIT, 10, 13), DASH, Run(Set::ALNUM, 28, 34)]),
    token("secret.slack_token", &["xoxo-", "xoxs-"], &[Run(Set::DIGIT, 1, 14), DASH, Run(Set::DIGIT, 1, 14), DASH, Run(Set::DIGIT, 1, 14), DASH, Run(Set::ANY_HEX, 10, 64)]),
    token("secret.slack_token", &["xoxa-2-", "xoxr-2-", "xoxa-", "xoxr-"], &[Run(Set::URL, 8, 80)]),
    token("secret.slack_token", &["xoxe.xoxb-1-", "xoxe.xoxp-1-"], &[Run(Set::UPPER, 163, 166)]),
    token("secret.slack_token", &["xoxe-1-"], &[upper(146)]),
    token("secret.slack_token", &["xapp-1-", "xapp-2-"], &[Run(Set::UPPER, 9, 12), DASH, Run(Set::DIGIT, 10, 14), DASH, lower(64)]),
    token("secret.slack_token", &["xoxc-", "xoxd-"], &[Run(Set::VALUE, 40, 300)]),
    token("secret.slack_webhook", &["hooks.slack.com/services/"], &[Run(Set::BASE64, 43, 56)]),
    token("secret.slack_webhook", &["hooks.slack.com/workflows/", "hooks.slack.com/triggers/"], &[Run(Set::BASE64, 40, 80)]),
    token("secret.discord_webhook", &["discord.com/api/webhooks/", "discordapp.com/api/webhooks/"], &[Run(Set::DIGIT, 17, 20), L("/"), Run(Set::URL, 60, 72)]),
    // An account's number in base64 begins each.
    loose("secret.discord_token", &["MT", "Mj", "Mz", "ND", "NT", "Nj", "Nz", "OD", "OT"], &[Run(Set::ALNUM, 21, 26), DOT, url(6), DOT, Run(Set::URL, 27, 38)]),
    middle("secret.telegram_token", &[Run(Set::DIGIT, 8, 10)], &[":AA"], &[url(33)]),
    middle("secret.teams_webhook", &[Run(Set::URL, 1, 63)], &[".webhook.office.com/webhookb2/"], &[Uuid, L("@"), Uuid, L("/IncomingWebhook/"), hex(32), L("/"), Uuid]),
    token("secret.sendgrid_key", &["SG."], &[url(22), DOT, url(43)]),
    token("secret.mailgun_key", &["key-", "pubkey-"], &[hex(32)]),
    middle("secret.mailchimp_key", &[hex(32)], &["-us"], &[Run(Set::DIGIT, 1, 2)]),
    token("secret.brevo_key", &["xkeysib-", "xsmtpsib-"], &[hex(64), DASH, alnum(16)]),
    loose("secret.resend_key", &["re_"], &[alnum(8), L("_"), alnum(24)]),
    token("secret.mailersend_key", &["mlsn."], &[hex(64)]),
    token("secret.twilio_key", &["SK", "AC"], &[Run(Set::ANY_HEX, 32, 32)]),
    token("secret.intercom_token", &["dG9rO"], &[Run(Set::BASE64_PADDED, 54, 60)]),
    // Payment and shops
    token("secret.stripe_key", &["sk_live_", "sk_test_", "rk_live_", "rk_test_", "sk_prod_", "rk_prod_"], &[Run(Set::ALNUM, 16, 247)]),
    token("secret.stripe_webhook_secret", &["whsec_"], &[Run(Set::BASE64_PADDED, 32, 64)]),
    token("secret.square_token", &["sq0atp-", "sq0csp-", "sq0idp-"], &[Run(Set::URL, 22, 60)]),
    loose("secret.square_token", &["EAAA"], &[url(60)]),
    token("secret.shopify_token", &["shpat_", "shpca_", "shppa_", "shpss_"], &[Run(Set::ANY_HEX, 32, 32)]),
    token("secret.braintree_token", &["access_token$production$", "access_token$sandbox$"], &[lower(16), L("$"), hex(32)]),
    token("secret.razorpay_key", &["rzp_live_", "rzp_test_"], &[alnum(14)]),
    token("secret.flutterwave_key", &["FLWSECK-", "FLWSECK_TEST-"], &[Run(Set::LOWER, 32, 32), L("-X")]),
    token("secret.flutterwave_key", &["FLWSECK_TEST"], &[Run(Set::LOWER, 12, 12)]),
    loose("secret.easypost_key", &["EZAK", "EZTK"], &[alnum(54)]),
    token("secret.shippo_key", &["shippo_live_", "shippo_test_"], &[Run(Set::ANY_HEX, 40, 40)]),
    token("secret.duffel_token", &["duffel_live_", "duffel_test_"], &[Run(Set::URL_PADDED, 43, 43)]),
    token("secret.plaid_token", &["access-sandbox-", "access-development-", "access-production-"], &[Uuid]),
    token("secret.lob_key", &["live_", "test_"], &[hex(35)]),
    token("secret.lob_key", &["live_pub_", "test_pub_"], &[hex(31)]),
    loose("secret.gocardless_token", &["live_"], &[Run(Set::URL_PADDED, 40, 40)]),
    token("secret.adyen_key", &["AQE"], &[Run(Set::BASE64, 60, 200), DASH, Run(Set::BASE64_PADDED, 40, 60)]),
    loose("secret.mollie_key", &["live_", "test_"], &[alnum(30)]),
    token("secret.paystack_key", &["sk_live_", "sk_test_"], &[hex(40)]),
    // Operations
    token("secret.databricks_token", &["dapi"], &[hex(32)]),
    token("secret.vault_token", &["hvs.", "hvb.", "hvr."], &[Run(Set::URL, 90, 300)]),
    loose("secret.vault_token", &["hvs.", "s."], &[alnum(24)]),
    middle("secret.terraform_token", &[alnum(14)], &[".atlasv1."], &[Run(Set::URL_PADDED, 60, 70)]),
    token("secret.new_relic_key", &["NRAK-", "NRAA-"], &[upper(27)]),
    token("secret.new_relic_key", &["NRII-"], &[url(32)]),
    token("secret.new_relic_key", &["NRJS-"], &[hex(19)]),
    token("secret.grafana_token", &["glc_"], &[Run(Set::BASE64_PADDED, 32, 400)]),
    checked("secret.grafana_token", &["glsa_"], &[alnum(32), L("_"), Run(Set::ANY_HEX, 8, 8)], Check::Hexadecimal),
    token("secret.grafana_token", &["eyJrIjoi"], &[Run(Set::BASE64_PADDED, 70, 400)]),
    token("secret.sentry_token", &["sntrys_eyJ"], &[Run(Set::BASE64_PADDED, 60, MANY), L("_"), base64(43)]),
    token("secret.sentry_token", &["sntryu_"], &[hex(64)]),
    token("secret.dynatrace_token", &["dt0c01.", "dt0s01.", "dt0s16."], &[upper(24), DOT, upper(64)]),
    token("secret.pulumi_token", &["pul-"], &[hex(40)]),
    token("secret.prefect_token", &["pnu_", "pnb_"], &[alnum(36)]),
    token("secret.doppler_token", &["dp.pt.", "dp.ct.", "dp.sa.", "dp.scim.", "dp.audit."], &[Run(Set::ALNUM, 40, 44)]),
    token("secret.doppler_token", &["dp.st."], &[Run(Set::URL, 2, 35), DOT, Run(Set::ALNUM, 40, 44)]),
    loose("secret.infracost_key", &["ico-"], &[alnum(32)]),
    loose("secret.harness_token", &["pat.", "sat."], &[url(22), DOT, alnum(24), DOT, alnum(20)]),
    loose("secret.octopus_key", &["API-"], &[upper(26)]),
    token("secret.openshift_token", &["sha256~"], &[url(43)]),
    token("secret.defined_networking_token", &["dnkey-"], &[Run(Set::URL_PADDED, 26, 26), DASH, Run(Set::URL_PADDED, 52, 52)]),
    token("secret.clickhouse_key", &["4b1d"], &[alnum(38)]),
    token("secret.planetscale_token", &["pscale_tkn_", "pscale_oauth_", "pscale_pw_"], &[Run(Set::DOTTED, 32, 64)]),
    token("secret.supabase_key", &["sbp_"], &[hex(40)]),
    token("secret.supabase_key", &["sb_secret_"], &[Run(Set::URL, 22, 40)]),
    token("secret.neon_key", &["napi_"], &[lower(64)]),
    token("secret.posthog_key", &["phx_"], &[Run(Set::ALNUM, 43, 48)]),
    token("secret.tailscale_key", &["tskey-auth-", "tskey-api-", "tskey-client-"], &[Run(Set::ALNUM, 10, 20), DASH, Run(Set::ALNUM, 24, 40)]),
    token("secret.launchdarkly_key", &["sdk-", "api-"], &[Uuid]),
    token("secret.onepassword_token", &["ops_eyJ"], &[Run(Set::BASE64_PADDED, 250, MANY)]),
    token("secret.onepassword_token", &["A3-"], &[upper(6), DASH, Run(Set::UPPER, 6, 6), DASH, upper(5), DASH, upper(5), DASH, upper(5), DASH, upper(5)]),
    token("secret.onepassword_token", &["A3-"], &[upper(6), DASH, upper(11), DASH, upper(5), DASH, upper(5), DASH, upper(5)]),
    middle("secret.maxmind_key", &[alnum(6), L("_"), alnum(29)], &["_mmk"], &[]),
    middle("secret.authress_key", &[L("sc_"), Run(Set::LOWER, 5, 30), DOT, Run(Set::LOWER, 4, 6)], &[".acc_", ".acc-"], &[Run(Set::URL, 10, 32), DOT, Run(Set::BASE64_PADDED, 30, 120)]),
    // Work and content
    token("secret.linear_key", &["lin_api_", "lin_oauth_"], &[Run(Set::ALNUM, 40, 64)]),
    token("secret.notion_token", &["ntn_"], &[digits(11), alnum(35)]),
    loose("secret.notion_token", &["secret_"], &[alnum(43)]),
    token("secret.airtable_token", &["pat"], &[alnum(14), DOT, hex(64)]),
    token("secret.asana_token", &["1/12", "2/12"], &[digits(14), L(":"), hex(32)]),
    token("secret.asana_token", &["1/12", "2/12"], &[digits(14), L("/"), digits(16), L(":"), hex(32)]),
    token("secret.asana_token", &["0/"], &[hex(32)]),
    token("secret.figma_token", &["figd_"], &[Run(Set::URL, 40, 60)]),
    token("secret.postman_key", &["PMAK-"], &[hex(24), DASH, hex(34)]),
    token("secret.typeform_token", &["tfp_"], &[Run(Set::DOTTED, 59, 59)]),
    token("secret.hubspot_token", &["pat-na1-", "pat-na2-", "pat-eu1-"], &[Uuid]),
    token("secret.readme_key", &["rdme_"], &[Run(Set::LOWER, 70, 70)]),
    token("secret.frameio_token", &["fio-u-"], &[Run(Set::URL_PADDED, 64, 64)]),
    token("secret.contentful_token", &["CFPAT-"], &[url(43)]),
    token("secret.mapbox_token", &["sk.eyJ", "pk.eyJ", "tk.eyJ"], &[Run(Set::URL, 57, 100), DOT, url(22)]),
    token("secret.mapbox_token", &["pk."], &[lower(60), DOT, lower(22)]),
    token("secret.adobe_secret", &["p8e-"], &[alnum(32)]),
    token("secret.dropbox_token", &["sl."], &[Run(Set::URL_PADDED, 130, 152)]),
    token("secret.dropbox_token", &["sl.u."], &[Run(Set::URL_PADDED, 130, MANY)]),
    middle("secret.dropbox_token", &[alnum(11)], &["AAAAAAAAAA"], &[Run(Set::URL_PADDED, 43, 43)]),
    loose("secret.beamer_key", &["b_"], &[Run(Set::URL_PADDED, 44, 44)]),
    token("secret.settlemint_token", &["sm_aat_", "sm_pat_", "sm_sat_"], &[alnum(16)]),
    token("secret.intra42_secret", &["s-s4t2ud-", "s-s4t2af-"], &[hex(64)]),
    token("secret.facebook_token", &["EAAM", "EAAC"], &[Run(Set::ALNUM, 100, MANY)]),
    middle("secret.facebook_app_token", &[Run(Set::DIGIT, 15, 16)], &["|"], &[Run(Set::URL, 27, 40)]),
    token("secret.twitter_bearer_token", &["AAAAAAAAAAAAAAAAAAAAA"], &[Run(Set::VALUE, 80, 120)]),
    // General
    token("secret.jwt", &["eyJ"], &[Run(Set::URL, 10, MANY), L(".eyJ"), Run(Set::URL, 10, MANY), DOT, Run(Set::URL, 10, MANY)]),
    loose("secret.jwt", &["ZXlK"], &[Run(Set::BASE64_PADDED, 120, MANY)]),
];

const fn named(
    rule: &'static str,
    names: &'static [&'static str],
    set: Set,
    least: usize,
    most: usize,
) -> Named {
    Named { rule, names, value: Run(set, least, most) }
}

#[rustfmt::skip]
pub(super) static NAMED: &[Named] = &[
    named("secret.aws_secret_key", &["aws", "secret_access", "secretaccess"], Set::BASE64, 40, 40),
    named("secret.azure_subscription_key", &["ocp-apim-subscription", "azure_openai", "azure-openai"], Set::HEX, 32, 32),
    named("secret.alibaba_secret_key", &["alibaba", "aliyun"], Set::ALNUM, 30, 30),
    named("secret.cloudflare_key", &["cloudflare", "cf_api"], Set::URL, 37, 40),
    Named { rule: "secret.heroku_key", names: &["heroku"], value: Uuid },
    named("secret.datadog_key", &["datadog", "dd_api", "dd-api", "dd_app"], Set::HEX, 32, 40),
    named("secret.twilio_secret", &["twilio"], Set::HEX, 32, 32),
    named("secret.okta_token", &["okta"], Set::URL_PADDED, 42, 42),
    named("secret.algolia_key", &["algolia"], Set::LOWER, 32, 32),
    named("secret.cohere_key", &["cohere", "co_api_key"], Set::ALNUM, 40, 40),
    named("secret.mistral_key", &["mistral"], Set::ALNUM, 32, 32),
    named("secret.together_key", &["together_api", "togetherai"], Set::HEX, 64, 64),
    named("secret.deepl_key", &["deepl"], Set::VALUE, 36, 39),
    named("secret.wandb_key", &["wandb"], Set::HEX, 40, 40),
    named("secret.discord_secret", &["discord"], Set::URL_PADDED, 32, 64),
    named("secret.facebook_secret", &["facebook", "fb_app"], Set::HEX, 32, 32),
    named("secret.twitter_secret", &["twitter"], Set::ALNUM, 25, 50),
    named("secret.linkedin_secret", &["linkedin"], Set::ALNUM, 16, 16),
    named("secret.twitch_token", &["twitch"], Set::LOWER, 30, 30),
    named("secret.adobe_key", &["adobe"], Set::HEX, 32, 32),
    named("secret.adafruit_key", &["adafruit"], Set::URL, 32, 32),
    named("secret.asana_secret", &["asana"], Set::LOWER, 32, 32),
    named("secret.atlassian_token", &["atlassian", "confluence", "jira"], Set::LOWER, 24, 24),
    named("secret.bitbucket_secret", &["bitbucket"], Set::URL_PADDED, 32, 64),
    named("secret.cisco_meraki_key", &["meraki"], Set::HEX, 40, 40),
    named("secret.codecov_token", &["codecov"], Set::UUID, 32, 36),
    named("secret.coinbase_key", &["coinbase"], Set::URL, 64, 64),
    named("secret.confluent_secret", &["confluent"], Set::BASE64, 64, 64),
    named("secret.contentful_token", &["contentful"], Set::URL_PADDED, 43, 43),
    named("secret.drone_token", &["droneci", "drone_token"], Set::ALNUM, 32, 32),
    named("secret.etsy_key", &["etsy"], Set::LOWER, 24, 24),
    named("secret.fastly_token", &["fastly"], Set::URL_PADDED, 32, 32),
    named("secret.finicity_key", &["finicity"], Set::HEX, 32, 32),
    named("secret.finnhub_key", &["finnhub"], Set::ALNUM, 20, 20),
    named("secret.flickr_key", &["flickr"], Set::HEX, 32, 32),
    named("secret.freshbooks_key", &["freshbooks"], Set::HEX, 64, 64),
    Named { rule: "secret.hubspot_key", names: &["hubspot"], value: Uuid },
    named("secret.intercom_key", &["intercom"], Set::URL_PADDED, 60, 60),
    named("secret.jfrog_key", &["jfrog", "artifactory"], Set::ALNUM, 64, 73),
    named("secret.kraken_key", &["kraken"], Set::BASE64_PADDED, 56, 90),
    named("secret.kucoin_key", &["kucoin"], Set::UUID, 24, 36),
    named("secret.launchdarkly_token", &["launchdarkly"], Set::URL_PADDED, 40, 40),
    named("secret.looker_secret", &["looker"], Set::ALNUM, 20, 24),
    named("secret.mattermost_token", &["mattermost"], Set::LOWER, 26, 26),
    named("secret.messagebird_key", &["messagebird"], Set::ALNUM, 25, 36),
    named("secret.netlify_token", &["netlify"], Set::URL_PADDED, 40, 46),
    named("secret.new_relic_key", &["new_relic", "newrelic", "new-relic"], Set::HEX, 40, 64),
    named("secret.nytimes_key", &["nytimes"], Set::ALNUM, 32, 32),
    named("secret.plaid_secret", &["plaid"], Set::HEX, 30, 30),
    named("secret.rapidapi_key", &["rapidapi"], Set::URL, 50, 50),
    named("secret.sendbird_token", &["sendbird"], Set::HEX, 40, 40),
    named("secret.sentry_token", &["sentry"], Set::HEX, 64, 64),
    Named { rule: "secret.snyk_token", names: &["snyk"], value: Uuid },
    Named { rule: "secret.squarespace_key", names: &["squarespace"], value: Uuid },
    named("secret.sumologic_key", &["sumo"], Set::ALNUM, 64, 64),
    named("secret.travis_token", &["travis"], Set::URL, 22, 22),
    named("secret.zendesk_token", &["zendesk"], Set::ALNUM, 40, 40),
];
