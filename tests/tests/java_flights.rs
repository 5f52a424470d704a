//! Who holds growing Java classes, by the JVM's flight recorder: what it tells, and that nothing of
//! it is left.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use unfreed_tests::model::{FlightRecording, Holders, JavaHeap, LinkKind};
use unfreed_tests::{Finished, Jdk, Target, Tracer};

/// Arrays of 8 KiB that a step keeps, and garbage in KiB.
const PAGES: u64 = 53;
const GARBAGE: u64 = 3011;
const STEPS: usize = 40;
/// Between two steps: it grows from the first histogram to the last.
const PACE: Duration = Duration::from_millis(50);
const OPTIONS: [&str; 4] = ["--java-heap", "--live", "--holders", "--jfr"];
/// Until something that is on its way is gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// A collector whose heap cannot be read from outside.
fn unreadable(jdk: &Jdk) -> &'static str {
    match jdk.major {
        8 | 11 => "-XX:+UseConcMarkSweepGC",
        _ => "-XX:+UseZGC",
    }
}

/// A JVM with folders of its own: for temporary files, in which JFR has its, and to work in.
struct Vm {
    target: Target,
    temporary: TempDir,
    working: TempDir,
}

impl Vm {
    fn start(jdk: &Jdk, options: &[&str]) -> Result<Self> {
        let (temporary, working) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let folder = format!("-Djava.io.tmpdir={}", temporary.path().display());
        let options: Vec<&str> = ["-Xmx160m", folder.as_str()]
            .into_iter()
            .chain(options.iter().copied())
            .collect();
        let mut java: Command = jdk.java(&options, "Holders", &[])?;
        Ok(Self {
            target: Target::start_with(java.current_dir(working.path()))?,
            temporary,
            working,
        })
    }

    /// Keeps pages, and makes garbage in between: the recorder tells of what lived through a
    /// collection in which something else died.
    fn grow(&mut self) -> Result<()> {
        for _ in 0..STEPS {
            self.target.command(&format!("churn {GARBAGE}"))?;
            self.target.command(&format!("pages {PAGES}"))?;
            self.target.command(&format!("churn {GARBAGE}"))?;
            sleep(PACE);
        }
        Ok(())
    }

