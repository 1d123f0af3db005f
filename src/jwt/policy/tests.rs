use super::*;

fn user(scopes: &[&str], roles: &[&str], claims: &str) -> UserIdentity {
    UserIdentity::asserted("i", "s")
        .with_scopes(scopes.iter().copied())
        .with_roles(roles.iter().copied())
        .with_claims(claims)
}

fn missing(policy: &Policy, user: &UserIdentity) -> String {
    policy.decide(user).unwrap_err().list()
}

#[test]
fn alternatives_ask_for_the_first_that_scopes_would_satisfy() {
    let policy = Policy::any_of([
        Policy::all_of([Policy::role("admin"), Policy::scope("admin")]),
        Policy::all_scopes(["a", "b"]),
        Policy::scope("c"),
    ]);
    assert_eq!(missing(&policy, &user(&["a"], &[], "{}")), "a b");
    assert_eq!(missing(&policy, &user(&[], &["admin"], "{}")), "admin");
    assert_eq!(policy.missing(None).list(), "admin");
    assert!(policy.decide(&user(&["c"], &[], "{}")).is_ok());
    assert!(policy.decide(&user(&["admin"], &["admin"], "{}")).is_ok());
    assert!(policy.decide(&user(&["admin"], &[], "{}")).is_err());
}

#[test]
fn no_scope_is_asked_for_when_none_would_help() {
    let policy = Policy::all_of([Policy::scope("a"), Policy::role("admin")]);
    let missing = policy.decide(&user(&["a"], &["user"], "{}")).unwrap_err();
    assert!(missing.is_beyond_scopes());
    assert_eq!(missing.scopes().count(), 0);
    let missing = policy.decide(&user(&[], &["admin"], "{}")).unwrap_err();
    assert!(!missing.is_beyond_scopes());
    assert_eq!(missing.list(), "a");
}

#[test]
fn claims_are_compared_with_their_type() {
    let caller = user(&[], &[], r#"{"n":1,"t":"1","b":true,"list":["x","yz"],"o":{"p":["q"]}}"#);
    let holds = |claim: &str, test| Policy::claim(claim, test).decide(&caller).is_ok();
    assert!(holds("n", ClaimTest::equals(1)) && !holds("n", ClaimTest::equals("1")));
    assert!(holds("t", ClaimTest::equals("1")) && !holds("t", ClaimTest::equals(1)));
    assert!(holds("b", ClaimTest::equals(true)) && !holds("b", ClaimTest::equals("true")));
    assert!(holds("t", ClaimTest::one_of(["0", "1"])));
    assert!(holds("list", ClaimTest::contains("x")) && !holds("list", ClaimTest::contains("y")));
    assert!(holds("/o/p", ClaimTest::contains("q")));
    assert!(!holds("t", ClaimTest::contains("1")), "a text is no list");
    assert!(holds("n", ClaimTest::matches(|claims| claims.u64("n") > Some(0))));
    assert!(!holds("none", ClaimTest::matches(|_| true)), "what is not there stands no test");
}

#[test]
fn roles_and_scopes_are_case_sensitive_and_not_each_other() {
    let caller = user(&["Admin"], &["Ops"], "{}");
    assert!(Policy::role("Ops").decide(&caller).is_ok());
    for policy in
        [Policy::role("ops"), Policy::role("Admin"), Policy::scope("admin"), Policy::scope("Ops")]
    {
        assert!(policy.decide(&caller).is_err(), "{policy:?}");
    }
}

#[test]
fn policies_that_mean_nothing_are_refused_and_admit_nobody() {
    for policy in [
        Policy::all_of([]),
        Policy::any_of([]),
        Policy::any_of([Policy::scope("a"), Policy::all_of([])]),
        Policy::scope("a b"),
        Policy::role(""),
        Policy::claim("", ClaimTest::equals("a")),
        Policy::claim("a", ClaimTest::one_of(Vec::<String>::new())),
    ] {
        assert!(policy.check("require").is_err(), "{policy:?}");
    }
    let anybody = user(&["a"], &["a"], "{}");
    assert!(Policy::all_of([]).decide(&anybody).is_err());
    assert!(Policy::any_of([]).decide(&anybody).is_err());
}

proptest::proptest! {
    /// Against a plain evaluation of the same tree.
    #[test]
    fn decisions_are_those_of_the_tree(
        tree in tree(),
        scopes in proptest::collection::hash_set("[abc]", 0..3),
        roles in proptest::collection::hash_set("[abc]", 0..3),
    ) {
        let user = user(&[], &[], "{}").with_scopes(scopes.clone()).with_roles(roles.clone());
        let holds = plainly(&tree, &|scope| scopes.contains(scope), &|role| roles.contains(role));
        proptest::prop_assert_eq!(tree.decide(&user).is_ok(), holds);
        // Whoever is granted the scopes that are asked for gets in.
        if let Err(missing) = tree.decide(&user)
            && !missing.is_beyond_scopes()
        {
            let granted = scopes.iter().map(String::as_str).chain(missing.scopes());
            let user = user.clone().with_scopes(granted.collect::<Vec<_>>());
            proptest::prop_assert!(tree.decide(&user).is_ok());
        }
    }
}

fn tree() -> impl proptest::strategy::Strategy<Value = Policy> {
    use proptest::prelude::*;
    let leaf = prop_oneof!["[abc]".prop_map(Policy::scope), "[abc]".prop_map(Policy::role)];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let list = proptest::collection::vec(inner, 1..4);
        prop_oneof![list.clone().prop_map(Policy::all_of), list.prop_map(Policy::any_of)]
    })
}

fn plainly(policy: &Policy, scope: &dyn Fn(&str) -> bool, role: &dyn Fn(&str) -> bool) -> bool {
    match &policy.0 {
        Node::Scope(name) => scope(name),
        Node::Role(name) => role(name),
        Node::Claim(..) => unreachable!("not made here"),
        Node::All(list) => list.iter().all(|policy| plainly(policy, scope, role)),
        Node::Any(list) => list.iter().any(|policy| plainly(policy, scope, role)),
    }
}
