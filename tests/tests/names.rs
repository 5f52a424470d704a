//! Names: from symbols, line tables, separate debug files, perf maps; of files
//! that are gone, replaced or in another mount namespace. What has no name
//! says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use unfreed_tests::container::child_of;
use unfreed_tests::model::{Frame, Origin};
use unfreed_tests::{Sums, Target, Tracer, View, line_of, target_path};

/// Runs one command of a target under the tracer.
fn record(target: &mut Target, command: &str) -> Result<View> {
    let tracer = Tracer::record(target.pid, &[])?;
    target.command(command)?;
    tracer.stop()?.report()
}

fn record_program(path: &Path, command: &str) -> Result<View> {
    record(&mut Target::start_at(path)?, command)
}

/// The frames of the only site of this many bytes.
fn frames_of(report: &View, bytes: u64) -> Result<&[Frame]> {
    let mut sites = report.sites.iter().filter(|site| site.live_bytes == bytes);
    let site = sites
        .next()
        .with_context(|| format!("no site:\n{}", report.table()))?;
    ensure!(sites.next().is_none(), "two sites:\n{}", report.table());
    Ok(&site.frames)
}

/// The program's own frames, root first, without what libc calls `main` from.
fn own_frames<'a>(frames: &'a [Frame], file: &str) -> Vec<&'a Frame> {
    frames
        .iter()
        .filter(|frame| {
            frame
                .module
                .as_deref()
                .is_some_and(|path| path.contains(file))
        })
        .collect()
}

// --- languages ---

#[test]
fn cpp_names_are_demangled() -> Result<()> {
    let report = record_program(&target_path("plusplus")?, "demangled_names")?;
    let names: Vec<_> = frames_of(&report, 3 * 347)?
        .iter()
        .map(|frame| frame.function.as_deref())
        .collect();
    let expected = Some("shop::Cart<int>::add(int)");
    assert!(names.contains(&expected), "{names:?}");
    Ok(())
}

#[test]
fn rust_names_are_demangled() -> Result<()> {
    let report = record_program(&target_path("rusty")?, "leak_vectors")?;
    assert_eq!(report.heap("leak_vectors"), Sums::live(359, 13));
    let site = report
        .sites_with("leak_vectors")
        .next()
        .context("no site")?;
    let names: Vec<_> = site
        .frames
        .iter()
        .filter_map(|frame| frame.function.as_deref())
        .collect();
    let expected = "<rusty::cart::Basket as rusty::cart::Leak>::leak";
    assert!(names.contains(&expected), "{names:?}");
    assert!(
        names.contains(&"rusty::leak_vectors"),
        "no hash in a name: {names:?}"
    );
    Ok(())
}

#[test]
fn inlined_frames_have_names_files_and_lines() -> Result<()> {
    let report = record_program(&target_path("plusplus")?, "holds_inlined_frames")?;
    let frames = frames_of(&report, 349)?;
    let source = "cpp/plusplus.cpp";
    let last = frames.len() - 1;
    let expected = [
        ("holds_inlined_frames", "line of the outermost frame", false),
        ("inlined_once", "line of the middle frame", true),
        ("inlined_twice", "line of the innermost frame", true),
    ];
    for (frame, (function, marker, inlined)) in frames[last - 3..last].iter().zip(expected) {
        let name = frame.function.as_deref().unwrap_or_default();
        assert_eq!(name.split('(').next(), Some(function), "{frames:#?}");
        assert!(
            frame
                .file
                .as_deref()
                .is_some_and(|file| file.ends_with("plusplus.cpp"))
        );
        assert_eq!(frame.line, Some(line_of(source, marker)?), "{frame:?}");
        assert_eq!(frame.inlined, inlined, "{frame:?}");
    }
    assert_eq!(frames[last].function.as_deref(), Some("malloc"));
    assert_eq!(frames[last].origin, Origin::Library);
    assert_eq!(frames[last - 1].origin, Origin::Program);
    Ok(())
}

// --- where symbols are ---

/// A copy of the target `leak` in a folder of its own.
fn copy_of(name: &str) -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join(name);
    fs::copy(target_path(name)?, &copy)?;
    Ok((folder, copy))
}

