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
    /// How many fields the class's source declares; the stream begins with that.
    count: Option<Number>,
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
        access: usize,
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

/// A field of 64 bits or that points to objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Its name.
    pub name: String,
    /// Bytes from its object's start; of a static field, from that of the class's mirror.
    pub offset: u32,
    /// Whether it is static.
    pub is_static: bool,
    /// Whether it is a `long`, and may have an address of native memory.
    pub is_long: bool,
}

/// A field as the class describes it: the indices of its name and its type's descriptor
/// in the class's pool.
#[derive(Debug, Clone, Copy)]
struct Described {
    name: u64,
    signature: u64,
    offset: u32,
    access: u32,
}

/// `JVM_ACC_STATIC`, the same in each class file.
const STATIC: u32 = 8;

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
            count: fields.find_number(&[("InstanceKlass", "_java_fields_count")]),
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
        let (pool, bytes) = self.description(memory, klass)?;
        let text = |index: u64| self.symbols.read(memory, pool.entry(memory, index)?);
        let has_name = |index: u64| text(index).as_deref() == Some(name);
        let (signature, offset) = match self.form {
            Form::Records { .. } => self.find_record(&bytes, has_name)?,
            Form::Stream { flags, .. } => {
                flags.find(Stream::new(&bytes, Encoding::WithoutZero), has_name)?
            }
        };
        Some(JavaField {
            offset,
            signature: text(signature),
        })
    }

    /// The fields of a class that point to objects, or may point to native memory, without those
    /// of its superclasses; none if they cannot be read.
    pub fn words(&self, memory: &dyn TargetMemory, klass: u64) -> Option<Vec<Word>> {
        let (pool, bytes) = self.description(memory, klass)?;
        let text = |index: u64| self.symbols.read(memory, pool.entry(memory, index)?);
        let described = match self.form {
            Form::Records { .. } => self.records(memory, klass, &bytes)?,
            Form::Stream { flags, .. } => flags.all(Stream::new(&bytes, Encoding::WithoutZero))?,
        };
        let mut found = Vec::new();
        for field in described {
            let signature = text(field.signature)?;
            if signature.starts_with(['L', '[', 'J']) {
                found.push(Word {
                    name: text(field.name)?,
                    offset: field.offset,
                    is_static: field.access & STATIC != 0,
                    is_long: signature == "J",
                });
            }
        }
        Some(found)
    }

    /// A class's pool, and the bytes that describe its fields.
    fn description(&self, memory: &dyn TargetMemory, klass: u64) -> Option<(Pool, Vec<u8>)> {
        let pointer = |offset: u32| aligned(memory.u64(klass.checked_add(offset.into())?).ok()?);
        let pool = Pool::read(&self.pool, memory, pointer(self.constants)?)?;
        let array = pointer(self.array)?;
        let length = u64::try_from(self.length.read(memory, array).ok()?).ok()?;
        let (data, size) = match self.form {
            Form::Records { data, .. } => (data, 2),
            Form::Stream { data, .. } => (data, 1),
        };
        let bytes = length
            .checked_mul(size)
            .filter(|bytes| *bytes < MAX_LENGTH)?;
        let bytes = memory.vec(array + u64::from(data), usize::try_from(bytes).ok()?);
        Some((pool, bytes.ok()?))
    }

    /// All fields that the class's source declares, from their records.
    fn records(
        &self,
        memory: &dyn TargetMemory,
        klass: u64,
        bytes: &[u8],
    ) -> Option<Vec<Described>> {
        let Form::Records {
            record,
            access,
            name,
            signature,
            low,
            tag_bits,
            ..
        } = self.form
        else {
            return None;
        };
        let count = usize::try_from(self.count?.read(memory, klass).ok()?).ok()?;
        let records = bytes.chunks_exact(2 * record).take(count);
        records
            .map(|record| {
                Some(Described {
                    name: half(record, name)?.into(),
                    signature: half(record, signature)?.into(),
                    offset: packed(record, low)? >> tag_bits,
                    access: half(record, access)?.into(),
                })
            })
            .collect()
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
        let mut records = bytes.chunks_exact(2 * record);
        let found =
            records.find(|record| half(record, name).is_some_and(|index| wanted(index.into())))?;
        Some((
            half(found, signature)?.into(),
            packed(found, low)? >> tag_bits,
        ))
    }
}

/// A 16-bit number of a record.
fn half(record: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*record.get(2 * at..)?.first_chunk()?))
}

/// A record's offset, with its tag.
fn packed(record: &[u8], low: usize) -> Option<u32> {
    Some(u32::from(half(record, low + 1)?) << 16 | u32::from(half(record, low)?))
}

impl Flags {
    /// The field that is wanted, from the numbers of all.
    fn find(self, mut stream: Stream<'_>, wanted: impl Fn(u64) -> bool) -> Option<Found> {
        let count = stream.unsigned()?;
        let _injected = stream.unsigned()?;
        for _ in 0..count {
            let field = self.next(&mut stream)?;
            if wanted(field.name) {
                return Some((field.signature, field.offset));
            }
        }
        None
    }

    /// All fields that the class's source declares.
    fn all(self, mut stream: Stream<'_>) -> Option<Vec<Described>> {
        let count = stream.unsigned()?;
        let _injected = stream.unsigned()?;
        (0..count).map(|_| self.next(&mut stream)).collect()
    }

    fn next(self, stream: &mut Stream<'_>) -> Option<Described> {
        let name = stream.unsigned()?.into();
        let signature = stream.unsigned()?.into();
        let offset = stream.unsigned()?;
        let access = stream.unsigned()?;
        let flags = stream.unsigned()?;
        for _ in self.more.iter().filter(|bit| flags & **bit != 0) {
            stream.unsigned()?;
        }
        Some(Described {
            name,
            signature,
            offset,
            access,
        })
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
        access: place("FieldInfo::access_flags_offset")?,
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
