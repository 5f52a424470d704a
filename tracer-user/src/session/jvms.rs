//! The Java VMs among the traced processes.

use std::collections::HashMap;

use anyhow::{Context, Result};
use tracer_ebpf::java::{CodeHeap, MAX_HEAPS, MAX_VMS, Vm};

use crate::jvm::Jvm;
use crate::jvm::fields::UnknownLayout;
use crate::jvm::layout::{Layout, Position};
use crate::kernel::vms::VmMaps;
use crate::process::code::CodeSpace;
use crate::tables::JavaCode;
use crate::targets::images::Images;

/// An `unsigned` number's lowest byte, which tells whether it is 0.
const BYTE: u8 = 1;

/// What is known of a process image's JVM.
pub enum Known {
    /// It has none.
    Not,
    /// It has one that has not started yet.
    NotYet,
    /// It has one, but its layout is not known: why.
    Unknown(String),
    /// It can be read.
    Readable(Box<Readable>),
}

/// A JVM that can be read.
pub struct Readable {
    /// The kernel side's number.
    pub number: u32,
    /// How to read it.
    pub jvm: Jvm,
    /// What tells where its objects are allocated, or why nothing does.
    pub heap: Result<HeapSource, String>,
}

/// What tells where a JVM allocates objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeapSource {
    /// Its own samples, or nothing if nobody asked.
    Samples,
    /// A probe that is hit for each object.
    Objects {
        /// Whether it tells the object's size.
        sized: bool,
    },
}

/// What the kernel side is told of by a JVM.
pub struct Watched {
    /// Whether of code that it frees.
    pub freed_code: bool,
    /// How of objects that it allocates, or why not.
    pub heap: Result<HeapSource, String>,
}

/// All JVMs.
pub struct Jvms {
    maps: VmMaps,
    free: Vec<u32>,
    images: HashMap<u64, Known>,
}

impl Jvms {
    /// None are known.
    pub fn new(maps: VmMaps) -> Self {
        Self {
            maps,
            free: (1..MAX_VMS).rev().collect(),
            images: HashMap::new(),
        }
    }

    /// Looks at an image, and returns what its anonymous code is. `found` is
    /// called with a JVM that is new, to watch it.
    pub fn look(
        &mut self,
        image: u64,
        code: &CodeSpace,
        found: impl FnOnce(&Jvm) -> Watched,
    ) -> JavaCode {
        if matches!(
            self.images.get(&image),
            None | Some(Known::Not | Known::NotYet)
        ) {
            let known = self.find(image, code, found);
            self.images.insert(image, known);
        }
        match self.images.get(&image) {
            None | Some(Known::Not) => JavaCode::None,
            Some(Known::NotYet) => JavaCode::NotYet,
            Some(Known::Unknown(_)) => JavaCode::Unknown,
            Some(Known::Readable(readable)) => JavaCode::Known {
                number: readable.number,
                range: readable.jvm.places.range(),
            },
        }
    }

    /// Whether an image has a JVM that has not started yet.
    pub fn is_awaited(&self, image: u64) -> bool {
        matches!(self.images.get(&image), Some(Known::NotYet))
    }

    /// Notes where Java heaps are, which a JVM decides when it starts.
    pub fn find_heaps(&self, images: &mut Images) {
        for (image, known) in &self.images {
            let Known::Readable(readable) = known else {
                continue;
            };
            let image = images.index_of(*image).and_then(|at| images.get_mut(at));
            if let Some(image) = image
                && image.java_heap.is_none()
            {
                image.java_heap = readable.jvm.java_heap();
            }
        }
    }

    /// The Java names of an image's threads, by thread id; none if it has no
    /// JVM that can be read.
    pub fn thread_names(&self, image: u64) -> HashMap<u32, String> {
        let Some(Known::Readable(readable)) = self.images.get(&image) else {
            return HashMap::new();
        };
        let threads = readable.jvm.threads().unwrap_or_default();
        let named = threads.into_iter().map(|thread| (thread.tid, thread.name));
        named.collect()
    }

    /// What tells where an image's objects are allocated.
    ///
    /// # Errors
    /// Says why nothing does.
    pub fn heap(&self, image: u64) -> Result<HeapSource, String> {
        match self.images.get(&image) {
            None | Some(Known::Not) => Err("the process has no HotSpot JVM".to_owned()),
            Some(Known::NotYet) => Err("the JVM has not started yet".to_owned()),
            Some(Known::Unknown(problem)) => Err(problem.clone()),
            Some(Known::Readable(readable)) => readable.heap.clone(),
        }
    }

    /// The JVM of an image, if it can be read.
    pub fn readable_mut(&mut self, image: u64) -> Option<&mut Jvm> {
        match self.images.get_mut(&image) {
            Some(Known::Readable(readable)) => Some(&mut readable.jvm),
            _ => None,
        }
    }

    /// All that can be read, with their images.
    pub fn readable(&self) -> impl Iterator<Item = (u64, &Jvm)> {
        self.images.iter().filter_map(|(image, known)| match known {
            Known::Readable(readable) => Some((*image, &readable.jvm)),
            _ => None,
        })
    }

