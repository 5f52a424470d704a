//! Direct and mapped buffers, as the JDK counts them in static fields of its
//! own classes (`BufferPoolMXBean` reads the same).
//!
//! A collection may move the objects while they are read. So numbers are
//! believed only if all objects are of the right class and none was moved, no
//! collection ran meanwhile, and two readings agree.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::boot_classes::BootClasses;
use super::collections::Collections;
use super::fields::Fields;
use super::flags;
use super::java_fields::{JavaField, JavaFields};
use super::klass::well_known;
use super::memory::TargetMemory;
use super::objects::Objects;
use super::vmstructs::VmStructs;
use crate::model::java_native::{BufferPool, Buffers};

/// How often it is tried to read the same numbers twice.
const TRIES: u32 = 200;
/// Time between two tries while a collection runs.
const PAUSE: Duration = Duration::from_millis(1);

/// The classes: those that count buffers, direct and mapped (before JDK 13 and
/// from then on), and that of most counters.
const NAMES: [&str; 4] = [
    "java/nio/Bits",
    "sun/nio/ch/FileChannelImpl$DefaultUnmapper",
    "sun/nio/ch/FileChannelImpl$Unmapper",
    "java/util/concurrent/atomic/AtomicLong",
];

/// The descriptor of the last one.
const ATOMIC: &str = "Ljava/util/concurrent/atomic/AtomicLong;";

/// The names that a field has had; JDK 8's come last.
type Names = [&'static str; 2];

const DIRECT: [Names; 3] = [
    ["COUNT", "count"],
    ["TOTAL_CAPACITY", "totalCapacity"],
    ["RESERVED_MEMORY", "reservedMemory"],
];
const LIMIT: Names = ["MAX_MEMORY", "maxMemory"];
const MAPPED: [Names; 3] = [["count"; 2], ["totalCapacity"; 2], ["totalSize"; 2]];

/// Reads them. None until the VM has begun to run Java code.
///
/// # Errors
/// The reason why they cannot be told.
pub fn read(structs: &VmStructs, memory: &dyn TargetMemory) -> Result<Option<Buffers>> {
    let fields = Fields(structs);
    let collections = Collections::of(fields, memory)?;
    let classes = BootClasses::of(fields, memory)?;
    let (Some(collections), Some(classes)) = (collections, classes) else {
        return Ok(None);
    };
    let [coloured, narrow] = flags::are_on(fields, memory, ["UseZGC", "UseCompressedOops"])?;
    if coloured {
        bail!("its collector (ZGC) moves objects at any time and marks their addresses");
    }
    let found = classes.find(memory, NAMES)?;
    let [bits, default_unmapper, unmapper, atomic] = found;
    let reader = Reader {
        memory,
        objects: Objects::of(fields, memory)?,
        fields: JavaFields::of(fields)?,
        mirror: fields.offset(&[("Klass", "_java_mirror")])?,
        by_handle: structs
            .field("Klass", "_java_mirror")
            .is_some_and(|field| field.type_string == "OopHandle"),
        class: well_known(fields, memory, "Class")?,
        atomic,
        narrow,
    };
    let direct = bits.map(|class| reader.pool(class, DIRECT, Some(LIMIT)));
    let mapped = default_unmapper
        .or(unmapper)
        .map(|class| reader.pool(class, MAPPED, None));
    let (direct, mapped) = (direct.transpose()?, mapped.transpose()?);
    let look = || {
        let of = |pool: &Option<Pool>| match pool {
            Some(pool) => reader.look(pool),
            // Who has not loaded the class has no buffers.
            None => Ok(BufferPool::default()),
        };
        Ok(Buffers {
            direct: of(&direct)?,
            mapped: of(&mapped)?,
        })
    };
    agreed(look, || Ok(collections.count(memory)?)).map(Some)
}

/// What two looks in a row agree on, with no collection before, between or
/// after them.
fn agreed(
    look: impl Fn() -> Result<Buffers>,
    collections: impl Fn() -> Result<Option<i64>>,
) -> Result<Buffers> {
    let mut last = None;
    let mut problem = None;
    for _ in 0..TRIES {
        let before = collections()?;
        let Some(before) = before else {
            last = None;
            std::thread::sleep(PAUSE);
            continue;
        };
        let seen = look();
        if collections()? != Some(before) {
            last = None;
            continue;
        }
        match seen {
            Ok(seen) if last == Some((before, seen)) => return Ok(seen),
            Ok(seen) => last = Some((before, seen)),
            Err(error) => {
                last = None;
                problem = Some(error);
            }
        }
    }
    let moving = "it collected garbage, or they changed, each time that they were read";
    Err(problem.unwrap_or_else(|| anyhow::anyhow!(moving)))
}

/// Where a class has its counters.
struct Pool {
    class: u64,
    count: JavaField,
    capacity: JavaField,
    used: JavaField,
    limit: Option<JavaField>,
}

struct Reader<'a> {
    memory: &'a dyn TargetMemory,
    objects: Objects,
    fields: JavaFields,
    /// `Klass::_java_mirror`, and whether it is a pointer to a pointer.
    mirror: u32,
    by_handle: bool,
    /// The classes `Class` and `AtomicLong`.
    class: u64,
    atomic: Option<u64>,
    /// Whether pointers to objects have 32 bits.
    narrow: bool,
}

