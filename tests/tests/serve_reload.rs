//! What `unfreed serve` reads from files changes while it runs: whom it pushes to, and who may
//! ask. The target's source is `targets/c/paced.c`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::tempdir;
use unfreed_tests::receiver::Receiver;
use unfreed_tests::service::Service;
use unfreed_tests::{Target, wait_until};

/// Tokens of the first destination: one, and the one that it is replaced by.
const TOKENS: [&str; 2] = ["0123456789abcdef-old", "0123456789abcdef-new"];

/// The configuration of a service of one process, with destinations.
fn configure(state: &Path, pid: u32, pushes: &[&str]) -> Result<()> {
    let rule = format!(
        "budget = \"500ms/s\"\nwindow = \"1s\"\n[[service]]\nname = \"shop\"\npids = [{pid}]\nmode = \"growth\"\n"
    );
    fs::write(state.join("serve.toml"), rule + &pushes.concat())?;
    Ok(())
}

/// Windows that arrived at a destination; nothing if none of that kind is known.
fn arrived(service: &Service, to: &str) -> Result<Option<f64>> {
    let text = service.ask("/metrics")?.text();
    let name = format!("unfreed_pushed_total{{destination=\"{to} ");
    let line = text.lines().find(|line| line.starts_with(&name));
    let number = line.and_then(|line| line.rsplit(' ').next());
    Ok(number.map(str::parse).transpose()?)
}

fn bearer(token: &str) -> impl Fn(&Value) -> bool {
    let header = format!("Bearer {token}");
    move |it| it["via"] == "otlp-http" && it["headers"]["authorization"] == header.as_str()
}

#[test]
fn destinations_and_their_tokens_change_while_it_runs() -> Result<()> {
    let state = tempdir()?;
    let state = state.path();
    let mut target = Target::start("paced")?;
    let mut receiver = Receiver::start(state, 0)?;
    let port = receiver.port("http");
    let token = state.join("bearer");
    let first = format!(
        "[[push]]\nto = \"otlp-http\"\nurl = \"http://127.0.0.1:{port}\"\ntoken_file = \"{}\"\n",
        token.display()
    );
    let second = format!("[[push]]\nto = \"pyroscope\"\nurl = \"http://127.0.0.1:{port}/\"\n");
    fs::write(&token, TOKENS[0])?;
    configure(state, target.pid, &[&first])?;
    let config = state.join("serve.toml").display().to_string();
    let mut service = Service::start(state, &["--config", &config])?;
    target.tell("grow 500")?;
    receiver.wait(bearer(TOKENS[0]))?;
    let before = wait_until("the first arrived", || {
        Ok(arrived(&service, "otlp-http")?.filter(|it| *it >= 1.0))
    })?;

    // Its token is another one, and there is one more.
    fs::write(&token, TOKENS[1])?;
    configure(state, target.pid, &[&first, &second])?;
    service.signal(libc::SIGHUP)?;
    service.hear("the configuration was read again")?;
    receiver.wait(bearer(TOKENS[1]))?;
    receiver.wait(|it| it["via"] == "pyroscope")?;
    let after = arrived(&service, "otlp-http")?.context("it is gone")?;
    ensure!(after >= before, "{after} after {before}");

    // What cannot be read changes nothing.
    fs::remove_file(&token)?;
    service.signal(libc::SIGHUP)?;
    let said = service.hear("the configuration is refused")?;
    ensure!(said.contains("bearer"), "{said}");
    receiver.wait(bearer(TOKENS[1]))?;

    // The first is no more.
    configure(state, target.pid, &[&second])?;
    service.signal(libc::SIGHUP)?;
    service.hear("the configuration was read again")?;
    wait_until("the end of the first", || {
        Ok(arrived(&service, "otlp-http")?.is_none().then_some(()))
    })?;
    receiver.wait(|it| it["via"] == "pyroscope")?;
    service.stop()
}

/// A token that is taken away lets nobody in any more.
#[test]
fn a_token_is_revoked_while_it_runs() -> Result<()> {
    let state = tempdir()?;
    let state = state.path();
    let target = Target::start("paced")?;
    configure(state, target.pid, &[])?;
    let config = state.join("serve.toml").display().to_string();
    let mut service = Service::start(state, &["--config", &config])?;
    let token = state.join("token");
    let old = fs::read_to_string(&token)?;
    let status = |service: &Service, token: &str| {
        let answer = service.ask_with("/api/services", Some(token.trim()))?;
        Ok::<_, anyhow::Error>(answer.status)
    };
    ensure!(status(&service, &old)? == 200, "the token does not let in");
    fs::remove_file(&token)?;
    service.signal(libc::SIGHUP)?;
    service.hear("the configuration was read again")?;
    ensure!(status(&service, &old)? == 401, "the old token lets in yet");
    let new = fs::read_to_string(&token)?;
    ensure!(
        new != old && status(&service, &new)? == 200,
        "nobody is let in"
    );
    // One that nobody could have is refused, and the last one stays.
    fs::write(&token, "short")?;
    service.signal(libc::SIGHUP)?;
    service.hear("the configuration is refused")?;
    ensure!(status(&service, &new)? == 200, "nobody is let in");
    service.stop()
}
