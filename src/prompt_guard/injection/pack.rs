//! Rule packs: rules from TOML, checked when they are loaded.

use std::{borrow::Cow, collections::HashSet, path::Path};

use serde::Deserialize;
use toml::Spanned;

use super::{
    engine::{Rule, compiled_size},
    keywords,
    shorthand::expand,
};
use crate::{
    BuildError,
    inference::Origin,
    prompt_guard::{
        Category,
        policies::{NAME, is_name},
        toml_file::{self, check_head, line},
    },
};

/// Rules against prompts, from a TOML file: additions to the built-in ones, or in their stead.
///
/// ```
/// # fn main() -> Result<(), palisade::BuildError> {
/// use palisade::prompt_guard::{InjectionRules, RulePack};
///
/// let pack = RulePack::from_toml(
///     r#"
///     format = 1                  # of this file's form: always 1
///     name = "acme"
///     version = "2026.11"
///     extends = "builtin"         # without it the pack stands alone
///     disable = ["injection.refusal_suppression"]
///
///     [[rules]]
///     id = "acme.codename"
///     category = "custom"         # or injection, secret, personal_data, malicious_code, leak
///     origins = ["user"]          # whose texts; everybody's if there is none
///     languages = ["en"]          # for the reader
///     weight = 0.9                # how sure a match is, from 0.01 to 1
///     keywords = ["project bluebird"]
///
///     [[rules]]
///     id = "acme.price"
///     weight = 0.85
///     keywords = ["dump", "export"]
///     near = { keywords = ["price list"], words = 4 }
///
///     [[rules]]
///     id = "acme.ticket"
///     weight = 0.8
///     pattern = '\bticket acme-[0-9]{4,8}\b'
///     "#,
/// )?;
/// assert_eq!((pack.name(), pack.version()), ("acme", "2026.11"));
/// let rules = InjectionRules::with_pack(&pack)?;
/// # let _ = rules;
/// # Ok(())
/// # }
/// ```
///
/// Patterns are regexes without look-around, in the syntax of the crate `regex`, over bytes. They see texts with their
/// disguises undone: in lower case, and Latin letters without marks. In a pattern a space stands for any separators, `~3`
/// for up to three words, `<40>` for up to forty bytes and `§` for the rest of a word. Each must hold a literal of two bytes or
/// more. Keywords are folded as texts are; one that begins or ends with an ASCII letter or digit begins or ends a word there.
///
/// Limits: a pack of 1 MiB and 2000 rules; a pattern of 4096 bytes, nested 50 deep, for matches of up to 4096 bytes, its automaton at
/// most 1 MiB and those of a pack 32 MiB; 200 keywords a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RulePack {
    name: String,
    version: String,
    builtin: bool,
    disabled: Vec<String>,
    rules: Vec<PackRule>,
}

#[derive(Clone, Debug, PartialEq)]
struct PackRule {
    id: String,
    category: Category,
    origins: Vec<Origin>,
    languages: Vec<String>,
    /// In hundredths.
    weight: u8,
    pattern: String,
}

impl RulePack {
    /// The rules of this crate, and no more. Its version is that of the crate.
    #[must_use]
    pub fn builtin() -> Self {
        Self {
            name: BUILTIN.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            builtin: true,
            disabled: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// Reads a pack.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] with the line, and the rule if it is known, when the text is no TOML, has an unknown or
    /// missing key, a rule that can't be used, an id twice, or exceeds a limit. It repeats ids and keys, never a pattern or another value.
    pub fn from_toml(text: &str) -> Result<Self, BuildError> {
        let file: PackFile = toml_file::parse(WHAT, text)?;
        file.check(text)
    }

    /// Reads a pack from a file. Blocks.
    ///
    /// # Errors
    /// [`BuildError::File`] when the file can't be read, is not UTF-8, or is no pack, for the reasons of [`from_toml`](Self::from_toml).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, BuildError> {
        toml_file::read(path.as_ref(), Self::from_toml)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version, as its author counts them.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether the built-in rules are part of it.
    #[must_use]
    pub const fn extends_builtin(&self) -> bool {
        self.builtin
    }

    /// The ids of its own rules.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| &*rule.id)
    }

    /// The languages that its own rules say that they are for, with repetitions.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().flat_map(|rule| &rule.languages).map(String::as_str)
    }

