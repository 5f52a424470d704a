//! The entries of all sections with call frame information, in the order of
//! the code that they describe.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use anyhow::{Result, ensure};
use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, FrameDescriptionEntry,
    LittleEndian, UnwindOffset, UnwindSection,
};
use tracer_ebpf::rule::Rule;

use super::Segment;
use super::expression::register;
use super::framed::Framed;
use super::go::Go;
use super::image::Image;
use super::omitted::Omitted;
use super::program::{Common, Malformed, Program, Reader, State};
use super::rows::Rows;
use super::section::{Kind, Section};

/// A file with more entries is refused: Chromium has a million.
const MAX_ENTRIES: usize = 4 << 20;

/// More functions that only symbols tell of are not looked at: node has some 3,000.
const MAX_FRAMED: usize = 1 << 18;

/// Entries may share this many heads (CIEs): entries with others are
/// malformed. Linkers leave a handful, but each object file may bring one to
/// `.debug_frame`.
const MAX_HEADS: usize = 1 << 16;

/// A longer head is malformed: they have some 24 bytes.
const MAX_HEAD: u32 = 1024;

/// An entry: the code that it describes, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    pub start: u64,
    /// Which section counts more.
    section: u8,
    pub offset: usize,
    pub end: u64,
}

/// All entries, sorted.
pub struct Frames<'a> {
    frames: Vec<Frame>,
    sources: Vec<Box<dyn Source + 'a>>,
}

impl<'a> Frames<'a> {
    /// Finds the entries for code of these segments. What Go's table says counts
    /// less than `.eh_frame`, and more than what is for debuggers.
    ///
    /// # Errors
    /// Fails if there are too many.
    pub fn collect(
        sections: &'a [Section<'a>],
        go: Option<Go<'a>>,
        segments: &[Segment],
        omitted: &mut Omitted,
    ) -> Result<Self> {
        let mut frames = Frames {
            frames: Vec::new(),
            sources: Vec::new(),
        };
        for section in sections.iter().filter(|section| section.kind == Kind::Eh) {
            frames.add(source(section), section.count, segments, omitted);
        }
        if let Some(go) = go {
            frames.add(Box::new(go), None, segments, omitted);
        }
        for section in sections
            .iter()
            .filter(|section| section.kind == Kind::Debug)
        {
            frames.add(source(section), section.count, segments, omitted);
        }
        frames.arrange()?;
        Ok(frames)
    }

    /// Adds what a section says that counts less than all others.
    ///
    /// # Errors
    /// See [`collect`](Self::collect).
    pub fn add_section(
        &mut self,
        section: &'a Section<'a>,
        segments: &[Segment],
        omitted: &mut Omitted,
    ) -> Result<()> {
        self.add(source(section), section.count, segments, omitted);
        self.arrange()
    }

    fn add(
        &mut self,
        mut source: Box<dyn Source + 'a>,
        count: Option<u64>,
        segments: &[Segment],
        omitted: &mut Omitted,
    ) {
        let section = self.next_section();
        let mut outside = 0;
        source.entries(count, omitted, &mut |start, end, offset| {
            if is_inside(segments, start, end) {
                self.frames.push(Frame {
                    start,
                    section,
                    offset,
                    end,
                });
            } else {
                outside += 1;
            }
            self.frames.len() <= MAX_ENTRIES
        });
        omitted.outside += outside;
        self.sources.push(source);
    }

    /// The number of the next source: there are five at most.
    fn next_section(&self) -> u8 {
        u8::try_from(self.sources.len()).unwrap_or(u8::MAX)
    }

    fn arrange(&mut self) -> Result<()> {
        ensure!(
            self.frames.len() <= MAX_ENTRIES,
            "it describes more than {MAX_ENTRIES} functions"
        );
        self.frames.sort_unstable();
        Ok(())
    }

    /// Adds functions that nothing describes yet.
    pub fn add_framed(&mut self, mut framed: Framed<'a>, segments: &[Segment]) {
        let section = self.next_section();
        let mut more = Vec::new();
        framed.entries(None, &mut Omitted::default(), &mut |start, end, offset| {
            if is_inside(segments, start, end) && self.is_free(start, end) {
                more.push(Frame {
                    start,
                    section,
                    offset,
                    end,
                });
            }
            more.len() < MAX_FRAMED
        });
        self.frames.append(&mut more);
        self.frames.sort_unstable();
        self.sources.push(Box::new(framed));
    }

    /// Whether no entry begins in this code, or reaches into it.
    fn is_free(&self, start: u64, end: u64) -> bool {
        let before = self.frames.partition_point(|frame| frame.start < end);
        let last = before
            .checked_sub(1)
            .and_then(|index| self.frames.get(index));
        last.is_none_or(|frame| frame.end <= start)
    }

    /// The code between all entries, and where these begin.
    pub fn between(&self, segments: &[Segment]) -> (Vec<Range<u64>>, Vec<u64>) {
        let mut regions = Vec::new();
        let mut frames = self.frames.iter().peekable();
        for segment in segments {
            let mut at = segment.address.0;
            while let Some(frame) = frames.next_if(|frame| frame.start < segment.end()) {
                if frame.start > at {
                    regions.push(at..frame.start);
                }
                at = at.max(frame.end);
            }
            if at < segment.end() {
                regions.push(at..segment.end());
            }
        }
        let mut starts: Vec<u64> = self.frames.iter().map(|frame| frame.start).collect();
        starts.dedup();
        (regions, starts)
    }

    /// The code of the entry that describes an address.
    pub fn around(&self, address: u64) -> Option<Range<u64>> {
        let after = self.frames.partition_point(|frame| frame.start <= address);
        let frame = self.frames.get(after.checked_sub(1)?)?;
        (address < frame.end).then_some(frame.start..frame.end)
    }

    /// Whether nothing was found that could tell of any code.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Bytes of code that entries describe.
    pub fn described(&self) -> u64 {
        let mut reached = 0;
        let described = self.frames.iter().map(|frame| {
            let from = frame.start.max(reached);
            reached = reached.max(frame.end);
            frame.end.saturating_sub(from)
        });
        described.sum()
    }

    /// Turns all entries, and what is between them, into rows.
    ///
    /// # Errors
    /// Fails if there are too many rows.
    pub fn emit(self, image: &Image, rows: &mut Rows, omitted: &mut Omitted) -> Result<()> {
        let Frames {
            frames,
            mut sources,
        } = self;
        let mut frames = frames.into_iter().peekable();
        let mut section = None;
        for segment in &image.segments {
            let mut at = segment.address.0;
            while let Some(frame) = frames.next_if(|frame| frame.start < segment.end()) {
                // Another section may well describe the same.
                let overlaps = frame.start < at && section == Some(frame.section);
                omitted.overlapping += u64::from(overlaps);
                if frame.end <= at {
                    continue;
                }
                section = Some(frame.section);
                let (last, from) = (at, frame.start.max(at));
                at = frame.end;
                if rows.starts_context(&(frame.start..frame.end)) {
                    // Looked up as a return address, it is one byte less.
                    let first = from.saturating_sub(1).max(last);
                    rows.gap(last, first, image.entry)?;
                    rows.row(first, frame.end, Rule::END)?;
                    continue;
                }
                rows.gap(last, from, image.entry)?;
                let source = &mut sources[usize::from(frame.section)];
                source.emit(&frame, from, rows, omitted)?;
            }
            rows.gap(at, segment.end(), image.entry)?;
            rows.leave(segment.end())?;
        }
        Ok(())
    }
}

