//! Unwind tables in the kernel: those of files, each once and shared by all
//! processes that map it, and the executable ranges of each process.

mod builder;
mod extents;
mod java;
mod module;
mod spaces;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_ebpf::file::{FileKey, device};
use tracer_ebpf::limits::MAX_RANGES_OF_ONE;
use tracer_ebpf::rule::Rule;
use tracer_ebpf::table::{Code, Range, RangeKind, Row, fixed};
use tracer_ebpf::v8::Function;

pub use self::builder::Builder;
use self::builder::Built;
use self::extents::{Extent, Extents};
pub use self::java::JavaCode;
use self::module::{Loaded, Module, range};
use self::spaces::{Placed, Spaces};
use crate::kernel::tables::TableMaps;
use crate::process::code::CodeMapping;
use crate::process::maps::{FileId, MappingName};
use crate::process::numbered::NumberedFiles;
use crate::process::vdso;
use crate::unwind::{Interpreter, RuleRow, Structures, Table, V8};
use crate::visible::clean;

/// A table's rows for interrupted instructions take at most this share of
/// all room.
const FULL_SHARE: u32 = 2;

/// The tables of a run.
pub struct Tables {
    maps: TableMaps,
    builder: Builder,
    numbers: HashMap<Rule, u32>,
    rows: Extents,
    spaces: Spaces,
    modules: HashMap<FileId, Module>,
    files: NumberedFiles,
    /// Files that have an interpreter of Python.
    pythons: HashMap<FileId, Interpreter>,
    /// Files that have V8.
    v8s: HashMap<FileId, V8>,
    vdso: Option<(u64, Module)>,
    images: HashMap<u64, Known>,
    total_rows: u32,
}

/// What the kernel side knows of an image.
struct Known {
    placed: Placed,
    ranges: Vec<Range>,
}

impl Known {
    /// Whether a table was missing.
    fn is_pending(&self) -> bool {
        self.ranges
            .iter()
            .any(|range| range.kind == RangeKind::Pending as u32)
    }
}

impl Tables {
    /// Nothing is known yet, but what `builder` builds already.
    pub fn new(mut maps: TableMaps, builder: Builder) -> Self {
        let numbers = (0..).zip(fixed::RULES);
        let numbers: HashMap<Rule, u32> = numbers
            .map(|(number, rule)| {
                maps.rules.set(number, rule);
                (rule, number)
            })
            .collect();
        let total_rows = maps.rows.len();
        let mut tables = Self {
            rows: Extents::new(total_rows),
            maps,
            builder,
            numbers,
            spaces: Spaces::new(),
            modules: HashMap::new(),
            files: NumberedFiles::default(),
            pythons: HashMap::new(),
            v8s: HashMap::new(),
            vdso: None,
            images: HashMap::new(),
            total_rows,
        };
        tables.vdso = tables.load_vdso();
        tables
    }

    /// Loads tables that are built by now, waiting for `patience` at most
    /// until all are. Whether any was loaded.
    pub fn settle(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut any = false;
        while let Some(built) = self.builder.next(deadline) {
            self.load_built(built);
            any = true;
        }
        any
    }

    /// Whether there is little room for more tables.
    pub fn are_nearly_full(&self) -> bool {
        self.rows.room() < self.total_rows / 4
    }

    /// The files whose places stand in stacks.
    pub fn files(&self) -> &NumberedFiles {
        &self.files
    }

    /// How often code of an image was replaced, as far as the kernel side saw.
    pub fn replaced(&self, image: u64) -> u32 {
        self.maps.replaced(image)
    }

