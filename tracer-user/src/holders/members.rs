//! The members of classes and of variables, by a file's DWARF: which one is at an offset.
//!
//! All top-level entries and those of namespaces are looked at once; functions are not. Members are
//! looked for where a class or a variable is asked for. The file may be anybody's: what is read of it
//! is bounded in bytes, in time and in depth, and what is broken has no names.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::rc::Rc;

use flate2::read::ZlibDecoder;
use gimli::{
    AttributeValue, DebugInfoOffset, DebugTypes, DebuggingInformationEntry, DwAt, Dwarf,
    DwarfSections, EndianSlice, EntriesTreeNode, LittleEndian, Operation, Section, SectionId, Unit,
    UnitHeader, UnitOffset, UnitType, constants,
};
use object::Endianness;
use object::elf::{ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD, SHF_COMPRESSED, SectionHeader64};
use object::read::ReadCache;
use object::read::elf::{FileHeader, SectionHeader};
use ruzstd::decoding::StreamingDecoder;

use super::budget::Budget;
use super::segments::{ENDIAN, header};
use crate::process::bytes::{Bytes, Positioned};

/// Bytes of debug information that are read of a file, unpacked.
const MAX_BYTES: u64 = 256 << 20;
/// Classes and variables that are kept.
const MAX_KEPT: usize = 1 << 20;
/// Namespaces and classes in each other, and types of types.
const MAX_DEPTH: usize = 32;
/// Entries of a class that are looked at.
const MAX_MEMBERS: usize = 1 << 14;
/// The header of a compressed section (`Elf64_Chdr`), bytes.
const CHDR: usize = 24;
/// The name of a namespace without one, as demanglers have it.
const NAMELESS: &str = "(anonymous namespace)";

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Where a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct UnitPlace {
    /// Whether that is in `.debug_types`, where DWARF 4 has types that several units share.
    is_of_types: bool,
    /// Where in its section.
    offset: usize,
}

/// Where an entry is: its unit, and the place in that.
type Place = (UnitPlace, UnitOffset);

/// What a file's debug information says of classes and variables.
pub struct Members {
    sections: DwarfSections<Vec<u8>>,
    /// By the hash of the name with its namespaces.
    classes: HashMap<u64, Place>,
    /// By the address as linked.
    variables: HashMap<u64, Place>,
    /// Types with a unit of their own, by their signatures.
    signed: HashMap<u64, Place>,
}

impl Members {
    /// Reads that of a file; `None` if it has none, or too much.
    pub fn read(file: &dyn Bytes, budget: &mut Budget) -> Option<Self> {
        Some(Self::of(sections(file)?, budget))
    }

    fn of(sections: DwarfSections<Vec<u8>>, budget: &mut Budget) -> Self {
        let mut members = Self {
            sections,
            classes: HashMap::new(),
            variables: HashMap::new(),
            signed: HashMap::new(),
        };
        let mut index = Index {
            budget,
            classes: HashMap::new(),
            variables: HashMap::new(),
            signed: HashMap::new(),
            declared: HashMap::new(),
        };
        index.read(&members.dwarf());
        let Index {
            classes,
            variables,
            signed,
            ..
        } = index;
        members.classes = classes;
        members.variables = variables;
        members.signed = signed;
        members
    }

    /// The member of a class, by its name with namespaces, that has an offset.
    pub fn of_class(&self, class: &str, offset: u64) -> Option<String> {
        let dwarf = self.dwarf();
        let types = Types::of(&dwarf, &self.signed);
        let class = types.at(*self.classes.get(&hash(class))?)?;
        types.member(&class, offset, 0)
    }

    /// The member of the variable at an address as linked that has an offset in it.
    pub fn of_variable(&self, address: u64, offset: u64) -> Option<String> {
        let dwarf = self.dwarf();
        let types = Types::of(&dwarf, &self.signed);
        let variable = types.at(*self.variables.get(&address)?)?;
        types.member(&types.of_variable(&variable)?, offset, 0)
    }

