//! Rules that the command line gives (`--group`).

use std::str::FromStr;

use regex::{Regex, RegexBuilder};

/// How it is written.
const FORM: &str = "REGEX=NAME, for example 'Handler[0-9]+=Handler*'";

/// What a compiled pattern may take, bytes.
const MAX_PATTERN: usize = 1 << 20;

/// A rule of the user's: what the pattern matches in a function's name becomes another text.
#[derive(Debug, Clone)]
pub struct Asked {
    pattern: Regex,
    /// With `$1` and `${name}` for the pattern's groups, and `$$` for a dollar sign.
    name: String,
}

impl Asked {
    /// The name with every match replaced; `None` if there is none.
    pub fn apply(&self, name: &str) -> Option<String> {
        match self.pattern.replace_all(name, &self.name) {
            std::borrow::Cow::Owned(replaced) => Some(replaced),
            std::borrow::Cow::Borrowed(_) => None,
        }
    }
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pattern, name) = text
            .rsplit_once('=')
            .ok_or_else(|| format!("write {FORM}"))?;
        let compiled = RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build();
        let pattern = compiled.map_err(|error| error.to_string())?;
        if pattern.is_match("") {
            return Err("the pattern matches nothing at all, so it is everywhere".into());
        }
        for group in groups(name) {
            let is_known = match group.parse::<usize>() {
                Ok(number) => number < pattern.captures_len(),
                Err(_) => pattern.capture_names().flatten().any(|it| it == group),
            };
            if !is_known {
                return Err(format!(
                    "the pattern has no group `{group}`; write $$ for a dollar sign"
                ));
            }
        }
        Ok(Self {
            pattern,
            name: name.into(),
        })
    }
}

/// The groups that a text for matches refers to.
fn groups(text: &str) -> Vec<&str> {
    let mut groups = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('$') {
        let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let braced = after.strip_prefix('{').and_then(|it| it.split_once('}'));
        if let Some(after) = after.strip_prefix('$') {
            rest = after;
        } else if let Some((group, after)) = braced {
            groups.push(group);
            rest = after;
        } else {
            let end = after.find(|letter| !is_letter(letter));
            let (group, after) = after.split_at(end.unwrap_or(after.len()));
            groups.extend(Some(group).filter(|group| !group.is_empty()));
            rest = after;
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matches_becomes_the_name() {
        let apply = |rule: &str, name: &str| rule.parse::<Asked>().unwrap().apply(name);
        let handler = "Handler[0-9]+=Handler*";
        assert_eq!(
            apply(handler, "a.Handler17.run").as_deref(),
            Some("a.Handler*.run")
        );
        assert_eq!(apply(handler, "a.Handler.run"), None);
        assert_eq!(
            apply(
                r"^(\w+)::operator==.*$=${1}: equals",
                "Key::operator==(int)"
            )
            .as_deref(),
            Some("Key: equals"),
            "the last equals sign ends the pattern"
        );
        assert_eq!(
            apply("Made[0-9]+=$$Made", "Made7").as_deref(),
            Some("$Made")
        );
        assert_eq!(apply("7=", "a7b").as_deref(), Some("ab"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (wrong, part) in [
            ("Handler", "REGEX=NAME"),
            ("Hand(ler=x", "unclosed group"),
            ("x*=y", "matches nothing at all"),
            ("Foo[0-9]+=$Foo", "no group `Foo`"),
            ("(a)(b)=$3", "no group `3`"),
            ("(a)=${b}", "no group `b`"),
            (r"\w{1000}{1000}=x", "size limit"),
        ] {
            let error = wrong.parse::<Asked>().unwrap_err();
            assert!(error.contains(part), "{wrong}: {error}");
        }
        assert!(r"(?<kind>a)b=${kind}$1$".parse::<Asked>().is_ok());
    }
}
