//! `heddle top`: live traffic per service, the same numbers as the dashboard's.
//!
//! On a terminal the table is redrawn in place until `q` or Ctrl-C and then left standing; anywhere else it
//! is printed once, so that a pipe ends. [`layout`] is the table, [`state`] what keys change.

use std::io::{IsTerminal as _, stdin, stdout};

use heddle_runtime::{clock, terminal};
use heddle_wire::local::observe_api::{Ejection, ServiceSummary, TlsFailure};

use crate::{
    chosen::{Chosen, Dashboard},
    cli::{NamespaceFlags, Output, TopArgs},
    failure::{Doing as _, Failure},
    holder_client::HolderClient,
    output,
    termination::Termination,
};

pub(crate) mod ejected;
pub(crate) mod figures;
mod layout;
pub(crate) mod state;

use state::{Mode, State};

/// Seconds the rates are over, as in the dashboard's live picture.
const WINDOW: u64 = 10;
/// Where nothing has joined.
pub(crate) const NOTHING_YET: &str = "no services yet; join one: heddle run --service hello --port http:8080 -- python3 -m http.server 8080 (in a cluster: kubectl label namespace NAME heddle.dev/inject=true, and restart what runs there)";
/// The other screen, the cursor hidden, long lines cut.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l";
/// Everything as it was.
const LEAVE: &str = "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l";
/// Rows of a picture that are no table: a blank one, the trouble, what is chosen, and one that the cursor goes down.
const ROWS_BELOW: usize = 4;

/// `heddle top`.
///
/// # Errors
/// A refusal where no such mesh runs or its dashboard does not answer; on a terminal only at the start, and where
/// the mesh ends.
pub(crate) async fn top(args: TopArgs) -> Result<(), Failure> {
    let mesh = Chosen::of(&args.mesh).await?;
    let dashboard = mesh.dashboard().await?;
    let services = ask(&dashboard, &args.namespaces).await?;
    let state = State {
        sort: args.sort,
        filter: args.filter.clone().unwrap_or_default(),
        side: args.side,
        versions: args.versions,
        ..State::default()
    };
    let once = args.once || !stdout().is_terminal();
    if args.output == Output::Json {
        output::json(&state.chosen(&services))?;
    } else if once {
        let width = terminal::columns(&stdout()).unwrap_or(usize::MAX);
        let table = table(&services, &state, width, false);
        output::line(with_trouble(table, &Trouble::ask(&dashboard).await?));
    }
    if once {
        return Ok(());
    }
    if args.output == Output::Json {
        loop {
            clock::sleep(args.interval).await;
            let services = ask(&dashboard, &args.namespaces).await?;
            output::json(&state.chosen(&services))?;
        }
    }
    // Taken over before anything is drawn: whichever ends this, the terminal is as it was.
    let signals = Termination::watch().doing(|| "watch for signals".to_owned())?;
    let holder = match &mesh {
        Chosen::Local(mesh) => HolderClient::connect(&mesh.paths).await.ok(),
        Chosen::Cluster(_) => None,
    };
    let watch = Watch { args: &args, dashboard: &dashboard, services, state, holder };
    watch.run(signals).await
}

/// The live picture.
struct Watch<'a> {
    args: &'a TopArgs,
    dashboard: &'a Dashboard,
    services: Vec<ServiceSummary>,
    state: State,
    /// Says why the mesh ends, where it is one of this machine.
    holder: Option<HolderClient>,
}

