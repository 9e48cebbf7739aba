//! `leasehold simulate`. Floor 6.

use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

use super::{CONFIGURATION, exit_with, print};
use crate::config::SimulateFlags;
use crate::fleet::{self, Report, Size};

/// Simulates what was asked for, prints the table, and writes the plots. Exit 1 if a promise was broken, 78 if a name is not
/// that of a scenario, or the directory cannot be written to.
pub(super) fn simulate(flags: &SimulateFlags) -> ExitCode {
    let size = Size { sidecars: flags.sidecars, span: flags.span, seed: flags.seed };
    let all = if flags.scenarios.iter().any(|name| name == PROCESSES) {
        vec![fleet::processes(size)]
    } else {
        fleet::all(size)
    };
    let is_known = |name: &String| all.iter().any(|scenario| scenario.name() == name);
    if let Some(name) = flags.scenarios.iter().find(|name| !is_known(name)) {
        let names: Vec<&str> = all.iter().map(|scenario| scenario.name()).collect();
        return exit_with(&format!("{name} is no scenario; there are {}", names.join(", ")), CONFIGURATION);
    }
    let is_wanted =
        |name: &str| flags.scenarios.is_empty() || flags.scenarios.iter().any(|wanted| wanted == name);
    let wanted = all.iter().filter(|scenario| is_wanted(scenario.name()));
    let reports: Vec<Report> = wanted.map(fleet::simulate).collect();
    if let Some(directory) = &flags.out
        && let Err(error) = write(directory, &reports)
    {
        return exit_with(&format!("{}: {error}", directory.display()), CONFIGURATION);
    }
    let breaches: String = reports.iter().map(Report::breaches).collect();
    let text = if flags.rates { reports.iter().map(Report::rates).collect() } else { fleet::text(&reports) };
    let printed = print(&(text + &breaches));
    if reports.iter().any(|report| report.figures().broken > 0) { ExitCode::from(1) } else { printed }
}

/// It is for a comparison with real processes, and stands by itself.
const PROCESSES: &str = "processes";

/// A plot of each, and the table.
fn write(directory: &Path, reports: &[Report]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for report in reports {
        fs::write(directory.join(format!("{}.svg", report.name())), report.svg())?;
    }
    fs::write(directory.join("table.md"), fleet::markdown(reports))
}
