//! Names in real processes.

mod packed;
mod target;

use std::process::Command;

use self::target::{Folder, Target};
use super::*;
use crate::process::file::ModuleFiles;

/// `unshare` makes a mount namespace and becomes the target, so that its pid
/// is known.
fn in_mount_namespace(folder: &Folder, script: &str) -> Target {
    let script = format!("set -e; cd {}; {script}", folder.path("").display());
    Target::start_by(Command::new("unshare").args(["--mount", "sh", "-c", &script]))
}

fn attach(target: &Target) -> CodeSpace {
    CodeSpace::attach(target.pid(), 1, &mut ModuleFiles::new()).unwrap()
}

/// The frames of the target's stack: `feed` and the inlined `nested` at the
/// return address, then `feed` at its first instruction.
#[track_caller]
fn check_with_lines(frames: &[Frame]) {
    let seen: Vec<_> = frames
        .iter()
        .map(|frame| {
            (
                frame.function.as_deref().unwrap_or("?"),
                frame.line,
                frame.inlined,
            )
        })
        .collect();
    let feed = "zoo::feed(int, char const*)";
    assert_eq!(
        seen[..2],
        [(feed, Some(12), false), ("zoo::nested(int)", Some(6), true)]
    );
    assert_eq!(seen[2].0, feed);
    assert_eq!(seen.len(), 3);
    for frame in frames {
        assert!(
            frame.file.as_ref().unwrap().ends_with("/zoo.cpp"),
            "{frame:?}"
        );
        assert_eq!(frame.origin, Origin::Program);
        assert_eq!(frame.reason, None);
    }
    assert_eq!(frames[0].address, frames[1].address);
}

fn symbolize(code: &CodeSpace, target: &Target) -> Vec<Frame> {
    Symbolizer::default().frames(code, &target.stack(), &[], 1)
}

#[test]
fn a_program_with_debug_information_has_lines_and_inlined_functions() {
    let folder = Folder::new();
    let program = folder.build(&[]);
    let target = Target::start(&program);
    let code = attach(&target);
    let frames = symbolize(&code, &target);
    check_with_lines(&frames);
    assert_eq!(frames[0].address, target.returns_to);
    assert_eq!(frames[2].address, target.feed);
    assert_eq!(frames[0].module.as_deref(), program.to_str());
    let mapping = code.find(CodeAddress(target.feed), 1).unwrap();
    assert_eq!(
        frames[2].module_offset,
        Some(mapping.file_offset(CodeAddress(target.feed)).0)
    );
}

#[test]
fn a_deleted_program_has_names_even_after_it_was_replaced_and_has_exited() {
    let folder = Folder::new();
    let program = folder.build(&[]);
    let target = Target::start(&program);
    std::fs::remove_file(&program).unwrap();
    std::fs::copy("/bin/true", &program).unwrap();
    let code = attach(&target);
    let stack = target.stack();
    drop(target);
    let frames = Symbolizer::default().frames(&code, &stack, &[], 1);
    check_with_lines(&frames);
    assert_eq!(frames[0].module.as_deref(), program.to_str());
}

#[test]
fn a_program_changed_in_place_has_a_reason_instead_of_wrong_names() {
    let folder = Folder::new();
    let program = folder.build(&[]);
    let target = Target::start(&program);
    let code = attach(&target);
    let stack = target.stack();
    drop(target);
    let file = std::fs::File::options().write(true).open(&program).unwrap();
    file.set_len(100_000).unwrap();
    let frames = Symbolizer::default().frames(&code, &stack, &[], 1);
    assert_eq!(frames.len(), 2);
    for frame in frames {
        assert_eq!(frame.function, None);
        assert!(
            frame.reason.is_some() && frame.module_offset.is_some(),
            "{frame:?}"
        );
    }
}

#[test]
fn a_stripped_program_has_offsets_and_a_reason() {
    let folder = Folder::new();
    let program = folder.build(&[]);
    folder.run("strip", &["zoo"]);
    let target = Target::start(&program);
    let frames = symbolize(&attach(&target), &target);
    assert_eq!(frames.len(), 2);
    for frame in &frames {
        assert_eq!(frame.function, None);
        assert_eq!(frame.module.as_deref(), program.to_str());
        assert!(frame.module_offset.is_some());
        let reason = frame.reason.as_deref();
        let expected = "the file is stripped and no debug file was found";
        // Start-up code may export a few dynamic symbols.
        assert!(reason == Some(expected) || reason == Some("no symbol covers this address"));
    }
}

