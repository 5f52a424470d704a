//! V8 in a file: where its objects have what a walk and names need. It says so itself, in
//! symbols for debuggers (`v8dbg_…`, by V8's `tools/gen-postmortem-metadata.py`), each the
//! name of a number.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;

use object::read::elf::Sym;
use tracer_ebpf::v8::Layout;

use super::image::{ENDIAN, Image};
use crate::process::bytes::Bytes;
use crate::process::symtab;
use crate::process::window::places;

/// More bytes of symbols or of their names are not read: node has 5 MiB.
const MAX_TABLE: u64 = 64 << 20;

/// More such symbols are not read: there are some 400.
const MAX_SYMBOLS: usize = 4096;

/// Longer names are not read.
const MAX_NAME: usize = 128;

/// What their names begin with.
const PREFIX: &[u8] = b"v8dbg_";

/// What is known of V8 in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum V8 {
    /// All that is needed.
    Known(Box<Structures>),
    /// Why that is not enough.
    Unknown(Problem),
}

/// Where things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Structures {
    /// What the kernel side needs.
    pub layout: Layout,
    /// What names need besides.
    pub names: NameLayout,
}

/// Why structures are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Objects have compressed pointers.
    Compressed,
    /// What is needed of an object is far from where it begins.
    Large,
    /// A symbol is missing.
    Missing(&'static str),
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Compressed => out.write_str("its pointers are compressed"),
            Problem::Large => out.write_str("its objects are larger than is read of them"),
            Problem::Missing(symbol) => write!(out, "it has no {symbol}"),
        }
    }
}

/// Where in V8's objects names and places are, bytes, and what tells strings apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NameLayout {
    /// In what closures share its name, or its scope, which has the name.
    pub name: u64,
    /// In a script its name.
    pub script_name: u64,
    /// The type of scopes.
    pub scope_kind: u32,
    /// In a scope the words of numbers and of what it has of local variables.
    pub scope: ScopeLayout,
    /// Strings.
    pub strings: StringLayout,
}

/// In a scope, words from the first behind its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeLayout {
    /// How many locals it has.
    pub locals: u64,
    /// The first of them.
    pub first: u64,
    /// Whether where the function begins and ends stands before them, and not behind.
    pub has_place: bool,
}

/// How strings are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StringLayout {
    /// In a string how many characters it has, four bytes.
    pub length: u64,
    /// Types that have any of these bits are no strings.
    pub not_string: u32,
    /// The bits of how it is kept,
    pub representation: u32,
    /// and what they are if the characters are in it,
    pub sequential: u32,
    /// it is two strings,
    pub cons: u32,
    /// a part of another one,
    pub sliced: u32,
    /// another one,
    pub thin: u32,
    /// or elsewhere.
    pub external: u32,
    /// The bits that say that characters have one byte.
    pub one_byte: u32,
    /// Where the characters are in it.
    pub characters: u64,
    /// The two strings that it is.
    pub halves: (u64, u64),
    /// The string that it is a part of, and from which character on.
    pub parent: (u64, u64),
    /// The string that it is.
    pub actual: u64,
    /// What has the characters; their address is behind it.
    pub resource: u64,
}

/// The numbers that a file names.
struct Numbers(HashMap<Vec<u8>, i32>);

impl Numbers {
    /// All of a file; none if it has none.
    fn of(bytes: &dyn Bytes, image: &Image) -> Option<Self> {
        let (symbols, names) = image.dynamic_symbols()?;
        let size = names.end.checked_sub(names.start)?.min(MAX_TABLE);
        let found: Vec<u64> = places(bytes, (names.start, size), PREFIX)
            .take(MAX_SYMBOLS)
            .map(|(place, _)| place - names.start)
            .collect();
        if found.is_empty() {
            return None;
        }
        let mut numbers = HashMap::new();
        let end = symbols.end.min(symbols.start.saturating_add(MAX_TABLE));
        symtab::each(bytes, symbols.start..end, |symbol| {
            let offset = u64::from(symbol.st_name(ENDIAN));
            if found.binary_search(&offset).is_ok()
                && let Some(number) = number(image, symbol.st_value(ENDIAN))
            {
                let mut name = [0; MAX_NAME];
                let name = symtab::string(bytes, &names, offset, &mut name);
                numbers.insert(name[PREFIX.len()..].to_vec(), number);
            }
            ControlFlow::Continue(())
        });
        Some(Self(numbers))
    }

    /// A number that is never negative.
    fn get(&self, name: &'static str) -> Result<u32, Problem> {
        let number = self.0.get(name.as_bytes());
        let number = number.and_then(|number| u32::try_from(*number).ok());
        number.ok_or(Problem::Missing(name))
    }

    /// The one whose name begins like this: how V8 calls a field's type differs from version
    /// to version. Fields of two types may have one name, if both are at one place.
    fn field(&self, begin: &'static str) -> Result<u32, Problem> {
        let all = self.0.iter();
        let mut found =
            all.filter_map(|(name, at)| name.starts_with(begin.as_bytes()).then_some(at));
        let first = found.next().filter(|first| found.all(|at| at == *first));
        let at = first.and_then(|at| u32::try_from(*at).ok());
        at.ok_or(Problem::Missing(begin))
    }

    /// How far below the frame pointer something is.
    fn below(&self, name: &'static str) -> Result<u32, Problem> {
        let number = self.0.get(name.as_bytes());
        let below = number.and_then(|number| u32::try_from(number.checked_neg()?).ok());
        below.ok_or(Problem::Missing(name))
    }

