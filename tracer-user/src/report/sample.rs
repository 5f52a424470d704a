//! A report for tests: a leak, a bounded cache, a start-up allocation and a
//! path that holds nothing.

use crate::model::*;

/// Build id of the sample's executable.
pub const BUILD_ID: &str = "00112233445566778899aabbccddeeff00112233";

fn frame(function: &str, origin: Origin, address: u64) -> Frame {
    let module = match origin {
        Origin::Program => "/opt/leaky/leaky",
        _ => "/usr/lib/x86_64-linux-gnu/libc.so.6",
    };
    Frame {
        function: Some(function.into()),
        module: Some(module.into()),
        module_offset: Some(address & 0xffff),
        address,
        origin,
        ..Frame::default()
    }
}

/// A frame of the program, at `/src/leaky/FILE:LINE`.
pub fn program(function: &str, file: &str, line: u32, address: u64) -> Frame {
    Frame {
        file: Some(format!("/src/leaky/{file}").into()),
        line: Some(line),
        ..frame(function, Origin::Program, address)
    }
}

/// A frame of the C library.
pub fn library(function: &str, address: u64) -> Frame {
    frame(function, Origin::Library, address)
}

/// A frame of a Java method, or of a stub.
pub fn java(function: &str, file: &str, line: u32, origin: Origin) -> Frame {
    Frame {
        function: Some(function.into()),
        file: Some(file).filter(|file| !file.is_empty()).map(Into::into),
        line: Some(line).filter(|line| *line > 0),
        address: 0x7f80_0000_0000 + u64::from(line),
        origin,
        ..Frame::default()
    }
}

/// A site of process 0 with these numbers and frames between `main` and
/// `malloc`.
pub fn site(id: u64, live: (u64, u64), freed: (u64, u64), between: Vec<Frame>) -> Site {
    let mut frames = vec![
        library("__libc_start_main", 0x7f00_0000_7111),
        program("main", "main.cpp", 90, 0x40_1011),
    ];
    frames.extend(between);
    frames.push(library("malloc", 0x7f00_0000_9000));
    Site {
        id,
        process: 0,
        kind: MemoryKind::Heap,
        live_bytes: live.0,
        live_count: live.1,
        allocated_bytes: live.0 + freed.0,
        allocated_count: live.1 + freed.1,
        freed_bytes: freed.0,
        freed_count: freed.1,
        oldest_age: (live.1 > 0).then_some(59.0),
        oldest_survived: None,
        first_seen: 0.5,
        last_seen: 59.9,
        lifetimes: vec![],
        ages: vec![],
        curve: vec![],
        verdict: None,
        confidence: None,
        resident_bytes: None,
        resident_peak: None,
        resident_looks: 0,
        resident_rises: 0,
        files: Vec::new(),
        pages: None,
        stacks: StackOwners::default(),
        errors: None,
        survival: None,
        indices: Vec::new(),
        holders: None,
        lower_bound: false,
        processes: 1,
        left_bytes: 0,
        window: None,
        shares: vec![],
        thread: None,
        stack_end: StackEnd::Start,
        frames,
    }
}

/// The answers of that report: the leak, and what a start needs.
fn findings() -> Vec<Finding> {
    let path = [
        "__libc_start_main",
        "main",
        "open_session(int)",
        "Session::Session()",
        "malloc",
    ];
    let leak = Finding {
        title: "open_session(int) allocates memory that is never freed: 164 KiB/s".into(),
        path: path.map(Into::into).into(),
        sites: vec![1],
        site_count: 1,
        bytes_per_second: 168_284.0,
        live_bytes: 10_007 * 1_009,
        live_count: 10_007,
        since: 0.5,
        forecast: Some(Forecast {
            limit: "machine".into(),
            limit_bytes: 1 << 30,
            left_bytes: 100 << 20,
            seconds: 624.0,
        }),
        evidence: vec!["nothing of it was freed".into()],
        ..Finding::new(FindingKind::Leak, 0, 0.9)
    };
    let start_up = Finding {
        title: "1 call path of start-up (64.0 KiB)".into(),
        sites: vec![3],
        site_count: 1,
        live_bytes: 65_537,
        live_count: 1,
        ..Finding::new(FindingKind::Startup, 0, 0.95)
    };
    vec![leak, start_up]
}

