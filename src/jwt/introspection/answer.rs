//! What an introspection answer says: RFC 7662, section 2.2, as a plain function on plain data.

use std::time::Duration;

use serde_json::{Map, Value};

use super::super::{
    Reason,
    claims::{self, Rules, Times},
    json,
};
use crate::identity::UserIdentity;

/// An answer that a token is active, and whose.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) user: UserIdentity,
    pub(super) times: Times,
}

/// Why an answer does not say that a token holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unheld {
    /// The issuer says so, or what it says of the token does not fit this server.
    Refused(Reason),
    /// The answer can't be read.
    Unreadable(&'static str),
}

impl From<Reason> for Unheld {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

/// The claims of a token that the answer calls active.
pub(super) fn claims(text: &[u8]) -> Result<Map<String, Value>, Unheld> {
    let mut answer = json::parse_object(text).ok_or(Unheld::Unreadable("it is no JSON object"))?;
    match answer.remove("active") {
        Some(Value::Bool(true)) => Ok(answer),
        Some(Value::Bool(false)) => Err(Reason::Inactive.into()),
        _ => Err(Unheld::Unreadable("it does not say whether the token is active")),
    }
}

/// Holds the claims of an active token against the issuer's rules.
pub(super) fn check(
    claims: Map<String, Value>,
    rules: &Rules,
    clients_as_subjects: bool,
    now: Duration,
    leeway: Duration,
) -> Result<Active, Reason> {
    if claims::string(&claims, "iss")?.is_some_and(|issuer| issuer != rules.issuer) {
        return Err(Reason::Unverifiable);
    }
    refuse_other_tokens(&claims)?;
    rules.check_required(&claims)?;
    rules.audience.check(&claims)?;
    let times = Times::of_answer(&claims)?;
    times.check(now, leeway)?;
    let client = claims::string(&claims, "client_id")?.filter(|id| !id.is_empty());
    let subject = match client {
        Some(client) if clients_as_subjects && !claims.contains_key("sub") => client.to_owned(),
        _ => claims::subject(&claims)?,
    };
    Ok(Active { user: claims::identity(rules, times, subject, claims)?, times })
}

/// An endpoint tells of refresh tokens too, which are for the issuer alone (RFC 7662, section 4).
fn refuse_other_tokens(claims: &Map<String, Value>) -> Result<(), Reason> {
    let is =
        |value: &str, names: &[&str]| names.iter().any(|name| value.eq_ignore_ascii_case(name));
    let token_type = claims::string(claims, "token_type")?;
    if token_type.is_some_and(|value| !is(value, &["bearer", "dpop", "access_token"])) {
        return Err(Reason::WrongType);
    }
    claims::refuse_marked(claims)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::jwt::claims::Audience;

    const NOW: Duration = Duration::from_secs(1_000_000);
    const LEEWAY: Duration = Duration::from_secs(30);

    fn rules() -> Rules {
        Rules {
            issuer: "https://a".into(),
            profile: Default::default(),
            audience: Audience::Aud(vec!["api".into()]),
            required: Vec::new(),
            max_lifetime: Duration::from_secs(60),
            roles: "roles".into(),
        }
    }

    fn read(change: Value, clients_as_subjects: bool) -> Result<Active, Unheld> {
        let mut answer = json!({"active": true, "aud": "api", "sub": "alice"});
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => answer.as_object_mut().unwrap().remove(name),
                value => answer.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        let claims = claims(answer.to_string().as_bytes())?;
        Ok(check(claims, &rules(), clients_as_subjects, NOW, LEEWAY)?)
    }

    fn reason(change: Value) -> Unheld {
        read(change.clone(), false).map(|active| active.user).expect_err(&change.to_string())
    }

    #[test]
    fn an_active_token_gives_an_identity() {
        let answer = json!({
            "iss": "https://a", "aud": ["x", "api"], "scope": "a b", "client_id": "c", "jti": "1",
            "exp": 1_000_100, "iat": 999_000, "token_type": "Bearer", "roles": ["r"], "username": "al",
        });
        let active = read(answer, false).unwrap();
        let user = &active.user;
        assert_eq!((user.issuer(), user.subject()), ("https://a", "alice"));
        assert_eq!(
            (user.scopes(), user.roles()),
            (&["a".into(), "b".into()][..], &["r".into()][..])
        );
        assert_eq!((user.client_id(), user.token_id()), (Some("c"), Some("1")));
        assert_eq!(user.expires_at(), Some(1_000_100));
        assert_eq!(user.claims().str("username"), Some("al"));
        assert!(!user.claims().contains("active"));
    }

    #[test]
    fn what_an_answer_need_not_say_may_be_missing_and_what_it_says_must_hold() {
        let bare = read(json!({}), false).unwrap();
        assert_eq!(bare.user.expires_at(), None);
        // The token's life is the issuer's affair.
        assert!(read(json!({"exp": 99_000_000, "iat": 1}), false).is_ok());
        let refused = |change| match reason(change) {
            Unheld::Refused(reason) => reason,
            Unheld::Unreadable(what) => panic!("{what}"),
        };
        assert_eq!(refused(json!({"iss": "https://b"})), Reason::Unverifiable);
        assert_eq!(refused(json!({"iss": ["https://a"]})), Reason::Malformed);
        assert_eq!(refused(json!({"aud": "other"})), Reason::WrongAudience);
        assert_eq!(refused(json!({"aud": null})), Reason::Malformed);
        assert_eq!(refused(json!({"aud": 7})), Reason::Malformed);
        assert_eq!(refused(json!({"exp": 999_970})), Reason::Expired);
        assert_eq!(refused(json!({"exp": "never"})), Reason::Malformed);
        assert_eq!(refused(json!({"nbf": 1_000_031})), Reason::NotYetValid);
        assert_eq!(refused(json!({"iat": 1_000_031})), Reason::NotYetValid);
        assert_eq!(refused(json!({"sub": 7})), Reason::Malformed);
        assert_eq!(refused(json!({"sub": ""})), Reason::Malformed);
        for other in [
            json!({"token_type": "refresh_token"}),
            json!({"token_use": "refresh_token"}),
            json!({"token_use": "id"}),
            json!({"typ": "Refresh"}),
            json!({"typ": "ID"}),
        ] {
            assert_eq!(refused(other.clone()), Reason::WrongType, "{other}");
        }
    }

    #[test]
    fn a_client_is_a_subject_only_where_that_is_said() {
        let of_client = json!({"sub": null, "client_id": "c"});
        assert_eq!(reason(of_client.clone()), Reason::Malformed.into());
        assert_eq!(read(of_client, true).unwrap().user.subject(), "c");
        assert!(read(json!({"sub": null}), true).is_err());
        // A subject that is stated goes first.
        assert_eq!(read(json!({"client_id": "c"}), true).unwrap().user.subject(), "alice");
        assert!(read(json!({"sub": "", "client_id": "c"}), true).is_err());
    }

    #[test]
    fn only_true_is_active_and_only_false_is_inactive() {
        assert_eq!(claims(br#"{"active":false}"#), Err(Reason::Inactive.into()));
        for bad in [
            r#"{}"#,
            r#"{"active":"true"}"#,
            r#"{"active":1}"#,
            r#"{"active":null}"#,
            r#"{"active":false,"active":true}"#,
            r#"[{"active":true}]"#,
            "<html>",
            "",
        ] {
            let read = claims(bad.as_bytes());
            assert!(matches!(read, Err(Unheld::Unreadable(_))), "{bad}");
        }
    }
}
