//! The kernel maps that Java frames are walked by.

use anyhow::{Context, Result};
use aya::maps::{HashMap, MapData};
use tracer_ebpf::java::{Freed, MAX_VMS, Vm, cached};

use super::mapped::MappedArray;

/// The maps. What is in them belongs to JVMs by number.
pub struct VmMaps {
    /// JVMs by number.
    pub vms: MappedArray<Vm>,
    /// How often each has freed code.
    pub freed: MappedArray<Freed>,
    /// Code by address.
    pub cache: MappedArray<u64>,
    /// The number of an image's JVM.
    pub vm_of: HashMap<MapData, u64, u32>,
}

impl VmMaps {
    /// Lets an image have a JVM.
    ///
    /// # Errors
    /// Fails if there is no room.
    pub fn assign(&mut self, image: u64, number: u32, vm: Vm) -> Result<()> {
        self.place(number, vm);
        self.vm_of
            .insert(image, number, 0)
            .context("cannot tell the kernel side of a Java VM")
    }

    /// Sets what a number stands for, with nothing cached.
    fn place(&mut self, number: u32, vm: Vm) {
        let emptied = self.empty(number);
        self.vms.set(number, Vm { emptied, ..vm });
    }

    /// Empties the cache of a JVM's code before old entries could pass for
    /// new ones.
    pub fn refresh(&mut self, number: u32) {
        let (Some(vm), Some(freed)) = (self.vms.get(number), self.freed.get(number)) else {
            return;
        };
        if freed.wrapping_sub(vm.emptied) > cached::EMPTY_AFTER / 2 {
            self.place(number, vm);
        }
    }

    /// Takes an image's JVM away.
    pub fn forget(&mut self, image: u64, number: u32) {
        // Gone already is fine.
        let _ = self.vm_of.remove(&image);
        self.vms.set(number, Vm::default());
    }

    /// Empties the cache of what belongs to a JVM. Returns how often it had
    /// freed code before.
    fn empty(&mut self, number: u32) -> Freed {
        let freed = self.freed.get(number).unwrap_or_default();
        for index in 0..self.cache.len() {
            let entry = self.cache.get(index).unwrap_or(0);
            if entry != 0 && cached::vm(entry) == number {
                self.cache.set(index, 0);
            }
        }
        freed
    }
}

const _: () = assert!(
    MAX_VMS <= cached::VMS,
    "an entry of the cache has room for the number"
);
