//! Just enough of a reader of pprof's `profile.proto`, independent of the
//! writer.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// What the tests want to know of a profile.
#[derive(Debug, Default)]
pub struct Profile {
    /// Names of the values of each sample, in order.
    pub sample_types: Vec<String>,
    /// The string table.
    pub strings: Vec<String>,
    /// The value that viewers show first.
    pub shown_first: String,
    values: BTreeMap<usize, u64>,
}

impl Profile {
    /// Reads an uncompressed profile.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut profile = Self::default();
        let mut types = Vec::new();
        let mut first = 0;
        for field in fields(bytes)? {
            match field {
                // sample_type: ValueType { type = 1, unit = 2 }
                (1, Value::Bytes(value_type)) => types.push(number(value_type, 1)?),
                // sample: Sample { location_id = 1, value = 2 }
                (2, Value::Bytes(sample)) => profile.add_sample(sample)?,
                (14, Value::Number(index)) => first = usize::try_from(index)?,
                (6, Value::Bytes(text)) => profile.strings.push(String::from_utf8(text.into())?),
                _ => {}
            }
        }
        for index in types {
            let name = profile
                .strings
                .get(usize::try_from(index)?)
                .context("no such string")?;
            profile.sample_types.push(name.clone());
        }
        profile.shown_first = profile.strings.get(first).cloned().unwrap_or_default();
        Ok(profile)
    }

    /// Sum of one value over all samples.
    pub fn sum(&self, sample_type: &str) -> u64 {
        let index = self
            .sample_types
            .iter()
            .position(|name| name == sample_type);
        index
            .and_then(|index| self.values.get(&index))
            .copied()
            .unwrap_or_default()
    }

    fn add_sample(&mut self, sample: &[u8]) -> Result<()> {
        let mut index = 0;
        for field in fields(sample)? {
            let values = match field {
                (2, Value::Number(value)) => vec![value],
                (2, Value::Bytes(packed)) => numbers(packed)?,
                _ => continue,
            };
            for value in values {
                // A value of a difference may be below zero.
                let sum = self.values.entry(index).or_default();
                *sum = sum.wrapping_add(value);
                index += 1;
            }
        }
        Ok(())
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?)?;
                let (value, rest) = bytes.split_at_checked(length).context("a field is cut")?;
                bytes = rest;
                Value::Bytes(value)
            }
            other => bail!("pprof has no fields of wire type {other}"),
        };
        fields.push((key >> 3, value));
    }
    Ok(fields)
}

fn number(message: &[u8], wanted: u64) -> Result<u64> {
    for field in fields(message)? {
        if let (key, Value::Number(value)) = field
            && key == wanted
        {
            return Ok(value);
        }
    }
    Ok(0)
}

fn numbers(mut packed: &[u8]) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    while !packed.is_empty() {
        numbers.push(varint(&mut packed)?);
    }
    Ok(numbers)
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().context("a number is cut")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a number has more than 64 bits")
}
