// SPDX-License-Identifier: GPL-2.0

//! Replies that are kept back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::faults::Random;
use crate::lock;
use crate::queue::Completion;
use crate::wire::InHeader;

/// What the control socket shows of a reply that is kept back.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    pub id: u64,
    pub opcode: String,
    pub unique: u64,
    pub nodeid: u64,
    pub queue: usize,
}

/// Which replies to let go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Those with these numbers, in this order; without it, all.
    #[serde(default)]
    pub ids: Option<Vec<u64>>,
    /// Of these, those to this opcode.
    #[serde(default)]
    pub opcode: Option<String>,
    /// Last first.
    #[serde(default)]
    pub reverse: bool,
    /// At most so many.
    #[serde(default)]
    pub count: Option<usize>,
    /// Never send them.
    #[serde(default)]
    pub discard: bool,
}

#[derive(Default)]
struct Lot {
    last: u64,
    held: BTreeMap<u64, (Held, Completion)>,
    groups: HashMap<u64, Group>,
}

/// Replies that one rule collects to put them into another order.
struct Group {
    completions: Vec<Completion>,
    random: Random,
    /// Which collection it is, for a timer that comes late.
    round: u64,
}

/// All replies that are kept back.
#[derive(Default)]
pub struct Parking(Mutex<Lot>);

/// What to do with a reply that was added to a group.
#[derive(Debug)]
pub enum Collected {
    /// The group is full; these go out in this order.
    Full(Vec<Completion>),
    /// It is the first of round `round`, which the caller ends with [`Parking::flush`] when the time is up.
    First { round: u64 },
    /// It waits with others.
    More,
}

impl Parking {
    /// Keeps a reply until it is released.
    pub fn hold(&self, header: &InHeader, completion: Completion) {
        let mut lot = lock::mutex(&self.0);
        lot.last += 1;
        let held = Held {
            id: lot.last,
            opcode: header.opcode.to_string(),
            unique: header.unique,
            nodeid: header.nodeid,
            queue: completion.slot.queue,
        };
        lot.held.insert(held.id, (held, completion));
    }

    /// The replies that are held.
    pub fn list(&self) -> Vec<Held> {
        lock::mutex(&self.0)
            .held
            .values()
            .map(|(held, _)| held.clone())
            .collect()
    }

    /// Takes the selected replies out.
    pub fn release(&self, selection: &Selection) -> Vec<Completion> {
        let mut lot = lock::mutex(&self.0);
        let mut ids = match &selection.ids {
            Some(ids) => ids.clone(),
            None => lot.held.keys().copied().collect(),
        };
        if selection.reverse {
            ids.reverse();
        }
        let wanted = |id: &u64| match (&selection.opcode, lot.held.get(id)) {
            (Some(opcode), Some((held, _))) => *opcode == held.opcode,
            (_, held) => held.is_some(),
        };
        ids.retain(wanted);
        ids.truncate(selection.count.unwrap_or(usize::MAX));
        let mut taken = Vec::new();
        for id in ids {
            taken.extend(lot.held.remove(&id).map(|(_, completion)| completion));
        }
        taken
    }

    /// Drops the replies of a queue that was stopped.
    pub fn purge(&self, queue: usize) {
        let mut lot = lock::mutex(&self.0);
        lot.held.retain(|_, (held, _)| held.queue != queue);
        for group in lot.groups.values_mut() {
            group
                .completions
                .retain(|completion| completion.slot.queue != queue);
        }
    }

    /// Adds a reply to those that the rule `rule` collects, `window` at a time.
    pub fn collect(&self, rule: u64, window: usize, completion: Completion) -> Collected {
        let mut lot = lock::mutex(&self.0);
        let new = || Group {
            completions: Vec::new(),
            random: Random(rule),
            round: 0,
        };
        let group = lot.groups.entry(rule).or_insert_with(new);
        group.completions.push(completion);
        match group.completions.len() {
            count if count >= window => Collected::Full(group.shuffled()),
            1 => Collected::First { round: group.round },
            _ => Collected::More,
        }
    }

    /// Takes out what the rule `rule` collected in round `round`.
    pub fn flush(&self, rule: u64, round: u64) -> Vec<Completion> {
        let mut lot = lock::mutex(&self.0);
        match lot.groups.get_mut(&rule) {
            Some(group) if group.round == round => group.shuffled(),
            _ => Vec::new(),
        }
    }
}

impl Group {
    /// Ends the round.
    fn shuffled(&mut self) -> Vec<Completion> {
        self.round += 1;
        let mut completions = std::mem::take(&mut self.completions);
        self.random.shuffle(&mut completions);
        completions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Slot;
    use crate::wire::Opcode;

    fn completion(queue: usize, used: u32) -> Completion {
        let slot = Slot::of_queue(queue);
        Completion {
            used: Some(used),
            ..Completion::new(slot, Vec::new())
        }
    }

    fn parking() -> Parking {
        let parking = Parking::default();
        for (i, opcode) in [Opcode::READ, Opcode::OPEN, Opcode::READ]
            .into_iter()
            .enumerate()
        {
            let header = InHeader {
                len: 40,
                opcode,
                unique: 1,
                nodeid: 1,
                uid: 0,
                gid: 0,
                pid: 0,
                total_extlen: 0,
            };
            parking.hold(&header, completion(i % 2, i as u32 + 1));
        }
        parking
    }

    fn numbers(completions: Vec<Completion>) -> Vec<u32> {
        completions
            .into_iter()
            .filter_map(|completion| completion.used)
            .collect()
    }

    #[test]
    fn replies_are_released_as_selected() {
        let select = |json| numbers(parking().release(&serde_json::from_value(json).unwrap()));
        assert_eq!(select(serde_json::json!({})), [1, 2, 3]);
        assert_eq!(
            select(serde_json::json!({"reverse": true, "count": 2})),
            [3, 2]
        );
        assert_eq!(select(serde_json::json!({"opcode": "READ"})), [1, 3]);
        assert_eq!(
            select(serde_json::json!({"opcode": "READ", "count": 1})),
            [1]
        );
        assert_eq!(select(serde_json::json!({"ids": [3, 9, 1]})), [3, 1]);
    }

    #[test]
    fn a_stopped_queue_leaves_nothing() {
        let parking = parking();
        parking.purge(0);
        assert_eq!(parking.list().len(), 1);
    }

    #[test]
    fn groups_go_out_when_full_or_flushed() {
        let parking = Parking::default();
        assert!(matches!(
            parking.collect(1, 3, completion(0, 1)),
            Collected::First { round: 0 }
        ));
        assert!(matches!(
            parking.collect(1, 3, completion(0, 2)),
            Collected::More
        ));
        let Collected::Full(all) = parking.collect(1, 3, completion(0, 3)) else {
            panic!("not full")
        };
        let mut all = numbers(all);
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
        assert!(matches!(
            parking.collect(1, 3, completion(0, 4)),
            Collected::First { round: 1 }
        ));
        assert_eq!(numbers(parking.flush(1, 0)), [0; 0]);
        assert_eq!(numbers(parking.flush(1, 1)), [4]);
    }
}