    fn dwarf(&self) -> Dwarf<Slice<'_>> {
        let slice = |section| EndianSlice::new(section, LittleEndian);
        self.sections.borrow(|section: &Vec<u8>| slice(section))
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// The sections of debug information, unpacked.
fn sections(file: &dyn Bytes) -> Option<DwarfSections<Vec<u8>>> {
    let data = ReadCache::new(Positioned::new(file));
    let header = header(&data)?;
    let table = header.sections(ENDIAN, &data).ok()?;
    let mut left = MAX_BYTES;
    let section = |id: SectionId| match table.section_by_name(ENDIAN, id.name().as_bytes()) {
        Some((_, section)) if is_used(id) => content(file, section, &mut left).ok_or(()),
        _ => Ok(Vec::new()),
    };
    let sections = DwarfSections::load(section).ok()?;
    let has_any = table.section_by_name(ENDIAN, b".debug_info").is_some();
    has_any.then_some(sections)
}

const fn is_used(id: SectionId) -> bool {
    matches!(
        id,
        SectionId::DebugAbbrev
            | SectionId::DebugAddr
            | SectionId::DebugInfo
            // A unit is not read without.
            | SectionId::DebugLine
            | SectionId::DebugLineStr
            | SectionId::DebugStr
            | SectionId::DebugStrOffsets
            | SectionId::DebugTypes
    )
}

/// What a section has; `None` if it is too large, or cannot be unpacked.
fn content(
    file: &dyn Bytes,
    section: &SectionHeader64<Endianness>,
    left: &mut u64,
) -> Option<Vec<u8>> {
    let (offset, size) = section.file_range(ENDIAN)?;
    *left = left.checked_sub(size)?;
    if offset.checked_add(size)? > file.size() {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let filled = file.fill(&mut bytes, offset);
    bytes.truncate(filled);
    if !section.sh_flags(ENDIAN).contains(SHF_COMPRESSED) {
        return Some(bytes);
    }
    let (header, packed) = bytes.split_at_checked(CHDR)?;
    let kind = u32::from_le_bytes(*header.first_chunk()?);
    let size = u64::from_le_bytes(*header.get(8..)?.first_chunk()?);
    *left = left.checked_sub(size)?;
    if kind == ELFCOMPRESS_ZLIB.0 {
        unpacked(ZlibDecoder::new(packed), size)
    } else if kind == ELFCOMPRESS_ZSTD.0 {
        unpacked(StreamingDecoder::new(packed).ok()?, size)
    } else {
        None
    }
}

/// What comes out of a decoder, as far as it was said to.
fn unpacked(content: impl Read, size: u64) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    content.take(size).read_to_end(&mut unpacked).ok()?;
    Some(unpacked)
}

/// What is found of a file's entries, within a budget.
struct Index<'b> {
    budget: &'b mut Budget,
    classes: HashMap<u64, Place>,
    variables: HashMap<u64, Place>,
    signed: HashMap<u64, Place>,
    /// Classes that the unit declares, with their namespaces: it defines them elsewhere.
    declared: HashMap<UnitOffset, String>,
}

