use super::*;
use crate::{
    inference::Segment,
    prompt_guard::{Finding, Views},
};

#[derive(Debug)]
struct Nothing;

impl Detector for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn scan(&self, _: &Segment<'_>, _: &Views<'_>, _: &mut Vec<Finding>) {}
}

impl AsyncDetector for Nothing {
    fn name(&self) -> &'static str {
        "waits"
    }

    fn scan(
        &self,
        _: &Arc<crate::inference::Prompt>,
    ) -> crate::future::ReadyOr<Result<Vec<Finding>, crate::BoxError>> {
        crate::future::ReadyOr::ready(Ok(Vec::new()))
    }
}

fn detectors() -> DetectorSet {
    let limit = std::time::Duration::from_secs(1);
    DetectorSet::new()
        .detector("x", Nothing)
        .async_detector("waits", Nothing, limit, OnUnavailable::Refuse)
        .unwrap()
}

const HEAD: &str = "format = 1\nname = 'acme'\nversion = '7'\n";

fn read(text: &str) -> Result<PolicyFile, BuildError> {
    PolicyFile::from_toml(&format!("{HEAD}{text}"), &detectors())
}

#[test]
fn all_that_can_be_said_is_read() {
    let file = read(
        "[default]\nmax_body = 10\nmax_turns = 3\nmax_answer = 20\nstream_window = 30\n\
         hold_back = { bytes = 40, milliseconds = 50 }\nrefuse_origins = ['system', 'tool_result']\n\
         restore_answers = false\nunread = 'insecure_pass'\nunknown_endpoint = 'refuse'\ngrpc = 'insecure_pass'\n\
         report_only = true\n\
         [default.prompt]\nx = { action = 'hash', threshold = 0.5, dry_run = true, insecure_skip = ['system'] }\n\
         waits = { action = 'block' }\n\
         [default.answer]\nx = { action = 'pseudonymize' }\n\
         [[policies]]\nname = 'a'\n\
         when = { all = [{ path = '/x' }, { path_prefix = '/y' }, { endpoint = 'messages' }, { tier = 't' }, { scope = 's' },\n\
         { role = 'r' }, { peer = 'dns:a.b' }, { any = [{ claim = { name = 'c', equals = 7 } }] }, { not = { claim = { name = \
         '/c/d', one_of = ['e', true] } } }, { claim = { name = 'c', contains = 'f' } }] }\n\
         [[policies.except]]\nrule = 'r'\ncategory = 'leak'\norigin = 'user'\naction = 'report'\nthreshold = 1.0\ndry_run = true\n\
         [[policies]]\nname = 'b'\n",
    )
    .unwrap();
    assert_eq!((file.name(), file.version()), ("acme", "7"));
    assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b"]);
    let default = file.default.unwrap();
    assert_eq!((default.max_body, default.max_answer, default.turns.most), (10, 20, 3));
    assert!(!default.enforced && !default.restore);
    assert_eq!((default.local.len(), default.remote.len(), default.output.len()), (1, 1, 1));
    assert!(file.policies[0].1.is_some() && file.policies[1].1.is_none());
}

#[test]
fn a_detector_that_waits_has_its_limits_for_all_policies_together() {
    let file = read(
        "[[policies]]\nname = 'a'\n[policies.prompt]\nwaits = { action = 'block' }\n\
         [[policies]]\nname = 'b'\n[policies.prompt]\nwaits = { action = 'report' }\n",
    );
    let [(_, _, a), (_, _, b)] = &file.unwrap().policies[..] else { panic!() };
    assert!(a.0.remote[0].shares_limits(&b.0.remote[0]));
    assert_ne!(a.0.remote[0].rule, b.0.remote[0].rule);
}