/// Whether code lies within one segment.
fn is_inside(segments: &[Segment], start: u64, end: u64) -> bool {
    let after = segments.partition_point(|segment| segment.address.0 <= start);
    let segment = after.checked_sub(1).and_then(|index| segments.get(index));
    start < end && segment.is_some_and(|segment| end <= segment.end())
}

/// Learns where code begins and ends, and the place of its entry; says
/// whether to go on.
pub type Found<'f> = dyn FnMut(u64, u64, usize) -> bool + 'f;

/// A section whose entries can be read.
pub trait Source {
    /// Reads all entries, or the first `count` ones.
    fn entries(&mut self, count: Option<u64>, omitted: &mut Omitted, found: &mut Found);

    /// Turns an entry into rows for its code from `from` on.
    fn emit(
        &mut self,
        frame: &Frame,
        from: u64,
        rows: &mut Rows,
        omitted: &mut Omitted,
    ) -> Result<()>;
}

fn source<'a>(section: &'a Section<'a>) -> Box<dyn Source + 'a> {
    let bases = &section.bases;
    match section.kind {
        Kind::Eh => {
            let mut frames = EhFrame::new(&section.data, LittleEndian);
            frames.set_address_size(8);
            Box::new(Entries::new(frames, &section.data, bases))
        }
        Kind::Debug => {
            let mut frames = DebugFrame::new(&section.data, LittleEndian);
            frames.set_address_size(8);
            Box::new(Entries::new(frames, &section.data, bases))
        }
    }
}

type Head<'a> = Option<(CommonInformationEntry<Reader<'a>>, Common)>;

