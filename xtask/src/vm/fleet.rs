//! Several VMs, two at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tracer_ebpf_build::workspace;

use super::machine::{Boot, Emulator, End};
use super::{initramfs, kernels};
use crate::build::target_dir;
use crate::packages::{Packages, Suites};
use crate::shell::say;

/// VMs at a time: what two cores bear.
const AT_A_TIME: usize = 2;
/// Starts of a VM whose kernel panics before anything of ours runs: one boot in
/// about 170 does so.
const STARTS: usize = 2;

/// A kernel that is there to be booted.
#[derive(Debug)]
pub(super) struct Vm {
    /// Such as `5.10`.
    pub(super) series: String,
    kernel: PathBuf,
    initramfs: PathBuf,
    /// Its script and its console's output.
    folder: PathBuf,
}

/// Kernels, and what boots them.
#[derive(Debug)]
pub(super) struct Fleet {
    emulator: Emulator,
    pub(super) vms: Vec<Vm>,
}

/// How one VM ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: Result<End>,
    pub(super) total: Duration,
}

impl Fleet {
    /// Fetches what is not there yet.
    ///
    /// # Errors
    /// A package is not to be had, or a file cannot be written.
    pub(super) fn prepare(series: &[&str]) -> Result<Self> {
        let root = target_dir().join("vm");
        let packages = Packages::open(root.join("apt"), Suites::VM)?;
        let kernels = kernels::packages(&packages, series)?;
        let wanted: Vec<&str> = Emulator::PACKAGES
            .into_iter()
            .chain(kernels.iter().map(String::as_str))
            .collect();
        let folders = packages.unpack(&wanted)?;
        let (parts, kernels) = folders
            .split_first_chunk()
            .context("packages are missing")?;
        let emulator = Emulator::new(parts);
        let vms = series
            .iter()
            .zip(kernels)
            .map(|(series, package)| {
                let folder = root.join("run").join(series);
                fs::create_dir_all(&folder)?;
                Ok(Vm {
                    series: (*series).to_owned(),
                    kernel: initramfs::image(package)?,
                    initramfs: initramfs::make(&folder, &emulator.busybox, package)?,
                    folder,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { emulator, vms })
    }

    /// Runs a script on every kernel, each for at most `patience`, and hands on
    /// its lines with the kernel's index. The ends are in the kernels' order.
    pub(super) fn run(
        &self,
        script: &str,
        patience: Duration,
        on_line: &(dyn Fn(usize, &str) + Sync),
    ) -> Vec<Ended> {
        let waiting = Mutex::new(self.vms.iter().enumerate());
        let ends = Mutex::new(Vec::new());
        let work = || {
            // The lock ends with the statement.
            while let Some((index, vm)) = waiting.lock().ok().and_then(|mut some| some.next()) {
                let start = Instant::now();
                let end = self.run_one(vm, script, patience, &|line| on_line(index, line));
                let total = start.elapsed();
                if let Ok(mut ends) = ends.lock() {
                    ends.push((index, Ended { end, total }));
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..AT_A_TIME.min(self.vms.len()) {
                scope.spawn(work);
            }
        });
        let mut ends = ends.into_inner().unwrap_or_default();
        ends.sort_by_key(|(index, _)| *index);
        ends.into_iter().map(|(_, end)| end).collect()
    }

    fn run_one(
        &self,
        vm: &Vm,
        script: &str,
        patience: Duration,
        on_line: &dyn Fn(&str),
    ) -> Result<End> {
        let file = vm.folder.join("script.sh");
        fs::write(&file, script)?;
        let console = vm.folder.join("console");
        let target = target_dir();
        let boot = Boot {
            kernel: &vm.kernel,
            initramfs: &vm.initramfs,
            script: &file,
            keep: &[workspace(), Path::new(&target)],
            console: &console,
            deadline: patience,
        };
        for _ in 1..STARTS {
            match self.emulator.run(&boot, on_line)? {
                End::NotBooted => say(format_args!(
                    "{}: the kernel panicked as it started; once more",
                    vm.series
                )),
                end => return Ok(end),
            }
        }
        self.emulator.run(&boot, on_line)
    }
}
