//! The fields that a Java class declares: where in its objects they are. Those
//! that are static are in the object of class `Class` that stands for it.

use super::fields::{Fields, Number, UnknownLayout};
use super::memory::TargetMemory;
use super::pool::{Pool, PoolLayout, aligned};
use super::stream::{Encoding, Stream};
use super::symbol::SymbolLayout;

/// Longer descriptions are not read, bytes: the classes asked for have some
/// tens of fields.
const MAX_LENGTH: u64 = 64 << 10;

/// How the VM describes fields.
#[derive(Debug, Clone, Copy)]
pub struct JavaFields {
    /// `InstanceKlass::_constants`.
    constants: u32,
    /// The array with the description, in the class.
    array: u32,
    length: Number,
    form: Form,
    pool: PoolLayout,
    symbols: SymbolLayout,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    /// JDK 8 to 20: records of 16-bit numbers.
    Records {
        data: u32,
        record: usize,
        name: usize,
        signature: usize,
        low: usize,
        tag_bits: u32,
    },
    /// From JDK 21 on: compressed numbers.
    Stream { data: u32, flags: Flags },
}

/// A field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JavaField {
    /// Bytes from its object's start.
    pub offset: u32,
    /// Its type's descriptor (`J`, `Ljava/lang/String;`), if that is in the
    /// class.
    pub signature: Option<String>,
}

/// The index of its type's descriptor in the class's pool, and its offset.
type Found = (u64, u32);

/// The bits that say which further numbers a field has.
#[derive(Debug, Clone, Copy)]
struct Flags {
    more: [u32; 3],
}

impl JavaFields {
    /// Finds out how fields are described.
    ///
    /// # Errors
    /// Names what the VM does not export.
    pub fn of(fields: Fields<'_>) -> Result<Self, UnknownLayout> {
        let stream = fields.find_offset(&[("InstanceKlass", "_fieldinfo_stream")]);
        let (array, form) = match stream {
            Some(array) => (array, stream_form(fields)?),
            None => (
                fields.offset(&[("InstanceKlass", "_fields")])?,
                records_form(fields)?,
            ),
        };
        Ok(JavaFields {
            constants: fields.offset(&[("InstanceKlass", "_constants")])?,
            array,
            length: fields.number(&[("Array<int>", "_length")])?,
            form,
            pool: PoolLayout::of(fields)?,
            symbols: SymbolLayout::of(fields)?,
        })
    }

    /// The offset of a field in objects of a class, bytes.
    pub fn offset(&self, memory: &dyn TargetMemory, klass: u64, name: &str) -> Option<u32> {
        self.field(memory, klass, name).map(|field| field.offset)
    }

    /// A field of a class.
    pub fn field(&self, memory: &dyn TargetMemory, klass: u64, name: &str) -> Option<JavaField> {
        let pointer = |offset: u32| aligned(memory.u64(klass.checked_add(offset.into())?).ok()?);
        let pool = Pool::read(&self.pool, memory, pointer(self.constants)?)?;
        let array = pointer(self.array)?;
        let length = u64::try_from(self.length.read(memory, array).ok()?).ok()?;
        let read = |data: u32, size: u64| {
            let bytes = length
                .checked_mul(size)
                .filter(|bytes| *bytes < MAX_LENGTH)?;
            memory
                .vec(array + u64::from(data), usize::try_from(bytes).ok()?)
                .ok()
        };
        let text = |index: u64| self.symbols.read(memory, pool.entry(memory, index)?);
        let has_name = |index: u64| text(index).as_deref() == Some(name);
        let (signature, offset) = match self.form {
            Form::Records { data, .. } => self.find_record(&read(data, 2)?, has_name)?,
            Form::Stream { data, flags } => {
                let bytes = read(data, 1)?;
                flags.find(Stream::new(&bytes, Encoding::WithoutZero), has_name)?
            }
        };
        Some(JavaField {
            offset,
            signature: text(signature),
        })
    }

    /// The field that is wanted, from the records of all.
    fn find_record(&self, bytes: &[u8], wanted: impl Fn(u64) -> bool) -> Option<Found> {
        let Form::Records {
            record,
            name,
            signature,
            low,
            tag_bits,
            ..
        } = self.form
        else {
            return None;
        };
        let half = |record: &[u8], at: usize| {
            Some(u16::from_le_bytes(*record.get(2 * at..)?.first_chunk()?))
        };
        let mut records = bytes.chunks_exact(2 * record);
        let found =
            records.find(|record| half(record, name).is_some_and(|index| wanted(index.into())))?;
        let packed = u32::from(half(found, low + 1)?) << 16 | u32::from(half(found, low)?);
        Some((half(found, signature)?.into(), packed >> tag_bits))
    }
}

impl Flags {
    /// The field that is wanted, from the numbers of all.
    fn find(self, mut stream: Stream<'_>, wanted: impl Fn(u64) -> bool) -> Option<Found> {
        let count = stream.unsigned()?;
        let _injected = stream.unsigned()?;
        for _ in 0..count {
            let name = stream.unsigned()?;
            let signature = stream.unsigned()?;
            let offset = stream.unsigned()?;
            let _access = stream.unsigned()?;
            let flags = stream.unsigned()?;
            if wanted(name.into()) {
                return Some((signature.into(), offset));
            }
            for _ in self.more.iter().filter(|bit| flags & **bit != 0) {
                stream.unsigned()?;
            }
        }
        None
    }
}

fn stream_form(fields: Fields<'_>) -> Result<Form, UnknownLayout> {
    let bit = |name: &str| {
        let bit = constant(fields, &format!("FieldInfo::FieldFlags::{name}"))?;
        Ok(1_u32.checked_shl(bit).unwrap_or(0))
    };
    Ok(Form::Stream {
        data: fields.offset(&[("Array<u1>", "_data")])?,
        flags: Flags {
            more: [
                bit("_ff_initialized")?,
                bit("_ff_generic")?,
                bit("_ff_contended")?,
            ],
        },
    })
}

fn records_form(fields: Fields<'_>) -> Result<Form, UnknownLayout> {
    let place = |name| Ok(constant(fields, name)?.min(64) as usize);
    Ok(Form::Records {
        data: fields.offset(&[("Array<u2>", "_data")])?,
        record: place("FieldInfo::field_slots")?.max(1),
        name: place("FieldInfo::name_index_offset")?,
        signature: place("FieldInfo::signature_index_offset")?,
        low: place("FieldInfo::low_packed_offset")?,
        tag_bits: constant(fields, "FIELDINFO_TAG_SIZE")?.min(31),
    })
}

fn constant(fields: Fields<'_>, name: &str) -> Result<u32, UnknownLayout> {
    let value = fields.0.int_constant(name);
    value
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| UnknownLayout { what: name.into() })
}