    /// Has the tables of files built that are mapped somewhere.
    pub fn request<'code>(&mut self, code: impl Iterator<Item = &'code CodeMapping>) {
        self.builder.request(code);
    }

    /// Tells the kernel side what code an image has: all its executable
    /// mappings, sorted by address, and its JVM's. `as_of` is what
    /// [`Self::replaced`] said before they were looked at.
    ///
    /// # Errors
    /// Fails if there is no room.
    pub fn publish(
        &mut self,
        image: u64,
        code: &[CodeMapping],
        java: &JavaCode,
        as_of: u32,
    ) -> Result<()> {
        self.builder.request(code.iter());
        self.number_files(code);
        let mut ranges = self.ranges_of(code);
        java.apply(&mut ranges);
        let v8 = self.v8_among(code);
        if v8 != 0 {
            mark_scripts(&mut ranges);
        }
        if ranges.len() > MAX_RANGES_OF_ONE as usize {
            // What has no table is missed least.
            let bare = [RangeKind::Bare as u32, RangeKind::Script as u32];
            ranges.retain(|range| !bare.contains(&range.kind));
        }
        if self.is_current(image, &ranges, as_of) {
            return Ok(());
        }
        let placed = self.spaces.put(&mut self.maps, &ranges, v8)?;
        self.maps.assign(image, placed.number, as_of)?;
        if let Some(old) = self.images.insert(image, Known { placed, ranges }) {
            self.spaces.retire(old.placed);
        }
        Ok(())
    }

    /// Whether the kernel side knows just this of an image, and has marked
    /// nothing of it.
    fn is_current(&self, image: u64, ranges: &[Range], as_of: u32) -> bool {
        let Some(known) = self.images.get(&image) else {
            return false;
        };
        let space = known.placed.number;
        let places = known.placed.extent.first..;
        known.ranges == ranges
            && self.maps.code_of(image) == Code { space, as_of }
            && places
                .zip(ranges)
                .all(|(index, range)| self.maps.ranges.get(index).as_ref() == Some(range))
    }

    /// The images that have the same address space as `image`, which is among
    /// them: a process and its forked children. What one of them replaces is
    /// unknown to all.
    pub fn sharers(&self, image: u64) -> Vec<u64> {
        let shared = self.maps.code_of(image).space;
        let has_it = |(_, number): &(u64, u32)| *number == shared && shared != 0;
        let sharers = self.maps.reachable().filter(has_it);
        sharers.map(|(image, _)| image).collect()
    }

    /// Images that lack a table.
    pub fn pending(&self) -> Vec<u64> {
        let pending = self.images.iter().filter(|(_, known)| known.is_pending());
        pending.map(|(image, _)| *image).collect()
    }

    /// Whether the table of a file was asked for and is not there yet.
    pub fn is_building(&self, file: FileId) -> bool {
        self.builder.is_building() && self.builder.has(file) && !self.modules.contains_key(&file)
    }

    /// The interpreter of Python in a file, if it has one.
    pub fn python_of(&self, file: FileId) -> Option<&Interpreter> {
        self.pythons.get(&file)
    }

    /// V8 in a file, if it has it, and where its objects have what is needed.
    pub fn v8_of(&self, file: FileId) -> Option<&Structures> {
        match self.v8s.get(&file)? {
            V8::Known(structures) => Some(structures),
            V8::Unknown(_) => None,
        }
    }

    /// The function of JavaScript of a word, and where it was last.
    pub fn script(&self, image: u64, word: u64) -> Option<Function> {
        self.maps.script(image, word)
    }

    /// The number of the file that has V8 among code; 0 if none has.
    fn v8_among(&self, code: &[CodeMapping]) -> u32 {
        let files = code.iter().filter_map(|mapping| mapping.file.as_ref().ok());
        let mut with_v8 = files.filter(|file| self.v8_of(file.mapped).is_some());
        with_v8
            .next()
            .map_or(0, |file| self.files.known(file.mapped))
    }

    /// Forgets an image that has ended.
    pub fn forget(&mut self, image: u64) {
        self.maps.forget(image);
        if let Some(known) = self.images.remove(&image) {
            self.spaces.retire(known.placed);
        }
    }

    /// One line for each file, for `-v`.
    pub fn describe(&self) -> Vec<String> {
        let describe_file = |(file, name)| {
            let module = self
                .modules
                .get(&file)
                .map_or("being built".into(), describe);
            let python = self.pythons.get(&file);
            let python = python.map(|python| {
                let (major, minor) = python.version;
                match python.layout {
                    Some(_) => format!(", Python {major}.{minor}"),
                    None => format!(", Python {major}.{minor}, whose functions are not named"),
                }
            });
            let python = python.unwrap_or_default();
            let v8 = match self.v8s.get(&file) {
                Some(V8::Known(_)) => ", V8".to_owned(),
                Some(V8::Unknown(problem)) => {
                    format!(", V8, whose functions are not named: {problem}")
                }
                None => String::new(),
            };
            format!("unwind table of {}: {module}{python}{v8}", clean(name))
        };
        let mut lines: Vec<_> = self.builder.requested().map(describe_file).collect();
        lines.sort();
        let used = self.total_rows - self.rows.room();
        lines.push(format!(
            "unwind tables: {used} of {} rows, {} of {} rules",
            self.total_rows,
            self.numbers.len(),
            self.maps.rules.len()
        ));
        lines
    }

    /// Gives numbers to files that have none.
    fn number_files(&mut self, code: &[CodeMapping]) {
        for mapping in code {
            if let (Ok(file), Some(path)) = (&mapping.file, mapping.range.name.path()) {
                self.files.number(file, path);
            }
        }
    }

    fn ranges_of(&self, code: &[CodeMapping]) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::with_capacity(code.len());
        for mapping in code {
            let range = self.range_of(mapping);
            match ranges.last_mut() {
                // Just-in-time compilers change the protection page by page.
                Some(last)
                    if last.end == range.start
                        && last.kind == RangeKind::Bare as u32
                        && range.kind == last.kind =>
                {
                    last.end = range.end;
                }
                _ => ranges.push(range),
            }
        }
        ranges
    }

    fn range_of(&self, mapping: &CodeMapping) -> Range {
        let mapped = &mapping.range;
        match (&mapped.name, &mapping.file) {
            (MappingName::File(_), Ok(file)) => Range {
                file: self.files.known(file.mapped),
                ..match self.modules.get(&file.mapped) {
                    Some(module) => module.range(mapped),
                    None => range(mapped, RangeKind::Pending),
                }
            },
            (MappingName::File(_), Err(_)) => range(mapped, RangeKind::Pending),
            (MappingName::Special(name), _) if name == vdso::NAME => match &self.vdso {
                Some((size, module)) if *size == mapped.end.0 - mapped.start.0 => {
                    module.range(mapped)
                }
                _ => range(mapped, RangeKind::Pending),
            },
            (MappingName::Special(name), _) if name == "[uprobes]" => {
                range(mapped, RangeKind::Trampoline)
            }
            (MappingName::Special(_) | MappingName::Anonymous, _) => range(mapped, RangeKind::Bare),
        }
    }

    fn load_built(&mut self, built: Built) {
        let path = Path::new(self.builder.name_of(built.file.mapped));
        let number = self.files.number(&built.file, path);
        let python = match &built.table {
            Ok(Some(table)) => table.python,
            _ => None,
        };
        if let Some(python) = python {
            self.pythons.insert(built.file.mapped, python);
        }
        // Before anything leads to the table.
        if let Some(layout) = python.and_then(|python| python.layout)
            && number != 0
        {
            self.maps.pythons.set(number, layout);
        }
        if let Ok(Some(Table { v8: Some(v8), .. })) = &built.table {
            if let V8::Known(structures) = v8
                && number != 0
            {
                self.maps.v8s.set(number, structures.layout);
            }
            self.v8s.insert(built.file.mapped, v8.clone());
        }
        let module = match built.table {
            Ok(Some(table)) => self.load(table, built.time),
            Ok(None) => Module::Bare,
            Err(problem) => Module::Failed(problem),
        };
        let id = built.file.mapped;
        if number != 0 {
            let key = FileKey {
                inode: id.inode,
                device: device(id.device.major, id.device.minor),
            };
            let table = module.file_table();
            // Without room such a file is found by address spaces only.
            let _ = self.maps.set_file_table(number, key, table);
        }
        self.modules.insert(id, module);
    }

    fn load_vdso(&mut self) -> Option<(u64, Module)> {
        let (size, bytes) = vdso::own().ok()?;
        let table = Table::parse(&bytes).ok()??;
        Some((size, self.load(table, Duration::ZERO)))
    }

    fn load(&mut self, table: Table, time: Duration) -> Module {
        let Some(returns) = self.load_rows(&table.returns) else {
            return Module::Failed(format!(
                "no room for its {} rows; raise --max-rows",
                table.returns.len()
            ));
        };
        let full = if is_held(&table.full, self.rows.room()) {
            self.load_rows(&table.full)
        } else {
            None
        };
        Module::Loaded(Loaded {
            segments: table.segments,
            base: table.base.0,
            returns,
            full: full.unwrap_or(Extent::EMPTY),
            time,
            omitted: table.omitted,
            thrower: table.thrower,
        })
    }

    fn load_rows(&mut self, rows: &[RuleRow]) -> Option<Extent> {
        let extent = self.rows.take(u32::try_from(rows.len()).ok()?)?;
        for (index, row) in (extent.first..).zip(rows) {
            let number = self.number(row.rule);
            self.maps.rows.set(index, Row::new(row.offset, number));
        }
        Some(extent)
    }

    /// The number of a rule, a new one if it is new. When there is no more
    /// room, the rule counts as not supported.
    fn number(&mut self, rule: Rule) -> u32 {
        if let Some(number) = self.numbers.get(&rule) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        if number >= self.maps.rules.len() {
            return fixed::UNSUPPORTED;
        }
        self.maps.rules.set(number, rule);
        self.numbers.insert(rule, number);
        number
    }
}

/// What is mapped without a file may be code that V8 compiled.
fn mark_scripts(ranges: &mut [Range]) {
    let bare = ranges
        .iter_mut()
        .filter(|range| range.kind == RangeKind::Bare as u32 && range.file == 0);
    for range in bare {
        range.kind = RangeKind::Script as u32;
    }
}

/// Whether rows for interrupted instructions are held when there is room for
/// so many rows.
pub fn is_held(full: &[RuleRow], room: u32) -> bool {
    u32::try_from(full.len()).is_ok_and(|len| len <= room / FULL_SHARE)
}

fn describe(module: &Module) -> String {
    match module {
        Module::Bare => "it has no unwind information".to_owned(),
        Module::Failed(problem) => problem.clone(),
        Module::Loaded(loaded) => format!(
            "{} rows for returns, {} for interrupted instructions, {}, built in {:.1} ms, left out: {}",
            loaded.returns.len,
            loaded.full.len,
            indicatif::HumanBytes(u64::from(loaded.returns.len + loaded.full.len) * 8),
            loaded.time.as_secs_f64() * 1e3,
            loaded.omitted
        ),
    }
}