impl Reader<'_> {
    fn pool(&self, class: u64, names: [Names; 3], limit: Option<Names>) -> Result<Pool> {
        let field = |names: Names| {
            let mut found = names.iter();
            let found = found.find_map(|name| self.fields.field(self.memory, class, name));
            found.with_context(|| format!("its JDK has no field {} where others do", names[0]))
        };
        let [count, capacity, used] = names;
        Ok(Pool {
            class,
            count: field(count)?,
            capacity: field(capacity)?,
            used: field(used)?,
            limit: limit.map(field).transpose()?,
        })
    }

    fn look(&self, pool: &Pool) -> Result<BufferPool> {
        let Some(mirror) = self.mirror_of(pool.class)? else {
            return Ok(BufferPool::default());
        };
        let number = |field: &JavaField| {
            let value = self.number(mirror, field)?;
            u64::try_from(value).context("a count of buffers is negative")
        };
        let seen = BufferPool {
            count: number(&pool.count)?,
            capacity: number(&pool.capacity)?,
            used: number(&pool.used)?,
            // Zero stands there until the class is initialised.
            limit: pool
                .limit
                .as_ref()
                .map(number)
                .transpose()?
                .filter(|limit| *limit > 0),
        };
        self.check(mirror, self.class)?;
        match self.mirror_of(pool.class)? {
            Some(again) if again == mirror => Ok(seen),
            _ => bail!("objects move while they are read"),
        }
    }

    /// The object with a class's static fields; none while it has none.
    fn mirror_of(&self, class: u64) -> Result<Option<u64>> {
        let memory = self.memory;
        let pointer = memory.u64(class.wrapping_add(self.mirror.into()))?;
        let object = match (self.by_handle, pointer) {
            (_, 0) => return Ok(None),
            (true, handle) => memory.u64(handle)?,
            (false, object) => object,
        };
        Ok((object != 0).then_some(object))
    }

    /// The number in a static field, or in the `AtomicLong` that it points to;
    /// 0 if that was not made yet.
    fn number(&self, mirror: u64, field: &JavaField) -> Result<i64> {
        let memory = self.memory;
        let place = mirror.wrapping_add(field.offset.into());
        match field.signature.as_deref() {
            Some("J") => Ok(memory.u64(place)?.cast_signed()),
            Some("I") => Ok(memory.i32(place)?.into()),
            Some(ATOMIC) => {
                let empty = match self.narrow {
                    true => memory.u32(place)? == 0,
                    false => memory.u64(place)? == 0,
                };
                if empty {
                    return Ok(0);
                }
                let object = self
                    .objects
                    .follow(memory, mirror, field.offset, self.narrow)
                    .context("a pointer to an object is none")?;
                self.atomic_long(object)
            }
            _ => bail!("its JDK counts buffers in an unknown way"),
        }
    }

    fn atomic_long(&self, object: u64) -> Result<i64> {
        let memory = self.memory;
        let class = self.atomic.context("it has no class AtomicLong")?;
        let field = self.fields.offset(memory, class, "value");
        let field = field.context("its class AtomicLong has no value")?;
        let value = memory.u64(object.wrapping_add(field.into()))?;
        self.check(object, class)?;
        Ok(value.cast_signed())
    }

    /// Whether an object is of a class, and still where it is.
    fn check(&self, object: u64, class: u64) -> Result<()> {
        let is_of_class = self.objects.header(self.memory, object, class).is_some();
        if !is_of_class || self.objects.is_moved(self.memory, object)? {
            bail!("objects move while they are read");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn buffers(count: u64) -> Buffers {
        let direct = BufferPool {
            count,
            ..BufferPool::default()
        };
        Buffers {
            direct,
            ..Buffers::default()
        }
    }

    /// What comes of looks that see these counts in turn, the last for ever;
    /// collections are counted as `collections` says at each question.
    fn of(
        counts: &[Option<u64>],
        collections: impl Fn(usize) -> Option<i64>,
    ) -> Result<Buffers, String> {
        let (looks, asked) = (Cell::new(0), Cell::new(0));
        let look = || {
            let index = looks.replace(looks.get() + 1).min(counts.len() - 1);
            counts[index].map(buffers).context("moved")
        };
        let collections = || Ok(collections(asked.replace(asked.get() + 1)));
        agreed(look, collections).map_err(|error| error.to_string())
    }

    #[test]
    fn two_looks_must_agree() {
        assert_eq!(
            of(&[Some(1), Some(2), Some(2)], |_| Some(0)),
            Ok(buffers(2))
        );
        let apart = [Some(1), None, Some(1), Some(3)];
        assert_eq!(of(&apart, |_| Some(0)), Ok(buffers(3)));
        assert_eq!(of(&[None], |_| Some(0)), Err("moved".into()));
    }

    #[test]
    fn no_collection_may_run_meanwhile() {
        // One begins during the second look, and one runs at the fifth question.
        let counted = |asked: usize| match asked {
            0..=3 => Some(0),
            4 => None,
            _ => Some(1),
        };
        assert_eq!(of(&[Some(1), Some(9), Some(5)], counted), Ok(buffers(5)));
        let always = of(&[Some(1)], |asked| i64::try_from(asked).ok());
        assert!(always.unwrap_err().contains("collected garbage"));
    }
}
