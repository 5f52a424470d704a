//! `unfreed probes`: the USDT probes that a live process offers.

use std::collections::HashSet;
use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::cli::args::ProbesArgs;
use crate::privilege::capability::Phase;
use crate::process::clock::monotonic_ns;
use crate::process::code::CodeSpace;
use crate::process::file::ModuleFiles;
use crate::report::text;
use crate::session::target::Target;
use crate::usdt::{self, Probe, Site, SiteArgument};
use crate::visible::clean;

/// A file that was looked at, and its probes.
struct Searched {
    path: String,
    probes: Result<Vec<Probe>, String>,
}

/// Prints the probes of all files with code that the process has mapped.
///
/// # Errors
/// Fails if there is no such process, or it may not be looked at. That it has
/// no probes is no error.
pub fn run(args: &ProbesArgs) -> Result<ExitCode> {
    Phase::Looking.start()?;
    let target = Target::find(args.pid)?;
    let mut files = ModuleFiles::new();
    let code = CodeSpace::attach(target.pid, monotonic_ns(), &mut files)?;
    let mut searched = search(&code);
    for file in &mut searched {
        if let Ok(probes) = &mut file.probes {
            probes.retain(|probe| is_wanted(args, probe));
        }
    }
    if args.json {
        text::print_text(&format!("{}\n", json(&searched)?))?;
    } else {
        text::print_text(&table(&searched))?;
    }
    if searched.iter().all(|file| file.offered().is_empty()) {
        eprintln!("{}", nothing_found(args, &searched));
    }
    Ok(ExitCode::SUCCESS)
}

impl Searched {
    fn offered(&self) -> &[Probe] {
        self.probes.as_deref().unwrap_or_default()
    }
}

fn search(code: &CodeSpace) -> Vec<Searched> {
    let mut seen = HashSet::new();
    let mut searched = Vec::new();
    for mapping in code.current() {
        let path = mapping.display_name();
        // What the kernel itself maps is no file.
        if path.starts_with('[') || !seen.insert(mapping.range.file) {
            continue;
        }
        let probes = match &mapping.file {
            Err(reason) => Err(reason.clone()),
            Ok(file) => usdt::read(&file.content).map_err(|error| format!("{error:#}")),
        };
        searched.push(Searched { path, probes });
    }
    searched
}

fn is_wanted(args: &ProbesArgs, probe: &Probe) -> bool {
    let provider = args.provider.as_ref();
    provider.is_none_or(|provider| probe.provider == *provider)
        && args
            .names
            .iter()
            .all(|part| probe.name.contains(part.as_str()))
}

/// Lines of probes below the file that has them.
fn table(searched: &[Searched]) -> String {
    let mut text = String::new();
    for file in searched.iter().filter(|file| !file.offered().is_empty()) {
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{separator}{}", clean(&file.path));
        let rows: Vec<_> = file.offered().iter().map(row).collect();
        let head = ["PROVIDER", "PROBE", "SITES", "SEMAPHORE", "ARGUMENTS"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        let widths: [usize; 5] = std::array::from_fn(|column| {
            let width = |row: &[String; 5]| row[column].width();
            rows.iter().map(width).max().unwrap_or(0)
        });
        for row in &rows {
            let cells = row.iter().zip(widths);
            let padded = cells.map(|(cell, width)| {
                let padding = width.saturating_sub(cell.width());
                format!("{cell}{:padding$}", "")
            });
            let line = padded.collect::<Vec<_>>().join("  ");
            let _ = writeln!(text, "  {}", line.trim_end());
        }
    }
    text
}

fn row(probe: &Probe) -> [String; 5] {
    let has_semaphore = probe.sites.iter().any(|site| site.semaphore.is_some());
    [
        clean(&probe.provider).into_owned(),
        clean(&probe.name).into_owned(),
        probe.sites.len().to_string(),
        if has_semaphore { "yes" } else { "no" }.to_owned(),
        arguments(&probe.sites),
    ]
}

/// The types of a probe's arguments; those that only some sites have, or have
/// another type there, with all of them.
fn arguments(sites: &[Site]) -> String {
    let count = sites.iter().map(|site| site.arguments.len()).max();
    let argument = |index: usize| {
        let mut types: Vec<_> = sites
            .iter()
            .map(|site| {
                site.arguments
                    .get(index)
                    .map_or("none".to_owned(), type_name)
            })
            .collect();
        types.sort();
        types.dedup();
        types.join("|")
    };
    let all: Vec<_> = (0..count.unwrap_or(0)).map(argument).collect();
    all.join(" ")
}

/// `u64`, `i32`; `?` if there is none that could be read.
fn type_name(argument: &SiteArgument) -> String {
    match (&argument.width, &argument.operand) {
        (Ok(width), Ok(_)) => {
            let kind = if width.is_signed() { 'i' } else { 'u' };
            format!("{kind}{}", u32::from(width.bytes()) * 8)
        }
        _ => "?".to_owned(),
    }
}

/// One probe of the JSON output.
#[derive(Serialize)]
struct Listed<'a> {
    file: &'a str,
    provider: &'a str,
    probe: &'a str,
    sites: Vec<ListedSite<'a>>,
}

/// A site; addresses are those in the file.
#[derive(Serialize)]
struct ListedSite<'a> {
    address: u64,
    file_offset: Option<u64>,
    semaphore: Option<u64>,
    arguments: Vec<ListedArgument<'a>>,
}

#[derive(Serialize)]
struct ListedArgument<'a> {
    #[serde(rename = "type")]
    kind: String,
    operand: &'a str,
    problem: Option<String>,
}

impl<'a> From<&'a Site> for ListedSite<'a> {
    fn from(site: &'a Site) -> Self {
        Self {
            address: site.pc.0,
            file_offset: site.offset.map(|offset| offset.0),
            semaphore: site.semaphore.map(|semaphore| semaphore.address.0),
            arguments: site.arguments.iter().map(ListedArgument::from).collect(),
        }
    }
}

impl<'a> From<&'a SiteArgument> for ListedArgument<'a> {
    fn from(argument: &'a SiteArgument) -> Self {
        Self {
            kind: type_name(argument),
            operand: &argument.text,
            problem: argument.operand.as_ref().err().map(ToString::to_string),
        }
    }
}

fn json(searched: &[Searched]) -> Result<String> {
    let mut listed = Vec::new();
    for file in searched {
        listed.extend(file.offered().iter().map(|probe| Listed {
            file: &file.path,
            provider: &probe.provider,
            probe: &probe.name,
            sites: probe.sites.iter().map(ListedSite::from).collect(),
        }));
    }
    Ok(serde_json::to_string_pretty(&listed)?)
}

fn nothing_found(args: &ProbesArgs, searched: &[Searched]) -> String {
    let asked = args.provider.is_some() || !args.names.is_empty();
    let mut text = format!(
        "process {} offers no {}probes; looked for stapsdt notes in its {} files:",
        args.pid,
        if asked { "such " } else { "" },
        searched.len()
    );
    for file in searched {
        let _ = write!(text, "\n  {}", clean(&file.path));
        if let Err(reason) = &file.probes {
            let _ = write!(text, ": {}", clean(reason));
        }
    }
    text
}
