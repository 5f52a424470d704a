//! Programs for `uprobe_multi` links (`BPF_TRACE_UPROBE_MULTI`, kernel 6.6) and
//! session links (`BPF_TRACE_UPROBE_SESSION`, kernel 6.13), which aya 0.14 can neither
//! load nor attach. They work on the maps that aya made from the same object.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use aya_obj::Object;

use super::link::Link;
use super::program::{Counted, Moment, Place};
use super::syscall;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_LINK_CREATE: libc::c_long = 28;

const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;
const BPF_TRACE_UPROBE_SESSION: u32 = 57;
const BPF_F_UPROBE_MULTI_RETURN: u32 = 1;

/// The verifier's brief log, with statistics.
const LOG_LEVEL: u32 = 1 | 4;
/// Bytes of it that are asked for when a program was refused.
const LOG_BYTES: u32 = 1 << 20;
/// Its last lines say why.
const LOG_LINES: usize = 12;

/// What the programs' links are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// A program at entries, or at returns.
    Multi,
    /// A program at entries, and at those returns that it wants to be told of.
    Session,
}

impl Links {
    /// The name that the kernel has for it (`enum bpf_attach_type` in `linux/bpf.h`).
    const fn attach_type(self) -> u32 {
        match self {
            Self::Multi => BPF_TRACE_UPROBE_MULTI,
            Self::Session => BPF_TRACE_UPROBE_SESSION,
        }
    }

    /// The map of this name whose users all attach in this way: from 6.18 on those of
    /// a program array have to.
    const fn map(self, name: &str) -> &str {
        match (self, name.as_bytes()) {
            (Self::Multi, b"TASK_STACK") => "TASK_STACK_MULTI",
            (Self::Session, b"TASK_STACK") => "TASK_STACK_PAIR",
            _ => name,
        }
    }
}

/// The programs, loaded when they are first attached.
pub struct MultiPrograms {
    links: Links,
    object: Object,
    types: Option<OwnedFd>,
    loaded: HashMap<&'static str, OwnedFd>,
}

impl MultiPrograms {
    /// Prepares the programs of an object, for links of a kind, for maps that are there
    /// already: `map` gives the descriptor of one. They must stay open.
    ///
    /// # Errors
    /// Fails if the object has a map that is not given.
    pub fn new(links: Links, object: &[u8], map: impl Fn(&str) -> Option<RawFd>) -> Result<Self> {
        let mut object = Object::parse(object)?;
        // Types are wanted for functions that are verified on their own; the
        // kernel takes programs without.
        let types = match aya::features().btf() {
            Some(features) => object
                .fixup_and_sanitize_btf(features)?
                .and_then(|types| load_types(&types.to_bytes()).ok()),
            None => None,
        };
        let code = object
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        let definitions = std::mem::take(&mut object.maps);
        let maps = definitions
            .iter()
            .map(|(name, definition)| {
                let map =
                    map(links.map(name)).with_context(|| format!("the map {name} is not open"))?;
                Ok((name.as_str(), map, definition))
            })
            .collect::<Result<Vec<_>>>()?;
        object.relocate_maps(maps.into_iter(), &code)?;
        object.relocate_calls(&code)?;
        object.sanitize_functions(aya::features());
        Ok(Self {
            links,
            object,
            types,
            loaded: HashMap::new(),
        })
    }

    /// Loads a program if it is not loaded yet.
    ///
    /// # Errors
    /// Fails when the kernel refuses it.
    pub fn load(&mut self, name: &'static str) -> Result<&OwnedFd> {
        if !self.loaded.contains_key(name) {
            let program = self
                .load_program(name)
                .with_context(|| format!("the kernel refused the BPF program {name}"))?;
            self.loaded.insert(name, program);
        }
        self.loaded
            .get(name)
            .ok_or_else(|| anyhow!("the BPF program {name} is not loaded"))
    }

