//! `heddle tap`: live calls of a service, a workload or an edge, as the sidecars concerned tell of them.
//!
//! Calls go to standard output, one line or object each; what is to be known about the stream goes to standard error.

mod cluster;
mod text;

use std::io::{IsTerminal as _, stdout};

use heddle_model::yaml::did_you_mean;
use heddle_observe::tap::{Asked, LocalWays, Tapped, follow};
use heddle_runtime::{clock, terminal};
use heddle_wire::local::{
    control_api::{ServiceView, WorkloadView},
    tap_api::{Lost, Name, TapLine, TappedCall},
};
use serde::Serialize;

use self::{cluster::ClusterWays, text::Layout};
use crate::{
    chosen::Chosen,
    cli::{Output, tap::TapArgs},
    failure::{Doing as _, Failure},
    output,
    termination::Termination,
};

/// Calls that are no calls, in the output for programs.
#[derive(Serialize)]
struct LostLine<'a> {
    lost: u64,
    sidecar: &'a str,
}

/// `heddle tap`.
///
/// # Errors
/// A refusal where there is no such mesh, or nobody in it is called so.
pub(crate) async fn tap(args: TapArgs) -> Result<(), Failure> {
    let chosen = Chosen::of(&args.mesh).await?;
    let asked = Asked { filter: args.filter(), sides: args.sides() };
    check_names(&chosen, &asked).await?;
    // Taken over before anything is begun: whichever ends this, what was lost is told.
    let signals = Termination::watch().doing(|| "watch for signals".to_owned())?;
    let tapped = match chosen {
        Chosen::Local(mesh) => follow(LocalWays(mesh.paths.run_dir()), asked),
        Chosen::Cluster(mesh) => follow(ClusterWays(mesh), asked),
    };
    show(&args, tapped, signals).await
}

/// Whoever is named has to be there: else nothing would ever come, and nobody would know why.
async fn check_names(chosen: &Chosen, asked: &Asked) -> Result<(), Failure> {
    let named = [("--from", &asked.filter.from), ("NAME", &asked.filter.to)];
    if named.iter().all(|(_, name)| name.is_none()) {
        return Ok(());
    }
    let workloads = chosen.workloads().await?;
    let services: Vec<ServiceView> = chosen.get("/v1/services").await?;
    for (flag, name) in named {
        if let Some(name) = name {
            check_name(flag, name, &workloads, &services)?;
        }
    }
    Ok(())
}

fn check_name(
    flag: &str,
    name: &Name,
    workloads: &[WorkloadView],
    services: &[ServiceView],
) -> Result<(), Failure> {
    let is_service = services.iter().any(|view| {
        let service = &view.service.name;
        name.means([Some(&service.fqdn()), None, None], Some(&service.namespace))
    });
    let is_workload = workloads.iter().any(|view| {
        let (id, own) = (view.workload.id.0.as_str(), view.workload.name.as_str());
        name.means([None, Some(own), Some(id)], Some(&view.workload.namespace))
    });
    // A host outside may be called that nobody has declared.
    if is_service || is_workload || (flag == "NAME" && name.as_str().contains('.')) {
        return Ok(());
    }
    let mut known: Vec<&str> =
        services.iter().map(|view| view.service.name.name.as_str()).collect();
    known.extend(workloads.iter().map(|view| view.workload.name.as_str()));
    let hint = match did_you_mean(name.as_str(), &known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "`heddle get services` and `heddle get workloads` list all".to_owned(),
    };
    let name = name.as_str();
    Err(Failure::refused(format!("{flag}: no service and no workload is called `{name}`: {hint}")))
}

async fn show(args: &TapArgs, mut tapped: Tapped, mut signals: Termination) -> Result<(), Failure> {
    let ends = args.duration.map(|duration| clock::now() + duration);
    let mut printer = Printer::new(args.output);
    loop {
        let line = tokio::select! {
            line = tapped.lines.recv() => line,
            () = signals.next() => break,
            () = async { clock::sleep_until(ends.unwrap_or_else(clock::now)).await }, if ends.is_some() => break,
        };
        let goes_on = match line {
            Some(TapLine::Call(call)) => printer.call(&call)? && args.max != Some(printer.calls),
            Some(TapLine::Lost(lost)) => printer.lost(&lost)?,
            Some(TapLine::Notice(text)) => {
                output::notice(text::plain(&text));
                true
            }
            None => false,
        };
        if !goes_on {
            break;
        }
    }
    output::notice(printer.summary());
    Ok(())
}

/// Prints, and counts what it has printed.
struct Printer {
    output: Output,
    layout: Layout,
    calls: u64,
    lost: u64,
}

impl Printer {
    fn new(output: Output) -> Self {
        let is_terminal = stdout().is_terminal();
        let width = terminal::columns(&stdout()).filter(|_| is_terminal);
        let coloured =
            is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { output, layout: Layout::new(width, coloured), calls: 0, lost: 0 }
    }

    /// False where nobody reads any more.
    fn call(&mut self, call: &TappedCall) -> Result<bool, Failure> {
        let text = match self.output {
            Output::Json => json_line(call)?,
            Output::Text if self.calls == 0 => self.layout.head() + "\n" + &self.layout.lines(call),
            Output::Text => self.layout.lines(call),
        };
        self.calls += 1;
        Ok(output::line_while_read(text))
    }

    fn lost(&mut self, lost: &Lost) -> Result<bool, Failure> {
        self.lost += lost.calls;
        let (calls, sidecar) = (lost.calls, text::plain(&lost.sidecar));
        output::notice(format!(
            "{calls} calls are not shown: {sidecar} had no room for them; ask for less of them with --status, --path or --from"
        ));
        match self.output {
            Output::Json => {
                let line = LostLine { lost: calls, sidecar: &lost.sidecar };
                Ok(output::line_while_read(json_line(&line)?))
            }
            Output::Text => Ok(true),
        }
    }

    fn summary(&self) -> String {
        let calls = match self.calls {
            0 => "no calls came that are meant".to_owned(),
            1 => "1 call".to_owned(),
            calls => format!("{calls} calls"),
        };
        if self.lost == 0 {
            calls
        } else {
            format!("{calls}, and {} that are not shown", self.lost)
        }
    }
}

/// JSON in one line, in which no terminal finds anything to obey: control characters beyond those that JSON escapes
/// anyway stand only within texts.
fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    let line = serde_json::to_string(value).doing(|| "write a call as JSON".to_owned())?;
    if !line.chars().any(text::is_obeyed) {
        return Ok(line);
    }
    let escaped = line.chars().map(|c| match text::is_obeyed(c) {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    });
    Ok(escaped.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_one_line_that_no_terminal_obeys() {
        let path = "/\u{1b}[2J\n\u{9b}2J\u{202e}\u{e9}".to_owned();
        let call = TappedCall { path: path.clone(), ..TappedCall::default() };
        let line = json_line(&call).unwrap();
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
        assert_eq!(serde_json::from_str::<TappedCall>(&line).unwrap().path, path);
    }

    #[test]
    fn what_is_shown_and_lost_is_summed_up() {
        let mut printer = Printer::new(Output::Json);
        assert_eq!(printer.summary(), "no calls came that are meant");
        printer.calls = 1;
        assert_eq!(printer.summary(), "1 call");
        (printer.calls, printer.lost) = (20, 3);
        assert_eq!(printer.summary(), "20 calls, and 3 that are not shown");
    }
}