impl Index<'_> {
    fn read(&mut self, dwarf: &Dwarf<Slice<'_>>) {
        let (mut units, mut of_types) = (dwarf.units(), dwarf.type_units());
        while let Ok(Some(header)) = units.next() {
            self.read_header(dwarf, header);
        }
        while let Ok(Some(header)) = of_types.next() {
            self.read_header(dwarf, header);
        }
    }

    fn read_header<'a>(&mut self, dwarf: &Dwarf<Slice<'a>>, header: UnitHeader<Slice<'a>>) {
        let in_info = header.debug_info_offset().map(|it| (false, it.0));
        let in_types = || header.debug_types_offset().map(|it| (true, it.0));
        let Some((is_of_types, offset)) = in_info.or_else(in_types) else {
            return;
        };
        let place = UnitPlace {
            is_of_types,
            offset,
        };
        if let UnitType::Type {
            type_signature,
            type_offset,
        } = header.type_()
            && !self.is_full()
        {
            self.signed
                .entry(type_signature.0)
                .or_insert((place, type_offset));
        }
        if let Ok(unit) = dwarf.unit(header) {
            let scope = Scope {
                dwarf,
                unit: &unit,
                place,
            };
            self.declared.clear();
            // One that is broken has what was found until then.
            let _broken = self.read_unit(&scope);
        }
    }

    fn is_full(&self) -> bool {
        let kept = self.classes.len() + self.variables.len() + self.signed.len();
        kept + self.declared.len() >= MAX_KEPT
    }

    fn read_unit(&mut self, scope: &Scope<'_, '_>) -> gimli::Result<()> {
        let mut tree = scope.unit.entries_tree(None)?;
        self.read_children(tree.root()?, scope, "", 0)
    }

    fn read_children<'a>(
        &mut self,
        node: EntriesTreeNode<'_, '_, Slice<'a>>,
        scope: &Scope<'_, 'a>,
        prefix: &str,
        depth: usize,
    ) -> gimli::Result<()> {
        let mut children = node.children();
        while let Some(child) = children.next()? {
            if self.budget.is_over() || self.is_full() {
                return Ok(());
            }
            let entry = child.entry();
            let place = (scope.place, entry.offset());
            let tag = entry.tag();
            match tag {
                constants::DW_TAG_variable => {
                    let location = entry.attr_value(constants::DW_AT_location);
                    if let Some(address) = location.and_then(|it| scope.address(it)) {
                        self.variables.entry(address).or_insert(place);
                    }
                }
                constants::DW_TAG_namespace
                | constants::DW_TAG_class_type
                | constants::DW_TAG_structure_type => {
                    let is_namespace = tag == constants::DW_TAG_namespace;
                    let Some(name) = self.name(entry, scope, prefix) else {
                        continue;
                    };
                    if entry.has_attr(constants::DW_AT_declaration) {
                        if !is_namespace {
                            self.declared.insert(entry.offset(), name.clone());
                        }
                    } else if !is_namespace {
                        self.classes.entry(hash(&name)).or_insert(place);
                    }
                    if depth < MAX_DEPTH {
                        self.read_children(child, scope, &name, depth + 1)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The name of a namespace or class, with those that it is in: of a class that was declared, as it
    /// was there.
    fn name<'a>(
        &self,
        entry: &DebuggingInformationEntry<Slice<'a>>,
        scope: &Scope<'_, 'a>,
        prefix: &str,
    ) -> Option<String> {
        if let Some(declared) = entry.attr_value(constants::DW_AT_specification) {
            return match declared {
                AttributeValue::UnitRef(at) => self.declared.get(&at).cloned(),
                _ => None,
            };
        }
        let is_namespace = entry.tag() == constants::DW_TAG_namespace;
        let name = scope.name(entry.attr_value(constants::DW_AT_name));
        let name = name.or(is_namespace.then(|| NAMELESS.to_owned()))?;
        Some(match prefix {
            "" => name,
            prefix => format!("{prefix}::{name}"),
        })
    }
}

/// A unit, and what its entries refer to.
struct Scope<'d, 'a> {
    dwarf: &'d Dwarf<Slice<'a>>,
    unit: &'d Unit<Slice<'a>>,
    /// Where it is.
    place: UnitPlace,
}

impl<'a> Scope<'_, 'a> {
    fn name(&self, value: Option<AttributeValue<Slice<'a>>>) -> Option<String> {
        let text = self.dwarf.attr_string(self.unit, value?).ok()?;
        Some(String::from_utf8_lossy(text.slice()).into_owned())
    }

    /// The address that a location is, if it is nothing else.
    fn address(&self, location: AttributeValue<Slice<'a>>) -> Option<u64> {
        let mut bytes = location.exprloc_value()?.0;
        let first = Operation::parse(&mut bytes, self.unit.encoding()).ok()?;
        match first {
            _ if !bytes.is_empty() => None,
            Operation::Address { address } => Some(address),
            Operation::AddressIndex { index } => self.dwarf.address(self.unit, index).ok(),
            _ => None,
        }
    }
}

/// Types, and the units that were met on the way to them.
struct Types<'d, 'a> {
    dwarf: &'d Dwarf<Slice<'a>>,
    signed: &'d HashMap<u64, Place>,
    units: RefCell<HashMap<UnitPlace, Rc<Unit<Slice<'a>>>>>,
}

/// An entry, with its unit.
#[derive(Clone)]
struct Entry<'a> {
    unit: Rc<Unit<Slice<'a>>>,
    place: UnitPlace,
    at: UnitOffset,
}

impl Entry<'_> {
    fn udata(&self, name: DwAt) -> Option<u64> {
        let entry = self.unit.entry(self.at).ok()?;
        entry.attr_value(name)?.udata_value()
    }

    fn tag(&self) -> Option<constants::DwTag> {
        Some(self.unit.entry(self.at).ok()?.tag())
    }
}