    /// It lives on, records nothing of ours, and has no files that it did not have.
    fn is_as_before(&mut self, others: &[&str]) -> Result<()> {
        self.target.command("pages 1")?;
        let end = Instant::now() + PATIENCE;
        while let Err(problem) = self.has_nothing_of_ours(others) {
            ensure!(Instant::now() < end, "{problem:#}");
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn has_nothing_of_ours(&self, others: &[&str]) -> Result<()> {
        let recordings = self.recordings()?;
        ensure!(!recordings.contains("unfreed"), "{recordings}");
        for other in others {
            ensure!(recordings.contains(other), "{recordings}");
        }
        let working = entries(self.working.path())?;
        ensure!(working.is_empty(), "{working:?}");
        let ours = entries(Path::new("/tmp"))?;
        let ours: Vec<_> = ours
            .iter()
            .filter(|it| it.starts_with(".unfreed-"))
            .collect();
        ensure!(ours.is_empty(), "{ours:?}");
        if others.is_empty() {
            let temporary = entries(self.temporary.path())?;
            ensure!(temporary.is_empty(), "{temporary:?}");
        }
        Ok(())
    }

    fn recordings(&self) -> Result<String> {
        Jdk::full()?.jcmd(self.target.pid, "JFR.check")
    }
}

fn entries(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?;
    let names = entries.map(|it| Ok(it?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

fn heap(finished: &Finished) -> Result<JavaHeap> {
    let heap = finished.report()?.java_heap.first().cloned();
    heap.context("no Java heap")
}

fn arrays(heap: &JavaHeap) -> Result<&Holders> {
    let class = heap.classes.iter().find(|class| class.class == "byte[]");
    let holders = class.and_then(|class| class.holders.as_ref());
    holders.with_context(|| format!("{:?}", heap.classes))
}

fn recorded(jdk: &Jdk, options: &[&str]) -> Result<()> {
    let mut vm = Vm::start(jdk, options)?;
    let tracer = Tracer::record(vm.target.pid, &OPTIONS)?;
    // It keeps what it samples in memory.
    ensure!(vm.recordings()?.contains("unfreed-"));
    vm.grow()?;
    let finished = tracer.stop()?;
    let heap = heap(&finished)?;
    let Some(FlightRecording::Asked {
        objects,
        answered_in,
        pause,
    }) = heap.flight_recording
    else {
        anyhow::bail!("{:?}\n{}", heap.flight_recording, finished.stdout);
    };
    ensure!((10..=256).contains(&objects), "{objects}");
    let pause = pause.context("no pause")?;
    ensure!(pause > 0.0 && pause <= answered_in, "{pause} {answered_in}");
    let holders = arrays(&heap)?;
    ensure!(
        holders.recorded && holders.sampled <= objects,
        "{holders:#?}"
    );
    let first = holders.chains.first().context("no chain")?;
    let links: Vec<_> = first.links.iter().map(|it| it.name.as_str()).collect();
    let expected = [
        "Holders.pages",
        "java.util.ArrayList.elementData",
        "java.lang.Object[]",
        "Holders$Page.content",
    ];
    ensure!(
        links == expected && first.links[0].kind == LinkKind::JavaStatic,
        "{holders:#?}"
    );
    ensure!(first.blocks >= 8, "{holders:#?}");
    let told: u64 = holders.chains.iter().map(|it| it.blocks).sum();
    ensure!(told + holders.undecided == holders.sampled, "{holders:#?}");
    let why = holders.unsearched.join(" ");
    ensure!(why.contains("none of serial, parallel and G1"), "{why}");
    let text = finished.stdout.split_whitespace().collect::<Vec<_>>();
    let text = text.join(" ");
    for part in [
        "held by Holders.pages -> ArrayList.elementData -> Holders$Page.content: ",
        "asked of the JVM's flight recording. For that, all Java threads stood still for ",
    ] {
        ensure!(text.contains(part), "{part}: {}", finished.stdout);
    }
    vm.is_as_before(&[])
}

#[test]
fn the_recorder_tells_what_cannot_be_read_from_outside_on_every_version() -> Result<()> {
    for jdk in Jdk::versions()? {
        recorded(&jdk, &[unreadable(&jdk)]).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}

/// Nothing is asked, and nothing stopped, where the heap can be read.
#[test]
fn it_is_not_asked_where_nothing_is_missing() -> Result<()> {
    let mut vm = Vm::start(&Jdk::newest()?, &["-XX:+UseG1GC"])?;
    let tracer = Tracer::record(vm.target.pid, &OPTIONS)?;
    vm.grow()?;
    let finished = tracer.stop()?;
    let heap = heap(&finished)?;
    let outcome = heap.flight_recording.clone();
    ensure!(outcome == Some(FlightRecording::Unneeded), "{outcome:?}");
    let holders = arrays(&heap)?;
    ensure!(
        !holders.recorded && holders.sampled == 64 && !holders.chains.is_empty(),
        "{holders:#?}"
    );
    ensure!(
        finished.stdout.contains("was found from outside"),
        "{}",
        finished.stdout
    );
    vm.is_as_before(&[])
}

#[test]
fn a_recording_of_the_users_goes_on() -> Result<()> {
    for jdk in [Jdk::stripped()?, Jdk::newest()?] {
        let mut vm = Vm::start(&jdk, &[unreadable(&jdk)])?;
        let full = Jdk::full()?;
        full.jcmd(vm.target.pid, "JFR.start name=theirs")?;
        let tracer = Tracer::record(vm.target.pid, &OPTIONS)?;
        vm.grow()?;
        let finished = tracer.stop()?;
        let heap = heap(&finished)?;
        let holders = arrays(&heap)?;
        ensure!(
            holders.recorded && !holders.chains.is_empty(),
            "{}: {holders:#?}",
            jdk.name
        );
        vm.is_as_before(&["name=theirs"])?;
        let file = vm.temporary.path().join("theirs.jfr");
        let command = format!("JFR.stop name=theirs filename={}", file.display());
        full.jcmd(vm.target.pid, &command)?;
        ensure!(file.metadata()?.len() > 50_000, "{}", jdk.name);
    }
    Ok(())
}

#[test]
fn a_jvm_without_a_recorder_says_so() -> Result<()> {
    for jdk in [Jdk::stripped()?, Jdk::full()?] {
        let mut vm = Vm::start(&jdk, &[unreadable(&jdk), "-XX:-FlightRecorder"])?;
        let tracer = Tracer::record(vm.target.pid, &OPTIONS)?;
        vm.grow()?;
        let finished = tracer.stop()?;
        let heap = heap(&finished)?;
        let Some(FlightRecording::Failed { problem }) = &heap.flight_recording else {
            anyhow::bail!("{}: {:?}", jdk.name, heap.flight_recording);
        };
        ensure!(problem.contains("Flight Recorder is disabled"), "{problem}");
        let said = "no flight recording of ";
        ensure!(finished.stderr.contains(said), "{}", finished.stderr);
        let why = arrays(&heap)?.unsearched.join(" ");
        ensure!(why.contains("with --jfr: "), "{why}");
        vm.target.command("pages 1")?;
    }
    Ok(())
}

/// More objects than HotSpot can search through without a recursion that may be its end.
#[test]
fn a_jvm_that_its_search_could_end_is_not_asked() -> Result<()> {
    let jdk = Jdk::newest()?;
    let mut vm = Vm::start(&jdk, &[unreadable(&jdk)])?;
    let tracer = Tracer::record(vm.target.pid, &OPTIONS)?;
    vm.target.command("grow 120011")?;
    vm.grow()?;
    let finished = tracer.stop()?;
    let heap = heap(&finished)?;
    let Some(FlightRecording::Failed { problem }) = &heap.flight_recording else {
        anyhow::bail!("{:?}", heap.flight_recording);
    };
    ensure!(
        problem.starts_with("it was not asked: its heap has "),
        "{problem}"
    );
    // A twentieth of 160 MiB is less than the least.
    ensure!(
        problem.contains("with more than 1048576 (by -Xmx)"),
        "{problem}"
    );
    vm.is_as_before(&[])
}

/// Without the flag the reason names it.
#[test]
fn the_reason_names_the_flag() -> Result<()> {
    let jdk = Jdk::newest()?;
    let mut vm = Vm::start(&jdk, &[unreadable(&jdk)])?;
    let tracer = Tracer::record(vm.target.pid, &OPTIONS[..3])?;
    vm.grow()?;
    let finished = tracer.stop()?;
    let heap = heap(&finished)?;
    ensure!(heap.flight_recording.is_none());
    let why = arrays(&heap)?.unsearched.join(" ");
    ensure!(
        why.contains("--jfr has the JVM's own flight recorder tell it"),
        "{why}"
    );
    vm.is_as_before(&[])
}

/// The first signal ends the run, the second all at once: while it records, while the JVM searches,
/// or later.
#[test]
fn a_second_interrupt_leaves_nothing() -> Result<()> {
    let jdk = Jdk::newest()?;
    let mut vm = Vm::start(&jdk, &[unreadable(&jdk)])?;
    for wait in [0, 20, 100, 400, 1000] {
        let tracer = Tracer::record(vm.target.pid, &OPTIONS)?;
        vm.grow()?;
        tracer.signal(2)?;
        sleep(Duration::from_millis(wait));
        tracer.signal(2)?;
        let finished = tracer.wait()?;
        let code = finished.status.code();
        ensure!(
            matches!(code, Some(0 | 130)),
            "{code:?} {}",
            finished.stderr
        );
        vm.is_as_before(&[])
            .with_context(|| format!("after {wait} ms"))?;
    }
    Ok(())
}
