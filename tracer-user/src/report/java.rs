//! Names of Java methods: `com.acme.shop.Cart.add`.

use unicode_width::UnicodeWidthStr;

use crate::model::Origin;

/// A longer name than any that people write is not shortened, bytes: it may
/// have thousands of packages.
const MAX_SHORTENED: usize = 1024;

/// What async-profiler writes behind the name of a method that was run so.
const TIERS: [(&str, Origin); 3] = [
    ("_[0]", Origin::Interpreted),
    ("_[1]", Origin::C1),
    ("_[j]", Origin::C2),
];

/// A method's name with the suffix of how it was run; other names as they are.
pub fn with_tier(name: &str, origin: Origin) -> String {
    let tier = TIERS.iter().find(|(_, tier)| *tier == origin);
    format!("{name}{}", tier.map_or("", |(suffix, _)| suffix))
}

/// What [`with_tier`] says of a method.
pub fn tier_of(name: &str) -> Option<Origin> {
    let tier = TIERS.iter().find(|(suffix, _)| name.ends_with(suffix));
    tier.map(|(_, origin)| *origin)
}

/// Shortens as many packages of a method's name to one letter, outermost
/// first, as is needed for the name to take at most `width` columns. The
/// class and the method stay whole, so the result may still be wider.
pub fn shorten(name: &str, width: usize) -> String {
    if name.len() > MAX_SHORTENED {
        return name.to_owned();
    }
    let mut parts: Vec<&str> = name.split('.').collect();
    for index in 0..packages(&parts) {
        if parts.join(".").width() <= width {
            break;
        }
        let letter = parts[index].chars().next().map_or(0, char::len_utf8);
        parts[index] = &parts[index][..letter];
    }
    parts.join(".")
}

/// How many parts of a name are packages: those before the class, whose name
/// begins in upper case by convention.
fn packages(parts: &[&str]) -> usize {
    let before_class = parts.len().saturating_sub(2);
    let is_class = |part: &&str| part.starts_with(char::is_uppercase);
    let class = parts.iter().position(is_class);
    class.map_or(before_class, |class| class.min(before_class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_shortened_from_the_left_and_only_as_needed() {
        let name = "com.acme.shop.Cart.add";
        assert_eq!(shorten(name, 22), name);
        assert_eq!(shorten(name, 21), "c.acme.shop.Cart.add");
        assert_eq!(shorten(name, 17), "c.a.shop.Cart.add");
        assert_eq!(shorten(name, 1), "c.a.s.Cart.add");
    }

    #[test]
    fn what_has_no_packages_stays() {
        for name in [
            "Main.main",
            "main",
            "",
            "Outer$Lambda.0x12.run",
            "a.b",
            "..",
        ] {
            assert_eq!(shorten(name, 0), name);
        }
        assert_eq!(shorten("été.Café.lire", 3), "é.Café.lire");
    }
}
