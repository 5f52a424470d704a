//! Several VMs, two at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tracer_ebpf_build::workspace;

use super::machine::{Boot, Emulator, End, Limits};
use super::{initramfs, kernels};
use crate::build::target_dir;
use crate::cpu;
use crate::packages::Packages;

/// VMs at a time: what two cores bear.
const AT_A_TIME: usize = 2;
/// Starts of a VM that dies: one boot in about 170 panics before anything of ours
/// runs, and rarely one says nothing at all.
const STARTS: usize = 3;

/// A kernel that is there to be booted.
#[derive(Debug)]
struct Vm {
    kernel: PathBuf,
    initramfs: PathBuf,
    /// Its script and its console's output.
    folder: PathBuf,
}

/// Kernels, and what boots them.
#[derive(Debug)]
pub(crate) struct Fleet {
    emulator: Emulator,
    vms: Vec<Vm>,
}

/// How one VM ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: Result<End>,
    /// Why it was started anew, once for each time.
    pub(super) restarts: Vec<String>,
    pub(super) began: Instant,
    pub(super) total: Duration,
    /// Processor time of the emulator and of the daemon that shares files.
    pub(super) cpu: Duration,
}

/// What is heard of a VM while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A line of its script.
    Line(&'a str),
    /// It is started anew, and its script with it: what it said before is void.
    Anew(&'a str),
}

impl Fleet {
    /// Fetches what is not there yet.
    ///
    /// # Errors
    /// A package is not to be had, or a file cannot be written.
    pub(super) fn prepare(series: &[&str]) -> Result<Self> {
        let root = target_dir().join("vm");
        let packages = Packages::of_vms()?;
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
                    kernel: initramfs::image(package)?,
                    initramfs: initramfs::make(&folder, &emulator.busybox, package)?,
                    folder,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { emulator, vms })
    }

    /// Runs on every kernel the script for its index, and hands on what is heard with
    /// that index. The ends are in the kernels' order.
    pub(super) fn run(
        &self,
        script: &(dyn Fn(usize) -> String + Sync),
        limits: Limits,
        on_heard: &(dyn Fn(usize, Heard) + Sync),
    ) -> Vec<Ended> {
        let waiting = Mutex::new(self.vms.iter().enumerate());
        let ends = Mutex::new(Vec::new());
        let work = || {
            // The lock ends with the statement.
            while let Some((index, vm)) = waiting.lock().ok().and_then(|mut some| some.next()) {
                let began = Instant::now();
                let mut restarts = Vec::new();
                let hear = |heard: Heard| on_heard(index, heard);
                let (end, cpu) = cpu::measured(|| {
                    self.run_one(vm, &script(index), limits, &mut restarts, &hear)
                });
                let ended = Ended {
                    end,
                    restarts,
                    began,
                    total: began.elapsed(),
                    cpu,
                };
                if let Ok(mut ends) = ends.lock() {
                    ends.push((index, ended));
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

    /// Runs a script on one kernel, in as many VMs as it takes until one lives.
    fn run_one(
        &self,
        vm: &Vm,
        script: &str,
        limits: Limits,
        restarts: &mut Vec<String>,
        on_heard: &dyn Fn(Heard),
    ) -> Result<End> {
        let file = vm.folder.join("script.sh");
        fs::write(&file, script)?;
        let target = target_dir();
        loop {
            let start = restarts.len() + 1;
            // A dead VM's is kept, to be looked at.
            let console = vm.folder.join(format!("console-{start}"));
            fs::write(&console, "")?;
            let boot = Boot {
                kernel: &vm.kernel,
                initramfs: &vm.initramfs,
                script: &file,
                keep: &[workspace(), Path::new(&target)],
                console: &console,
                limits,
            };
            let end = self
                .emulator
                .run(&boot, |line| on_heard(Heard::Line(line)))?;
            match end {
                End::Died(why) if start < STARTS => {
                    on_heard(Heard::Anew(&why));
                    restarts.push(why);
                }
                End::Died(why) => {
                    return Ok(End::Broken(format!("dead after {STARTS} starts: {why}")));
                }
                end => return Ok(end),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// What a VM that lives says.
    const LIVES: &str =
        "echo 'unfreed-vm: ready 6.1.0 4.06'; echo whole; echo 'unfreed-vm: end 0 5'";
    const LIMITS: Limits = Limits {
        patience: Duration::from_secs(60),
        silence: Duration::from_secs(2),
    };

    /// A fleet of one VM, whose emulator is a shell script: it knows which start
    /// it is (`$start`) and where the console's output goes (`$console`).
    fn fleet(folder: &Path, script: &str) -> Fleet {
        let qemu = folder.join("qemu");
        let text = format!(
            "#!/bin/sh\n\
             for word; do case $word in file:*) console=${{word#file:}} ;; esac; done\n\
             echo >>\"$0.starts\"\n\
             start=$(wc -l <\"$0.starts\")\n\
             {script}\n"
        );
        fs::write(&qemu, text).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        Fleet {
            emulator: Emulator {
                qemu,
                firmware: vec![],
                virtiofsd: "/bin/true".into(),
                busybox: "/bin/true".into(),
            },
            vms: vec![Vm {
                kernel: "/nonexistent".into(),
                initramfs: "/nonexistent".into(),
                folder: folder.to_owned(),
            }],
        }
    }

    /// How the VM ended, and the lines of the start that counts.
    fn run(script: &str, limits: Limits) -> (Ended, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let lines = Mutex::new(Vec::new());
        let mut ends =
            fleet(folder.path(), script).run(&|_| String::new(), limits, &|index, heard| {
                assert_eq!(index, 0);
                let mut lines = lines.lock().unwrap();
                match heard {
                    Heard::Line(line) => lines.push(line.to_owned()),
                    Heard::Anew(_) => lines.clear(),
                }
            });
        (ends.pop().unwrap(), lines.into_inner().unwrap())
    }

    fn lived(ended: &Ended) -> bool {
        matches!(&ended.end, Ok(End::Finished { code: 0, .. }))
    }

    #[test]
    fn a_vm_that_says_nothing_is_started_anew() {
        let silent = format!("[ $start = 1 ] && exec sleep 600; {LIVES}");
        let (ended, lines) = run(&silent, LIMITS);
        assert!(lived(&ended), "{ended:?}");
        assert_eq!(lines, ["whole"]);
        assert_eq!(ended.restarts.len(), 1);
        assert!(ended.restarts[0].contains("nothing was heard of it for 2 s, before"));
    }

    #[test]
    fn what_a_vm_said_before_it_fell_silent_is_void() {
        let silent = format!(
            "[ $start = 1 ] || {{ {LIVES}; exit; }}\n\
             echo 'unfreed-vm: ready 6.1.0 4.06'; echo half; exec sleep 600"
        );
        let (ended, lines) = run(&silent, LIMITS);
        assert!(lived(&ended), "{ended:?}");
        assert_eq!(lines, ["whole"]);
        assert!(ended.restarts[0].contains("after its script began"));
    }

    #[test]
    fn a_vm_that_is_silent_three_times_is_broken() {
        let (ended, lines) = run("exec sleep 600", LIMITS);
        let Ok(End::Broken(why)) = &ended.end else {
            panic!("{ended:?}");
        };
        assert!(
            why.contains("dead after 3 starts: nothing was heard"),
            "{why}"
        );
        assert_eq!((ended.restarts.len(), lines.len()), (2, 0));
    }

    #[test]
    fn signs_of_life_are_enough_while_a_test_says_nothing() {
        let slow = format!(
            "for _ in 1 2 3 4 5 6 7 8; do echo alive >>\"$console\"; sleep 0.5; done; {LIVES}"
        );
        let (ended, lines) = run(&slow, LIMITS);
        assert!(lived(&ended) && ended.restarts.is_empty(), "{ended:?}");
        assert_eq!(lines, ["whole"]);
        assert!(ended.total > LIMITS.silence);
    }

    #[test]
    fn a_panic_before_the_script_is_a_reason_to_start_anew_and_one_in_it_is_not() {
        let panic = "echo '[ 1.1] Kernel panic - not syncing: no root' >\"$console\"; exit 0";
        let (ended, _) = run(
            &format!("[ $start = 3 ] || {{ {panic}; }}; {LIVES}"),
            LIMITS,
        );
        assert!(lived(&ended), "{ended:?}");
        assert_eq!(ended.restarts.len(), 2);
        assert!(ended.restarts[1].contains("panicked as it started: no root"));
        let (ended, _) = run(
            &format!("echo 'unfreed-vm: ready 6.1.0 4.06'; {panic}"),
            LIMITS,
        );
        assert!(matches!(&ended.end, Ok(End::Broken(_))), "{ended:?}");
        assert_eq!(ended.restarts.len(), 0);
    }

    #[test]
    fn patience_ends_where_signs_of_life_do_not() {
        let limits = Limits {
            patience: Duration::from_secs(1),
            ..LIMITS
        };
        let (ended, _) = run("while :; do echo on; sleep 0.1; done", limits);
        let Ok(End::Broken(why)) = &ended.end else {
            panic!("{ended:?}");
        };
        assert_eq!(why, "ended after 1 s");
    }
}
