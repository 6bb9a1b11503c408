// SPDX-License-Identifier: GPL-2.0

//! A window on the heap, and a driver that does at once what the window advises.

#![allow(dead_code, unreachable_pub)]

use dax_map::buddy::Block;
use dax_map::*;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

pub type VecWindow = Window<Vec<Block>, Vec<Slot>, Vec<Ghost>>;

/// A window of `len` bytes with at most `ranges` ranges.
pub fn window(len: u64, ranges: usize) -> VecWindow {
    let geometry = Geometry::new(len, 4096, policy::MAX_ORDER).unwrap();
    Window::new(
        Config { geometry, seed: 7 },
        vec![Block::default(); geometry.blocks() as usize],
        vec![Slot::default(); ranges],
        vec![Ghost::default(); ranges * 8],
    )
    .unwrap()
}

pub fn order(bytes: u64) -> Order {
    let order = Order::covering(bytes);
    assert_eq!(order.bytes(), bytes);
    order
}

pub fn read(owner: u64, offset: u64, len: u64, file_size: u64) -> Access {
    Access {
        owner: Owner(owner),
        offset,
        len,
        write: false,
        need: Need::Either,
        file_size,
    }
}

pub fn write(owner: u64, offset: u64, len: u64, file_size: u64) -> Access {
    Access {
        write: true,
        ..read(owner, offset, len, file_size)
    }
}

pub fn fault(owner: u64, offset: u64, file_size: u64) -> Access {
    Access {
        need: Need::Mapping,
        ..read(owner, offset, 4096, file_size)
    }
}

/// A page fault that only reads.
pub fn look(owner: u64, offset: u64, file_size: u64) -> Access {
    Access {
        need: Need::Page,
        ..read(owner, offset, 1, file_size)
    }
}

/// For one range in a file.
pub fn plan(owner: u64, offset: u64, file_size: u64) -> Plan {
    Plan {
        owner: Owner(owner),
        offset,
        file_size,
        writable: false,
        sequential: false,
        ahead: false,
        urgent: true,
        outdoes: false,
        relaxed: false,
    }
}

/// Numbers that look random, the same in each run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }
}

/// A driver with one task, and a daemon that does what it is told.
pub struct Driver {
    pub window: VecWindow,
    pub advise: fn(&mut VecWindow, &mut Stream, &Access) -> Advice,
    pub setups: u64,
    pub removed: u64,
    pub remove_requests: u64,
    pub bypassed: u64,
    pub hits: u64,
    pub accesses: u64,
}

impl Driver {
    pub fn new(window: VecWindow) -> Self {
        Self {
            window,
            advise: Window::access,
            setups: 0,
            removed: 0,
            remove_requests: 0,
            bypassed: 0,
            hits: 0,
            accesses: 0,
        }
    }

    pub fn forget_counts(&mut self) {
        (self.setups, self.removed, self.remove_requests) = (0, 0, 0);
        (self.bypassed, self.hits, self.accesses) = (0, 0, 0);
    }

    /// Requests to the daemon.
    pub fn requests(&self) -> u64 {
        self.setups + self.remove_requests + self.bypassed
    }

    /// One REMOVEMAPPING.
    pub fn reclaim(&mut self) -> bool {
        let Some(first) = self.window.pick_victim() else {
            return false;
        };
        let owner = first.extent().owner;
        let mut batch = vec![first];
        let most = self.window.background_goal().min(policy::RECLAIM_BATCH);
        while (batch.len() as u32) < most {
            let Some(another) = self.window.pick_another(owner) else {
                break;
            };
            batch.push(another);
        }
        self.remove_requests += 1;
        for token in batch {
            self.removed += 1;
            let _ = self.window.removed(token).unwrap();
        }
        true
    }

    /// Maps something; false if that is not possible.
    pub fn map(&mut self, mut plan: Plan, pin: bool) -> Option<SlotId> {
        for _ in 0..1000 {
            match self.window.reserve(&plan) {
                Ok(token) => {
                    self.setups += 1;
                    let slot = token.slot();
                    let _ = self.window.commit(token, pin).unwrap();
                    return Some(slot);
                }
                Err(Refused::Reclaim) => {
                    assert!(self.reclaim(), "something is idle");
                    plan = plan.relaxed();
                }
                Err(_) => return None,
            }
        }
        panic!("reclaiming does not end");
    }

    /// A read, write or fault; range by range.
    pub fn access(&mut self, stream: &mut Stream, mut access: Access) {
        self.accesses += 1;
        let (mut requests, mut rest) = (0, access.len);
        while rest > 0 {
            let advice = (self.advise)(&mut self.window, stream, &access);
            let done = match advice.step {
                Step::Use(hit) => {
                    let _ = self.window.unpin(hit.slot);
                    hit.len
                }
                Step::Map(plan) => {
                    requests += 1;
                    let slot = self.map(plan, true).expect("it can be mapped");
                    let extent = self.window.range(slot).unwrap().extent;
                    let _ = self.window.unpin(slot);
                    extent.file_offset + extent.len - access.offset
                }
                Step::Remap(plan) => {
                    requests += 1;
                    self.setups += 1;
                    let token = self.window.begin_remap(&plan).unwrap();
                    let _ = self.window.remap_done(token).unwrap();
                    0
                }
                Step::Bypass { len } => {
                    assert!(len > 0);
                    requests += 1;
                    self.bypassed += 1;
                    len
                }
                Step::Wait(_) => panic!("nobody else is there"),
            };
            if let Some(plan) = advice.ahead {
                self.map(plan, false);
            }
            rest = rest.saturating_sub(done);
            access.offset += done;
            access.len = rest;
        }
        self.hits += u64::from(requests == 0);
    }

    /// A run through a file.
    pub fn scan(&mut self, owner: u64, file_size: u64, step: u64) {
        let mut stream = Stream::new();
        for offset in (0..file_size).step_by(step as usize) {
            let len = step.min(file_size - offset);
            self.access(&mut stream, read(owner, offset, len, file_size));
        }
    }

    /// Random reads of 4 KiB.
    pub fn random(&mut self, random: &mut Random, owner: u64, file_size: u64, count: u64) {
        let mut stream = Stream::new();
        for _ in 0..count {
            let offset = random.below(file_size / 4096) * 4096;
            self.access(&mut stream, read(owner, offset, 4096, file_size));
        }
    }
}
