// SPDX-License-Identifier: GPL-2.0

//! Rules by which the daemon misbehaves: which requests they hit, and what is then done.

use std::sync::Mutex;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::corrupt;
use crate::errno;
use crate::lock;
use crate::options::Hex;
use crate::wire::{InHeader, Opcode};

/// Which requests are hit, and what is then done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Names of opcodes; none is every opcode.
    #[serde(default)]
    pub opcodes: Vec<String>,
    /// Only requests for this node.
    #[serde(default)]
    pub nodeid: Option<u64>,
    /// Only requests on this queue.
    #[serde(default)]
    pub queue: Option<usize>,
    /// How many requests pass before the first is hit.
    #[serde(default)]
    pub skip: u64,
    /// How many requests are hit; without it, all.
    #[serde(default)]
    pub count: Option<u64>,
    /// With which probability a request is hit; without it, each.
    #[serde(default)]
    pub probability: Option<f64>,
    /// Where the random numbers start.
    #[serde(default)]
    pub seed: u64,
    /// What is done.
    pub action: Action,
}

/// A number that is given, or changed by an amount.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    #[serde(default)]
    pub value: Option<u64>,
    #[serde(default)]
    pub add: i64,
}

impl Change {
    /// What becomes of `number`.
    pub fn apply(&self, number: u64) -> u64 {
        self.value.unwrap_or(number).wrapping_add_signed(self.add)
    }
}

/// An error by name, as `EIO`, or by number.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ErrorCode {
    Name(String),
    Number(i32),
}

impl ErrorCode {
    /// The positive error number.
    pub fn number(&self) -> Option<i32> {
        match self {
            ErrorCode::Name(name) => errno::parse(name).map(Errno::raw_os_error),
            ErrorCode::Number(number) => Some(*number),
        }
    }
}

/// What is done to a request or its reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Answer an error; with `execute`, after carrying the request out all the same.
    Error {
        errno: ErrorCode,
        #[serde(default)]
        execute: bool,
    },
    /// Put `value` into the header's error field as it is, and keep the body.
    RawError { value: i32 },
    /// Cut the reply to `len` bytes, header included; its header says so too, unless `keep_len`.
    Truncate {
        len: usize,
        #[serde(default)]
        keep_len: bool,
    },
    /// Append bytes to the reply; its header says so too.
    Pad { bytes: usize },
    /// Change the length in the header.
    HeaderLen(Change),
    /// Change the length in the used ring.
    UsedLen(Change),
    /// Change which request the reply claims to answer.
    Unique(Change),
    /// Overwrite fields of the reply, by name; in directories, those of record `record` or of all.
    Set {
        fields: Map<String, Value>,
        #[serde(default)]
        record: Option<usize>,
    },
    /// Overwrite bytes of the reply, header included.
    Patch { offset: usize, hex: String },
    /// Keep the reply until it is released.
    Hold,
    /// Never reply.
    Lose,
    /// Reply later.
    Delay { ms: u64 },
    /// Reply, but interrupt later.
    DelayInterrupt { ms: u64 },
    /// Collect `window` replies, or as many as come in `flush_ms`, and put them into the ring in random order.
    Reorder {
        window: usize,
        #[serde(default = "default_flush")]
        flush_ms: u64,
    },
    /// Put the reply's entry into the used ring twice.
    DuplicateUsed,
    /// Put an entry with this number into the used ring, beside the reply's own or `instead`.
    ForgeUsed {
        id: u32,
        #[serde(default)]
        len: u32,
        #[serde(default)]
        instead: bool,
    },
    /// End the daemon, before the request is carried out or with `execute` after it.
    Exit {
        #[serde(default)]
        code: i32,
        #[serde(default)]
        execute: bool,
    },
}

fn default_flush() -> u64 {
    50
}

