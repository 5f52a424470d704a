//! Rounds: what is compared is measured in turns, so that a noisy machine disturbs all
//! alike.

use anyhow::Result;

use super::choice::Choice;
use super::service::{Kind, Launch, Service};
use crate::shell;

/// A service with what was measured in each round, or why it was not.
pub(super) type Measured<R> = (Kind, Result<Vec<R>>);

/// Has each of the services started, warmed up, and measured in as many rounds as are
/// chosen. One that fails is no other's failure.
pub(super) fn of_services<R>(
    part: &str,
    kinds: impl Iterator<Item = Kind>,
    choice: &Choice,
    default: usize,
    mut one: impl FnMut(Kind, &mut dyn Service) -> Result<R>,
) -> Vec<Measured<R>> {
    let count = choice.rounds(default);
    let mut all = Vec::new();
    for kind in kinds.filter(|kind| choice.has_service(kind.key())) {
        let measured = rounds(part, kind, count, &mut one);
        if let Err(error) = &measured {
            shell::say(format!("{part}: {}: {error:#}", kind.name()));
        }
        all.push((kind, measured));
    }
    all
}

fn rounds<R>(
    part: &str,
    kind: Kind,
    count: usize,
    one: &mut impl FnMut(Kind, &mut dyn Service) -> Result<R>,
) -> Result<Vec<R>> {
    let mut service = kind.start(&Launch::Plain)?;
    service.load(service.warm_up())?;
    (1..=count)
        .map(|round| {
            shell::say(format!("{part}: {}, round {round} of {count}", kind.name()));
            one(kind, &mut *service)
        })
        .collect()
}