#[test]
fn what_can_t_be_kept_is_named_with_its_line() {
    let policy = |rest: &str| format!("[[policies]]\nname = 'a'\n{rest}");
    for (text, expected) in [
        ("", "nothing could ever be admitted"),
        ("[default]\nname = 'x'", "line 4: policy default: the default policy has no name"),
        ("[default]\nmax_bodies = 1", "line 5: unknown field `max_bodies`"),
        ("[default]\nmax_body = 0", "line 4: policy default: max_body is invalid"),
        ("[[policies]]\nreport_only = true", "line 4: it has no name"),
        ("[[policies]]\nname = 'a b'", "line 4: its name is not 1 to 64"),
        ("[[policies]]\nname = 'default'", "line 4: policy default: its name is taken"),
        (&policy("\n[[policies]]\nname = 'a'"), "line 7: policy a: its name is taken"),
        (
            &policy("[policies.prompt]\nsecret = { action = 'block' }"),
            "line 7: policy a: there is no detector secret",
        ),
        (
            &policy("[policies.answer]\nwaits = { action = 'block' }"),
            "line 7: policy a: a detector that waits",
        ),
        (
            &policy("[policies.answer]\ny = { action = 'block' }"),
            "line 7: policy a: there is no detector y",
        ),
        (&policy("[policies.prompt]\nx = { action = 'drop' }"), "line 7: expected one of `report`"),
        (
            &policy("[policies.prompt]\nx = { action = 'block', threshold = 7 }"),
            "policy a: score is invalid",
        ),
        (
            &policy("[policies.prompt]\nx = { action = 'block', at = 7 }"),
            "line 7: unknown field `at`",
        ),
        (&policy("when = { user = 'x' }"), "line 6: expected one of `path`"),
        (&policy("when = { path = '/x', scope = 'y' }"), "line 6: "),
        (
            &policy("when = { path = '/' }"),
            "policy a: condition of a guard policy is invalid: the path",
        ),
        (&policy("when = { all = [] }"), "policy a: condition of a guard policy is empty"),
        (&policy("when = { peer = 'x' }"), "line 6: peer rule is invalid"),
        (&policy("when = { claim = { name = 'x' } }"), "policy a: a claim has not one of"),
        (
            &policy("when = { claim = { name = 'x', one_of = [] } }"),
            "policy a: condition of a guard policy is empty",
        ),
        (
            &policy("[[policies.except]]\naction = 'report'"),
            "line 6: policy a: an exception names no",
        ),
        (&policy("[[policies.except]]\nrule = 'x'"), "line 6: policy a: an exception has no"),
        ("policies = 7", "line 4: expected a sequence"),
    ] {
        let error = read(text).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\n{error}");
    }
    for head in [
        "format = 2\nname = 'a'\nversion = '1'",
        "format = 1\nname = ' '\nversion = '1'",
        "format = 1\nname = 'a'",
    ] {
        let text = format!("{head}\n[default]\n");
        assert!(PolicyFile::from_toml(&text, &detectors()).is_err(), "{head}");
    }
}

#[test]
fn what_is_said_too_often_is_refused() {
    let conditions = |count: usize| {
        format!(
            "[[policies]]\nname = 'a'\nwhen = {{ any = [{}] }}\n",
            "{ tier = 'a' },".repeat(count)
        )
    };
    assert!(read(&conditions(999)).is_ok());
    assert!(read(&conditions(1000)).is_err());
    let exceptions = |count: usize| {
        format!(
            "[[policies]]\nname = 'a'\n{}",
            "[[policies.except]]\nrule = 'x'\ndry_run = true\n".repeat(count)
        )
    };
    assert!(read(&exceptions(1000)).is_ok());
    assert!(read(&exceptions(1001)).is_err());
    let policies = |count: usize| {
        (0..count).map(|n| format!("[[policies]]\nname = 'a{n}'\n")).collect::<String>()
    };
    assert!(read(&policies(100)).is_ok());
    assert!(read(&policies(101)).is_err());
    let deep = |depth: usize| {
        format!(
            "[[policies]]\nname = 'a'\nwhen = {}{{ tier = 'a' }}{}\n",
            "{ not = ".repeat(depth),
            " }".repeat(depth)
        )
    };
    assert!(read(&deep(20)).is_ok());
    assert!(read(&deep(5000)).is_err());
    assert!(read(&format!("#{}\n{}", "x".repeat(1024 * 1024), policies(1))).is_err());
}

#[test]
fn an_error_repeats_no_value() {
    for text in [
        "[[policies]]\nname = 'a'\nwhen = { scope = 7, hush = 'hush' }\n",
        "[[policies]]\nname = 'a'\nmax_body = 'hush'\n",
        "[[policies]]\nname = 'a'\nwhen = { endpoint = 'hush' }\n",
        "[[policies]]\nname = 'a'\nwhen = { claim = { name = 'x', equals = ['hush'] } }\n",
        "[[policies]]\nname = 'hush hush'\n",
    ] {
        let error = read(text).map(|_| ()).unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("'hush")
                && !error.to_string().contains("\"hush"),
            "{error}"
        );
    }
}
