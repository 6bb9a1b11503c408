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
mod files;
mod gate;
mod map;
mod names;
mod pattern;
mod trees;

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cases::{Case, SUITES};
use gate::Gate;

const HELP: &str = "\
Usage: load list SUITE                             prints the cases of bench or bench-dax: name, group, threads, about
       load assets ASSETS SCALE CASE...            makes the files that the cases only read
       load prepare WORK SCALE CASE...             makes what each case starts from
       load run ASSETS WORK SCALE [--gate PORT] [--direct] CASE...
                                                   runs the cases; prints a line of JSON for each
       load verify ASSETS WORK SCALE CASE...       checks what the cases left in WORK

SCALE multiplies the number of operations. With --gate, each case writes a byte to the device PORT where its timing starts
and where it ends, and waits for a byte to come back. With --direct, large files are read with O_DIRECT, whatever the case says.
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
    /// Whether to read past the page cache whatever the case says.
    direct: bool,
    /// Divides large sizes that do not follow the scale, for tests of this program.
    smaller: usize,
}

impl Site {
    /// The number of operations, where `base` is the number for a scale of 1.
    fn ops(&self, base: usize) -> usize {
        // The numbers are small, and a scale that is none gives the least.
        ((base as f64 * self.scale) as usize).max(16)
    }

    /// A size that does not follow the scale.
    fn size(&self, bytes: usize) -> usize {
        if bytes > 1 << 20 {
            bytes / self.smaller
        } else {
            bytes
        }
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
            cases::all()
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
        direct: false,
        smaller: 1,
    }
}

/// Parses a scale.
fn scale_of(text: &str) -> Result<f64, Failure> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= 1000.0 => Ok(scale),
        _ => Err(format!("{text} is no scale")),
    }
}

fn list(suite: &str) -> Result<(), Failure> {
    let found = SUITES.iter().find(|(name, _)| *name == suite);
    let (_, cases) = found.ok_or_else(|| format!("no suite {suite}"))?;
    for case in *cases {
        let jobs = case.jobs();
        println!("{}\t{}\t{jobs}\t{}", case.name, case.group, case.about);
    }
    Ok(())
}

/// Runs cases and prints what they took. A case that fails says so in its line, and the next one runs.
fn run(assets: &str, work: &str, scale: f64, rest: &[String]) -> Result<(), Failure> {
    let (mut port, mut direct, mut names) = (None, false, rest);
    loop {
        match names {
            [option, path, rest @ ..] if option == "--gate" => {
                let opened = OpenOptions::new().read(true).write(true).open(path);
                (port, names) = (Some(opened.named(path)?), rest);
            }
            [option, rest @ ..] if option == "--direct" => (direct, names) = (true, rest),
            _ => break,
        }
    }
    for case in chosen(names)? {
        let mut gate = Gate::new(port.as_ref());
        let site = Site {
            direct,
            ..site(assets, work, scale, case)
        };
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
        ["list", suite] => list(suite)?,
        ["assets", assets, scale, ..] => {
            for case in chosen(&arguments[3..])? {
                case.make_assets(&site(assets, "", scale_of(scale)?, case))?;
            }
        }
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

    /// A site where little is done with small files.
    fn little(top: &Path, case: &Case) -> Site {
        let (assets, work) = (top.join("assets"), top.join("work"));
        let (assets, work) = (assets.to_str().unwrap(), work.to_str().unwrap());
        Site {
            smaller: 32,
            ..site(assets, work, 0.02, case)
        }
    }

    #[test]
    fn every_case_passes_on_a_local_directory() {
        let top = env::temp_dir().join(format!("load-test-{}", std::process::id()));
        for case in cases::all() {
            let site = little(&top, case);
            case.make_assets(&site).unwrap();
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
        for name in ["write-seq-4k", "in-write-4k"] {
            let case = cases::all().find(|case| case.name == name).unwrap();
            let site = little(&top, case);
            case.prepare(&site).unwrap();
            assert!(case.verify(&site).is_err());
        }
        std::fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn names_of_cases_are_unique() {
        let mut names: Vec<_> = cases::all().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), cases::all().count());
    }

    #[test]
    fn texts_are_quoted() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }
}