/// A section, and the heads of its entries as far as they are known.
struct Entries<'a, S> {
    section: S,
    data: &'a [u8],
    bases: &'a BaseAddresses,
    heads: HashMap<usize, Head<'a>>,
}

impl<'a, S> Entries<'a, S>
where
    S: UnwindSection<Reader<'a>>,
{
    fn new(section: S, data: &'a [u8], bases: &'a BaseAddresses) -> Self {
        Entries {
            section,
            data,
            bases,
            heads: HashMap::new(),
        }
    }

    fn entry(&mut self, offset: usize) -> Option<(FrameDescriptionEntry<Reader<'a>>, Common)> {
        let offset = S::Offset::from(offset);
        let partial = self
            .section
            .partial_fde_from_offset(self.bases, offset)
            .ok()?;
        let place: usize = UnwindOffset::into(partial.cie_offset());
        let (head, common) = self.head(place)?;
        let entry = partial.parse(|_, _, _| Ok(head.clone())).ok()?;
        Some((entry, common))
    }

    fn head(&mut self, offset: usize) -> Option<(CommonInformationEntry<Reader<'a>>, Common)> {
        let room = self.heads.len() < MAX_HEADS;
        match self.heads.entry(offset) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(unknown) if room => {
                let head = read_head(&self.section, self.data, self.bases, offset);
                unknown.insert(head).clone()
            }
            Entry::Vacant(_) => None,
        }
    }
}

fn read_head<'a, S: UnwindSection<Reader<'a>>>(
    section: &S,
    data: &[u8],
    bases: &BaseAddresses,
    offset: usize,
) -> Head<'a> {
    let length = data.get(offset..)?.first_chunk()?;
    if u32::from_le_bytes(*length) > MAX_HEAD {
        return None;
    }
    let cie = section
        .cie_from_offset(bases, S::Offset::from(offset))
        .ok()?;
    let mut common = Common {
        code_alignment: cie.code_alignment_factor(),
        data_alignment: cie.data_alignment_factor(),
        is_signal: cie.is_signal_trampoline(),
        is_plain: cie.return_address_register().0 == register::RETURN_ADDRESS,
        initial: State::UNKNOWN,
    };
    let instructions = cie.instructions(section, bases);
    let (_, initial) = Program::new(section, &common)
        .run(instructions, 0, |_, _, _| {})
        .ok()?;
    common.initial = initial;
    Some((cie, common))
}

impl<'a, S> Source for Entries<'a, S>
where
    S: UnwindSection<Reader<'a>>,
{
    fn entries(&mut self, count: Option<u64>, omitted: &mut Omitted, found: &mut Found) {
        let section = self.section.clone();
        let mut entries = section.entries(self.bases);
        let mut left = count.unwrap_or(u64::MAX);
        while left > 0 {
            let partial = match entries.next() {
                Ok(Some(CieOrFde::Fde(partial))) => partial,
                Ok(Some(CieOrFde::Cie(_))) => continue,
                Ok(None) => return,
                Err(_) => {
                    omitted.sections += 1;
                    return;
                }
            };
            left -= 1;
            let place: usize = UnwindOffset::into(partial.cie_offset());
            let entry = self
                .head(place)
                .and_then(|(cie, _)| partial.parse(|_, _, _| Ok(cie.clone())).ok());
            let Some(entry) = entry else {
                omitted.malformed += 1;
                continue;
            };
            let start = entry.initial_address();
            let end = start.checked_add(entry.len()).unwrap_or(start);
            if !found(start, end, partial.offset()) {
                return;
            }
        }
    }

    fn emit(
        &mut self,
        frame: &Frame,
        from: u64,
        rows: &mut Rows,
        omitted: &mut Omitted,
    ) -> Result<()> {
        let Some((entry, common)) = self.entry(frame.offset) else {
            omitted.malformed += 1;
            return rows.row(from, frame.end, Rule::UNSUPPORTED);
        };
        let instructions = entry.instructions(&self.section, self.bases);
        let mut done = from;
        let mut result = Ok(());
        let mut row = |start: u64, end: u64, state: &State| {
            let (start, end) = (start.max(done), end.min(frame.end));
            if start < end && result.is_ok() {
                result = rows.state(start, end, state, &common, omitted);
                done = end;
            }
        };
        let last = Program::new(&self.section, &common).run(instructions, frame.start, &mut row);
        let last = last.map(|(at, state)| row(at, frame.end, &state));
        result?;
        if let Err(Malformed) = last {
            omitted.malformed += 1;
            rows.row(done, frame.end, Rule::UNSUPPORTED)?;
        }
        Ok(())
    }
}
