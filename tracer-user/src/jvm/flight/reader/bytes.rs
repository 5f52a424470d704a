//! What the format is made of: numbers and texts.

use super::Broken;

/// A number in pieces of seven bits has at most so many bytes; the last has eight bits.
const MAX_NUMBER: u32 = 9;

/// A place in a chunk, from which is read.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a> {
    all: &'a [u8],
    at: usize,
}

/// A text, or where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text<'a> {
    /// None.
    Absent,
    /// In UTF-8.
    Utf8(&'a [u8]),
    /// A byte for each letter.
    Latin1(&'a [u8]),
    /// The numbers of UTF-16 words: so many, one behind the other.
    Utf16(&'a [u8], u64),
    /// The one with this number in the pool of texts.
    Pooled(u64),
}

impl<'a> Bytes<'a> {
    /// From a place in a chunk on.
    pub fn at(all: &'a [u8], at: usize) -> Self {
        Self { all, at }
    }

    /// Where it is.
    pub fn place(&self) -> usize {
        self.at
    }

    /// A byte.
    pub fn byte(&mut self) -> Result<u8, Broken> {
        let byte = *self.all.get(self.at).ok_or(Broken::CutOff)?;
        self.at += 1;
        Ok(byte)
    }

    /// So many bytes.
    pub fn take(&mut self, count: u64) -> Result<&'a [u8], Broken> {
        let count = usize::try_from(count).map_err(|_| Broken::CutOff)?;
        let end = self.at.checked_add(count).ok_or(Broken::CutOff)?;
        let taken = self.all.get(self.at..end).ok_or(Broken::CutOff)?;
        self.at = end;
        Ok(taken)
    }

    /// A big-endian number of so many bytes, 8 at most.
    pub fn fixed(&mut self, bytes: u64) -> Result<u64, Broken> {
        let bytes = self.take(bytes)?.iter();
        Ok(bytes.fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    }

    /// A number in pieces of seven bits, lowest first.
    pub fn number(&mut self) -> Result<u64, Broken> {
        let mut number = 0;
        for piece in 0..MAX_NUMBER {
            let byte = u64::from(self.byte()?);
            let is_last = piece + 1 == MAX_NUMBER;
            let bits = if is_last { byte } else { byte & 0x7f };
            number |= bits << (7 * piece);
            if byte < 0x80 {
                break;
            }
        }
        Ok(number)
    }

    /// A text.
    pub fn text(&mut self) -> Result<Text<'a>, Broken> {
        Ok(match self.byte()? {
            0 => Text::Absent,
            1 => Text::Utf8(&[]),
            2 => Text::Pooled(self.number()?),
            3 => {
                let length = self.number()?;
                Text::Utf8(self.take(length)?)
            }
            4 => {
                let (length, from) = (self.number()?, self.at);
                for _ in 0..length {
                    self.number()?;
                }
                let words = self.all.get(from..self.at).unwrap_or_default();
                Text::Utf16(words, length)
            }
            5 => {
                let length = self.number()?;
                Text::Latin1(self.take(length)?)
            }
            _ => return Err(Broken::Malformed),
        })
    }
}

impl Text<'_> {
    /// At most so many of its letters; what is none becomes `U+FFFD`. None of one that is elsewhere.
    pub fn letters(self, most: usize) -> Option<String> {
        Some(match self {
            Text::Absent | Text::Pooled(_) => return None,
            Text::Utf8(bytes) => {
                let bytes = bytes.get(..most.saturating_mul(4)).unwrap_or(bytes);
                let text = String::from_utf8_lossy(bytes);
                text.chars().take(most).collect()
            }
            Text::Latin1(bytes) => bytes.iter().take(most).map(|it| char::from(*it)).collect(),
            Text::Utf16(bytes, length) => {
                let mut bytes = Bytes::at(bytes, 0);
                let length = usize::try_from(length).unwrap_or(most).min(most);
                let words = (0..length).map_while(|_| bytes.number().ok());
                let words = words.map(|word| u16::try_from(word).unwrap_or(0xfffd));
                char::decode_utf16(words)
                    .map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_seven_bits_a_byte_and_eight_in_the_ninth() {
        let number = |bytes: &[u8]| Bytes::at(bytes, 0).number();
        assert_eq!(number(&[0x85, 0xb0, 0x03]), Ok(55301));
        assert_eq!(number(&[0xff; 9]), Ok(u64::MAX));
        assert_eq!(number(&[0xff; 8]), Err(Broken::CutOff));
        assert_eq!(Bytes::at(&[1, 2], 0).fixed(2), Ok(258));
        assert_eq!(Bytes::at(&[1], 0).fixed(2), Err(Broken::CutOff));
    }

    #[test]
    fn texts_of_each_kind_are_read_and_lengths_are_not_believed() {
        let text = |bytes: &[u8]| Bytes::at(bytes, 0).text().map(|it| it.letters(5));
        assert_eq!(text(&[0]), Ok(None));
        assert_eq!(text(&[1]), Ok(Some(String::new())));
        assert_eq!(text(&[3, 2, 0xc3, 0xa4]), Ok(Some("ä".to_owned())));
        assert_eq!(text(&[4, 2, 65, 0xe4, 1]), Ok(Some("Aä".to_owned())));
        assert_eq!(
            text(&[5, 7, 65, 66, 67, 68, 69, 70, 71]),
            Ok(Some("ABCDE".to_owned()))
        );
        assert_eq!(Bytes::at(&[2, 9], 0).text(), Ok(Text::Pooled(9)));
        for lie in [&[3, 9, 65][..], &[4, 0xff, 0xff, 0xff, 0x7f], &[5, 2, 65]] {
            assert_eq!(text(lie), Err(Broken::CutOff));
        }
        assert_eq!(text(&[6]), Err(Broken::Malformed));
    }
}
