//! The page at `/` of `unfreed serve`, in a browser: `tests/page/drive.cjs` goes through it.
//! The targets' sources are `targets/c/paced.c` and `targets/c/html.c`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::tempdir;
use unfreed_tests::Target;
use unfreed_tests::service::Service;

/// What the hostile service is called, as its function is.
const HOSTILE: &str = "<img src=x onerror=boom()>";
/// Pages that the other one touches a second.
const GROWS: &str = "grow 500";
/// Windows of a second before the page is opened: a finding needs some.
const WINDOWS: usize = 12;
/// What the page's main thread takes of a processor from the address to the flamegraph of
/// 10,000 call paths, milliseconds: on a processor that nobody else wants, that is the time that
/// it takes.
const LOADS_WITHIN: u64 = 1000;
/// And from a click to the zoomed flamegraph.
const ZOOMS_WITHIN: u64 = 500;
/// Screenshots go to this folder, if it is set.
const SHOTS: &str = "UNFREED_SHOTS";

/// One browser at a time: a load is timed.
static BROWSER: Mutex<()> = Mutex::new(());

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A service that watches both, once there is what the page is to show.
fn watch(state: &Path, paced: &mut Target, hostile: Option<&Target>) -> Result<Service> {
    let mut rules = format!(
        "window = \"1s\"\nbudget = \"500ms/s\"\n[[service]]\nname = \"paced\"\npids = [{}]\n",
        paced.pid
    );
    if let Some(hostile) = hostile {
        rules += &format!(
            "[[service]]\nname = \"{HOSTILE}\"\npids = [{}]\nmode = \"growth\"\n",
            hostile.pid
        );
    }
    let path = state.join("serve.toml");
    fs::write(&path, rules)?;
    let service = Service::start(state, &["--config", &path.display().to_string()])?;
    paced.tell(GROWS)?;
    service.wait_for("/api/services/paced/curve", |curve| {
        let ended = curve["ended"].as_array();
        let is_anonymous = curve["resident"][0]["anonymous_bytes"].as_u64() > Some(0);
        ended.is_some_and(|ended| ended.len() >= WINDOWS) && is_anonymous
    })?;
    service.wait_service("paced", |it| it["growing"].as_u64() > Some(0))?;
    Ok(service)
}

/// Goes through scenes of `drive.cjs`; what that prints.
fn drive(service: &Service, state: &Path, scenes: &[&str]) -> Result<String> {
    let token = fs::read_to_string(state.join("token"))?;
    let options = json!({
        "address": service.address(),
        "token": token.trim(),
        "service": "paced",
        "grows": "grows",
        "scenes": scenes,
        "shots": std::env::var(SHOTS).ok(),
    });
    let _alone = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new("node")
        .arg(repository().join("tests/page/drive.cjs"))
        .arg(options.to_string())
        .env(
            "NODE_PATH",
            repository().join("target/tools/page-driver/node_modules"),
        )
        .env("HOME", state)
        .output()
        .context("cannot run node")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    Ok(String::from_utf8(output.stdout)?)
}

fn numbers(value: &Value) -> Vec<u64> {
    let values = value.as_array().into_iter().flatten();
    values.filter_map(Value::as_u64).collect()
}

#[test]
fn somebody_finds_what_grows_in_a_browser() -> Result<()> {
    let state = tempdir()?;
    let mut paced = Target::start("paced")?;
    let hostile = Target::start("html")?;
    let service = watch(state.path(), &mut paced, Some(&hostile))?;
    for path in ["/", "/page.js", "/page.css", "/licences.txt"] {
        let answer = service.ask_with(path, None)?;
        ensure!(answer.status == 200, "{path}: {}", answer.status);
        let policy = "content-security-policy: default-src 'none'; script-src 'self'";
        ensure!(answer.head.contains(policy), "{path}: {}", answer.head);
    }
    let licences = service.ask_with("/licences.txt", None)?.text();
    ensure!(licences.contains("uplot"), "{licences}");
    let described = service.ask("/api/openapi.json")?.json()?;
    for path in ["/api/curves", "/api/services/{service}/tree"] {
        ensure!(described["paths"][path].is_object(), "{path}: {described}");
    }
    drive(&service, state.path(), &["desktop", "phone", "hostile"])?;
    service.stop()
}

/// What a range of windows brought is what was live at its end, less what was at its begin, to
/// the byte; two ranges stand side by side.
#[test]
fn a_range_of_windows_is_exact() -> Result<()> {
    let state = tempdir()?;
    let mut paced = Target::start("paced")?;
    let service = watch(state.path(), &mut paced, None)?;
    let curve = service.ask("/api/services/paced/curve")?.json()?;
    let [ended, live] = ["ended", "live_bytes"].map(|name| numbers(&curve[name]));
    let (from, to, last) = (2, 8, ended.len() - 1);
    let path = format!(
        "/api/services/paced/tree?from={}&to={}&other_from={}&other_to={}",
        ended[from], ended[to], ended[to], ended[last]
    );
    let tree = service.ask(&path)?.json()?;
    for (range, (from, to)) in [(from, to), (to, last)].into_iter().enumerate() {
        let span = json!({"since": ended[from], "until": ended[to], "is_difference": true});
        ensure!(tree["spans"][range] == span, "{tree}");
        let came = i64::try_from(live[to])? - i64::try_from(live[from])?;
        ensure!(tree["values"][range][0] == came, "{came}: {tree}");
        ensure!(came > 0, "nothing came: {curve}");
    }
    for path in ["/api/curves", "/api/services/paced/tree"] {
        let answer = service.ask_with(path, None)?;
        ensure!(answer.status == 401, "{path}: {}", answer.status);
    }
    let gone = service.ask("/api/services/paced/tree?from=9&to=8")?;
    ensure!(gone.status == 404, "{}: {}", gone.status, gone.text());
    service.stop()
}

#[test]
fn ten_thousand_call_paths_are_there_within_a_second() -> Result<()> {
    let state = tempdir()?;
    let mut paced = Target::start("paced")?;
    let service = watch(state.path(), &mut paced, None)?;
    let told: Value = serde_json::from_str(&drive(&service, state.path(), &["many"])?)?;
    println!("{told}");
    let [mut loads, zooms] = ["loads", "zooms"].map(|name| {
        let all = told[name].as_array().into_iter().flatten();
        all.filter_map(|it| it["processor"].as_u64())
            .collect::<Vec<_>>()
    });
    loads.sort_unstable();
    let median = loads.get(loads.len() / 2).context("nothing was loaded")?;
    ensure!(*median < LOADS_WITHIN, "{told}");
    ensure!(zooms.len() == 2, "{told}");
    ensure!(zooms.iter().all(|it| *it < ZOOMS_WITHIN), "{told}");
    service.stop()
}
