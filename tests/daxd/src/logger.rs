// SPDX-License-Identifier: GPL-2.0

//! Log lines on standard error, with the time since the daemon started.

use std::sync::OnceLock;
use std::time::Instant;

use log::{LevelFilter, Log, Metadata, Record};

struct Logger;

static LOGGER: Logger = Logger;
static START: OnceLock<Instant> = OnceLock::new();

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let elapsed = START.get_or_init(Instant::now).elapsed().as_secs_f64();
            eprintln!("[{elapsed:11.6}] {:5} {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

/// Starts logging: warnings and notes always, requests with `-v`, everything with `-vv`.
pub fn start(verbose: u8) {
    START.get_or_init(Instant::now);
    log::set_max_level(match verbose {
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    });
    // Fails only when there is a logger already.
    let _ = log::set_logger(&LOGGER);
}
