//! Every object that a JVM allocates, if it was started with the probes for
//! that (`-XX:+DTraceAllocProbes`, or until JDK 17 `-XX:+ExtendedDTraceProbes`,
//! which sets the other). At run time they cannot be switched on.

use anyhow::{Result, ensure};
use tracer_ebpf::usdt::PlaceKey;

use super::jvm_probes::{Machines, guarded, usable};
use super::jvms::HeapSource;
use crate::attach::probes::{Probes, Scope};
use crate::jvm::events::probe::{ALLOCATED, PROVIDER, allocated};
use crate::jvm::fields::Fields;
use crate::jvm::{Jvm, flags};
use crate::kernel::object::Object;
use crate::usdt;

/// The flag that has the probe hit.
const FLAG: &str = "DTraceAllocProbes";

/// What is in place, and where more goes.
pub(super) struct Watch<'a> {
    pub(super) probes: &'a mut Probes,
    pub(super) object: &'a mut Object,
    pub(super) machines: &'a mut Machines,
    /// Whether the VM's own probes may be used.
    pub(super) own_probes: bool,
}

impl Watch<'_> {
    /// Has the kernel side told of what the JVM of an image allocates in its
    /// heap: of each object if it tells that, and of samples otherwise.
    ///
    /// # Errors
    /// Fails if neither can be had.
    pub(super) fn heap(&mut self, image: u64, jvm: &Jvm, scope: Scope) -> Result<HeapSource> {
        if self.own_probes
            && flags::are_on(Fields(&jvm.structs), &jvm.memory, [FLAG]).is_ok_and(|[on]| on)
            && let Ok(source) = self.objects(image, jvm, scope)
        {
            return Ok(source);
        }
        let library = &jvm.library;
        self.probes.watch_java_heap(self.object, library, scope)?;
        Ok(HeapSource::Samples)
    }

    fn objects(&mut self, image: u64, jvm: &Jvm, scope: Scope) -> Result<HeapSource> {
        let file = jvm.library.file();
        let probes = usdt::read(&file.content)?;
        let is_it = |probe: &&usdt::Probe| probe.provider == PROVIDER && probe.name == ALLOCATED;
        let sites = probes.iter().find(is_it).map(|probe| &probe.sites);
        let (mut offsets, mut sized) = (Vec::new(), true);
        for (site, offset) in sites.into_iter().flatten().filter_map(usable) {
            let ip = jvm.library.address(site.pc);
            let key = PlaceKey { image, ip };
            let (place, is_sized) = allocated(site);
            sized &= is_sized;
            self.machines.watch_object(self.object, key, &place)?;
            offsets.push(offset);
        }
        ensure!(!offsets.is_empty(), "it was built without {ALLOCATED}");
        let path = file.descriptor_path();
        if self.machines.is_told_of_objects(scope, file.mapped) {
            return Ok(HeapSource::Objects { sized });
        }
        let mut guarded = guarded(scope, file, &offsets)?;
        guarded.hold(self.object.attach_objects(&offsets, &path, scope.pid())?);
        self.probes.guard(guarded);
        self.machines.told_of_objects(scope, file.mapped);
        Ok(HeapSource::Objects { sized })
    }
}