impl Watch<'_> {
    /// Redraws until `q`, Ctrl-C or another signal that asks for the end.
    async fn run(mut self, mut signals: Termination) -> Result<(), Failure> {
        let coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        // Without a keyboard it is watched all the same.
        let mut keys = terminal::Keys::of(&stdin()).ok();
        let mut trouble = String::new();
        let mut out = Trouble::ask(self.dashboard).await.unwrap_or_default();
        let mut holder = self.holder.take();
        let mut due = clock::now() + self.args.interval;
        output::line(ENTER);
        let ended = loop {
            output::line(self.picture(&out, &trouble, coloured));
            let asked = async {
                clock::sleep(due.saturating_duration_since(clock::now())).await;
                let services = ask(self.dashboard, &self.args.namespaces).await?;
                Ok::<_, Failure>((services, Trouble::ask(self.dashboard).await?))
            };
            tokio::select! {
                answer = asked => {
                    due = clock::now() + self.args.interval;
                    match answer {
                        Ok(fresh) => {
                            (self.services, out) = fresh;
                            trouble.clear();
                        }
                        Err(failure) => trouble = format!("these numbers are old: {failure}"),
                    }
                }
                pressed = pressed(&mut keys) => self.state.press(&pressed),
                why = mesh_ended(&mut holder) => break Some(why),
                () = signals.next() => break None,
            }
            if self.state.mode == Mode::Over {
                break None;
            }
        };
        drop(keys);
        output::line(LEAVE);
        let width = terminal::columns(&stdout()).unwrap_or(usize::MAX);
        output::line(with_trouble(table(&self.services, &self.state, width, false), &out));
        ended.map_or(Ok(()), |why| Err(Failure::refused(why)))
    }

    fn picture(&self, out: &Trouble, trouble: &str, coloured: bool) -> String {
        let rows = terminal::rows(&stdout()).unwrap_or(usize::MAX);
        let width = terminal::columns(&stdout()).unwrap_or(usize::MAX);
        if self.state.mode == Mode::Help {
            return frame(state::HELP, &State { from: 0, ..self.state.clone() }, trouble, rows);
        }
        let table = table(&self.services, &self.state, width, coloured);
        frame(&with_trouble(table, out), &self.state, trouble, rows)
    }
}

/// The next keys; never returns where there are none.
async fn pressed(keys: &mut Option<terminal::Keys>) -> Vec<u8> {
    if let Some(open) = keys {
        match open.next().await {
            Ok(pressed) => return pressed,
            // The terminal has gone, and a signal says so.
            Err(_) => *keys = None,
        }
    }
    std::future::pending().await
}

/// Why the mesh has ended; never returns for one of a cluster.
async fn mesh_ended(holder: &mut Option<HolderClient>) -> String {
    match holder {
        Some(holder) => holder.closed().await,
        None => std::future::pending().await,
    }
}

/// The table, or what to do where there is nothing to show.
fn table(services: &[ServiceSummary], state: &State, width: usize, coloured: bool) -> String {
    if services.is_empty() {
        return NOTHING_YET.to_owned();
    }
    let chosen = state.chosen(services);
    if chosen.is_empty() {
        return format!("no service has `{}` in its name", state.filter);
    }
    let what = layout::Shown { side: state.side, versions: state.versions };
    layout::table(&chosen, what, width, coloured)
}

/// What is told below the table.
#[derive(Debug, Default)]
struct Trouble {
    ejections: Vec<Ejection>,
    tls: Vec<TlsFailure>,
}

impl Trouble {
    async fn ask(dashboard: &Dashboard) -> Result<Self, Failure> {
        let ejections = ask_ejected(dashboard).await?;
        Ok(Self { ejections, tls: dashboard.ask("/api/v1/tls-failures").await? })
    }
}

/// The table, and below it who is out for its errors, and where no TLS came about.
fn with_trouble(mut table: String, trouble: &Trouble) -> String {
    let now = clock::unix_now().as_secs_f64();
    let tls = trouble.tls.iter().map(|one| without_tls(one, now));
    for line in ejected::lines_now(&trouble.ejections).into_iter().chain(tls) {
        table.push('\n');
        table.push_str(&line);
    }
    table
}

fn without_tls(one: &TlsFailure, now: f64) -> String {
    format!(
        "tls: {} has {:.0} connections on which no TLS came about ({}), the last {:.0} s ago",
        one.by,
        one.total,
        one.reason,
        (now - one.last).max(0.0)
    )
}