impl Action {
    /// The action's name.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Error { .. } => "error",
            Action::RawError { .. } => "raw_error",
            Action::Truncate { .. } => "truncate",
            Action::Pad { .. } => "pad",
            Action::HeaderLen(_) => "header_len",
            Action::UsedLen(_) => "used_len",
            Action::Unique(_) => "unique",
            Action::Set { .. } => "set",
            Action::Patch { .. } => "patch",
            Action::Hold => "hold",
            Action::Lose => "lose",
            Action::Delay { .. } => "delay",
            Action::DelayInterrupt { .. } => "delay_interrupt",
            Action::Reorder { .. } => "reorder",
            Action::DuplicateUsed => "duplicate_used",
            Action::ForgeUsed { .. } => "forge_used",
            Action::Exit { .. } => "exit",
        }
    }

    /// Finds mistakes that would otherwise show when the action is due.
    fn check(&self) -> Result<(), String> {
        match self {
            Action::Error { errno, .. } => match errno.number() {
                Some(1..=4095) => Ok(()),
                _ => Err(format!("{errno:?}: no such error (see raw_error)")),
            },
            Action::Set { fields, .. } => fields
                .iter()
                .try_for_each(|(name, value)| corrupt::check(name, value)),
            Action::Patch { hex, .. } => hex.parse::<Hex>().map(|_| ()),
            Action::Reorder { window: 0, .. } => Err("a window of 0".into()),
            _ => Ok(()),
        }
    }
}

/// Random numbers that are the same each time (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number in 0.0..1.0.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Puts `items` into random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}

/// A rule that holds.
#[derive(Clone, Serialize)]
pub struct Active {
    pub id: u64,
    pub rule: Rule,
    /// Requests that the filter let through.
    pub seen: u64,
    /// Requests that were hit.
    pub hits: u64,
    #[serde(skip)]
    opcodes: Vec<Opcode>,
    #[serde(skip)]
    random: Random,
}

impl Active {
    fn new(id: u64, rule: Rule) -> Result<Active, String> {
        rule.action.check()?;
        let opcode =
            |name: &String| Opcode::parse(name).ok_or_else(|| format!("{name}: no such opcode"));
        let opcodes = rule.opcodes.iter().map(opcode).collect::<Result<_, _>>()?;
        Ok(Active {
            id,
            seen: 0,
            hits: 0,
            opcodes,
            random: Random(rule.seed),
            rule,
        })
    }

    /// Whether the rule hits this request.
    fn hits(&mut self, header: &InHeader, queue: usize) -> bool {
        let rule = &self.rule;
        let passes = (self.opcodes.is_empty() || self.opcodes.contains(&header.opcode))
            && rule.nodeid.is_none_or(|nodeid| nodeid == header.nodeid)
            && rule.queue.is_none_or(|number| number == queue);
        if !passes {
            return false;
        }
        self.seen += 1;
        let due = self.seen > rule.skip
            && rule.count.is_none_or(|count| self.hits < count)
            && rule
                .probability
                .is_none_or(|probability| self.random.fraction() < probability);
        self.hits += u64::from(due);
        due
    }
}

#[derive(Default)]
struct Rules {
    active: Vec<Active>,
    last: u64,
}

/// All rules that hold.
#[derive(Default)]
pub struct Faults(Mutex<Rules>);

impl Faults {
    /// Adds a rule and returns its number.
    pub fn add(&self, rule: Rule) -> Result<u64, String> {
        let mut rules = lock::mutex(&self.0);
        let id = rules.last + 1;
        rules.active.push(Active::new(id, rule)?);
        rules.last = id;
        Ok(id)
    }

    /// Takes the rule `id` away, or all; says how many those were.
    pub fn remove(&self, id: Option<u64>) -> usize {
        let mut rules = lock::mutex(&self.0);
        let before = rules.active.len();
        rules
            .active
            .retain(|active| id.is_some_and(|id| id != active.id));
        before - rules.active.len()
    }

