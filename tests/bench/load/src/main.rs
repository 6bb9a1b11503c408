// SPDX-License-Identifier: GPL-2.0

//! The loads of `make bench`.
//!
//! One program does the three parts of a measurement, so that they agree on names and contents: `assets` and `prepare` make the
//! files on the host, `run` is the load in the guest, and `verify` looks at the result on the host again.
//!
//! A case is timed from its first call to its last, opening and closing included. Before that it runs a little of itself, so
//! that no code is run for the first time, and then has the caches of the kernel dropped, if the case is a cold one.

mod cases;
mod data;
mod gate;
mod names;
mod pattern;
mod trees;

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cases::{Case, CASES};
use gate::Gate;

const HELP: &str = "\
Usage: load list                                   prints the cases: name, group, what an operation is
       load assets ASSETS SCALE                    makes the files that are only read
       load prepare WORK SCALE CASE...             makes what each case starts from
       load run ASSETS WORK SCALE [--gate PORT] CASE...
                                                   runs the cases; prints a line of JSON for each
       load verify ASSETS WORK SCALE CASE...       checks what the cases left in WORK

SCALE multiplies the number of operations. With --gate, each case writes a byte to the device PORT where its timing starts
and where it ends, and waits for a byte to come back.
";

/// Where a case works, and how much it does.
#[derive(Clone, Debug)]
pub struct Site {
    /// Files that are only read.
    assets: PathBuf,
    /// This case's own directory.
    work: PathBuf,
    /// Multiplies the number of operations.
    scale: f64,
}

impl Site {
    /// The number of operations, where `base` is the number for a scale of 1.
    fn ops(&self, base: usize) -> usize {
        // The numbers are small, and a scale that is none gives the least.
        ((base as f64 * self.scale) as usize).max(16)
    }

    /// How many of `ops` operations are done before the timing starts.
    fn warm_up(ops: usize) -> usize {
        ops / 16
    }
}

/// Something went wrong, in words.
type Failure = String;

/// Says what failed, with its name.
trait Named<T> {
    fn named(self, what: impl AsRef<Path>) -> Result<T, Failure>;
}

impl<T> Named<T> for io::Result<T> {
    fn named(self, what: impl AsRef<Path>) -> Result<T, Failure> {
        self.map_err(|error| format!("{}: {error}", what.as_ref().display()))
    }
}

/// A text as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The cases with these names.
fn chosen(names: &[String]) -> Result<Vec<&'static Case>, Failure> {
    names
        .iter()
        .map(|name| {
            CASES
                .iter()
                .find(|case| case.name == name)
                .ok_or_else(|| format!("no case {name}; see load list"))
        })
        .collect()
}

/// The site of one case below a directory for all.
fn site(assets: &str, work: &str, scale: f64, case: &Case) -> Site {
    Site {
        assets: assets.into(),
        work: Path::new(work).join(case.name),
        scale,
    }
}

/// Parses a scale.
fn scale_of(text: &str) -> Result<f64, Failure> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= 1000.0 => Ok(scale),
        _ => Err(format!("{text} is no scale")),
    }
}

fn list() {
    for case in &CASES {
        println!("{}\t{}\t{}", case.name, case.group, case.about);
    }
}

/// Runs cases and prints what they took. A case that fails says so in its line, and the next one runs.
fn run(assets: &str, work: &str, scale: f64, rest: &[String]) -> Result<(), Failure> {
    let (port, names) = match rest {
        [option, port, names @ ..] if option == "--gate" => {
            let opened = OpenOptions::new().read(true).write(true).open(port);
            (Some(opened.named(port)?), names)
        }
        names => (None, names),
    };
    for case in chosen(names)? {
        let mut gate = Gate::new(port.as_ref());
        let site = site(assets, work, scale, case);
        let result = case.run(&site, &mut gate);
        let line = match (result, gate.finish()) {
            (Ok(done), Ok(elapsed)) => format!(
                "{{\"case\": {}, \"ops\": {}, \"bytes\": {}, \"ns\": {}}}",
                quoted(case.name),
                done.ops,
                done.bytes,
                elapsed.as_nanos()
            ),
            (Err(error), _) | (_, Err(error)) => format!(
                "{{\"case\": {}, \"error\": {}}}",
                quoted(case.name),
                quoted(&error)
            ),
        };
        println!("{line}");
        io::stdout().flush().named("stdout")?;
    }
    Ok(())
}

fn carry_out(arguments: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => list(),
        ["assets", assets, scale] => cases::make_assets(Path::new(assets), scale_of(scale)?)?,
        ["prepare", work, scale, ..] => {
            for case in chosen(&arguments[3..])? {
                case.prepare(&site("", work, scale_of(scale)?, case))?;
            }
        }
        ["run", assets, work, scale, ..] => run(assets, work, scale_of(scale)?, &arguments[4..])?,
        ["verify", assets, work, scale, ..] => {
            for case in chosen(&arguments[4..])? {
                case.verify(&site(assets, work, scale_of(scale)?, case))?;
            }
        }
        ["-h" | "--help" | "help"] => print!("{HELP}"),
        _ => return Err(HELP.into()),
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match carry_out(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_passes_on_a_local_directory() {
        let top = env::temp_dir().join(format!("load-test-{}", std::process::id()));
        let (assets, work) = (top.join("assets"), top.join("work"));
        let scale = 0.02;
        cases::make_assets(&assets, scale).unwrap();
        for case in &CASES {
            let site = site(
                assets.to_str().unwrap(),
                work.to_str().unwrap(),
                scale,
                case,
            );
            case.prepare(&site).unwrap();
            let mut gate = Gate::new(None);
            gate.keep_caches();
            let done = case.run(&site, &mut gate).unwrap();
            assert!(done.ops > 0, "{}", case.name);
            assert!(gate.finish().unwrap().as_nanos() > 0, "{}", case.name);
            case.verify(&site).unwrap();
        }
        std::fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn a_write_that_is_lost_is_found() {
        let top = env::temp_dir().join(format!("load-lost-{}", std::process::id()));
        let case = CASES
            .iter()
            .find(|case| case.name == "write-seq-4k")
            .unwrap();
        let site = site("", top.to_str().unwrap(), 0.02, case);
        case.prepare(&site).unwrap();
        assert!(case.verify(&site).is_err());
        std::fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn names_of_cases_are_unique() {
        let mut names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }

    #[test]
    fn texts_are_quoted() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }
}
