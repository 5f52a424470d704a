//! One chunk of a recording: its types, and values that others refer to by numbers (pools).

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use super::Broken;
use super::bytes::{Bytes, Text};
use super::types::{Field, Type, Types};

/// How a chunk begins, and how long that part is.
const MAGIC: &[u8] = b"FLR\0";
const HEADER: usize = 68;
/// Numbers of events that are none.
const METADATA: u64 = 0;
const CHECKPOINT: u64 = 1;

/// Entries of pools are at most so many: of a chain of 200 objects there are 600.
const MAX_ENTRIES: usize = 1 << 20;
/// Values within each other.
const MAX_DEPTH: u32 = 16;
/// Values that are read or passed, for each byte: of a type without fields there can be any number,
/// and what others refer to is read again each time.
const STEPS: usize = 16;
/// The type of texts.
const TEXT: &str = "java.lang.String";
/// Letters of a text.
const MAX_TEXT: usize = 1024;

/// One chunk.
#[derive(Debug)]
pub struct Chunk<'a> {
    bytes: &'a [u8],
    types: Types,
    /// Where a value is, by the numbers of its type and itself.
    pools: HashMap<(u64, u64), usize>,
    /// Where events are, with the number of their type.
    pub events: Vec<(u64, usize)>,
    /// Whether it is of JDK 8 or 11.
    pub is_old: bool,
    /// How many steps are left.
    steps: Cell<usize>,
}

/// What a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, also whether something is so.
    Number(u64),
    /// A text.
    Text(Text<'a>),
    /// The value of a type with a number.
    Pooled(u64, u64),
    /// A value of a type at a place.
    At(u64, usize),
    /// An array, which is not read.
    Array,
}

/// A value's fields.
pub struct Record<'a>(Vec<(Rc<str>, Value<'a>)>);

impl<'a> Record<'a> {
    /// A field's.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        let mut fields = self.0.iter();
        fields.find_map(|(of, value)| (&**of == name).then_some(*value))
    }

    /// A field's number, zero if there is none.
    pub fn number(&self, name: &str) -> u64 {
        match self.get(name) {
            Some(Value::Number(number)) => number,
            _ => 0,
        }
    }
}

impl<'a> Chunk<'a> {
    /// Reads the first chunk, keeping events of a type; and what follows it.
    pub fn read(bytes: &'a [u8], wanted: &str) -> Result<(Self, &'a [u8]), Broken> {
        let mut header = Bytes::at(bytes, 0);
        if header.take(MAGIC.len() as u64)? != MAGIC {
            return Err(Broken::NoRecording);
        }
        let (major, minor) = (header.fixed(2)?, header.fixed(2)?);
        if major != 2 {
            return Err(Broken::Version(major));
        }
        let size = usize::try_from(header.fixed(8)?).map_err(|_| Broken::CutOff)?;
        let _checkpoint = header.fixed(8)?;
        let metadata = usize::try_from(header.fixed(8)?).map_err(|_| Broken::CutOff)?;
        let _times = header.take(32)?;
        // Numbers in pieces of seven bits: all that a JVM writes.
        if header.fixed(4)? & 1 == 0 {
            return Err(Broken::Malformed);
        }
        if size < HEADER {
            return Err(Broken::Malformed);
        }
        let (chunk, rest) = bytes.split_at_checked(size).ok_or(Broken::CutOff)?;
        let types = Types::read(chunk, metadata)?;
        let wanted = types.named(wanted);
        let mut chunk = Self {
            bytes: chunk,
            types,
            pools: HashMap::new(),
            events: Vec::new(),
            is_old: minor == 0,
            steps: Cell::new(size.saturating_mul(STEPS)),
        };
        chunk.go_through(wanted)?;
        Ok((chunk, rest))
    }

    fn go_through(&mut self, wanted: Option<u64>) -> Result<(), Broken> {
        let mut at = HEADER;
        while at < self.bytes.len() {
            let mut bytes = Bytes::at(self.bytes, at);
            let size = bytes.number()?;
            let kind = bytes.number()?;
            match kind {
                METADATA => {}
                CHECKPOINT => self.checkpoint(bytes)?,
                _ if Some(kind) == wanted => self.events.push((kind, bytes.place())),
                _ => {}
            }
            let size = usize::try_from(size).map_err(|_| Broken::CutOff)?;
            if size == 0 {
                return Err(Broken::Malformed);
            }
            at = at.checked_add(size).ok_or(Broken::CutOff)?;
        }
        match at == self.bytes.len() {
            true => Ok(()),
            false => Err(Broken::CutOff),
        }
    }

