// SPDX-License-Identifier: GPL-2.0

//! The control socket: a line of JSON in, a line of JSON out.
//!
//! A request is an object whose member `cmd` names a [`Command`]; a reply is an object with `ok`, and with `error` or what
//! was asked for.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{json, Map, Value};

use crate::device::SharedDevice;
use crate::faults::Rule;
use crate::fs::LockKind;
use crate::parking::Selection;
use crate::wire::Opcode;

/// What the control socket can be asked.
#[derive(Debug, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
enum Command {
    /// All counters, and what is live.
    Counters,
    /// Sets the counters to zero.
    ResetCounters,
    /// Waits until requests for `opcode` were counted `count` times.
    Wait {
        opcode: String,
        count: u64,
        timeout_ms: u64,
    },
    /// Adds a fault rule.
    Fault { rule: Rule },
    /// Removes a fault rule, or all.
    ClearFaults {
        #[serde(default)]
        id: Option<u64>,
    },
    /// All fault rules.
    Faults,
    /// Replies that are held.
    Held,
    /// Lets held replies go.
    Release(Selection),
    /// Changes settings.
    Configure { settings: Map<String, Value> },
    /// Marks a file for DAX.
    Dax { path: String, dax: bool },
    /// Takes a lock on a node as if for another guest, or gives it back.
    Lock {
        nodeid: u64,
        #[serde(default)]
        flock: bool,
        #[serde(default)]
        start: u64,
        #[serde(default = "last_byte")]
        end: u64,
        kind: LockKind,
        #[serde(default)]
        pid: u32,
    },
    /// Live inodes and handles.
    Live,
    /// Live maps.
    Maps,
    /// The last requests.
    Trace,
    /// Adds an entry to a used ring.
    Used {
        queue: usize,
        id: u32,
        #[serde(default)]
        len: u32,
    },
    /// Interrupts for a queue.
    Interrupt { queue: usize },
    /// Ends the daemon.
    Exit {
        #[serde(default)]
        code: i32,
    },
}

/// The last byte that a file can have.
fn last_byte() -> u64 {
    i64::MAX as u64
}

/// Listens on `path`, on threads of their own.
pub fn start(path: &Path, device: SharedDevice) -> std::io::Result<()> {
    // What a daemon that was killed left behind.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                let device = device.clone();
                std::thread::spawn(move || converse(&stream, &device));
            }
        })?;
    Ok(())
}

/// Answers until the other side hangs up.
fn converse(stream: &UnixStream, device: &SharedDevice) {
    let mut writer = stream;
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let mut reply = match serde_json::from_str(&line)
            .map_err(|e| e.to_string())
            .and_then(|c| carry_out(c, device))
        {
            Ok(mut reply) => {
                reply["ok"] = true.into();
                reply
            }
            Err(error) => json!({"ok": false, "error": error}),
        }
        .to_string();
        reply.push('\n');
        if writer.write_all(reply.as_bytes()).is_err() {
            break;
        }
    }
}

fn opcode(name: &str) -> Result<Opcode, String> {
    Opcode::parse(name).ok_or_else(|| format!("{name}: no such opcode"))
}

fn carry_out(command: Command, device: &SharedDevice) -> Result<Value, String> {
    let queue = |queue: usize| {
        device
            .queues
            .get(queue)
            .ok_or_else(|| format!("there is no queue {queue}"))
    };
    Ok(match command {
        Command::Counters => json!({"counters": counters(device)}),
        Command::ResetCounters => {
            device.counters.reset();
            json!({})
        }
        Command::Wait {
            opcode: name,
            count,
            timeout_ms,
        } => {
            let timeout = Duration::from_millis(timeout_ms);
            json!({"reached": device.counters.wait_for(opcode(&name)?, count, timeout)})
        }
        Command::Fault { rule } => json!({"id": device.faults.add(rule)?}),
        Command::ClearFaults { id } => json!({"removed": device.faults.remove(id)}),
        Command::Faults => json!({"faults": device.faults.list()}),
        Command::Held => json!({"held": device.parking.list()}),
        Command::Release(selection) => {
            selection.opcode.as_deref().map(opcode).transpose()?;
            json!({"released": device.release(&selection)})
        }
        Command::Configure { settings: changes } => {
            json!({"settings": *device.settings.change(&changes)?})
        }
        Command::Dax { path, dax } => {
            device
                .server
                .fs
                .mark_dax(&path, dax)
                .map_err(|e| format!("{path}: {e}"))?;
            json!({})
        }
        Command::Lock {
            nodeid,
            flock,
            start,
            end,
            kind,
            pid,
        } => {
            json!({"taken": device.server.fs.locks.lock_as_another((nodeid, flock), start..=end, kind, pid)})
        }
        Command::Live => {
            let handles = device.server.fs.handles.list().into_iter();
            let handles: Vec<_> = handles
                .map(|(fh, nodeid)| json!({"fh": fh, "nodeid": nodeid}))
                .collect();
            json!({"inodes": device.server.fs.inodes.list(), "handles": handles})
        }
        Command::Maps => json!({"maps": device.server.window.list()}),
        Command::Trace => json!({"trace": device.trace.take()}),
        Command::Used {
            queue: index,
            id,
            len,
        } => {
            queue(index)?.forge(id, len);
            json!({})
        }
        Command::Interrupt { queue: index } => {
            queue(index)?.interrupt();
            json!({})
        }
        Command::Exit { code } => std::process::exit(code),
    })
}

/// The counters, with what is live at this moment.
fn counters(device: &SharedDevice) -> Value {
    let (inodes, lookups) = device.server.fs.inodes.live();
    let (maps, map_bytes) = device.server.window.live();
    let (locks, waiting) = device.server.fs.locks.live();
    let live = json!({
        "inodes": inodes,
        "lookups": lookups,
        "handles": device.server.fs.handles.live(),
        "maps": maps,
        "map_bytes": map_bytes,
        "held": device.parking.list().len(),
        "locks": locks,
        "waiting": waiting,
    });
    let mut counters = json!(*device.counters.lock());
    counters["live"] = live;
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood() {
        for good in [
            r#"{"cmd": "counters"}"#,
            r#"{"cmd": "release"}"#,
            r#"{"cmd": "release", "opcode": "READ", "count": 1}"#,
            r#"{"cmd": "clear_faults", "id": 3}"#,
            r#"{"cmd": "fault", "rule": {"opcodes": ["READ"], "action": {"do": "hold"}}}"#,
            r#"{"cmd": "fault", "rule": {"action": {"do": "used_len", "add": 8}}}"#,
        ] {
            serde_json::from_str::<Command>(good).unwrap();
        }
        for bad in [
            r#"{"cmd": "dance"}"#,
            r#"{"cmd": "wait"}"#,
            r#"{"cmd": "release", "colour": 1}"#,
            "{}",
            "x",
        ] {
            assert!(serde_json::from_str::<Command>(bad).is_err(), "{bad}");
        }
    }
}
