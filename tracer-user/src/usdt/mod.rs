//! USDT probes: places in a program's own code that its authors chose and
//! named, each with arguments.

pub mod argument;
pub mod note;
pub mod register;
pub mod segment;
mod symbol;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use anyhow::Result;
use tracer_ebpf::operand::{Operand, Width};

use self::argument::{Argument, Unreadable};
use self::note::Note;
use crate::process::address::{ElfAddress, FileOffset};
use crate::process::bytes::Bytes;

/// Arguments of one site beyond these are not read; systemtap has at most 12.
const MAX_ARGUMENTS: usize = 16;

/// A probe of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Who offers it.
    pub provider: String,
    /// Its name.
    pub name: String,
    /// Its places in the code, by address.
    pub sites: Vec<Site>,
}

/// A place in the code where a probe is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The instruction.
    pub pc: ElfAddress,
    /// Where the instruction is in the file; `None` if it is not in a segment
    /// of code, and cannot be hit.
    pub offset: Option<FileOffset>,
    /// Where the file has the counter that must not be zero for the probe to
    /// be hit, if there is one.
    pub semaphore: Option<Semaphore>,
    /// What the probe tells.
    pub arguments: Vec<SiteArgument>,
}

/// A counter of those who watch a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Semaphore {
    /// Its address as linked.
    pub address: ElfAddress,
    /// Where it is in the file, if it is.
    pub offset: Option<FileOffset>,
}

/// One argument, as the note has it and as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteArgument {
    /// What the note says.
    pub text: String,
    /// Its type; or why it has none that is known.
    pub width: Result<Width, Unreadable>,
    /// What the kernel evaluates; or why it cannot.
    pub operand: Result<Operand, Unreadable>,
}

/// The probes of an ELF file, by provider and name.
///
/// # Errors
/// Fails if it is not a readable 64-bit ELF file, or claims too much. A file
/// without probes has none.
pub fn read(bytes: &dyn Bytes) -> Result<Vec<Probe>> {
    let (notes, segments) = note::read(bytes)?;
    let parsed: Vec<_> = notes.iter().map(|note| parse_arguments(note)).collect();
    let wanted: HashSet<&str> = parsed
        .iter()
        .flatten()
        .filter_map(|(_, argument)| argument.as_ref().ok()?.symbol())
        .collect();
    let symbols = symbol::addresses(bytes, &wanted);
    let mut probes: BTreeMap<(&str, &str), Vec<Site>> = BTreeMap::new();
    for (note, arguments) in notes.iter().zip(&parsed) {
        let argument = |(text, argument): &(&str, Result<Argument, Unreadable>)| SiteArgument {
            text: (*text).to_owned(),
            width: argument
                .as_ref()
                .map(|known| known.width)
                .map_err(|why| *why),
            operand: argument
                .as_ref()
                .map_err(|why| *why)
                .and_then(|known| known.operand(note.pc, |name| symbols.get(name).copied())),
        };
        let site = Site {
            pc: note.pc,
            offset: segments.code(note.pc),
            semaphore: note.semaphore.map(|address| Semaphore {
                address,
                offset: segments.data(address),
            }),
            arguments: arguments.iter().map(argument).collect(),
        };
        let sites = probes.entry((&note.provider, &note.name)).or_default();
        sites.push(site);
    }
    Ok(probes.into_iter().map(of_sites).collect())
}

type Parsed<'a> = (&'a str, Result<Argument, Unreadable>);

fn parse_arguments(note: &Note) -> Vec<Parsed<'_>> {
    split(&note.arguments)
        .into_iter()
        .map(|text| (text, Argument::parse(text)))
        .collect()
}

/// Arguments have spaces between them; within parentheses spaces mean nothing.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0usize;
    text.split(|letter: char| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter.is_ascii_whitespace() && depth == 0
    })
    .filter(|part| !part.is_empty())
    .take(MAX_ARGUMENTS)
    .collect()
}

fn of_sites(((provider, name), mut sites): ((&str, &str), Vec<Site>)) -> Probe {
    // One site can have several notes, if its code was inlined into itself.
    sites.sort_by_key(|site| site.pc);
    sites.dedup();
    Probe {
        provider: provider.to_owned(),
        name: name.to_owned(),
        sites,
    }
}