    /// Does what is due now and then.
    pub fn poll(&mut self) {
        for known in self.images.values() {
            if let Known::Readable(readable) = known {
                self.maps.refresh(readable.number);
            }
        }
    }

    /// An image has ended.
    pub fn forget(&mut self, image: u64) {
        if let Some(Known::Readable(readable)) = self.images.remove(&image) {
            self.maps.forget(image, readable.number);
            self.free.push(readable.number);
        }
    }

    fn find(&mut self, image: u64, code: &CodeSpace, found: impl FnOnce(&Jvm) -> Watched) -> Known {
        let jvm = match Jvm::find(code) {
            Ok(None) => return Known::Not,
            Ok(Some(jvm)) => jvm,
            Err(problem) if problem.is::<UnknownLayout>() => {
                return Known::Unknown(problem.to_string());
            }
            Err(_) => return Known::NotYet,
        };
        let Watched { freed_code, heap } = found(&jvm);
        match self.tell(image, &jvm, freed_code) {
            Ok(number) => Known::Readable(Box::new(Readable { number, jvm, heap })),
            Err(problem) => Known::Unknown(format!("{problem:#}")),
        }
    }

    fn tell(&mut self, image: u64, jvm: &Jvm, may_cache: bool) -> Result<u32> {
        let mut vm = kernel_view(jvm)?;
        vm.may_cache = u32::from(may_cache);
        let number = self.free.pop().context("too many Java VMs at once")?;
        self.maps.assign(image, number, vm)?;
        Ok(number)
    }
}

/// What the kernel side needs of a JVM.
fn kernel_view(jvm: &Jvm) -> Result<Vm> {
    let (layout, places) = (&jvm.layout, &jvm.places);
    let range = places.range();
    let mut heaps = [CodeHeap::default(); MAX_HEAPS];
    if places.heaps.len() > heaps.len() {
        return Err(unknown("CodeCache::_heaps (there are too many)").into());
    }
    for (to, from) in heaps.iter_mut().zip(&places.heaps) {
        *to = CodeHeap {
            start: from.reserved.start,
            end: from.reserved.end,
            segments: from.segment_map,
        };
    }
    let bits = |heap: &crate::jvm::places::CodeHeap| heap.log2_segment_size;
    let segment_bits = places.heaps.first().map(bits).unwrap_or_default();
    if places.heaps.iter().any(|heap| bits(heap) != segment_bits) {
        return Err(unknown("CodeHeap::_log2_segment_size (they differ)").into());
    }
    let nmethod = &layout.nmethod;
    let (deopt_handler, deopt_is_address) = handler(nmethod.deopt_handler)?;
    let deopt_mh_handler = match nmethod.deopt_mh_handler.map(handler) {
        None => 0,
        Some(Ok((offset, is_address))) if is_address == deopt_is_address => offset,
        Some(_) => return Err(unknown("nmethod's method handle deoptimisation handler").into()),
    };
    Ok(Vm {
        start: range.start,
        end: range.end,
        interpreter_start: places.interpreter.start,
        interpreter_end: places.interpreter.end,
        call_stub_return: places.call_stub_return,
        return_barrier: places.return_barrier.unwrap_or(0),
        heaps,
        segment_bits,
        block_header: layout.block.size,
        block_used: of_width(layout.block.used, BYTE, "HeapBlock::Header::_used")?,
        block_length: of_width(layout.block.length, 4, "HeapBlock::Header::_length")?,
        frame_size: of_width(layout.blob.frame_size, 4, "CodeBlob::_frame_size")?,
        compile_id: of_width(nmethod.compile_id, 4, "nmethod::_compile_id")?,
        deopt_handler,
        deopt_mh_handler,
        deopt_is_address,
        original_pc: of_width(nmethod.orig_pc_offset, 4, "nmethod::_orig_pc_offset")?,
        bytecode_below: bytecode_below(layout),
        may_cache: 0,
        emptied: 0,
    })
}

/// The offset of a number that is at least so wide: numbers are small, and
/// their lower part comes first.
fn of_width(
    number: crate::jvm::fields::Number,
    width: u8,
    name: &str,
) -> Result<u32, UnknownLayout> {
    if number.width < width {
        return Err(unknown(name));
    }
    Ok(number.offset)
}

/// The offset of a handler's position, and whether it is an address.
fn handler(position: Position) -> Result<(u32, u32), UnknownLayout> {
    match position {
        Position::Pointer(offset) => Ok((offset, 1)),
        Position::FromStart(number) => {
            Ok((of_width(number, 4, "nmethod::_deopt_handler_offset")?, 0))
        }
    }
}

fn bytecode_below(layout: &Layout) -> u32 {
    u32::from(layout.interpreter.bcp_slot.unsigned_abs()) * 8
}

fn unknown(what: &str) -> UnknownLayout {
    UnknownLayout { what: what.into() }
}