fn tool(program: &str, arguments: &[&str], file: &Path) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .arg(file)
        .output()
        .with_context(|| format!("starting {program} (package binutils)"))?;
    ensure!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn a_stripped_program_shows_offsets_and_reasons() -> Result<()> {
    let (_folder, path) = copy_of("leak")?;
    tool("strip", &[], &path)?;
    let report = record_program(&path, "leak_blocks")?;
    let frames = own_frames(frames_of(&report, 7 * 1009)?, "leak");
    assert!(frames.len() >= 3, "{frames:#?}");
    let bytes = fs::metadata(&path)?.len();
    for frame in frames {
        assert_eq!(frame.function, None, "a guess is no name: {frame:?}");
        assert!(
            frame
                .reason
                .as_deref()
                .is_some_and(|reason| !reason.is_empty()),
            "{frame:?}"
        );
        assert!(
            frame.module_offset.is_some_and(|offset| offset < bytes),
            "{frame:?}"
        );
    }
    assert_eq!(report.lost(), 0);
    Ok(())
}

#[test]
fn offsets_of_a_stripped_program_lead_to_its_symbols() -> Result<()> {
    let (_folder, path) = copy_of("leak")?;
    let (address, size) = symbol(&path, "leak_blocks")?;
    tool("strip", &[], &path)?;
    let report = record_program(&path, "leak_blocks")?;
    let frames = own_frames(frames_of(&report, 7 * 1009)?, "leak");
    let offset = frames
        .last()
        .and_then(|frame| frame.module_offset)
        .context("no offset")?;
    assert!(
        (address..=address + size).contains(&offset),
        "{offset:#x} for {address:#x}+{size:#x}"
    );
    Ok(())
}

/// A symbol's value and size. In `leak`, as in every small position
/// independent program, code has equal file offsets and addresses.
fn symbol(path: &Path, name: &str) -> Result<(u64, u64)> {
    let table = tool("nm", &["--print-size"], path)?;
    let line = table
        .lines()
        .find(|line| line.ends_with(&format!(" {name}")));
    let fields: Vec<&str> = line.context("no symbol")?.split(' ').collect();
    Ok((
        u64::from_str_radix(fields[0], 16)?,
        u64::from_str_radix(fields[1], 16)?,
    ))
}

/// Moves the debug information of a copy of `leak` into a file of its own.
fn split_debug(path: &Path, debug: &Path) -> Result<()> {
    let debug_name = debug.display().to_string();
    let output = Command::new("objcopy")
        .arg("--only-keep-debug")
        .arg(path)
        .arg(debug)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    tool("strip", &[], path)?;
    tool(
        "objcopy",
        &[&format!("--add-gnu-debuglink={debug_name}")],
        path,
    )
    .map(drop)
}

fn leak_has_names_and_lines(report: &View) -> Result<()> {
    assert_eq!(
        report.heap("leak_blocks"),
        Sums::live(1009, 7),
        "{}",
        report.table()
    );
    let frames = frames_of(report, 7 * 1009)?;
    let frame = frames
        .iter()
        .find(|frame| frame.function.as_deref() == Some("leak_blocks"));
    let frame = frame.context("no frame")?;
    assert!(
        frame
            .file
            .as_deref()
            .is_some_and(|file| file.ends_with("leak.h")),
        "{frame:?}"
    );
    assert_eq!(
        frame.line,
        Some(line_of("c/leak.h", "opaque(malloc(1009))")?)
    );
    Ok(())
}

#[test]
fn a_debug_file_is_found_by_debuglink() -> Result<()> {
    let (folder, path) = copy_of("leak")?;
    split_debug(&path, &folder.path().join("leak.debug"))?;
    leak_has_names_and_lines(&record_program(&path, "leak_blocks")?)
}

/// A debug file in the system's place; removed with this value.
struct InstalledDebugFile(PathBuf);

impl InstalledDebugFile {
    fn new(path: &Path) -> Result<Self> {
        let notes = tool("readelf", &["--notes", "--wide"], path)?;
        let id = notes
            .split("Build ID: ")
            .nth(1)
            .context("the program has no build id")?;
        let id = id.split_whitespace().next().unwrap_or_default();
        let folder = Path::new("/usr/lib/debug/.build-id").join(&id[..2]);
        fs::create_dir_all(&folder)?;
        Ok(Self(folder.join(format!("{}.debug", &id[2..]))))
    }
}

impl Drop for InstalledDebugFile {
    fn drop(&mut self) {
        let _never_made = fs::remove_file(&self.0);
        // Folders that held something before stay.
        for folder in self.0.ancestors().skip(1).take(2) {
            let _not_empty = fs::remove_dir(folder);
        }
    }
}

