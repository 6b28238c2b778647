//! `heddle up -f FILE`: several programs as one. Each starts when those it depends on are ready, is kept as the file
//! says, and ends before those it depends on.
//!
//! Each program is a `heddle run` of its own, so that there is one way into a mesh. [`plan`] is the file, [`program`]
//! one program's life, [`declared`] what is in the mesh before any of them runs.

use std::{cell::RefCell, fs, rc::Rc, time::Duration};

use heddle_runtime::{clock, task};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    failure::{Doing as _, Failure},
    log_files,
    mesh::MeshPaths,
    output,
};

pub(crate) mod declared;
mod line;
mod log;
mod order;
pub(crate) mod plan;
mod program;
mod views;

use log::Log;
use plan::{Plan, Planned};
use program::{Program, State};
use views::Views;

/// Failures that are kept until somebody reads them: one for each program is enough.
const FAILURES_MAX: usize = heddle_model::yaml::programs::PROGRAMS_MAX;

/// The programs of a file.
pub(crate) struct Programs {
    /// What the file says.
    pub(crate) plan: Rc<Plan>,
    states: Vec<watch::Receiver<State>>,
    tasks: Vec<JoinHandle<()>>,
    watching: JoinHandle<()>,
    failures: RefCell<mpsc::Receiver<Failure>>,
    stop: watch::Sender<bool>,
    kill: watch::Sender<bool>,
}

impl Programs {
    /// Begins to start all programs of a plan in the mesh with these paths. What they write is shown here if `shown`.
    ///
    /// # Errors
    /// Where their logs cannot be made.
    pub(crate) fn begin(plan: Plan, paths: &MeshPaths, shown: bool) -> Result<Self, Failure> {
        let plan = Rc::new(plan);
        make_folder(paths)?;
        let views = Rc::new(Views::new(paths.clone()));
        let (stop, stopping) = watch::channel(false);
        let (kill, killing) = watch::channel(false);
        let (failed, failures) = mpsc::channel(FAILURES_MAX);
        let senders: Vec<watch::Sender<State>> =
            plan.programs.iter().map(|_| watch::Sender::new(State::Waiting)).collect();
        let states: Vec<watch::Receiver<State>> =
            senders.iter().map(watch::Sender::subscribe).collect();
        let width = plan.programs.iter().map(|one| one.name.len()).max().unwrap_or(0);
        let mut tasks = Vec::new();
        for (at, state) in senders.into_iter().enumerate() {
            let own = &plan.programs[at];
            if own.args.command.is_empty() {
                state.send_replace(State::Declared);
                continue;
            }
            let dependents = dependents(&plan.programs, at);
            let prefix = shown.then(|| format!("{:width$} | ", own.name));
            let program = Program {
                plan: Rc::clone(&plan),
                at,
                paths: paths.clone(),
                log: Rc::new(Log::new(log_files::of_program(paths, &own.name), prefix)),
                views: Rc::clone(&views),
                state,
                needs: own.depends_on.iter().map(|need| states[*need].clone()).collect(),
                dependents: dependents.into_iter().map(|one| states[one].clone()).collect(),
                stop: stopping.clone(),
                kill: killing.clone(),
                failed: failed.clone(),
            };
            tasks.push(task::spawn_contained("program", program.live()));
        }
        let watching = task::spawn_contained("views", async move { match views.keep().await {} });
        let failures = RefCell::new(failures);
        Ok(Self { plan, states, tasks, watching, failures, stop, kill })
    }

    /// Returns once every program is ready.
    ///
    /// # Errors
    /// One cannot be started: which, why, and the end of its log.
    pub(crate) async fn ready(&self) -> Result<(), Failure> {
        let ready = async {
            for state in &self.states {
                // A program's task has the sender as long as it lives.
                drop(state.clone().wait_for(|state| state.is_settled()).await);
            }
        };
        tokio::select! {
            biased;
            failure = self.failed() => Err(failure),
            () = ready => Ok(()),
        }
    }

    /// The next failure; never returns where there is none.
    async fn failed(&self) -> Failure {
        let failure = std::future::poll_fn(|context| self.failures.borrow_mut().poll_recv(context));
        match failure.await {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Ends all programs, each before those it depends on; returns when all have ended.
    pub(crate) async fn stop(&mut self) {
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            // It is contained: it ends, and never by a panic that matters here.
            drop(task.await);
        }
        self.watching.abort();
    }

    /// Says, if `true` is sent, that all are to end at once, whatever they do.
    pub(crate) fn killer(&self) -> watch::Sender<bool> {
        self.kill.clone()
    }

    /// How long all of them may take to end, one after the other.
    pub(crate) fn stop_timeouts(&self) -> Duration {
        let all = self.plan.programs.iter().map(|one| one.stop_timeout);
        all.fold(Duration::ZERO, Duration::saturating_add)
    }

    /// How many programs there are, those that are declared only left out.
    pub(crate) fn count(&self) -> usize {
        self.plan.programs.iter().filter(|one| !one.args.command.is_empty()).count()
    }
}

/// Those that depend on a program.
fn dependents(programs: &[Planned], at: usize) -> Vec<usize> {
    let depends = |one: &usize| programs[*one].depends_on.contains(&at);
    (0..programs.len()).filter(depends).collect()
}

fn make_folder(paths: &MeshPaths) -> Result<(), Failure> {
    let log = log_files::of_program(paths, "x");
    let folder = log.parent().unwrap_or(&log);
    fs::create_dir_all(folder).doing(|| format!("make the folder {}", folder.display()))
}

/// How long the programs took to be ready, for people.
pub(crate) fn all_ready(programs: &Programs, began: std::time::Instant) {
    let seconds = clock::now().duration_since(began).as_secs_f64();
    let count = programs.count();
    let what = if count == 1 { "the program is" } else { "all programs are" };
    output::notice(format!(
        "{what} ready ({count} in {seconds:.1} s); Ctrl-C ends them and the mesh"
    ));
}