    /// Bits.
    fn bits(&self, name: &'static str) -> Result<u32, Problem> {
        let number = self.0.get(name.as_bytes());
        let bits = number.map(|number| number.cast_unsigned());
        bits.ok_or(Problem::Missing(name))
    }
}

/// The number at an address.
fn number(image: &Image, address: u64) -> Option<i32> {
    let bytes = image.at(address, 4)?.first_chunk()?;
    Some(i32::from_le_bytes(*bytes))
}

/// V8 in a file, if it has it.
pub fn find(bytes: &dyn Bytes, image: &Image) -> Option<V8> {
    let numbers = Numbers::of(bytes, image)?;
    Some(match structures(&numbers) {
        Ok(structures) => V8::Known(Box::new(structures)),
        Err(problem) => V8::Unknown(problem),
    })
}

fn structures(numbers: &Numbers) -> Result<Structures, Problem> {
    // Small numbers are in the upper halves of words of eight bytes.
    let is_whole = numbers.get("TaggedSize")? == 8
        && numbers.get("SmiShiftSize")? == 31
        && numbers.get("SmiTagMask")? == 1
        && numbers.get("HeapObjectTag")? == 1
        && numbers.get("HeapObjectTagMask")? == 3;
    if !is_whole {
        return Err(Problem::Compressed);
    }
    let layout = Layout {
        context_below: numbers.below("off_fp_context_or_frame_type")?,
        function_below: numbers.below("off_fp_function")?,
        shared: numbers.field("class_JSFunction__shared__")?,
        // Once it may have been the debugger's, which has no script's type.
        script: numbers
            .field("class_SharedFunctionInfo__script__")
            .or_else(|missing| {
                let older = numbers.field("class_SharedFunctionInfo__script_or_debug_info__");
                older.map_err(|_| missing)
            })?,
        // Not named, but right behind (`shared-function-info.tq`).
        literal: numbers.field("class_SharedFunctionInfo__flags__")? + 4,
        kind: numbers.field("class_Map__instance_type__")?,
        source: numbers.field("class_Script__source__")?,
        // Not named, but right behind (`script.tq`).
        id: numbers.field("class_Script__line_ends__")? + 8,
        length: numbers.field("class_String__length__")?,
        shared_kind: numbers.get("type_SharedFunctionInfo__SHARED_FUNCTION_INFO_TYPE")?,
        script_kind: numbers.get("type_Script__SCRIPT_TYPE")?,
        padding: 0,
    };
    if !layout.is_near() {
        return Err(Problem::Large);
    }
    Ok(Structures {
        layout,
        names: names(numbers)?,
    })
}

fn names(numbers: &Numbers) -> Result<NameLayout, Problem> {
    let at = |name| numbers.get(name).map(u64::from);
    let field = |name| numbers.field(name).map(u64::from);
    let (locals, first) = (
        at("scopeinfo_idx_ncontextlocals")?,
        at("scopeinfo_idx_first_vars")?,
    );
    Ok(NameLayout {
        name: field("class_SharedFunctionInfo__name_or_scope_info__")?,
        script_name: field("class_Script__name__")?,
        scope_kind: numbers.get("type_ScopeInfo__SCOPE_INFO_TYPE")?,
        scope: ScopeLayout {
            locals,
            first,
            // Two words that are not named (`scope-info.tq`).
            has_place: first == locals + 3,
        },
        strings: StringLayout {
            length: field("class_String__length__")?,
            not_string: numbers.bits("IsNotStringMask")? & 0xffff,
            representation: numbers.get("StringRepresentationMask")?,
            sequential: numbers.field("type_SeqOneByteString__")?
                & numbers.get("StringRepresentationMask")?,
            cons: numbers.get("ConsStringTag")?,
            sliced: numbers.get("SlicedStringTag")?,
            thin: numbers.get("ThinStringTag")?,
            external: numbers.get("ExternalStringTag")?,
            one_byte: numbers.get("OneByteStringTag")?,
            characters: field("class_SeqOneByteString__chars__")?,
            halves: (
                field("class_ConsString__first__")?,
                field("class_ConsString__second__")?,
            ),
            parent: (
                field("class_SlicedString__parent__")?,
                field("class_SlicedString__offset__")?,
            ),
            actual: field("class_ThinString__actual__")?,
            resource: field("class_ExternalString__resource__")?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::ReadCache;

    use crate::process::bytes::Positioned;

    fn of(path: &str) -> Option<V8> {
        let content = std::fs::read(path).unwrap();
        let bytes = &&content[..];
        let cache = ReadCache::new(Positioned::new(bytes));
        let image = Image::parse(&cache).unwrap();
        find(bytes, &image)
    }

    #[test]
    fn node_says_where_its_objects_have_things() {
        let Some(V8::Known(known)) = of("/usr/bin/node") else {
            panic!("node is not known");
        };
        let layout = known.layout;
        assert_eq!((layout.context_below, layout.function_below), (8, 16));
        assert!(layout.is_known() && layout.script_kind != layout.shared_kind);
        assert_eq!(known.names.strings.not_string, 0xff80);
        assert_eq!(of("/lib/x86_64-linux-gnu/libc.so.6"), None);
    }

    #[test]
    fn what_is_missing_or_compressed_is_said() {
        let mut numbers = Numbers(HashMap::new());
        assert_eq!(structures(&numbers), Err(Problem::Missing("TaggedSize")));
        for (name, number) in [
            ("TaggedSize", 4),
            ("SmiShiftSize", 0),
            ("SmiTagMask", 1),
            ("HeapObjectTag", 1),
            ("HeapObjectTagMask", 3),
        ] {
            numbers.0.insert(name.as_bytes().to_vec(), number);
        }
        assert_eq!(structures(&numbers), Err(Problem::Compressed));
    }
}
