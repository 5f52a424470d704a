//! One VM: QEMU, its serial ports, and how it ends.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::hearing::Hearing;
use super::shared_files::SharedFiles;
use crate::cpu;
use crate::shell::{cannot_run, echo};

/// Cores and memory of a VM.
const CORES: &str = "2";
const MEMORY: &str = "1536M";
/// The emulated processor. Page tables have four levels, since each is a look-up in
/// software. It says that copying and clearing byte by byte is slow, as in software it is,
/// so that kernels do it by words: a start of the tracer takes a quarter less time.
const EMULATED: &str = "max,la57=off,erms=off,fsrm=off,fsrs=off,fzrm=off";
/// How often to look whether there are signs of life.
const LOOK: Duration = Duration::from_secs(1);

/// The programs and files that every VM needs.
#[derive(Debug)]
pub(super) struct Emulator {
    /// `qemu-system-x86_64`.
    pub(super) qemu: PathBuf,
    /// Folders with its firmware.
    pub(super) firmware: Vec<PathBuf>,
    /// The daemon that shares files.
    pub(super) virtiofsd: PathBuf,
    /// Static busybox.
    pub(super) busybox: PathBuf,
}

/// What to boot and what to do there.
#[derive(Debug)]
pub(super) struct Boot<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    /// A script on the host, run as root under the host's files.
    pub(super) script: &'a Path,
    /// Folders that the VM sees even below `/tmp`.
    pub(super) keep: &'a [&'a Path],
    /// Where the kernel's messages go, and signs of life.
    pub(super) console: &'a Path,
    pub(super) limits: Limits,
}

/// How long a VM may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// In all. After this it is ended.
    pub(super) patience: Duration,
    /// Without a sign of life, though it had a core. After this it is taken for
    /// dead.
    pub(super) silence: Duration,
}

/// How a VM ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End {
    /// The script ran, to this exit code.
    Finished {
        release: String,
        boot: f64,
        code: i32,
    },
    /// It died, and not of what the script did, as far as one can tell: it went
    /// silent, or the kernel panicked before the script ran. Another start may
    /// do better.
    Died(String),
    /// It ended in another way.
    Broken(String),
}

/// What the first process says about itself.
#[derive(Debug, PartialEq)]
enum Said<'a> {
    Ready { release: &'a str, boot: f64 },
    End { code: i32 },
    Broken(&'a str),
}

impl<'a> Said<'a> {
    /// Parses a line of the VM, which is the script's own unless it begins with
    /// our name.
    fn of_line(line: &'a str) -> Option<Self> {
        let said = line.strip_prefix("unfreed-vm: ")?;
        let mut words = said.split(' ');
        Some(match (words.next()?, words.next()) {
            ("ready", Some(release)) => Self::Ready {
                release,
                boot: words.next()?.parse().ok()?,
            },
            ("end", Some(code)) => Self::End {
                code: code.parse().ok()?,
            },
            _ => Self::Broken(said.strip_prefix("broken: ").unwrap_or(said)),
        })
    }
}

impl Emulator {
    /// The packages with its parts.
    pub(super) const PACKAGES: [&str; 5] = [
        "qemu-system-x86/bookworm-backports",
        "qemu-system-data/bookworm-backports",
        "seabios/bookworm-backports",
        // The last of Debian's with a virtiofsd in it.
        "qemu-system-common/bookworm",
        "busybox-static/bookworm",
    ];

    /// From the folders of the unpacked packages.
    pub(super) fn new([programs, data, bios, common, busybox]: &[PathBuf; 5]) -> Self {
        Self {
            qemu: programs.join("usr/bin/qemu-system-x86_64"),
            firmware: vec![data.join("usr/share/qemu"), bios.join("usr/share/seabios")],
            virtiofsd: common.join("usr/lib/qemu/virtiofsd"),
            busybox: busybox.join("bin/busybox"),
        }
    }

    /// Boots a VM and hands on every line of the script, until the VM ends.
    ///
    /// # Errors
    /// A program does not start, or a file cannot be written.
    pub(super) fn run(&self, boot: &Boot, mut on_line: impl FnMut(&str)) -> Result<End> {
        let end = Instant::now() + boot.limits.patience;
        let shared = SharedFiles::start(&self.virtiofsd)?;
        let mut machine = Machine::start(self.command(boot, &shared.socket))?;
        let mut hearing = Hearing::new(machine.qemu.id(), boot.console);
        let (mut ready, mut last) = (None, None);
        loop {
            if Instant::now() >= end {
                let seconds = boot.limits.patience.as_secs();
                return Ok(End::Broken(format!("ended after {seconds} s")));
            }
            let line = match machine.lines.recv_timeout(LOOK.min(boot.limits.silence)) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if hearing.silence() < boot.limits.silence => {
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Ok(End::Died(silent(boot, ready.is_some())));
                }
            };
            hearing.line();
            match Said::of_line(&line) {
                None => on_line(&line),
                Some(Said::Ready { release, boot }) => {
                    shared.forget_socket();
                    ready = Some((release.to_owned(), boot));
                }
                Some(Said::End { code }) => last = Some(code),
                Some(Said::Broken(why)) => return Ok(End::Broken(why.to_owned())),
            }
        }
        let status = cpu::wait(&mut machine.qemu)?;
        Ok(match (ready, last) {
            (Some((release, boot)), Some(code)) => End::Finished {
                release,
                boot,
                code,
            },
            (before, _) => match panic_in(&messages(boot.console)) {
                Some(panic) if before.is_none() => {
                    End::Died(format!("the kernel panicked as it started: {panic}"))
                }
                Some(panic) => End::Broken(format!("the kernel panicked: {panic}")),
                None => End::Broken(format!(
                    "QEMU ended with {status}; the kernel's messages are in {}",
                    boot.console.display()
                )),
            },
        })
    }

    fn command(&self, boot: &Boot, socket: &Path) -> Command {
        let mut command = Command::new("setpriv");
        // The VM ends with us, whatever ends us; and it waits for tests that
        // run beside it, which wait less for one another.
        command
            .args(["--pdeathsig", "KILL", "--", "nice", "-n", "5"])
            .arg(&self.qemu);
        for folder in &self.firmware {
            command.arg("-L").arg(folder);
        }
        let keep: Vec<_> = boot
            .keep
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        command
            // 7.3 was seen to hang as it set up the HPET, a clock that nothing needs
            // beside the processor's own counter.
            .args(["-machine", "q35,hpet=off,memory-backend=memory"])
            .arg("-object")
            .arg(format!(
                "memory-backend-memfd,id=memory,size={MEMORY},share=on"
            ))
            .args(acceleration())
            .args([
                "-smp",
                CORES,
                "-nodefaults",
                "-display",
                "none",
                "-no-reboot",
            ])
            // The kernel's messages and signs of life apart from the script's.
            .arg("-serial")
            .arg(format!("file:{}", boot.console.display()))
            .args(["-serial", "stdio"])
            .arg("-chardev")
            .arg(format!("socket,id=files,path={}", socket.display()))
            .args(["-device", "vhost-user-fs-pci,chardev=files,tag=host"])
            .arg("-kernel")
            .arg(boot.kernel)
            .arg("-initrd")
            .arg(boot.initramfs)
            .arg("-append")
            // The timer is late where the host has other work: not looked at. Memory
            // has to be cleared as the kernel gives it out (`init_on_alloc`, which is
            // Debian's default): files come into it from another process, which the
            // emulator does not notice, and it would go on to run translations of
            // the code that was there before.
            .arg(format!(
                "console=ttyS0 panic=-1 mitigations=off no_timer_check init_on_alloc=1 unfreed.keep={} unfreed.job={}",
                keep.join(":"),
                boot.script.display()
            ));
        command
    }
}

