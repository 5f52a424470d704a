//! What the JVMs of a run tell of their compiled code.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use tracer_ebpf::frame::Frame;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::Site;
use tracer_ebpf::thread::image_pid;

use crate::jvm::frames::JavaFrame;
use crate::jvm::told_code::{Code, ToldCode};
use crate::kernel::object::Object;
use crate::kernel::usdt::CodeTold;
use crate::process::clock::monotonic_ns;

/// The code of all JVMs whose frees are told too.
#[derive(Default)]
pub struct ToldCodes {
    by_image: HashMap<u64, ToldCode>,
    /// Events that were lost, and when there were no more than that.
    lost: (u64, u64),
}

impl ToldCodes {
    /// From now on, what an image's JVM frees is told.
    pub fn begin(&mut self, image: u64) {
        self.by_image.insert(image, ToldCode::new(monotonic_ns()));
    }

    /// What an image tells is of no interest any more. Names that were given
    /// stay.
    pub fn forget(&mut self, image: u64) {
        self.by_image.remove(&image);
    }

    /// What a process frees is not told any more: from now on, nothing is known
    /// of its code.
    pub fn forget_process(&mut self, pid: u32) {
        for (_, mut codes) in self
            .by_image
            .extract_if(|image, _| image_pid(*image) == pid)
        {
            codes.distrust(self.lost.1, u64::MAX);
        }
    }

    /// Enters what was told since the last time.
    pub fn drain(&mut self, object: &mut Object) {
        let now = monotonic_ns();
        while let Some(told) = object.usdt.next_code() {
            match told {
                CodeTold::Compiled(told) => {
                    if let Some(codes) = self.by_image.get_mut(&told.image) {
                        codes.compiled(&told);
                    }
                }
                CodeTold::Gone(gone) => {
                    if let Some(codes) = self.by_image.get_mut(&gone.image) {
                        codes.gone(&gone);
                    }
                }
            }
        }
        let lost = object.losses.get(LossCause::CodeRingFull as u32);
        let lost = lost.unwrap_or_default().events;
        if lost != self.lost.0 {
            // Some time since the last look; what the ring had is in there.
            for codes in self.by_image.values_mut() {
                codes.distrust(self.lost.1, monotonic_ns());
            }
        }
        self.lost = (lost, now);
    }

    /// An image had code at a place at one moment within `time`.
    pub fn add(&mut self, image: u64, place: Range<u64>, time: &Range<u64>, frame: JavaFrame) {
        if let Some(codes) = self.by_image.get_mut(&image) {
            codes.add(place, time.clone(), frame);
        }
    }

    /// The code that a word of a site stands for.
    pub fn find(&self, site: &Site, word: u64) -> Option<&Arc<Code>> {
        let Frame::Compiled { pc, .. } = Frame::of(word) else {
            return None;
        };
        let codes = self.by_image.get(&site.image)?;
        codes.find(pc, site.first_seen, site.last_seen)
    }
}