    /// Attaches a program for a moment to places of a file, in one process or
    /// (with `None`) in all that map the file.
    ///
    /// # Errors
    /// Fails when the kernel refuses the program or a place.
    pub fn attach(
        &mut self,
        name: &'static str,
        moment: Moment,
        places: &[Place],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Link> {
        let counted = |place: &Place| Counted {
            offset: place.offset,
            counter: 0,
            cookie: place.cookie(),
        };
        let places: Vec<_> = places.iter().map(counted).collect();
        self.attach_counted(name, moment, &places, file, pid)
    }

    /// The same to places that the target may have to know of, each with a cookie.
    ///
    /// # Errors
    /// See [`MultiPrograms::attach`].
    pub fn attach_counted(
        &mut self,
        name: &'static str,
        moment: Moment,
        places: &[Counted],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Link> {
        let attach_type = self.links.attach_type();
        let program = self.load(name)?;
        let path = CString::new(file.as_os_str().as_bytes())?;
        let offsets: Vec<u64> = places.iter().map(|place| place.offset).collect();
        let counters: Vec<u64> = places.iter().map(|place| place.counter).collect();
        let cookies: Vec<u64> = places.iter().map(|place| place.cookie).collect();
        let has_counters = counters.iter().any(|counter| *counter != 0);
        let mut attributes = LinkAttributes {
            program: program.as_raw_fd().cast_unsigned(),
            target: 0,
            attach_type,
            link_flags: 0,
            path: path.as_ptr() as u64,
            offsets: offsets.as_ptr() as u64,
            counter_offsets: match has_counters {
                true => counters.as_ptr() as u64,
                false => 0,
            },
            cookies: cookies.as_ptr() as u64,
            count: u32::try_from(places.len())?,
            flags: match moment {
                Moment::Return => BPF_F_UPROBE_MULTI_RETURN,
                _ => 0,
            },
            pid: pid.unwrap_or(0),
            padding: 0,
        };
        // SAFETY: the layout is the kernel's; path and arrays outlive the call,
        // and the arrays have `count` elements.
        let link = unsafe { syscall::make(BPF_LINK_CREATE, &mut attributes) };
        link.map(Link::Multi)
            .with_context(|| format!("cannot place probes at {offsets:x?} of {}", file.display()))
    }

    fn load_program(&self, name: &str) -> Result<OwnedFd> {
        let program = self
            .object
            .programs
            .get(name)
            .context("the BPF object has no such program")?;
        let function = self
            .object
            .functions
            .get(&program.function_key())
            .context("the BPF object has no code for it")?;
        let functions = function.func_info.func_info_bytes();
        let mut attributes = ProgramAttributes {
            program_type: BPF_PROG_TYPE_KPROBE,
            instruction_count: u32::try_from(function.instructions.len())?,
            instructions: function.instructions.as_ptr() as u64,
            license: program.license.as_ptr() as u64,
            name: kernel_name(name),
            expected_attach_type: self.links.attach_type(),
            ..ProgramAttributes::default()
        };
        if let Some(types) = &self.types {
            attributes.types = types.as_raw_fd().cast_unsigned();
            attributes.function_record_bytes = u32::try_from(function.func_info_rec_size)?;
            attributes.functions = functions.as_ptr() as u64;
            attributes.function_count = u32::try_from(function.func_info.len())?;
        }
        // SAFETY: the layout is the kernel's; code, license and records outlive
        // the call and have the stated counts.
        let made = unsafe { syscall::make(BPF_PROG_LOAD, &mut attributes) };
        made.or_else(|error| Err(error).context(verifier_log(attributes)))
    }
}

/// At most 15 characters and a null.
fn kernel_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    bytes
}

fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attributes = TypeAttributes {
        types: types.as_ptr() as u64,
        log: 0,
        bytes: u32::try_from(types.len()).map_err(io::Error::other)?,
        log_bytes: 0,
        log_level: 0,
        padding: 0,
    };
    // SAFETY: the layout is the kernel's; the bytes outlive the call.
    unsafe { syscall::make(BPF_BTF_LOAD, &mut attributes) }
}

/// What the verifier says about a program that it refused: its last lines.
fn verifier_log(mut attributes: ProgramAttributes) -> String {
    let mut log = vec![0u8; LOG_BYTES as usize];
    attributes.log_level = LOG_LEVEL;
    attributes.log_bytes = LOG_BYTES;
    attributes.log = log.as_mut_ptr() as u64;
    // SAFETY: as when it was refused; the log has the stated size. Only the
    // log is wanted: a program that is accepted now is dropped.
    let _ = unsafe { syscall::make(BPF_PROG_LOAD, &mut attributes) };
    // What follows the first null was taken back.
    let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(LOG_LINES);
    format!("the verifier says:\n{}", lines[last..].join("\n"))
}

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` uses (`linux/bpf.h`).
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct ProgramAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
    types: u32,
    function_record_bytes: u32,
    functions: u64,
    function_count: u32,
    line_record_bytes: u32,
    lines: u64,
    line_count: u32,
    attach_type_id: u32,
}

/// The part that `BPF_BTF_LOAD` uses.
#[repr(C)]
struct TypeAttributes {
    types: u64,
    log: u64,
    bytes: u32,
    log_bytes: u32,
    log_level: u32,
    padding: u32,
}

/// The part that `BPF_LINK_CREATE` uses for a `uprobe_multi` link.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    link_flags: u32,
    path: u64,
    offsets: u64,
    counter_offsets: u64,
    cookies: u64,
    count: u32,
    flags: u32,
    pid: u32,
    padding: u32,
}

const _: () = assert!(
    size_of::<ProgramAttributes>() == 112 && size_of::<LinkAttributes>() == 64,
    "these are the kernel's layouts, without padding"
);