impl<'d, 'a> Types<'d, 'a> {
    fn of(dwarf: &'d Dwarf<Slice<'a>>, signed: &'d HashMap<u64, Place>) -> Self {
        Self {
            dwarf,
            signed,
            units: RefCell::default(),
        }
    }

    /// The entry at a place.
    fn at(&self, (place, at): Place) -> Option<Entry<'a>> {
        let known = self.units.borrow().get(&place).cloned();
        let unit = match known {
            Some(unit) => unit,
            None => {
                let unit = Rc::new(self.dwarf.unit(self.header(place)?).ok()?);
                self.units.borrow_mut().insert(place, Rc::clone(&unit));
                unit
            }
        };
        Some(Entry { unit, place, at })
    }

    fn header(&self, place: UnitPlace) -> Option<UnitHeader<Slice<'a>>> {
        if !place.is_of_types {
            let offset = DebugInfoOffset(place.offset);
            return self.dwarf.debug_info.header_from_offset(offset).ok();
        }
        let section = self.dwarf.debug_types.reader().slice();
        let rest = DebugTypes::new(section.get(place.offset..)?, LittleEndian);
        rest.units().next().ok()?
    }

    /// What an entry refers to, in the same unit or in one of a type's own.
    fn referred(&self, entry: &Entry<'a>, by: DwAt) -> Option<Entry<'a>> {
        let to = match entry.unit.entry(entry.at).ok()?.attr_value(by)? {
            AttributeValue::UnitRef(at) => Entry {
                at,
                ..entry.clone()
            },
            AttributeValue::DebugTypesRef(signature) => self.signed(signature.0)?,
            _ => return None,
        };
        // A unit has a declaration of what is whole in the type's own.
        let declared = to.unit.entry(to.at).ok()?;
        match declared.attr_value(constants::DW_AT_signature) {
            Some(AttributeValue::DebugTypesRef(signature)) => {
                drop(declared);
                self.signed(signature.0).or(Some(to))
            }
            _ => {
                drop(declared);
                Some(to)
            }
        }
    }

    fn signed(&self, signature: u64) -> Option<Entry<'a>> {
        self.at(*self.signed.get(&signature)?)
    }

    /// The type of a variable: its own, or that of its declaration.
    fn of_variable(&self, variable: &Entry<'a>) -> Option<Entry<'a>> {
        let own = self.referred(variable, constants::DW_AT_type);
        own.or_else(|| {
            let declared = self.referred(variable, constants::DW_AT_specification)?;
            self.referred(&declared, constants::DW_AT_type)
        })
    }

    /// The member of a type that has an offset. Names that begin with an underscore are a
    /// library's own, and tell nothing.
    fn member(&self, of: &Entry<'a>, at: u64, depth: usize) -> Option<String> {
        if depth > MAX_DEPTH {
            return None;
        }
        match of.tag()? {
            constants::DW_TAG_typedef
            | constants::DW_TAG_const_type
            | constants::DW_TAG_volatile_type => {
                let named = self.referred(of, constants::DW_AT_type)?;
                return self.member(&named, at, depth + 1);
            }
            constants::DW_TAG_class_type | constants::DW_TAG_structure_type => {}
            _ => return None,
        }
        if self.size(of, 0).is_some_and(|size| at >= size) {
            return None;
        }
        let part = self.part(of, at)?;
        let into = at - part.at;
        let size = part.of.as_ref().and_then(|it| self.size(it, 0));
        if size.is_some_and(|size| into >= size) {
            return None;
        }
        match part.name {
            // Of a base class, or of a member without a name.
            None => self.member(&part.of?, into, depth + 1),
            Some(name) => (!name.is_empty() && !name.starts_with('_')).then_some(name),
        }
    }

    /// The last part of a class that does not begin after an offset.
    fn part(&self, of: &Entry<'a>, at: u64) -> Option<Part<'a>> {
        let scope = Scope {
            dwarf: self.dwarf,
            unit: &of.unit,
            place: of.place,
        };
        let mut tree = of.unit.entries_tree(Some(of.at)).ok()?;
        let mut children = tree.root().ok()?.children();
        let mut found: Option<Part<'a>> = None;
        for _ in 0..MAX_MEMBERS {
            let Ok(Some(child)) = children.next() else {
                break;
            };
            let entry = child.entry();
            let is_base = entry.tag() == constants::DW_TAG_inheritance;
            if !is_base && entry.tag() != constants::DW_TAG_member {
                continue;
            }
            let place = entry.attr_value(constants::DW_AT_data_member_location);
            let Some(place) = place.and_then(|it| it.udata_value()) else {
                continue;
            };
            // An empty base is where the first member is.
            if place <= at && found.as_ref().is_none_or(|part| part.at <= place) {
                let name = scope.name(entry.attr_value(constants::DW_AT_name));
                let member = Entry {
                    at: entry.offset(),
                    ..of.clone()
                };
                found = Some(Part {
                    at: place,
                    name: name.filter(|_| !is_base),
                    of: self.referred(&member, constants::DW_AT_type),
                });
            }
        }
        found
    }

    /// Bytes of a type, if that is known.
    fn size(&self, of: &Entry<'a>, depth: usize) -> Option<u64> {
        if let Some(size) = of.udata(constants::DW_AT_byte_size) {
            return Some(size);
        }
        match of.tag()? {
            constants::DW_TAG_typedef
            | constants::DW_TAG_const_type
            | constants::DW_TAG_volatile_type
                if depth < MAX_DEPTH =>
            {
                self.size(&self.referred(of, constants::DW_AT_type)?, depth + 1)
            }
            _ => None,
        }
    }
}

/// A member of a class, or a base class.
struct Part<'a> {
    /// Its offset.
    at: u64,
    name: Option<String>,
    of: Option<Entry<'a>>,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    /// What the entries below have: tag, whether there are children, and attributes with forms.
    const ABBREVIATIONS: &[&[u8]] = &[
        &[1, 0x11, 1, 0, 0],
        &[2, 0x39, 1, 0x03, 0x08, 0, 0],
        &[3, 0x13, 1, 0x03, 0x08, 0x0b, 0x0b, 0, 0],
        &[4, 0x0d, 0, 0x03, 0x08, 0x49, 0x13, 0x38, 0x0b, 0, 0],
        &[5, 0x1c, 0, 0x49, 0x13, 0x38, 0x0b, 0, 0],
        &[6, 0x24, 0, 0x0b, 0x0b, 0, 0],
        &[7, 0x34, 0, 0x49, 0x13, 0x02, 0x18, 0, 0],
        &[8, 0x39, 1, 0, 0],
        &[0],
    ];
    const UNIT: u8 = 1;
    const NAMESPACE: u8 = 2;
    const STRUCTURE: u8 = 3;
    const MEMBER: u8 = 4;
    const BASE: u8 = 5;
    const WORD: u8 = 6;
    const VARIABLE: u8 = 7;
    const NAMELESS: u8 = 8;
    const END: u8 = 0;

    /// Entries of a unit of DWARF 4.
    struct Info(Vec<u8>);

    impl Info {
        fn new() -> Self {
            let mut info = Self(vec![0; 4]);
            info.0.extend([4, 0, 0, 0, 0, 0, 8]);
            info
        }

        /// Adds an entry, of which the name comes first, then the type, then a number.
        fn add(&mut self, kind: u8, name: &str, of: Option<usize>, number: Option<u8>) -> usize {
            let at = self.0.len();
            self.0.push(kind);
            if !name.is_empty() {
                self.0.extend(name.bytes().chain([0]));
            }
            let of = of.map(|of| u32::try_from(of).unwrap().to_le_bytes());
            self.0.extend(of.into_iter().flatten());
            self.0.extend(number);
            at
        }

        fn sections(mut self) -> DwarfSections<Vec<u8>> {
            let length = u32::try_from(self.0.len() - 4).unwrap();
            self.0[..4].copy_from_slice(&length.to_le_bytes());
            let content = |id| match id {
                SectionId::DebugInfo => self.0.clone(),
                SectionId::DebugAbbrev => ABBREVIATIONS.concat(),
                _ => Vec::new(),
            };
            DwarfSections::load(|id| Ok::<_, ()>(content(id))).unwrap()
        }
    }

    /// `store::Base` of 16 bytes, a class without a name's namespace that inherits it, and a variable of
    /// that at 0x4000.
    fn info() -> Info {
        let mut info = Info::new();
        info.add(UNIT, "", None, None);
        let word = info.add(WORD, "", None, Some(8));
        info.add(NAMESPACE, "store", None, None);
        let base = info.add(STRUCTURE, "Base", None, Some(16));
        info.add(MEMBER, "_vptr.Base", Some(word), Some(0));
        info.add(MEMBER, "owner", Some(word), Some(8));
        info.add(END, "", None, None);
        info.add(NAMELESS, "", None, None);
        let registry = info.add(STRUCTURE, "Registry", None, Some(56));
        info.add(BASE, "", Some(base), Some(0));
        info.add(MEMBER, "byId", Some(base), Some(16));
        info.add(MEMBER, "_hidden", Some(word), Some(32));
        info.add(MEMBER, "last", Some(registry), Some(48));
        info.add(END, "", None, None);
        info.add(END, "", None, None);
        info.add(VARIABLE, "", Some(registry), Some(9));
        info.0.push(0x03);
        info.0.extend(0x4000_u64.to_le_bytes());
        info.add(END, "", None, None);
        info.add(END, "", None, None);
        info
    }

    fn members(info: Info, time: Duration) -> Members {
        Members::of(info.sections(), &mut Budget::new(time, Arc::default()))
    }

    #[test]
    fn members_have_names_by_class_and_by_variable() {
        let members = members(info(), Duration::MAX);
        let class = |offset| members.of_class("store::(anonymous namespace)::Registry", offset);
        assert_eq!(class(8).as_deref(), Some("owner"), "of its base class");
        assert_eq!(class(16).as_deref(), Some("byId"));
        assert_eq!(class(31).as_deref(), Some("byId"), "within it");
        assert_eq!(class(32), None, "a library's own");
        assert_eq!(class(40), None, "between members");
        assert_eq!(class(48).as_deref(), Some("last"));
        assert_eq!(class(56), None, "behind it");
        assert_eq!(class(u64::MAX), None);
        assert_eq!(members.of_class("store::Base", 0), None, "its table");
        assert_eq!(members.of_class("Registry", 16), None, "of no namespace");
        let variable = members.of_variable(0x4000, 24);
        assert_eq!(variable.as_deref(), Some("byId"));
        assert_eq!(members.of_variable(0x4008, 16), None, "none begins there");
    }

    /// Files whose classes have units of their own: in DWARF 4, and in DWARF 5 with all of it
    /// compressed by zstd. Their source: `own` is `{count, {first, second}}`, `kept` the same by a
    /// name for `const volatile`, and `registry` a `store::Registry` with a base.
    #[test]
    fn types_in_units_of_their_own_have_members() {
        let files = [
            &include_bytes!("../../../tests/fuzz/corpus/members/cpp_types")[..],
            include_bytes!("../../../tests/fuzz/corpus/members/cpp_types_packed"),
        ];
        for file in files {
            let mut budget = Budget::new(Duration::MAX, Arc::default());
            let members = Members::read(&file, &mut budget).unwrap();
            assert!(!members.signed.is_empty(), "the compiler did not do so");
            let class = |name, at| members.of_class(name, at);
            assert_eq!(class("store::Registry", 8).as_deref(), Some("owner"));
            assert_eq!(class("store::Registry", 24).as_deref(), Some("byId"));
            assert_eq!(class("store::Registry", 32).as_deref(), Some("last"));
            assert_eq!(class("store::Registry", 40), None, "behind it");
            assert_eq!(class("Own", 16).as_deref(), Some("next"));
            let variable = |address, at| members.of_variable(address, at);
            assert_eq!(variable(0x4040, 0).as_deref(), Some("count"));
            assert_eq!(
                variable(0x4010, 8).as_deref(),
                Some("next"),
                "by its type's name"
            );
            assert_eq!(variable(0x4060, 8).as_deref(), Some("owner"));
            // Cut or broken anywhere there is an end, and no panic.
            for length in (0..file.len()).step_by(61) {
                let mut budget = Budget::new(Duration::MAX, Arc::default());
                let cut = Members::read(&&file[..length], &mut budget);
                assert!(cut.is_none_or(|it| it.of_class("Own", 99).is_none()));
            }
        }
    }

    #[test]
    fn without_time_there_are_no_names() {
        let none = members(info(), Duration::ZERO);
        assert_eq!(none.of_variable(0x4000, 24), None);
    }

    /// Broken information: cut anywhere, and any byte another one. A type that is its own base ends.
    #[test]
    fn what_is_broken_has_no_names_and_ends() {
        let whole = info().0;
        for length in 11..whole.len() {
            let cut = members(Info(whole[..length].to_vec()), Duration::MAX);
            let _any = cut.of_variable(0x4000, 24);
        }
        for at in 11..whole.len() {
            for other in [0, 1, 4, 5, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = other;
                let broken = members(Info(bytes), Duration::MAX);
                for offset in [0, 8, 50, u64::MAX] {
                    let _any = broken.of_variable(0x4000, offset);
                    let _any = broken.of_class("store::Base", offset);
                }
            }
        }
        let mut own = Info::new();
        own.add(UNIT, "", None, None);
        let at = own.0.len();
        own.add(STRUCTURE, "Own", None, Some(8));
        own.add(BASE, "", Some(at), Some(0));
        own.add(END, "", None, None);
        own.add(END, "", None, None);
        assert_eq!(members(own, Duration::MAX).of_class("Own", 0), None);
    }

    #[test]
    fn what_is_no_file_or_has_none_has_no_members() {
        let own = std::fs::read("/bin/true").unwrap();
        for file in [&own[..], &own[..100], b"", b"\x7fELF"] {
            let mut budget = Budget::new(Duration::MAX, Arc::default());
            assert!(Members::read(&file, &mut budget).is_none());
        }
    }
}
