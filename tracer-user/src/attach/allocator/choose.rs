//! Which functions of a file are an allocator's, and which of them have to be
//! probed: a call that goes on with another probed function is seen there.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use anyhow::Result;
use tracer_ebpf::call::Function;

use super::api::{self, Family, Known, Probed};
use super::elf::{self, FunctionSymbol, Functions};
use crate::attach::linkage::{Destination, Linkage};
use crate::attach::returns::{Passing, always_passes};
use crate::process::file::RegularFile;

/// One that is to be probed.
#[derive(Debug)]
pub struct Chosen {
    pub probed: Probed,
    pub symbol: FunctionSymbol,
}

/// A function that is an allocator's by its name.
struct Candidate {
    known: Known,
    symbol: FunctionSymbol,
}

/// What C's functions have to be if a file keeps them to itself: some file's
/// own `free` is no allocator's.
const HIDDEN: [&str; 4] = ["malloc", "calloc", "realloc", "free"];

/// What a file has.
#[derive(Debug)]
pub struct Choice {
    /// The functions that have to be probed, each place once; none if it is no
    /// allocator that is known by its names.
    pub functions: Vec<Chosen>,
    /// Whether functions that are not exported have names.
    pub has_symbols: bool,
    /// Whether no other probed function runs within a call of `malloc` or `new`, and
    /// whoever looks at a stack within one sees that it is.
    pub is_last: bool,
    /// Whether the file is an allocator and nothing else.
    pub is_alone: bool,
}

/// Chooses the functions of a file. `names` are such as somebody has declared.
///
/// # Errors
/// Fails if the file is not a readable 64-bit ELF file.
pub fn functions(
    file: &RegularFile,
    is_program: bool,
    names: HashMap<String, Known>,
    linkage: &mut dyn FnMut() -> Rc<Linkage>,
) -> Result<Choice> {
    let Found { functions, names } = find(file, is_program, names)?;
    let (is_static, has_symbols) = (functions.is_static, functions.has_symbols);
    let is_glibc = functions.is_glibc && !imports_allocator(&functions, &names);
    let candidates = functions.found.into_iter().filter_map(|symbol| {
        let known = api::known(symbol.name.as_bytes()).or_else(|| names.get(&symbol.name).copied());
        known.map(|known| Candidate { known, symbol })
    });
    let mut candidates: Vec<Candidate> = candidates.collect();
    keep_families(&mut candidates, is_static);
    let nothing = Choice {
        functions: Vec::new(),
        has_symbols,
        is_last: false,
        is_alone: false,
    };
    if candidates.is_empty() {
        return Ok(nothing);
    }
    candidates.sort_by_key(|one| one.known.rank);
    let mut starts = HashSet::new();
    candidates.retain(|one| starts.insert(one.symbol.file_offset));
    forget_passing(file, &mut candidates, linkage);
    let chosen: Vec<Chosen> = candidates
        .into_iter()
        .map(|one| Chosen {
            probed: one.known.probed,
            symbol: one.symbol,
        })
        .collect();
    let any = |is_it: fn(Probed) -> bool| chosen.iter().any(|one| is_it(one.probed));
    let is_allocator = any(Probed::allocates) && any(Probed::frees);
    if !is_allocator {
        return Ok(nothing);
    }
    let is_alone = is_alone(&chosen, is_program);
    Ok(Choice {
        functions: chosen,
        has_symbols,
        is_last: is_glibc || is_alone,
        is_alone,
    })
}

/// What a file has of the names that are looked for.
struct Found {
    functions: Functions,
    /// What names mean that are not fixed ones.
    names: HashMap<String, Known>,
}

fn find(file: &RegularFile, is_program: bool, mut names: HashMap<String, Known>) -> Result<Found> {
    let mut prefixes = HashSet::new();
    let functions = elf::functions(file, is_program, |name| {
        if let Some(prefix) = api::unknown_prefix(name) {
            prefixes.insert(prefix.to_owned());
        }
        is_named(name, &names)
    })?;
    if prefixes.is_empty() {
        return Ok(Found { functions, names });
    }
    let named = prefixes.iter().flat_map(|prefix| api::prefixed(prefix));
    names.extend(named.map(|(name, probed)| (name, Known::named(probed))));
    let functions = elf::functions(file, is_program, |name| is_named(name, &names))?;
    Ok(Found { functions, names })
}

/// Whether a file takes functions that allocate from others, or may look for them.
fn imports_allocator(functions: &Functions, names: &HashMap<String, Known>) -> bool {
    let allocates = |name: &String| {
        let known = api::known(name.as_bytes()).or_else(|| names.get(name).copied());
        known.is_none_or(|known| known.probed.allocates())
    };
    functions.imported.iter().any(allocates)
}