/// The report of one process with four sites.
pub fn report() -> Report {
    let inlined = Frame {
        inlined: true,
        ..program("Session::Session()", "session.h", 7, 0x40_2022)
    };
    let mut leak = site(
        1,
        (10_007 * 1_009, 10_007),
        (0, 0),
        vec![
            program("open_session(int)", "session.cpp", 42, 0x40_2022),
            inlined,
        ],
    );
    let mut cache = site(
        2,
        (1_024 * 1_021, 1_024),
        (298_976 * 1_021, 298_976),
        vec![program(
            "Cache::insert(Key const&)",
            "cache.cpp",
            13,
            0x40_3033,
        )],
    );
    (leak.verdict, leak.confidence) = (Some(Verdict::Leak), Some(0.9));
    (cache.verdict, cache.confidence) = (Some(Verdict::Churn), Some(0.97));
    cache.oldest_age = Some(0.2);
    cache.lifetimes = vec![
        LifetimeBucket {
            below: Some(0.134),
            count: 4,
        },
        LifetimeBucket {
            below: Some(0.268),
            count: 298_972,
        },
    ];
    let mut start_up = site(
        3,
        (65_537, 1),
        (0, 0),
        vec![program("load_config()", "main.cpp", 20, 0x40_4044)],
    );
    start_up.last_seen = 0.5;
    (start_up.verdict, start_up.confidence) = (Some(Verdict::Startup), Some(0.95));
    let idle = site(
        4,
        (0, 0),
        (499, 1),
        vec![program("parse()", "main.cpp", 30, 0x40_5055)],
    );
    let sites = vec![leak, cache, start_up, idle];
    let sum = |value: fn(&Site) -> u64| sites.iter().map(value).sum();
    Report {
        schema: SCHEMA.into(),
        version: "0.1.0".into(),
        kernel: String::new(),
        started: "2026-11-21T20:03:22Z".into(),
        duration: 60.0,
        searched: None,
        settings: Settings {
            command: "unfreed record -p 1234".into(),
            ..Settings::default()
        },
        processes: vec![Process {
            pid: 1234,
            name: "leaky".into(),
            executable: "/opt/leaky/leaky".into(),
            end: ProcessEnd::Running,
            outcome: None,
            suspicion: None,
            began: 0.0,
            age: 0.0,
            ended: 60.0,
            probes: vec![],
            sampler: None,
            unseen: vec![],
            processes: 1,
            running: 1,
            mappings: None,
            children: None,
        }],
        untraced: vec![],
        left_alone: vec![],
        modules: vec![
            module("/opt/leaky/leaky", 0x40_0000, 0x41_0000, Some(BUILD_ID)),
            module(
                "/usr/lib/x86_64-linux-gnu/libc.so.6",
                0x7f00_0000_0000,
                0x7f00_0010_0000,
                None,
            ),
        ],
        totals: Totals {
            live_bytes: sum(|s| s.live_bytes),
            live_count: sum(|s| s.live_count),
            allocated_bytes: sum(|s| s.allocated_bytes),
            allocated_count: sum(|s| s.allocated_count),
            freed_bytes: sum(|s| s.freed_bytes),
            freed_count: sum(|s| s.freed_count),
            untraced_frees: 12,
            inherited_frees: 0,
            inherited_forgotten: 0,
            calls_from_elsewhere: 0,
        },
        stacks: Stacks::of(&sites),
        jvm: vec![],
        sites,
        sampling: None,
        budget: None,
        growth: None,
        timeline: vec![],
        older_frees: vec![],
        window: None,
        losses: vec![Loss {
            cause: "live_map_full".into(),
            count: 0,
            meaning: "The map of live blocks was full. Raise --max-live.".into(),
        }],
        shortened: Shortened::default(),
        overhead: Overhead {
            probe_hits: 608_985,
            nanoseconds_per_hit: 610.0,
            target_seconds: 0.371,
            target_seconds_low: 0.35,
            target_seconds_high: 0.392,
            return_hits: 0,
            nanoseconds_per_return: 0.0,
            hits: vec![],
            all_system_calls: false,
            system_call_events: false,
            kernel_bytes: 64 << 20,
            tracer_seconds: 0.25,
        },
        java_heap: vec![],
        java_memory: vec![],
        java_native: vec![],
        balance: vec![],
        cgroups: vec![],
        findings: findings(),
        changes: vec![],
        limits: vec![],
    }
}