    fn checkpoint(&mut self, mut bytes: Bytes<'a>) -> Result<(), Broken> {
        for _start_duration_and_delta in 0..3 {
            bytes.number()?;
        }
        let _kind = bytes.byte()?;
        for _ in 0..bytes.number()? {
            let of = bytes.number()?;
            for _ in 0..bytes.number()? {
                let key = bytes.number()?;
                if self.pools.len() >= MAX_ENTRIES {
                    return Err(Broken::TooMuch);
                }
                self.pools.insert((of, key), bytes.place());
                self.skip(&mut bytes, of, 0)?;
            }
        }
        Ok(())
    }

    /// Goes on to what is behind a value.
    fn skip(&self, bytes: &mut Bytes<'a>, of: u64, depth: u32) -> Result<(), Broken> {
        self.step(1)?;
        if depth > MAX_DEPTH {
            return Err(Broken::Malformed);
        }
        let of = self.types.get(of).ok_or(Broken::Malformed)?;
        if self.primitive(of, bytes)?.is_some() {
            return Ok(());
        }
        for field in &of.fields {
            let count = if field.is_array { bytes.number()? } else { 1 };
            for _ in 0..count {
                match field.is_pooled {
                    true => _ = bytes.number()?,
                    false => self.skip(bytes, field.of, depth + 1)?,
                }
            }
        }
        Ok(())
    }

    /// The fields of a value at a place.
    pub fn record(&self, of: u64, at: usize) -> Result<Record<'a>, Broken> {
        let mut bytes = Bytes::at(self.bytes, at);
        let of = self.types.get(of).ok_or(Broken::Malformed)?;
        let fields = of.fields.iter().map(|field| {
            let value = self.value(&mut bytes, field)?;
            Ok((Rc::clone(&field.name), value))
        });
        fields.collect::<Result<_, Broken>>().map(Record)
    }

    fn value(&self, bytes: &mut Bytes<'a>, field: &Field) -> Result<Value<'a>, Broken> {
        self.step(1)?;
        if field.is_array {
            for _ in 0..bytes.number()? {
                match field.is_pooled {
                    true => _ = bytes.number()?,
                    false => self.skip(bytes, field.of, 0)?,
                }
            }
            return Ok(Value::Array);
        }
        if field.is_pooled {
            return Ok(Value::Pooled(field.of, bytes.number()?));
        }
        let of = self.types.get(field.of).ok_or(Broken::Malformed)?;
        if let Some(value) = self.primitive(of, bytes)? {
            return Ok(value);
        }
        let at = bytes.place();
        self.skip(bytes, field.of, 0)?;
        Ok(Value::At(field.of, at))
    }

    /// Where a value is with whose number another refers to it, and its type; none if there is none.
    pub fn place(&self, value: Option<Value<'a>>) -> Option<(u64, usize)> {
        match value? {
            Value::Pooled(of, key) => Some((of, *self.pools.get(&(of, key))?)),
            Value::At(of, at) => Some((of, at)),
            _ => None,
        }
    }

    /// The fields of the value that another refers to.
    pub fn follow(&self, value: Option<Value<'a>>) -> Result<Option<Record<'a>>, Broken> {
        self.place(value)
            .map(|(of, at)| self.record(of, at))
            .transpose()
    }

    /// A text, or that of the value that is referred to: its first field.
    pub fn text(&self, value: Option<Value<'a>>) -> Result<Option<String>, Broken> {
        let mut value = value;
        for _ in 0..MAX_DEPTH {
            match value {
                Some(Value::Text(Text::Pooled(key))) => {
                    let texts = self.types.named(TEXT);
                    let at = texts.and_then(|of| self.pools.get(&(of, key)));
                    let text = at.map(|at| Bytes::at(self.bytes, *at).text()).transpose()?;
                    return Ok(text.and_then(|text| text.letters(MAX_TEXT)));
                }
                Some(Value::Text(text)) => return Ok(text.letters(MAX_TEXT)),
                _ => {
                    let record = self.follow(value)?;
                    value = record.and_then(|it| it.0.first().map(|(_, first)| *first));
                    if value.is_none() {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
    }

    /// A value that has no fields; none of a type that has.
    fn primitive(&self, of: &Type, bytes: &mut Bytes<'a>) -> Result<Option<Value<'a>>, Broken> {
        Ok(Some(match &*of.name {
            "long" | "int" | "short" | "char" => Value::Number(bytes.number()?),
            "byte" | "boolean" => Value::Number(bytes.byte()?.into()),
            "float" => Value::Number(bytes.fixed(4)?),
            "double" => Value::Number(bytes.fixed(8)?),
            TEXT => {
                let text = bytes.text()?;
                if let Text::Utf16(words, _) = text {
                    self.step(words.len())?;
                }
                Value::Text(text)
            }
            _ => return Ok(None),
        }))
    }

    fn step(&self, steps: usize) -> Result<(), Broken> {
        let left = self.steps.get().checked_sub(steps);
        self.steps.set(left.ok_or(Broken::TooMuch)?);
        Ok(())
    }
}
