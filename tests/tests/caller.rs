//! The program of `run` is that of the user who called sudo: his rights, his limits, his
//! environment.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, ensure};
use unfreed_tests::account::{Account, USER, as_sudo, said};
use unfreed_tests::{Finished, Outputs, Tracer};

fn run_as_sudo(options: &[&str], command: &[&str]) -> Result<Finished> {
    let account = Account::of(USER)?;
    Tracer::run_with(&[&["-q"], options].concat(), command, |tracer| {
        as_sudo(tracer, &account);
    })?
    .wait()
}

fn lines(text: &str, separator: char) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(separator)?;
        Some((key.to_owned(), value.trim().to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

#[test]
fn the_program_is_the_one_of_who_called_sudo() -> Result<()> {
    let account = Account::of(USER)?;
    let finished = run_as_sudo(&[], &["cat", "/proc/self/status"])?;
    let status = lines(&finished.stdout, ':');
    let four = |id: u32| [id; 4].map(|id| id.to_string()).join("\t");
    assert_eq!(status["Uid"], four(account.uid));
    assert_eq!(status["Gid"], four(account.gid));
    assert_eq!(status["Groups"], account.groups);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    // Programs that are set-uid work as ever.
    let own = lines(&fs::read_to_string("/proc/self/status")?, ':');
    assert_eq!(status["CapBnd"], own["CapBnd"]);
    assert_eq!(status["NoNewPrivs"], own["NoNewPrivs"]);
    finished.report()?;
    Ok(())
}

#[test]
fn its_environment_is_not_roots() -> Result<()> {
    let account = Account::of(USER)?;
    let finished = run_as_sudo(&[], &["env"])?;
    let found = lines(&finished.stdout, '=');
    assert_eq!(found["HOME"], account.home);
    assert_eq!(found["SHELL"], account.shell);
    assert_eq!(
        (found["USER"].as_str(), found["LOGNAME"].as_str()),
        (USER, USER)
    );
    assert_eq!(found["MAIL"], format!("/var/mail/{USER}"));
    assert_eq!(found["PATH"], std::env::var("PATH")?);
    let left: Vec<_> = found.keys().filter(|key| key.starts_with("SUDO")).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Its limits are those that it has without the tracer.
#[test]
fn its_limits_are_those_of_the_tracers_parent() -> Result<()> {
    let lower = |command: &mut Command| {
        let set = |resource, by: u64| {
            let mut limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: valid pointers to a local.
            unsafe {
                libc::getrlimit(resource, &raw mut limit);
                limit.rlim_cur = limit.rlim_max.min(by);
                libc::setrlimit(resource, &raw const limit)
            };
        };
        let both = move || {
            set(libc::RLIMIT_NOFILE, 321);
            set(libc::RLIMIT_MEMLOCK, 48 << 10);
            Ok(())
        };
        // SAFETY: it makes system calls and nothing else.
        unsafe { command.pre_exec(both) };
    };
    let command = ["cat", "/proc/self/limits"];
    let mut plain = Command::new(command[0]);
    lower(plain.arg(command[1]));
    let expected = said(&mut plain)?;
    ensure!(expected.contains(" 321 "), "{expected}");
    let account = Account::of(USER)?;
    for sudo in [true, false] {
        let finished = Tracer::run_with(&["-q"], &command, |tracer| {
            if sudo {
                as_sudo(tracer, &account);
            }
            lower(tracer);
        })?;
        assert_eq!(finished.wait()?.stdout.trim(), expected, "sudo: {sudo}");
    }
    Ok(())
}

/// A set-uid program is traced by root, and gets its user all the same.
#[test]
fn set_uid_programs_work_in_it() -> Result<()> {
    let out = Outputs::new()?;
    fs::set_permissions(out.path(""), fs::Permissions::from_mode(0o755))?;
    let (secret, cat) = (out.path("secret"), out.path("cat"));
    fs::write(&secret, "for root alone")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    fs::copy("/bin/cat", &cat)?;
    let (secret, cat) = (secret.display().to_string(), cat.display().to_string());
    for (mode, expected) in [(0o755, ""), (0o4755, "for root alone")] {
        fs::set_permissions(&cat, fs::Permissions::from_mode(mode))?;
        // Called at once, and by a program that was called.
        for command in [
            &[&*cat, &secret][..],
            &["sh", "-c", &format!("{cat} {secret}; true")],
        ] {
            let finished = run_as_sudo(&[], command)?;
            assert_eq!(finished.stdout, expected, "{}", finished.stderr);
        }
    }
    Ok(())
}

#[test]
fn as_root_keeps_root() -> Result<()> {
    let finished = run_as_sudo(
        &["--as-root"],
        &["sh", "-c", "id -u; echo $HOME $SUDO_USER"],
    )?;
    assert_eq!(finished.stdout, format!("0\n/root {USER}"));
    Ok(())
}

#[test]
fn who_is_not_called_by_sudo_starts_it_as_himself() -> Result<()> {
    let finished = Tracer::run(&["-q"], &["cat", "/proc/self/status"])?.wait()?;
    let status = lines(&finished.stdout, ':');
    let own = lines(&fs::read_to_string("/proc/self/status")?, ':');
    for key in [
        "Uid",
        "Gid",
        "Groups",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "NoNewPrivs",
    ] {
        assert_eq!(status[key], own[key], "{key}");
    }
    Ok(())
}

#[test]
fn a_program_that_the_user_may_not_execute_is_named() -> Result<()> {
    let out = Outputs::new()?;
    fs::set_permissions(out.path(""), fs::Permissions::from_mode(0o755))?;
    let script = out.text("mine");
    fs::write(&script, "#!/bin/sh\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
    let finished = run_as_sudo(&[], &[&script])?;
    finished.fails_saying(&[&script, "Permission denied", USER, "sudo", "--as-root"])?;
    assert_eq!(finished.status.code(), Some(126));
    let finished = run_as_sudo(&["--as-root"], &[&script])?;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    Ok(())
}

#[test]
fn a_caller_who_cannot_be_is_refused() -> Result<()> {
    for user in ["x", "4294967295", "-1"] {
        let refused = Tracer::run_with(&[], &["true"], |tracer| {
            tracer.env("SUDO_UID", user).env("SUDO_GID", "1");
        })?;
        refused
            .wait()?
            .fails_saying(&["SUDO_UID", user, "--as-root"])?;
    }
    Ok(())
}

/// The program is not root's: to end it takes a capability.
#[test]
fn a_signal_to_the_tracer_ends_the_users_program() -> Result<()> {
    let account = Account::of(USER)?;
    let command = [
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done",
    ];
    let mut tracer = Tracer::run_with(&[], &command, |tracer| as_sudo(tracer, &account))?;
    tracer.wait_tracing()?;
    tracer.wait_printed("up")?;
    tracer.signal(libc::SIGTERM)?;
    let finished = tracer.wait()?;
    assert_eq!(finished.status.code(), Some(5), "{}", finished.stderr);
    let told = format!("{USER} (uid {})", account.uid);
    ensure!(finished.stderr.contains(&told), "{}", finished.stderr);
    Ok(())
}