/// The same by a sample: many blocks of the leak were chosen, one of the start-up's.
pub fn sampled_report() -> Report {
    let mut report = report();
    let interval = 512 << 10;
    let error = |site: &Site, samples: u64, live_samples: u64| {
        let bytes = |samples: u64| interval as f64 * (samples as f64).sqrt();
        let size = (site.allocated_bytes / site.allocated_count) as f64;
        Errors {
            samples,
            live_samples,
            live_bytes: bytes(live_samples),
            live_count: bytes(live_samples) / size,
            allocated_bytes: bytes(samples),
            allocated_count: bytes(samples) / size,
            freed_bytes: bytes(samples - live_samples),
            freed_count: bytes(samples - live_samples) / size,
        }
    };
    let mut all = Errors::default();
    for (site, (samples, live)) in report
        .sites
        .iter_mut()
        .zip([(19, 19), (585, 2), (1, 1), (1, 0)])
    {
        let errors = error(site, samples, live);
        all.add(&errors);
        site.errors = Some(errors);
    }
    report.settings.sample = interval;
    report.totals.untraced_frees = 0;
    report.sampling = Some(Sampling {
        interval,
        bursts: 0,
        errors: all,
    });
    report
}

fn module(path: &str, start: u64, end: u64, build_id: Option<&str>) -> Module {
    Module {
        process: 0,
        path: path.into(),
        start,
        end,
        file_offset: 0,
        build_id: build_id.map(Into::into),
    }
}

/// The report of a JVM: one method of its own that was run in three ways.
pub fn java_report() -> Report {
    let inlined = Frame {
        inlined: true,
        ..java("com.acme.Cart.add", "Cart.java", 7, Origin::C2)
    };
    let cart = |origin| java("com.acme.Cart.add", "Cart.java", 7, origin);
    let ways = [
        vec![
            java("com.acme.Shop.sell", "Shop.java", 3, Origin::C2),
            inlined,
        ],
        vec![cart(Origin::C1)],
        vec![cart(Origin::C2)],
    ];
    let site = |(id, way)| {
        let mut frames = vec![
            library("start_thread", 0x7f00_0000_7111),
            library("JavaThread::run()", 0x7f00_0000_7222),
            java("StubRoutines (1)", "", 0, Origin::Stub),
            java("Main.main", "Main.java", 9, Origin::Interpreted),
        ];
        frames.extend(way);
        frames.extend([
            java(
                "jdk.internal.misc.Unsafe.allocateMemory",
                "Unsafe.java",
                632,
                Origin::C2,
            ),
            library("os::malloc", 0x7f00_0000_8000),
        ]);
        let plain = site(id, (10_007, 1), (0, 0), vec![]);
        frames.extend(plain.frames.last().cloned());
        Site { frames, ..plain }
    };
    let sites: Vec<Site> = (1..).zip(ways).map(site).collect();
    let mut report = report();
    report.processes[0].name = "java".into();
    report.totals = Totals {
        live_bytes: 30_021,
        live_count: 3,
        allocated_bytes: 30_021,
        allocated_count: 3,
        ..Totals::default()
    };
    report.stacks = Stacks::of(&sites);
    report.sites = sites;
    report
}

/// What may be found to hold 64 blocks.
pub fn holders() -> Holders {
    let chain = |name: &str, blocks| Chain {
        links: vec![Link {
            kind: LinkKind::Global,
            name: name.to_owned(),
            repeated: 1,
            site: None,
        }],
        blocks,
    };
    Holders {
        sampled: 64,
        lost: 2,
        undecided: 1,
        chains: vec![
            chain("g_cache (service)", 60),
            chain("g_recent (service)", 1),
        ],
        ..Holders::default()
    }
}
