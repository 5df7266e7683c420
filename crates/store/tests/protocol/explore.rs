//! Every state that the protocol can reach, each once.

use std::collections::{HashSet, VecDeque};

use recache_model::view::{OnTouch, ViewPolicy, ViewStatus};

use crate::model::{NOW, Step, VERSIONS, VIEWS, World, policy};

/// What tells two states apart: all that any step or check looks at. Counters that only serve to tell tokens apart are not in it, but
/// whether each token is good is; a token that is not is refused everything, so that only the next word of its worker matters. Workers are
/// alike, and sorted.
fn key(world: &World) -> String {
    let mut workers = Vec::new();
    for worker in 0..world.tokens.len() {
        workers.push(match world.tokens[worker] {
            None => "-".to_owned(),
            Some(token) if !world.holds(worker) => {
                format!("late {} {}", token.begun.is_some(), token.has_put)
            }
            Some(token) => format!("{} {:?} {}", token.view, token.begun, token.has_put),
        });
    }
    workers.sort_unstable();
    let views = world.views.iter().map(|view| {
        let versions = &view.versions;
        let attempt = view.build.map(|build| (build.attempt, build.holder.is_some()));
        format!(
            "{} {:?} {} {} {} {attempt:?} {} {}",
            versions.wanted,
            versions.processing,
            versions.live,
            versions.status,
            versions.due_at.is_some(),
            view.shown,
            view.read
        )
    });
    format!("{} {workers:?} {:?}", world.crashes_left, views.collect::<Vec<_>>())
}

/// What must hold after every step.
fn check(before: &World, step: Step, after: &World) {
    for place in 0..VIEWS {
        let (was, is) = (&before.views[place], &after.views[place]);
        let versions = &is.versions;
        assert!(versions.live >= was.versions.live, "live goes down: {step:?} from {before:?}");
        assert!(is.read >= was.read, "a reader goes back: {step:?} from {before:?}");
        assert_eq!(is.shown, versions.live, "readers see what is live: {step:?} from {before:?}");
        assert!(versions.live <= versions.wanted);
        if let Some(processing) = versions.processing {
            assert!(processing > versions.live && processing <= versions.wanted, "{step:?} from {before:?}");
        }
        assert_eq!(versions.has_build, is.build.is_some(), "{step:?} from {before:?}");
        let holders = (0..after.tokens.len())
            .filter(|worker| {
                after.holds(*worker) && after.tokens[*worker].is_some_and(|token| token.view == place)
            })
            .count();
        assert!(holders <= 1, "two hold one build: {step:?} from {before:?}");
        let waits_for_nothing = versions.live < versions.wanted
            && is.build.is_none()
            && versions.due_at.is_none()
            && versions.status != ViewStatus::Failed;
        assert!(!waits_for_nothing, "nobody will build it: {step:?} from {before:?}");
    }
    let worker = match step {
        Step::Begin(worker) | Step::Put(worker) | Step::Publish(worker) | Step::Fail(worker) => worker,
        Step::Checkpoint(_) => {
            assert_eq!(before.views, after.views, "a look changes nothing");
            return;
        }
        _ => return,
    };
    if !before.holds(worker) {
        assert_eq!(before.views, after.views, "a late word changes something: {step:?} from {before:?}");
    }
}

/// Without further touches, failures and crashes, what is wanted becomes live.
fn check_convergence(world: &World, policy: &ViewPolicy) {
    let mut world = world.clone();
    for worker in 0..world.tokens.len() {
        // Whoever holds nothing lets go at its next word; the others end their work.
        for _ in 0..4 {
            let Some(token) = world.tokens[worker] else { break };
            let step = match token.begun {
                _ if !world.holds(worker) => Step::Checkpoint(worker),
                None => Step::Begin(worker),
                Some(_) if !token.has_put => Step::Put(worker),
                Some(_) => Step::Publish(worker),
            };
            world.take(step, policy);
        }
    }
    for place in 0..VIEWS {
        for _ in 0..VERSIONS {
            if world.views[place].versions.is_due(NOW) {
                world.take(Step::Reconcile(place), policy);
            }
            if world.views[place].build.is_some() {
                for step in [Step::Claim(0, place), Step::Begin(0), Step::Put(0), Step::Publish(0)] {
                    world.take(step, policy);
                }
            }
        }
        let versions = &world.views[place].versions;
        let is_settled = versions.live == versions.wanted || versions.status == ViewStatus::Failed;
        assert!(is_settled, "view {place} comes to no end: {world:?}");
    }
}

/// Answers how many states and steps there are.
pub(crate) fn explore(on_touch: OnTouch, crashes: u8) -> (usize, usize) {
    let policy = policy(on_touch);
    let first = World::new(crashes);
    let mut seen: HashSet<String> = HashSet::from([key(&first)]);
    let mut waiting = VecDeque::from([first]);
    let mut steps = 0;
    while let Some(world) = waiting.pop_front() {
        check_convergence(&world, &policy);
        for step in world.steps() {
            let mut next = world.clone();
            next.take(step, &policy);
            check(&world, step, &next);
            steps += 1;
            if seen.insert(key(&next)) {
                waiting.push_back(next);
            }
        }
    }
    (seen.len(), steps)
}
