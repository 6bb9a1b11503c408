// SPDX-License-Identifier: GPL-2.0

//! The two moments between which a case is measured.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Failure, Named};

/// How long the kernel may go on sending what dropping its caches left to send.
const SETTLE: Duration = Duration::from_millis(30);

/// Whether a case starts without what is in the kernel's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caches {
    /// Pages, inodes and names are dropped.
    Cold,
    /// Everything stays.
    Warm,
}

/// Measures a case, and lets the other end of a port measure between the same two moments.
#[derive(Debug)]
pub struct Gate<'a> {
    port: Option<&'a File>,
    drop_caches: bool,
    begun: Option<Instant>,
    elapsed: Option<Duration>,
}

impl<'a> Gate<'a> {
    /// A gate; with a port, one that waits for its other end at both moments.
    pub fn new(port: Option<&'a File>) -> Self {
        Gate {
            port,
            drop_caches: true,
            begun: None,
            elapsed: None,
        }
    }

    /// Leaves the caches of this machine as they are, for tests of this program.
    #[cfg(test)]
    pub fn keep_caches(&mut self) {
        self.drop_caches = false;
    }

    /// What is measured starts when this returns.
    pub fn begin(&mut self, caches: Caches) -> Result<(), Failure> {
        if caches == Caches::Cold && self.drop_caches {
            let control = "/proc/sys/vm/drop_caches";
            fs::write(control, "3").named(control)?;
            sleep(SETTLE);
        }
        self.pass()?;
        self.begun = Some(Instant::now());
        Ok(())
    }

    /// What is measured has ended when this is called.
    pub fn end(&mut self) -> Result<(), Failure> {
        let begun = self.begun.ok_or("ended, but not begun")?;
        self.elapsed = Some(begun.elapsed());
        self.pass()
    }

    /// How long it took. After a failure, passes what was not passed, so that nobody waits.
    pub fn finish(self) -> Result<Duration, Failure> {
        if self.begun.is_none() {
            self.pass()?;
        }
        match self.elapsed {
            Some(elapsed) => Ok(elapsed),
            None => {
                self.pass()?;
                Err("not measured to its end".into())
            }
        }
    }

    /// Tells the other end, and waits for its word, a byte each.
    fn pass(&self) -> Result<(), Failure> {
        if let Some(mut port) = self.port {
            port.write_all(b"r").named("the gate's port")?;
            port.read_exact(&mut [0]).named("the gate's port")?;
        }
        Ok(())
    }
}