#[test]
fn a_debug_link_is_followed_by_checksum() {
    for folder_name in ["", ".debug/"] {
        let folder = Folder::new();
        let program = folder.build(&["-Wl,--build-id=none"]);
        std::fs::create_dir_all(folder.path(".debug")).unwrap();
        let debug = format!("{folder_name}zoo.debug");
        folder.split(&debug);
        folder.run("objcopy", &[&format!("--add-gnu-debuglink={debug}"), "zoo"]);
        let target = Target::start(&program);
        let code = attach(&target);
        check_with_lines(&symbolize(&code, &target));

        let mut bytes = std::fs::read(folder.path(&debug)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(folder.path(&debug), bytes).unwrap();
        let frames = symbolize(&code, &target);
        assert!(
            frames.iter().all(|frame| frame.function.is_none()),
            "a wrong checksum"
        );
    }
}

#[test]
fn a_debug_file_is_found_by_build_id_in_the_processs_root() {
    let folder = Folder::new();
    folder.build(&["-Wl,--build-id=0xab12cd34ef56ab12"]);
    folder.split("zoo.debug");
    let target = in_mount_namespace(
        &folder,
        "mount -t tmpfs tmpfs /usr/lib/debug; mkdir -p /usr/lib/debug/.build-id/ab; \
         cp zoo.debug /usr/lib/debug/.build-id/ab/12cd34ef56ab12.debug; exec ./zoo",
    );
    let code = attach(&target);
    check_with_lines(&symbolize(&code, &target));
    let stack = target.stack();
    let modules = Symbolizer::default().modules(3, &code, [(&stack[..], 1)]);
    assert_eq!(modules.len(), 1);
    assert_eq!(modules[0].process, 3);
    assert_eq!(modules[0].build_id.as_deref(), Some("ab12cd34ef56ab12"));
    assert!((modules[0].start..modules[0].end).contains(&target.feed));
}

#[test]
fn a_program_in_another_mount_namespace_has_names() {
    let folder = Folder::new();
    folder.build(&[]);
    std::fs::create_dir(folder.path("hidden")).unwrap();
    let script = "mount -t tmpfs tmpfs hidden; cp zoo hidden/; exec hidden/zoo";
    let target = in_mount_namespace(&folder, script);
    assert!(!folder.path("hidden/zoo").exists());
    check_with_lines(&symbolize(&attach(&target), &target));
}

/// A container's root, where the kernel and `fstat` may tell different
/// devices for one file.
#[test]
fn a_program_on_an_overlay_has_names() {
    let folder = Folder::new();
    folder.build(&[]);
    std::fs::create_dir(folder.path("hidden")).unwrap();
    let script = "mount -t tmpfs tmpfs hidden; cp zoo hidden/; cd hidden; \
                  mkdir low up work all; mv zoo low/; mount -t overlay overlay \
                  -o lowerdir=low,upperdir=up,workdir=work all; exec all/zoo";
    let target = in_mount_namespace(&folder, script);
    check_with_lines(&symbolize(&attach(&target), &target));
}

#[test]
fn broken_debug_information_leaves_the_symbols() {
    for section in [
        ".debug_info",
        ".debug_abbrev",
        ".debug_line",
        ".debug_str",
        ".debug_aranges",
    ] {
        let folder = Folder::new();
        let program = folder.build(&[]);
        let noise: Vec<u8> = (0..3000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        std::fs::write(folder.path("noise"), noise).unwrap();
        folder.run(
            "objcopy",
            &["--update-section", &format!("{section}=noise"), "zoo"],
        );
        let target = Target::start(&program);
        let frames = symbolize(&attach(&target), &target);
        let outer = frames.iter().filter(|frame| !frame.inlined);
        let names: Vec<_> = outer.map(|frame| frame.function.as_deref()).collect();
        assert_eq!(names, [Some("zoo::feed(int, char const*)"); 2], "{section}");
    }
}

#[test]
fn packed_symbols_are_read() {
    let folder = Folder::new();
    let program = folder.build(&[]);
    folder.run("objcopy", &["--strip-debug", "zoo", "mini"]);
    folder.run("xz", &["mini"]);
    folder.run("strip", &["zoo"]);
    folder.run("objcopy", &["--add-section=.gnu_debugdata=mini.xz", "zoo"]);
    let target = Target::start(&program);
    let frames = symbolize(&attach(&target), &target);
    let names: Vec<_> = frames
        .iter()
        .map(|frame| frame.function.as_deref())
        .collect();
    assert_eq!(names, [Some("zoo::feed(int, char const*)"); 2]);
}

#[inline(never)]
fn a_rust_function() -> u64 {
    std::hint::black_box(a_rust_function as fn() -> u64 as usize as u64)
}

#[test]
fn own_code_has_demangled_rust_names() {
    let code = CodeSpace::attach(std::process::id(), 1, &mut ModuleFiles::new()).unwrap();
    let malloc = libc::malloc as *const () as u64;
    let frames = Symbolizer::default().frames(&code, &[malloc, a_rust_function() + 1, 8], &[], 1);
    assert_eq!(frames[0].address, 8);
    assert!(
        frames[0]
            .reason
            .as_deref()
            .unwrap()
            .starts_with("no executable mapping")
    );
    assert_eq!(frames[0].origin, Origin::Unknown);
    let name = frames[1].function.as_deref().unwrap();
    assert!(
        name.ends_with("::symbolize::tests::a_rust_function"),
        "{name}"
    );
    assert!(frames[1].file.as_ref().unwrap().ends_with("tests/mod.rs"));
    let leaf = frames.last().unwrap();
    assert_eq!(leaf.function.as_deref(), Some("malloc"));
    assert_eq!(leaf.origin, Origin::Library);
    assert!(leaf.module.as_ref().unwrap().ends_with("libc.so.6"));
}

#[test]
fn the_kernels_code_in_the_process_has_names() {
    let code = CodeSpace::attach(std::process::id(), 1, &mut ModuleFiles::new()).unwrap();
    let maps = std::fs::File::open("/proc/self/maps").unwrap();
    let ranges = crate::process::maps::read_executable(maps).unwrap();
    let vdso = ranges
        .iter()
        .find(|r| r.name == MappingName::Special("[vdso]".into()))
        .unwrap();
    let mut symbolizer = Symbolizer::default();
    let mut names = HashSet::new();
    for address in (vdso.start.0..vdso.end.0).step_by(16) {
        let frame = symbolizer.frames(&code, &[address], &[], 1).remove(0);
        assert_eq!(frame.module.as_deref(), Some("[vdso]"));
        assert!(frame.function.is_some() != frame.reason.is_some());
        names.extend(frame.function);
    }
    assert!(
        names.iter().any(|name| name.contains("clock_gettime")),
        "{names:?}"
    );
}

#[test]
fn compiled_code_is_named_by_a_perf_map_that_each_report_reads_once() {
    // SAFETY: a new private mapping that is never used.
    let memory = unsafe {
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(std::ptr::null_mut(), 8192, protection, flags, -1, 0)
    };
    assert_ne!(memory, libc::MAP_FAILED);
    let start = memory as u64;
    let path = format!("/tmp/perf-{}.map", std::process::id());
    let code = CodeSpace::attach(std::process::id(), 1, &mut ModuleFiles::new()).unwrap();
    let mut symbolizer = Symbolizer::default();

    let in_the_way: [&dyn Fn(); 3] = [
        &|| std::os::unix::fs::symlink("/etc/passwd", &path).unwrap(),
        // Opening one would wait for a writer.
        &|| rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap(),
        &|| {
            std::fs::write(&path, format!("{start:x} 10 LFoo;::run\n")).unwrap();
            std::os::unix::fs::chown(&path, Some(54_321), None).unwrap();
        },
    ];
    for put in in_the_way {
        put();
        let frame = symbolizer.frames(&code, &[start], &[], 1).remove(0);
        std::fs::remove_file(&path).unwrap();
        let reason = frame.reason.unwrap();
        let expected = ["no perf map", "perf map /tmp/perf-"];
        let is_told = |what: &&str| reason.starts_with(&format!("code made at run time; {what}"));
        assert!(expected.iter().any(is_told), "{reason}");
        assert_eq!((frame.origin, frame.function), (Origin::Unknown, None));
        symbolizer = Symbolizer::default();
    }

    let mut symbolizer = Symbolizer::default();
    std::fs::write(&path, format!("{start:x} 10 LFoo;::run\n")).unwrap();
    let frames = symbolizer.frames(&code, &[start + 16, start + 16], &[], 1);
    assert_eq!(frames[0].function.as_deref(), Some("LFoo;::run"));
    assert_eq!(frames[0].origin, Origin::Jit);
    assert_eq!(frames[0].module.as_deref(), Some("[anonymous]"));
    assert_eq!(frames[1].function, None, "past the end");

    std::fs::write(
        &path,
        format!("{start:x} 10 LFoo;::run\n0x{:x} 0x10 next\n", start + 16),
    )
    .unwrap();
    let name = |mut symbolizer: Symbolizer| {
        let frame = symbolizer.frames(&code, &[start + 17], &[], 1).remove(0);
        frame.function.as_deref().map(ToOwned::to_owned)
    };
    assert_eq!(name(symbolizer), None, "whoever writes it may go on and on");
    let next = name(Symbolizer::default());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(next.as_deref(), Some("next"));
}
