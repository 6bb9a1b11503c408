// SPDX-License-Identifier: GPL-2.0

//! A vhost-user-fs daemon for tests.
//!
//! It serves a directory of the host to a guest, can show files through a DAX window, counts what it serves, checks what the
//! guest sends, and misbehaves on demand. See README.md for what it guarantees and how it is driven.
//!
//! The way of a request: [`queue`] takes it from the ring, [`device`] asks [`faults`] what is in store for it, [`server`]
//! has it carried out by [`fs`] or [`dax`], [`corrupt`] spoils the reply if a fault says so, [`parking`] or [`timer`] keep it
//! back, and [`queue`] puts it into the ring. [`control`] is the other end: a socket on which tests look and set faults.

mod control;
mod corrupt;
mod counters;
mod dax;
mod device;
mod errno;
mod faults;
mod fs;
mod lock;
mod logger;
mod options;
mod parking;
mod queue;
mod server;
mod timer;
mod trace;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use rustix::process::{Resource, Rlimit};
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::device::{Device, Frontend};
use crate::options::Options;

fn run(options: Options) -> Result<(), String> {
    // Each inode that the guest knows takes a descriptor.
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    )
    .map_err(|e| e.to_string())?;

    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let device = Arc::new(Device::new(options.clone(), memory)?);
    if let Some(path) = &options.control {
        control::start(path, device.clone()).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    loop {
        let frontend = Frontend(device.clone());
        let mut daemon = VhostUserDaemon::new("daxd".into(), frontend, device.memory())
            .map_err(|e| e.to_string())?;
        log::info!("waiting for a VMM on {}", options.socket.display());
        let served = daemon.serve(&options.socket);
        drop(daemon);
        device.disconnected();
        match served {
            Ok(()) => log::info!("the VMM hung up"),
            Err(error) => log::warn!("the VMM is cut off: {error}"),
        }
        if options.once {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    logger::start(options.verbose);
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("daxd: {error}");
            ExitCode::FAILURE
        }
    }
}
