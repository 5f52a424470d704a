//! What findings and rows of tables are called.

use std::fmt;
use std::str::FromStr;

/// The number of a finding, or of a call path: `3` is finding 3 and its largest call path,
/// `3.2` its second one; call paths of no finding have a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowNumber {
    /// From 1.
    pub whole: usize,
    /// Which call path of a finding, from 1.
    pub part: usize,
}

impl RowNumber {
    /// A whole number.
    pub const fn whole(whole: usize) -> Self {
        Self { whole, part: 1 }
    }
}

impl fmt::Display for RowNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.part {
            0 | 1 => self.whole.to_string(),
            part => format!("{}.{part}", self.whole),
        };
        f.pad(&text)
    }
}

impl FromStr for RowNumber {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "1"));
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
        match (number(whole), number(part)) {
            (Some(whole), Some(part)) => Ok(Self { whole, part }),
            _ => Err("write the number of a finding or a row, such as 2 or 2.3".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for text in ["1", "12", "3.2", "10.17"] {
            let number: RowNumber = text.parse().unwrap();
            assert_eq!(number.to_string(), text);
        }
        assert_eq!("2.1".parse(), Ok(RowNumber::whole(2)));
        assert_eq!(format!("{:>2}", RowNumber::whole(3)), " 3");
        for text in ["", "0", "x", "1.", "1.0", "-1", ".5"] {
            assert!(text.parse::<RowNumber>().is_err(), "{text}");
        }
    }
}