    /// All rules.
    pub fn list(&self) -> Vec<Active> {
        lock::mutex(&self.0).active.clone()
    }

    /// What the rules have in store for this request, each with its rule's number, in the order in which they were added.
    pub fn hitting(&self, header: &InHeader, queue: usize) -> Vec<(u64, Action)> {
        let mut rules = lock::mutex(&self.0);
        let hit = rules.active.iter_mut().filter_map(|active| {
            let hits = active.hits(header, queue);
            hits.then(|| (active.id, active.rule.action.clone()))
        });
        hit.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(opcode: Opcode) -> InHeader {
        InHeader {
            len: 40,
            opcode,
            unique: 1,
            nodeid: 1,
            uid: 0,
            gid: 0,
            pid: 0,
            total_extlen: 0,
        }
    }

    fn rule(json: Value) -> Rule {
        serde_json::from_value(json).unwrap()
    }

    fn hits(faults: &Faults, opcode: Opcode, requests: usize) -> Vec<usize> {
        let hit = |i: &usize| !faults.hitting(&header(opcode), i % 2).is_empty();
        (0..requests).filter(hit).collect()
    }

    #[test]
    fn requests_are_counted_from_the_skipped_ones() {
        let faults = Faults::default();
        let json = serde_json::json!({"opcodes": ["READ"], "skip": 2, "count": 2, "action": {"do": "hold"}});
        faults.add(rule(json)).unwrap();
        assert_eq!(hits(&faults, Opcode::WRITE, 3), [0; 0]);
        assert_eq!(hits(&faults, Opcode::READ, 9), [2, 3]);
        assert_eq!(faults.list()[0].seen, 9);
        assert_eq!(faults.remove(None), 1);
    }

    #[test]
    fn filters_are_joined() {
        let faults = Faults::default();
        faults
            .add(rule(
                serde_json::json!({"queue": 1, "action": {"do": "lose"}}),
            ))
            .unwrap();
        assert_eq!(hits(&faults, Opcode::WRITE, 4), [1, 3]);
        faults
            .add(rule(
                serde_json::json!({"nodeid": 7, "action": {"do": "lose"}}),
            ))
            .unwrap();
        assert_eq!(hits(&faults, Opcode::WRITE, 2), [1]);
        assert_eq!((faults.remove(Some(2)), faults.remove(Some(2))), (1, 0));
    }

    #[test]
    fn chance_is_the_same_each_time() {
        let draw = || {
            let faults = Faults::default();
            let json = serde_json::json!({"probability": 0.25, "seed": 9, "action": {"do": "error", "errno": "EIO"}});
            faults.add(rule(json)).unwrap();
            hits(&faults, Opcode::READ, 1000)
        };
        assert_eq!(draw(), draw());
        assert!((200..300).contains(&draw().len()), "{}", draw().len());
    }

    #[test]
    fn mistakes_are_found_at_once() {
        let faults = Faults::default();
        for bad in [
            serde_json::json!({"opcodes": ["RAED"], "action": {"do": "hold"}}),
            serde_json::json!({"action": {"do": "error", "errno": "EWHAT"}}),
            serde_json::json!({"action": {"do": "error", "errno": 4096}}),
            serde_json::json!({"action": {"do": "set", "fields": {"attr.colour": 1}}}),
            serde_json::json!({"action": {"do": "patch", "offset": 0, "hex": "0"}}),
        ] {
            assert!(faults.add(rule(bad.clone())).is_err(), "{bad}");
        }
        for bad in [
            serde_json::json!({"action": {"do": "dance"}}),
            serde_json::json!({"action": {"do": "hold"}, "colour": 1}),
            serde_json::json!({"action": {"do": "delay", "ms": 1, "s": 1}}),
        ] {
            assert!(
                serde_json::from_value::<Rule>(bad.clone()).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_shuffle_keeps_everything() {
        let mut items: Vec<_> = (0..20).collect();
        Random(1).shuffle(&mut items);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }
}
