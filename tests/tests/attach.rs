//! `unfreed attach`: what a running `serve` knows, for scripts. The target's source is
//! `targets/c/paced.c`.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::tempdir;
use unfreed_tests::pprof::Profile;
use unfreed_tests::service::Service;
use unfreed_tests::{
    Finished, Target, View, binary, folded, gunzip, is_drawing, send_signal, unfreed, wait_until,
};

/// A service that has seen its target grow, and the token to ask it.
struct Watched {
    target: Target,
    service: Service,
    token: String,
    folder: tempfile::TempDir,
}

impl Watched {
    fn start() -> Result<Self> {
        let mut target = Target::start("paced")?;
        let folder = tempdir()?;
        let pid = target.pid.to_string();
        let service = Service::start(
            folder.path(),
            &["-p", &pid, "--window", "1s", "--overhead", "500ms/s"],
        )?;
        target.tell("grow 500")?;
        service.wait_service("paced", |it| it["live_bytes"].as_i64() > Some(4 << 20))?;
        Ok(Self {
            token: folder.path().join("token").display().to_string(),
            target,
            service,
            folder,
        })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn attach(&self, service: &str, token: &str, options: &[&str]) -> Result<Finished> {
        let url = format!("http://{}", self.service.address());
        let mut arguments = vec!["attach", "--service", service, "--url", &url];
        arguments.extend(["--token-file", token]);
        arguments.extend(options);
        unfreed(&arguments)
    }

    fn ask(&self, options: &[&str]) -> Result<Finished> {
        let finished = self.attach("paced", &self.token, options)?;
        ensure!(finished.status.success(), "{}", finished.stderr);
        Ok(finished)
    }
}

/// What a folded file says of `grows`, bytes.
fn grown(path: &str) -> Result<u64> {
    let lines = folded(Path::new(path))?;
    let grows = lines.iter().filter(|(path, _)| path.contains("grows"));
    Ok(grows.map(|(_, bytes)| bytes).sum())
}

#[test]
fn a_service_is_exported_in_every_format() -> Result<()> {
    let watched = Watched::start()?;
    let table = watched.ask(&[])?.stdout;
    ensure!(
        table.starts_with("paced (") && table.contains("grows"),
        "{table}"
    );
    let files = ["a.json", "a.svg", "a.pb.gz", "a.folded", "a.txt"].map(|name| watched.path(name));
    let outputs: Vec<&str> = files.iter().flat_map(|file| ["-o", file]).collect();
    let said = watched.ask(&outputs)?;
    ensure!(said.stdout.contains("grows"), "{}", said.stdout);
    let [json, svg, pprof, flat, text] = &files;
    let view = View::new(serde_json::from_str(&fs::read_to_string(json)?)?);
    let grows: u64 = view.sites_with("grows").map(|it| it.live_bytes).sum();
    ensure!(grows > 4 << 20, "{grows}");
    // One report is behind them all.
    ensure!(grown(flat)? == grows, "{} {grows}", grown(flat)?);
    let profile = Profile::parse(&gunzip(Path::new(pprof))?)?;
    let live: u64 = view.sites.iter().map(|it| it.live_bytes).sum();
    ensure!(profile.sum("inuse_space") == live, "{live}");
    ensure!(is_drawing(&fs::read_to_string(svg)?), "no drawing");
    ensure!(fs::read_to_string(text)?.contains("grows"), "no table");
    // What was exported is a report as any other.
    let again = unfreed(&["report", json])?;
    ensure!(again.status.success() && again.stdout.contains("grows"));
    let gate = watched.attach("paced", &watched.token, &["--fail-above", "1M"])?;
    ensure!(gate.status.code() == Some(3), "{}", gate.status);
    watched.service.stop()
}

#[test]
fn moments_of_before_are_profiles() -> Result<()> {
    let mut watched = Watched::start()?;
    let windows = watched
        .service
        .wait_for("/api/services/paced/windows", |it| {
            it["windows"].as_array().is_some_and(|all| all.len() > 6)
        })?;
    let windows = windows["windows"].as_array().context("no windows")?;
    let grown_by = |window: &&Value| window["live_bytes"].as_i64() > Some(1 << 20);
    let window = windows.iter().find(grown_by).context("none has grown")?;
    let ended = window["ended"].to_string();
    let (then, flat) = (watched.path("then.svg"), watched.path("then.folded"));
    let said = watched.ask(&["--window", &ended, "-o", &then, "-o", &flat])?;
    ensure!(said.stdout.is_empty(), "{}", said.stdout);
    ensure!(is_drawing(&fs::read_to_string(&then)?), "no drawing");
    let path = format!("/debug/pprof/growth?service=paced&window={ended}");
    let profile = unfreed_tests::unpacked(watched.service.ask(&path)?.body.as_slice())?;
    let profile = Profile::parse(&profile)?;
    let all: u64 = folded(Path::new(&flat))?.iter().map(|it| it.1).sum();
    ensure!(all == profile.sum("inuse_space"), "{all}");
    // What came in the last seconds is less than all, and what stands still is not in it.
    let (all, new) = (watched.path("all.folded"), watched.path("new.folded"));
    watched.ask(&["--seconds", "2", "-o", &new])?;
    watched.ask(&["-o", &all])?;
    let (all, new) = (grown(&all)?, grown(&new)?);
    ensure!(new > 0 && new < all, "{new} of {all}");
    watched.target.tell("grow 0")?;
    for (options, part) in [
        (
            &["--window", "1", "-o", "x.svg"][..],
            "no window that ended at 1",
        ),
        (
            &["--window", &ended, "-o", "x.json"],
            "lacks what a report needs",
        ),
        (&["--window", &ended], "--output"),
        (&["--look"], "nobody has looked closer"),
    ] {
        let refused = watched.attach("paced", &watched.token, options)?;
        refused.fails_saying(&[part])?;
    }
    watched.service.stop()
}

#[test]
fn who_cannot_be_answered_is_told_why() -> Result<()> {
    let watched = Watched::start()?;
    let unknown = watched.attach("pacde", &watched.token, &[])?;
    unknown.fails_saying(&["nothing is known of a service pacde", "it knows paced"])?;
    let wrong = watched.path("wrong");
    fs::write(&wrong, "0123456789abcdef0123456789abcdef")?;
    let refused = watched.attach("paced", &wrong, &[])?;
    refused.fails_saying(&["the token of", "wrong is refused"])?;
    let missing = watched.attach("paced", &watched.path("none"), &[])?;
    missing.fails_saying(&["cannot read the token"])?;
    let url = format!("http://{}", watched.service.address());
    watched.service.stop()?;
    let gone = unfreed(&["attach", "-s", "paced", "--url", &url])?;
    gone.fails_saying(&["nobody answers at", "is `unfreed serve` running"])?;
    let elsewhere = unfreed(&["attach", "-s", "paced", "--url", "http://10.0.0.1:1"])?;
    elsewhere.fails_saying(&["only this host", "ssh -L"])?;
    Ok(())
}

/// A `serve` that listens at a socket; killed with this value.
struct AtSocket(Child);

impl Drop for AtSocket {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _reaped_before = self.0.wait();
    }
}

#[test]
fn a_socket_knows_who_asks() -> Result<()> {
    let target = Target::start("paced")?;
    let folder = tempdir()?;
    let socket = folder.path().join("socket").display().to_string();
    let mut serve = Command::new(binary()?);
    serve
        .args([
            "serve",
            "-q",
            "--window",
            "1s",
            "-p",
            &target.pid.to_string(),
        ])
        .args(["--listen", &format!("unix:{socket}"), "--state"])
        .arg(folder.path())
        .stdin(Stdio::null());
    let mut serve = AtSocket(serve.spawn()?);
    let ask = || unfreed(&["attach", "--service", "paced", "--socket", &socket]);
    let report = wait_until("a report", || {
        let finished = ask()?;
        Ok(finished.status.success().then_some(finished))
    })?;
    ensure!(report.stdout.starts_with("paced ("), "{}", report.stdout);
    send_signal(serve.0.id(), libc::SIGTERM)?;
    wait_until("its end", || Ok(serve.0.try_wait()?))?;
    ask()?.fails_saying(&["nobody answers at unix:"])?;
    Ok(())
}