    pub(super) fn disables(&self, id: &str) -> bool {
        self.disabled.iter().any(|disabled| disabled == id)
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = Rule<'_>> {
        self.rules.iter().map(|rule| Rule {
            id: Cow::Owned(rule.id.clone()),
            category: rule.category,
            origins: &rule.origins,
            weight: rule.weight,
            pattern: &rule.pattern,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PackFile {
    format: u32,
    name: String,
    version: String,
    extends: Option<Base>,
    #[serde(default)]
    disable: Vec<Spanned<String>>,
    #[serde(default)]
    rules: Vec<Spanned<RuleFile>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Base {
    Builtin,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    id: Spanned<String>,
    #[serde(default = "of_no_kind")]
    category: Category,
    #[serde(default)]
    origins: Vec<Origin>,
    #[serde(default)]
    languages: Vec<String>,
    weight: f32,
    pattern: Option<Spanned<String>>,
    keywords: Option<Spanned<Vec<String>>>,
    near: Option<Near>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Near {
    keywords: Vec<String>,
    words: u8,
}

impl PackFile {
    fn check(self, text: &str) -> Result<RulePack, BuildError> {
        check_head(WHAT, self.format, &self.name, &self.version)?;
        if self.rules.len() > MOST_RULES {
            return Err(invalid("it has more than 2000 rules"));
        }
        let builtin = self.extends.is_some();
        for id in &self.disable {
            if !builtin || !super::builtin_ids().any(|known| known == id.get_ref()) {
                let line = line(text, id.span().start);
                return Err(invalid(format!("line {line}: what is disabled is no rule of it")));
            }
        }
        if !builtin && self.rules.is_empty() {
            return Err(BuildError::Empty("rule pack"));
        }
        let mut ids = HashSet::new();
        let mut size = 0;
        let mut rules = Vec::with_capacity(self.rules.len());
        for rule in self.rules {
            let rule = rule.into_inner();
            let at = line(text, rule.id.span().start);
            let id = rule.id.get_ref().clone();
            if !is_name(&id) {
                return Err(invalid(format!("line {at}: the id is not {NAME}")));
            }
            if !ids.insert(id.clone()) || super::builtin_ids().any(|known| known == id) {
                return Err(invalid(format!("line {at}: rule {id}: its id is taken")));
            }
            let of = rule.pattern.as_ref().map(Spanned::span);
            let of = of.or_else(|| rule.keywords.as_ref().map(Spanned::span));
            let place = of.map_or(at, |span| line(text, span.start));
            let fail = |reason| invalid(format!("line {place}: rule {id}: {reason}"));
            let rule = rule.check().map_err(fail)?;
            size += compiled_size(&expand(&rule.pattern, &[])).map_err(fail)?;
            if size > MOST_COMPILED {
                return Err(fail("up to here the pack takes more than 32 MiB of automata"));
            }
            rules.push(rule);
        }
        let disabled = self.disable.into_iter().map(Spanned::into_inner).collect();
        Ok(RulePack { name: self.name, version: self.version, builtin, disabled, rules })
    }
}

impl RuleFile {
    fn check(self) -> Result<PackRule, &'static str> {
        if !(0.01..=1.0).contains(&self.weight) {
            return Err("its weight is not from 0.01 to 1");
        }
        let near = match &self.near {
            None => None,
            Some(near) if near.words <= MOST_BETWEEN => Some((&*near.keywords, near.words)),
            Some(_) => return Err("near allows more than 20 words between"),
        };
        let pattern = match (self.pattern, self.keywords) {
            (Some(pattern), None) if near.is_none() => pattern.into_inner(),
            (None, Some(keywords)) => keywords::pattern(keywords.get_ref(), near)?,
            (Some(_), None) => return Err("near goes with keywords"),
            _ => return Err("it has not one of pattern and keywords"),
        };
        if pattern.len() > MOST_OF_PATTERN {
            return Err("its pattern is longer than 4096 bytes");
        }
        Ok(PackRule {
            id: self.id.into_inner(),
            category: self.category,
            origins: self.origins,
            languages: self.languages,
            // From 1 to 100, as was checked.
            weight: (self.weight * 100.0).round() as u8,
            pattern,
        })
    }
}

fn of_no_kind() -> Category {
    Category::Custom
}

fn invalid(reason: impl Into<Cow<'static, str>>) -> BuildError {
    BuildError::invalid(WHAT, reason)
}

const BUILTIN: &str = "builtin";
const WHAT: &str = "rule pack";
const MOST_RULES: usize = 2000;
const MOST_OF_PATTERN: usize = 4096;
/// In bytes of automata.
const MOST_COMPILED: usize = 32 * 1024 * 1024;
const MOST_BETWEEN: u8 = 20;

#[cfg(test)]
mod tests;