/// One picture from the top left corner, clearing what an earlier one left, on a terminal of so many rows: one more
/// would scroll the head away. The head stays where the rows are moved.
fn frame(text: &str, state: &State, trouble: &str, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let (head, body) = lines.split_at(layout::head_rows(text).min(lines.len()));
    let room = rows.saturating_sub(ROWS_BELOW + head.len()).max(1);
    let from = state.from.min(body.len().saturating_sub(room));
    let fits = body.len() <= room;
    let shown = if fits { body.len() } else { room - 1 };
    let more = match fits {
        true => String::new(),
        false => format!("rows {} to {} of {}", from + 1, from + shown, body.len()),
    };
    let line = state.line();
    let body = body.iter().skip(from).take(shown);
    let below = (!fits).then_some(&*more).into_iter().chain(["", trouble, &*line]);
    let mut frame = String::from("\u{1b}[H");
    for line in head.iter().chain(body).copied().chain(below) {
        frame.push_str(line);
        frame.push_str("\u{1b}[K\n");
    }
    // The last line end would scroll.
    frame.pop();
    frame.push_str("\u{1b}[J");
    frame
}

/// Asks for the services of the namespaces that are meant.
async fn ask(
    dashboard: &Dashboard,
    namespaces: &NamespaceFlags,
) -> Result<Vec<ServiceSummary>, Failure> {
    let path = format!("/api/v1/services?window={WINDOW}");
    let mut services: Vec<ServiceSummary> = dashboard.ask(&path).await?;
    services.retain(|row| namespaces.has(&row.service.namespace));
    Ok(services)
}

/// Asks the dashboard who is out for its errors.
///
/// # Errors
/// As [`Dashboard::ask`].
pub(crate) async fn ask_ejected(dashboard: &Dashboard) -> Result<Vec<Ejection>, Failure> {
    dashboard.ask("/api/v1/ejections").await
}

#[cfg(test)]
mod tests {
    use super::{layout::tests::row, *};

    #[test]
    fn who_gets_no_tls_is_told_below_the_table() {
        let by = heddle_model::WorkloadId("me-v1-1".to_owned());
        let failure = TlsFailure { by, reason: "expired".to_owned(), total: 3.0, last: 96.0 };
        assert_eq!(
            without_tls(&failure, 100.0),
            "tls: me-v1-1 has 3 connections on which no TLS came about (expired), the last 4 s ago"
        );
    }

    #[test]
    fn an_empty_mesh_says_what_to_do_and_so_does_a_filter_that_leaves_nothing() {
        assert!(table(&[], &State::default(), 80, true).contains("heddle run --service"));
        let filtered = State { filter: "zz".to_owned(), ..State::default() };
        assert_eq!(
            table(&[row("a", 0.0)], &filtered, 80, false),
            "no service has `zz` in its name"
        );
    }

    #[test]
    fn a_frame_clears_what_an_earlier_one_left() {
        let frame = frame("SERVICE\nb", &State::default(), "", usize::MAX);
        assert!(frame.starts_with("\u{1b}[H") && frame.ends_with("\u{1b}[J"));
        assert_eq!(frame.matches("\u{1b}[K").count(), 5);
    }

    #[test]
    fn more_services_than_rows_keep_the_head_and_can_be_moved_through() {
        let rows: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        let table = format!("SERVICE\n{rows}");
        let at = |from| frame(&table, &State { from, ..State::default() }, "trouble", 10);
        let first = at(0);
        assert!(first.contains("SERVICE") && first.contains("line 1\u{1b}"), "{first:?}");
        assert!(first.contains("line 4\u{1b}") && first.contains("rows 1 to 4 of 20"), "{first:?}");
        assert!(!first.contains("line 5"), "{first:?}");
        // One less for the line end that printing adds.
        assert!(first.matches('\n').count() < 10, "{first:?}");
        assert!(at(3).contains("line 4\u{1b}") && !at(3).contains("line 3\u{1b}"));
        let last = at(1_000);
        assert!(last.contains("SERVICE") && last.contains("of 20"), "{last:?}");
    }
}
