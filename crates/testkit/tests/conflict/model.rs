//! What may come of operations on one container that are asked for at once: those outcomes that the engine's own state
//! machine gives in some order.

use std::collections::HashSet;

use jiff::Timestamp;
use ponton_engine::lifecycle::{Event, Life, Policy, Refusal, State, next};

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Start,
    Stop,
    Kill,
    Restart,
    Pause,
    Unpause,
    Remove {
        force: bool,
    },
    Rename,
    Exec,
    Update,
    /// For the next end, with the client of its own; it is answered in a later round.
    Wait,
}

/// A container as the model sees it.
#[derive(Clone, Debug)]
pub(crate) struct World {
    life: Life,
    /// A signal that ends the process is on its way.
    is_dying: bool,
    /// How often a run has ended.
    exits: u32,
    is_removed: bool,
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Asked,
    /// It has looked how many runs have ended; the signal is next.
    ToSignal {
        exits: u32,
    },
    /// It waits for the end.
    Ending {
        exits: u32,
    },
    /// `restart` has stopped it.
    ToStart,
    Done(u16),
}

impl World {
    /// A container that was created.
    pub(crate) fn created() -> Self {
        Self { life: Life::default(), is_dying: false, exits: 0, is_removed: false }
    }

    /// Docker's word for the state.
    pub(crate) fn status(&self) -> &'static str {
        if self.is_removed { "gone" } else { self.life.status() }
    }

    /// The worlds in which these operations, at once, can have had these outcomes and led to this state.
    pub(crate) fn explanations(&self, asked: &[(Operation, u16)], status: &str) -> Vec<World> {
        let mut seen = HashSet::new();
        let mut found: Vec<World> = Vec::new();
        let mut left = vec![(self.clone(), vec![Step::Asked; asked.len()])];
        while let Some((world, steps)) = left.pop() {
            if !seen.insert(format!("{world:?}{steps:?}")) {
                continue;
            }
            let is_done = steps.iter().zip(asked).all(|(step, (_, outcome))| *step == Step::Done(*outcome));
            if is_done && world.status() == status {
                found.push(world.clone());
            }
            if world.is_dying {
                left.push((world.clone().ended(), steps.clone()));
            }
            for (index, (operation, outcome)) in asked.iter().enumerate() {
                for (world, step) in world.clone().advance(*operation, steps[index]) {
                    // What is done with another outcome explains nothing.
                    if !matches!(step, Step::Done(other) if other != *outcome) {
                        let mut steps = steps.clone();
                        steps[index] = step;
                        left.push((world, steps));
                    }
                }
            }
        }
        // Worlds that differ in what cannot be seen only are one.
        let mut kinds = HashSet::new();
        found.retain(|world| {
            kinds.insert(format!("{:?}{}{}", world.life.state, world.is_dying, world.is_removed))
        });
        found
    }

    fn apply(&mut self, event: &Event) -> Result<(), Refusal> {
        self.life = next(&self.life, Policy::default(), event, Timestamp::UNIX_EPOCH)?.0;
        Ok(())
    }

    fn ended(mut self) -> Self {
        let exited = Event::Exited { exit_code: Some(137), at: Timestamp::UNIX_EPOCH, oom_killed: false };
        self.apply(&exited).expect("an end is always taken");
        self.is_dying = false;
        self.exits += 1;
        self
    }

    /// Sends a signal that ends it; a frozen one is thawed for that.
    fn signal(&mut self) -> Result<(), Refusal> {
        self.apply(&Event::Stop)?;
        if self.life.is_running() {
            self.is_dying = true;
            if self.life.is_paused() {
                self.apply(&Event::Unpause)?;
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), Refusal> {
        self.apply(&Event::Start)?;
        self.apply(&Event::Started { pid: 1, at: Timestamp::UNIX_EPOCH })
    }

    /// The next step of an operation, in each way in which it may go; none while it waits or is done.
    fn advance(mut self, operation: Operation, step: Step) -> Vec<(Self, Step)> {
        if let Step::Done(_) = step {
            return Vec::new();
        }
        if self.is_removed {
            return vec![(self, gone(operation, step))];
        }
        let step = match (operation, step) {
            (Operation::Stop | Operation::Restart | Operation::Kill, Step::Ending { exits }) => {
                if self.exits == exits && self.life.is_running() {
                    return Vec::new();
                }
                if operation == Operation::Restart { Step::ToStart } else { Step::Done(204) }
            }
            (Operation::Stop | Operation::Restart, Step::ToSignal { exits }) => match self.signal() {
                Ok(()) => Step::Ending { exits },
                Err(_) if operation == Operation::Restart => Step::ToStart,
                Err(_) => Step::Done(204),
            },
            (Operation::Stop, _) if !self.life.is_running() => Step::Done(304),
            (Operation::Restart, Step::Asked) if !self.life.is_running() => Step::ToStart,
            (Operation::Stop, _) | (Operation::Restart, Step::Asked) => Step::ToSignal { exits: self.exits },
            (Operation::Restart, _) => Step::Done(match self.start() {
                Ok(()) | Err(Refusal::AlreadyStarted) => 204,
                Err(_) => 409,
            }),
            (Operation::Kill, Step::ToSignal { exits }) => {
                self.signal().map_or(Step::Done(409), |()| Step::Ending { exits })
            }
            (Operation::Kill, _) => Step::ToSignal { exits: self.exits },
            (Operation::Start, _) => Step::Done(match self.start() {
                Ok(()) => 204,
                Err(Refusal::AlreadyStarted) => 304,
                Err(_) => 409,
            }),
            (Operation::Pause, _) => Step::Done(self.apply(&Event::Pause).map_or(409, |()| 204)),
            (Operation::Unpause, _) => Step::Done(self.apply(&Event::Unpause).map_or(409, |()| 204)),
            (Operation::Remove { force }, Step::Ending { exits }) if self.exits == exits => {
                debug_assert!(force, "only force waits for an end");
                return Vec::new();
            }
            (Operation::Remove { force }, _) => {
                let was_running = self.life.is_running();
                match self.apply(&Event::Remove { force }) {
                    Err(_) => Step::Done(409),
                    Ok(()) if was_running => {
                        self.is_dying = true;
                        Step::Ending { exits: self.exits }
                    }
                    Ok(()) => {
                        self.is_removed = true;
                        Step::Done(204)
                    }
                }
            }
            (Operation::Rename, _) => Step::Done(204),
            (Operation::Update, _) => Step::Done(200),
            (Operation::Exec, _) => {
                let is_usable = matches!(self.life.state, State::Running { paused: false, .. });
                Step::Done(if is_usable { 201 } else { 409 })
            }
            (Operation::Wait, _) => Step::Done(0),
        };
        vec![(self, step)]
    }
}

/// What an operation answers when the container has been removed meanwhile.
fn gone(operation: Operation, step: Step) -> Step {
    Step::Done(match (operation, step) {
        (Operation::Wait, _) => 0,
        (_, Step::Asked) => 404,
        // It has ended, which was the wish.
        (Operation::Stop | Operation::Kill, Step::Ending { .. }) => 204,
        (Operation::Remove { .. }, Step::Ending { .. }) => 204,
        _ => 404,
    })
}

#[test]
fn it_explains_what_can_be_and_nothing_else() {
    let created = World::created();
    let may = |asked: &[(Operation, u16)], status| !created.explanations(asked, status).is_empty();
    assert!(may(&[(Operation::Start, 204)], "running"));
    assert!(!may(&[(Operation::Start, 204)], "created"));
    assert!(!may(&[(Operation::Start, 304)], "running"));
    assert!(may(&[(Operation::Start, 204), (Operation::Start, 304)], "running"));
    assert!(!may(&[(Operation::Start, 204), (Operation::Start, 204)], "running"));
    assert!(may(&[(Operation::Start, 204), (Operation::Stop, 204)], "exited"));
    assert!(may(&[(Operation::Start, 204), (Operation::Stop, 304)], "running"));
    assert!(!may(&[(Operation::Start, 204), (Operation::Stop, 304)], "exited"));
    let force = Operation::Remove { force: true };
    assert!(may(&[(Operation::Start, 204), (force, 204)], "gone"));
    assert!(may(&[(Operation::Start, 404), (force, 204)], "gone"));
    assert!(!may(&[(Operation::Start, 204), (force, 204)], "running"), "what was removed does not run");
    assert!(may(&[(Operation::Start, 204), (Operation::Pause, 204), (force, 204)], "gone"));
}