#[test]
fn a_debug_file_is_found_by_build_id() -> Result<()> {
    let (_folder, path) = copy_of("leak_musl")?;
    let debug = InstalledDebugFile::new(&path)?;
    split_debug(&path, &debug.0)?;
    tool("objcopy", &["--remove-section=.gnu_debuglink"], &path)?;
    leak_has_names_and_lines(&record_program(&path, "leak_blocks")?)
}

// --- files that are elsewhere ---

#[test]
fn a_deleted_program_keeps_its_names() -> Result<()> {
    let (_folder, path) = copy_of("leak")?;
    let mut target = Target::start_at(&path)?;
    fs::remove_file(&path)?;
    leak_has_names_and_lines(&record(&mut target, "leak_blocks")?)
}

#[test]
fn a_replaced_program_keeps_its_old_names() -> Result<()> {
    let (_folder, path) = copy_of("leak")?;
    let mut target = Target::start_at(&path)?;
    fs::remove_file(&path)?;
    fs::copy(target_path("mappings")?, &path)?;
    leak_has_names_and_lines(&record(&mut target, "leak_blocks")?)
}

#[test]
fn a_deleted_library_keeps_its_names() -> Result<()> {
    let (_folder, path) = copy_of("lifecycle")?;
    let library = path.with_file_name("libplugin.so");
    fs::copy(target_path("libplugin.so")?, &library)?;
    let mut target = Target::start_at(&path)?;
    target.command("open_library")?;
    fs::remove_file(&library)?;
    let report = record(&mut target, "open_library")?;
    assert_eq!(
        report.heap("plugin_allocates"),
        Sums::live(541, 5),
        "{}",
        report.table()
    );
    Ok(())
}

/// The program lives on a file system that only its own mount namespace has.
#[test]
fn another_mount_namespace_is_looked_into() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script =
        "mount -t tmpfs unfreed-test \"$1\" && cp \"$0\" \"$1/hidden\" && exec \"$1/hidden\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script])
        .arg(target_path("leak")?)
        .arg(folder.path());
    let mut target = Target::start_with(&mut command)?;
    assert!(
        !folder.path().join("hidden").exists(),
        "the namespace is not its own"
    );
    let report = record(&mut target, "leak_blocks")?;
    leak_has_names_and_lines(&report)?;
    assert!(
        report.processes[0].executable.ends_with("/hidden"),
        "{:?}",
        report.processes
    );
    Ok(())
}

/// The target sees itself under another process id.
#[test]
fn another_pid_namespace_is_looked_into() -> Result<()> {
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child"])
        .arg(target_path("leak")?);
    let mut target = Target::start_with(&mut command)?;
    ensure!(
        target.pid == 1,
        "the target is {} in its own namespace",
        target.pid
    );
    target.pid = child_of(target.child_pid())?;
    leak_has_names_and_lines(&record(&mut target, "leak_blocks")?)
}

// --- code made at run time ---

/// The perf map of a target; removed with this value.
struct PerfMap(PathBuf);

impl PerfMap {
    fn of(target: &Target) -> Self {
        Self(PathBuf::from(format!("/tmp/perf-{}.map", target.pid)))
    }
}

impl Drop for PerfMap {
    fn drop(&mut self) {
        let _gone_before = fs::remove_file(&self.0);
    }
}

#[test]
fn a_perf_map_names_compiled_code() -> Result<()> {
    let mut target = Target::start("jit")?;
    let _map = PerfMap::of(&target);
    let report = record(&mut target, "run_compiled")?;
    assert_eq!(
        report.heap("compiled_at_run_time"),
        Sums::live(701, 9),
        "{}",
        report.table()
    );
    let frames = frames_of(&report, 9 * 701)?;
    let frame = frames
        .iter()
        .find(|frame| frame.function.as_deref() == Some("compiled_at_run_time"));
    assert_eq!(frame.map(|frame| frame.origin), Some(Origin::Jit));
    assert!(
        frames
            .iter()
            .any(|frame| frame.function.as_deref() == Some("run_compiled"))
    );
    Ok(())
}

#[test]
fn compiled_code_without_a_map_has_a_reason() -> Result<()> {
    let mut target = Target::start("jit")?;
    drop(PerfMap::of(&target));
    let report = record(&mut target, "run_compiled")?;
    let frames = frames_of(&report, 9 * 701)?;
    let compiled = &frames[frames.len() - 2];
    assert_eq!(compiled.function, None, "{compiled:?}");
    assert!(compiled.reason.is_some(), "{compiled:?}");
    assert!(
        frames
            .iter()
            .any(|frame| frame.function.as_deref() == Some("run_compiled"))
    );
    Ok(())
}