/// What is said of a VM that went silent.
fn silent(boot: &Boot, ran: bool) -> String {
    format!(
        "nothing was heard of it for {} s, {} its script began; its console's output is in {}",
        boot.limits.silence.as_secs(),
        if ran { "after" } else { "before" },
        boot.console.display()
    )
}

/// KVM where the processor has it, else software emulation.
fn acceleration() -> [&'static str; 4] {
    let has_kvm = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        text.split_whitespace()
            .any(|flag| flag == "vmx" || flag == "svm")
    }) && File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    if has_kvm {
        ["-accel", "kvm", "-cpu", "host"]
    } else {
        ["-accel", "tcg,thread=multi", "-cpu", EMULATED]
    }
}

/// A running QEMU. It is killed with this value.
#[derive(Debug)]
struct Machine {
    qemu: Child,
    lines: Receiver<String>,
}

impl Machine {
    fn start(mut command: Command) -> Result<Self> {
        echo(&command);
        let mut qemu = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| cannot_run(&command))?;
        let (sender, lines) = channel();
        if let Some(stdout) = qemu.stdout.take() {
            thread::spawn(move || {
                for line in lines_of(stdout) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { qemu, lines })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ended_before = self.qemu.kill();
        let _reaped_before = cpu::wait(&mut self.qemu);
    }
}

/// The lines that come over a serial port, where they end in `\r\n`, and where
/// programs write what is no UTF-8.
fn lines_of(stream: impl Read) -> impl Iterator<Item = String> {
    BufReader::new(stream)
        .split(b'\n')
        .map_while(std::io::Result::ok)
        .map(|line| {
            String::from_utf8_lossy(&line)
                .trim_end_matches('\r')
                .to_owned()
        })
}

/// What a kernel panicked for, if it did.
fn panic_in(messages: &str) -> Option<&str> {
    let (_, panic) = messages.split_once("Kernel panic - not syncing: ")?;
    panic.lines().next()
}

fn messages(console: &Path) -> String {
    String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_is_told_from_the_script() {
        assert_eq!(Said::of_line("test a ... ok"), None);
        assert_eq!(
            Said::of_line("unfreed-vm: ready 5.10.0-46-cloud-amd64 4.06"),
            Some(Said::Ready {
                release: "5.10.0-46-cloud-amd64",
                boot: 4.06
            })
        );
        assert_eq!(
            Said::of_line("unfreed-vm: end 1 20.5"),
            Some(Said::End { code: 1 })
        );
        assert_eq!(
            Said::of_line("unfreed-vm: broken: the host's files"),
            Some(Said::Broken("the host's files"))
        );
    }

    #[test]
    fn a_panic_says_why() {
        let messages = "[ 1.0] ok\n[ 1.1] Kernel panic - not syncing: no root\n[ 1.2] CPU: 0\n";
        assert_eq!(panic_in(messages), Some("no root"));
        assert_eq!(panic_in("[ 1.0] reboot: Power down\n"), None);
    }

    #[test]
    fn a_serial_port_ends_lines_in_its_own_way() {
        let lines: Vec<String> = lines_of(&b"a\r\n\xff\r\n\r\nb"[..]).collect();
        assert_eq!(lines, ["a", "\u{fffd}", "", "b"]);
    }
}