/// Whether a library is an allocator that stands in for C's, and nothing else: it has
/// names that only one such library has, and exports `malloc`.
fn is_alone(functions: &[Chosen], is_program: bool) -> bool {
    let is_named = |one: &Chosen| {
        let name = one.symbol.name.as_str();
        let known = api::known(name.as_bytes());
        known.is_some_and(|it| it.family == Family::Named) || name.ends_with(api::JEMALLOC)
    };
    let is_exported = |one: &Chosen| one.symbol.is_exported && one.symbol.name == "malloc";
    let has = |is_it: &dyn Fn(&Chosen) -> bool| functions.iter().any(is_it);
    !is_program && has(&is_named) && has(&is_exported)
}

fn is_named(symbol: &[u8], names: &HashMap<String, Known>) -> bool {
    let is_declared = || std::str::from_utf8(symbol).is_ok_and(|name| names.contains_key(name));
    api::known(symbol).is_some() || (!names.is_empty() && is_declared())
}

/// Leaves out what is no allocator's, in spite of its name.
fn keep_families(candidates: &mut Vec<Candidate>, is_static: bool) {
    let exports = |candidates: &[Candidate], name: &str| {
        let mut all = candidates.iter();
        all.any(|one| one.symbol.is_exported && one.symbol.name == name)
    };
    if exports(candidates, "malloc") && exports(candidates, "free") {
        candidates.retain(|one| match one.known.family {
            Family::C => one.symbol.is_global,
            Family::Mappings => one.symbol.is_exported,
            _ => true,
        });
    } else {
        let has = |name: &&str| candidates.iter().any(|one| one.symbol.name == **name);
        let is_whole = HIDDEN.iter().all(has) || (is_static && has(&"malloc") && has(&"free"));
        // A library's own malloc is no sign that it has the kernel's calls, too.
        candidates.retain(|one| match one.known.family {
            Family::C => is_whole,
            Family::Mappings => is_whole && is_static,
            _ => true,
        });
    }
    // A call that is seen behind a door costs half as much as one that is seen twice.
    let carrier = Probed::Call(Function::CarrierAlloc);
    if candidates.iter().any(|one| one.known.probed == carrier) {
        candidates.retain(|one| !api::leads_to_carriers(&one.symbol.name));
    }
    let is_family = |one: &Candidate, family| one.known.family == family;
    let frees = |one: &Candidate| one.known.probed.frees();
    let allocates = |one: &Candidate| one.known.probed.allocates();
    let named = candidates
        .iter()
        .filter(|one| is_family(one, Family::Named));
    let (mut has_frees, mut has_allocations) = (false, false);
    for one in named {
        has_frees |= frees(one);
        has_allocations |= allocates(one);
    }
    if !has_frees || !has_allocations {
        candidates.retain(|one| !is_family(one, Family::Named));
    }
}

/// Leaves out functions all of whose calls go on with another one that is
/// probed. Such a call is not only seen there: it has the arguments that belong
/// to it, and what it returns is what the first one does. A call in between, in
/// place of a jump, is believed of C++'s operators and Rust's doors alone, which
/// add nothing.
fn forget_passing(
    file: &RegularFile,
    candidates: &mut Vec<Candidate>,
    linkage: &mut dyn FnMut() -> Rc<Linkage>,
) {
    let mut at = 0;
    while let Some(one) = candidates.get(at) {
        let (probed, frees) = (one.known.probed, one.known.probed.frees());
        let is_mapping = one.known.family == Family::Mappings;
        let is_door = matches!(one.known.family, Family::Operators | Family::Rust);
        let is_c = one.known.family == Family::C;
        // What is resized to nothing is freed.
        let may_free = probed == Probed::Call(Function::RustRealloc);
        let others = candidates.iter().enumerate().filter(|(other, it)| {
            // Those that free find their block in another argument each.
            let is_alike =
                it.known.probed == probed || (!frees && (may_free || !it.known.probed.frees()));
            let is_other = *other != at && is_alike;
            // C's functions are probed all, as the libraries define them.
            is_other && (!is_c || it.known.family == Family::Named)
        });
        let others: HashSet<u64> = others.map(|(_, it)| it.symbol.file_offset).collect();
        let passing = match (is_door, frees) {
            (false, _) => Passing::Jumps,
            (true, false) => Passing::Calls(Destination::Allocates),
            (true, true) => Passing::Calls(Destination::Frees),
        };
        let is_idle = others.is_empty() && !is_door;
        let passes = !is_mapping
            && !is_idle
            && always_passes(file, &linkage(), one.symbol.file_offset, &others, passing);
        if passes {
            candidates.remove(at);
        } else {
            at += 1;
        }
    }
}
