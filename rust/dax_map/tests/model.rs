// SPDX-License-Identifier: GPL-2.0

//! Random steps of several drivers at once, in any order, with any outcome, against a model that is a list of ranges: nothing
//! overlaps, nothing is lost, no bound is exceeded, nobody sleeps without somebody who will wake him.

mod common;

use common::*;
use dax_map::*;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Op {
    Access {
        owner: u64,
        page: u64,
        pages: u64,
        write: bool,
        fault: bool,
        keep: bool,
    },
    Reserve {
        owner: u64,
        page: u64,
        writable: bool,
        relaxed: bool,
    },
    Remap {
        owner: u64,
        page: u64,
    },
    Unpin(usize),
    End(usize, u8),
    Victim,
    Another(u64),
    Idle {
        age: u32,
        more: bool,
    },
    Remove {
        owner: u64,
        page: u64,
        pages: u64,
    },
    RemoveAny,
    Tick(u8),
    Limit(u32),
    Resize {
        owner: u64,
        pages: u64,
    },
    Abandon,
}

fn op() -> impl Strategy<Value = Op> {
    let page = 0u64..1100;
    let bool = any::<bool>;
    prop_oneof![
        80 => (0u64..3, page.clone(), 1u64..600, bool(), bool(), bool()).prop_map(
            |(owner, page, pages, write, fault, keep)| Op::Access { owner, page, pages, write, fault, keep }),
        40 => (0u64..3, page.clone(), bool(), bool()).prop_map(
            |(owner, page, writable, relaxed)| Op::Reserve { owner, page, writable, relaxed }),
        20 => (0u64..3, page.clone()).prop_map(|(owner, page)| Op::Remap { owner, page }),
        40 => any::<usize>().prop_map(Op::Unpin),
        100 => (any::<usize>(), 0u8..20).prop_map(|(i, how)| Op::End(i, how)),
        40 => Just(Op::Victim),
        10 => (0u64..3).prop_map(Op::Another),
        10 => (0..4_u32, any::<bool>()).prop_map(|(age, more)| Op::Idle { age, more }),
        10 => (0u64..3, page, 1u64..600).prop_map(|(owner, page, pages)| Op::Remove { owner, page, pages }),
        5 => Just(Op::RemoveAny),
        10 => (1u8..100).prop_map(Op::Tick),
        5 => (0u32..10).prop_map(Op::Limit),
        10 => (0u64..3, 0u64..1100).prop_map(|(owner, pages)| Op::Resize { owner, pages }),
        1 => Just(Op::Abandon),
    ]
}

#[derive(Debug)]
enum Token {
    Reserve(ReserveToken),
    Remap(RemapToken),
    Reclaim(ReclaimToken),
}

/// A range as it should be.
#[derive(Clone, Copy, Debug)]
struct Range {
    state: State,
    extent: Extent,
    order: Order,
    users: u32,
    held: bool,
}

impl Range {
    fn live(&self) -> bool {
        self.state != State::Retired
    }

    fn idle(&self) -> bool {
        matches!(self.state, State::Mapped { .. }) && self.users == 0 && !self.held
    }
}

struct Model {
    window: VecWindow,
    ranges: Vec<Range>,
    tokens: Vec<Token>,
    pins: Vec<SlotId>,
    sizes: [u64; 3],
    streams: [Stream; 3],
    /// Sleepers that nobody has woken.
    waiting: Vec<SlotId>,
    waiting_any: bool,
    dead: bool,
    limit: u32,
}

const SLOTS: usize = 8;

impl Model {
    fn new(len: u64) -> Self {
        Self {
            window: window(len, SLOTS),
            ranges: Vec::new(),
            tokens: Vec::new(),
            pins: Vec::new(),
            sizes: [4 * MIB, 300 * KIB, 16 * KIB],
            streams: [Stream::new(); 3],
            waiting: Vec::new(),
            waiting_any: false,
            dead: false,
            limit: SLOTS as u32,
        }
    }

    fn at(&mut self, slot: SlotId) -> &mut Range {
        self.ranges
            .iter_mut()
            .find(|r| r.extent.slot == slot)
            .expect("the slot is in use")
    }

    fn idle(&self) -> bool {
        self.ranges.iter().any(Range::idle)
    }

    fn woken(&mut self, wake: Wake) {
        if let Some(slot) = wake.range {
            assert!(self.waiting.contains(&slot), "{slot:?} was not waited for");
            self.waiting.retain(|s| *s != slot);
        }
        assert!(!wake.any || self.waiting_any, "nobody waits");
        self.waiting_any &= !wake.any;
    }

    fn wait(&mut self, wait: Wait) {
        match wait {
            Wait::Range(slot) => {
                let range = *self.at(slot);
                assert!(
                    range.live() && !range.idle(),
                    "{range:?} need not be waited for"
                );
                if !self.waiting.contains(&slot) {
                    self.waiting.push(slot);
                }
            }
            Wait::Any => {
                assert!(!self.idle() && self.ranges.iter().any(Range::live));
                self.waiting_any = true;
            }
        }
    }

    fn reserve(&mut self, plan: &Plan) {
        let room = self.window.usage().ranges < self.limit;
        let free = self.window.usage().free_bytes > 0;
        match self.window.reserve(plan) {
            Ok(token) => {
                let extent = *token.extent();
                assert!(room && free && !self.dead);
                assert!(extent.owner == plan.owner && extent.writable == plan.writable);
                assert!(
                    extent.file_offset <= plan.offset
                        && plan.offset < extent.file_offset + extent.len
                );
                // Inside the file, but for the rest of its last page.
                assert!(extent.len % 4096 == 0 && extent.len > 0);
                assert!(extent.file_offset + extent.len < plan.file_size + 4096);
                let order = self.window.range(extent.slot).unwrap().order;
                assert!(
                    order.is_aligned(extent.file_offset) && order.is_aligned(extent.window_offset)
                );
                assert!(extent.window_offset + order.bytes() <= self.window.usage().usable_bytes);
                self.ranges.push(Range {
                    state: State::Reserved,
                    extent,
                    order,
                    users: 0,
                    held: false,
                });
                self.tokens.push(Token::Reserve(token));
            }
            Err(Refused::Changed) => {
                let covers = |r: &Range| {
                    let start = r.extent.file_offset;
                    r.live()
                        && r.extent.owner == plan.owner
                        && start <= plan.offset
                        && plan.offset < start + r.order.bytes()
                };
                assert!(self.ranges.iter().any(covers));
            }
            Err(Refused::Reclaim) => assert!(self.idle()),
            Err(Refused::Wait(wait)) => {
                assert!(!(room && free));
                self.wait(wait);
            }
            Err(Refused::Never) => {
                assert!(self.dead || !(room && free));
                assert!(
                    !self.ranges.iter().any(Range::live),
                    "something may become free"
                );
            }
            Err(Refused::PastEnd) => assert!(plan.offset >= plan.file_size),
        }
    }

    fn remap(&mut self, plan: &Plan) {
        match self.window.begin_remap(plan) {
            Ok(token) => {
                let extent = *token.extent();
                let range = self.at(extent.slot);
                assert!(range.users == 0);
                let State::Mapped { writable } = range.state else {
                    panic!("{range:?}")
                };
                assert!(extent.len >= range.extent.len && extent.len <= range.order.bytes());
                assert!(extent.writable >= writable);
                range.state = State::Remapping { writable };
                range.held = false;
                self.tokens.push(Token::Remap(token));
            }
            Err(Refused::Wait(wait)) => self.wait(wait),
            Err(Refused::Reclaim) => panic!("nothing is needed"),
            Err(_) => (),
        }
    }

    fn reclaim(&mut self, token: ReclaimToken, by_force: bool) {
        let extent = *token.extent();
        let range = self.at(extent.slot);
        assert!(range.idle() || (by_force && range.users == 0));
        let State::Mapped { writable } = range.state else {
            panic!("{range:?}")
        };
        assert_eq!(
            extent,
            Extent {
                writable,
                ..range.extent
            }
        );
        range.state = State::Reclaiming { writable };
        range.held = false;
        self.tokens.push(Token::Reclaim(token));
    }

    fn removal(&mut self, removal: Removal, concerns: impl Fn(&Range) -> bool) -> bool {
        match removal {
            Removal::Remove(token) => {
                assert!(concerns(&self.at(token.slot()).clone()));
                self.reclaim(token, true);
            }
            Removal::Wait(wait) => self.wait(wait),
            Removal::Done => {
                assert!(!self.ranges.iter().any(|r| r.live() && concerns(r)));
                return true;
            }
        }
        false
    }

    /// Ends a request: well, known to have failed or not sent, or nobody knows how.
    fn end(&mut self, token: Token, how: u8) {
        let slot = match &token {
            Token::Reserve(t) => t.slot(),
            Token::Remap(t) => t.slot(),
            Token::Reclaim(t) => t.slot(),
        };
        if self.dead {
            let (before, window) = (self.window.usage(), &mut self.window);
            let ended = match (token, how) {
                (Token::Reserve(t), 0) => window.setup_unknown(t),
                (Token::Reserve(t), 1..5) => window.setup_failed(t),
                (Token::Reserve(t), _) => window.commit(t, true),
                (Token::Remap(t), 0) => window.remap_unknown(t),
                (Token::Remap(t), 1..5) => window.remap_cancelled(t),
                (Token::Remap(t), _) => window.remap_done(t),
                (Token::Reclaim(t), 0) => window.remove_unknown(t),
                (Token::Reclaim(t), 1..5) => window.remove_cancelled(t),
                (Token::Reclaim(t), _) => window.removed(t),
            };
            assert_eq!(ended, Err(Stale));
            assert_eq!(before, window.usage());
            return;
        }
        let (mut free, mut pin) = (false, false);
        let range = self.at(slot);
        let old = range.state;
        range.state = match (&token, how, old) {
            (_, 0, _) => State::Retired,
            (Token::Reserve(t), 5.., _) => State::Mapped {
                writable: t.extent().writable,
            },
            (Token::Remap(t), 5.., _) => {
                range.extent.len = t.extent().len;
                State::Mapped {
                    writable: t.extent().writable,
                }
            }
            (Token::Remap(_), _, State::Remapping { writable }) => State::Mapped { writable },
            (Token::Reclaim(_), 1..5, State::Reclaiming { writable }) => {
                range.held = true;
                State::Mapped { writable }
            }
            _ => {
                free = true;
                old
            }
        };
        let wake = match (token, how) {
            (Token::Reserve(t), 0) => self.window.setup_unknown(t),
            (Token::Reserve(t), 1..5) => self.window.setup_failed(t),
            (Token::Reserve(t), _) => {
                pin = how % 2 == 0;
                self.window.commit(t, pin)
            }
            (Token::Remap(t), 0) => self.window.remap_unknown(t),
            (Token::Remap(t), 1..5) => self.window.remap_cancelled(t),
            (Token::Remap(t), _) => self.window.remap_done(t),
            (Token::Reclaim(t), 0) => self.window.remove_unknown(t),
            (Token::Reclaim(t), 1..5) => self.window.remove_cancelled(t),
            (Token::Reclaim(t), _) => self.window.removed(t),
        };
        self.woken(wake.unwrap());
        if pin {
            self.at(slot).users += 1;
            self.pins.push(slot);
        }
        if free {
            self.ranges.retain(|r| r.extent.slot != slot);
        }
    }

    fn unpin(&mut self, i: usize) {
        let slot = self.pins.swap_remove(i);
        let wake = self.window.unpin(slot);
        self.at(slot).users -= 1;
        self.woken(wake);
    }

    fn access(&mut self, access: Access, keep: bool) {
        let stream = &mut self.streams[access.owner.0 as usize];
        let advice = self.window.access(stream, &access);
        match advice.step {
            Step::Use(hit) => {
                let range = self.at(hit.slot);
                let State::Mapped { writable } = range.state else {
                    panic!("{range:?}")
                };
                let at = range.extent.file_offset;
                assert!(range.extent.owner == access.owner && at <= access.offset);
                assert_eq!(
                    hit.window_offset - range.extent.window_offset,
                    access.offset - at
                );
                assert_eq!(hit.len, at + range.extent.len - access.offset);
                assert!(hit.len > 0 && hit.writable == writable && (writable || !access.write));
                range.users += 1;
                self.pins.push(hit.slot);
                if !keep {
                    self.unpin(self.pins.len() - 1);
                }
            }
            Step::Map(plan) => self.reserve(&plan),
            Step::Remap(plan) => self.remap(&plan),
            Step::Wait(wait) => self.wait(wait),
            Step::Bypass { len } => {
                assert!(access.need != Need::Mapping && len > 0 && len <= access.len);
                assert!(access.need == Need::Either || !access.write);
            }
        }
        if let Some(plan) = advice.ahead {
            self.reserve(&plan);
        }
    }

    fn plan(&self, owner: u64, page: u64) -> Plan {
        plan(owner, page * 4096, self.sizes[owner as usize])
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Access {
                owner,
                page,
                pages,
                write,
                fault,
                keep,
            } => {
                let file_size = self.sizes[owner as usize];
                let need = match (fault, write) {
                    (false, _) => Need::Either,
                    (true, true) => Need::Mapping,
                    (true, false) if page % 2 == 0 => Need::Mapping,
                    (true, false) => Need::Page,
                };
                let access = Access {
                    write,
                    need,
                    ..read(owner, page * 4096, pages * 4096, file_size)
                };
                self.access(access, keep);
            }
            Op::Reserve {
                owner,
                page,
                writable,
                relaxed,
            } => {
                self.reserve(&Plan {
                    writable,
                    relaxed,
                    ..self.plan(owner, page)
                });
            }
            Op::Remap { owner, page } => {
                self.remap(&Plan {
                    writable: true,
                    ..self.plan(owner, page)
                });
            }
            Op::Unpin(i) if !self.pins.is_empty() => self.unpin(i % self.pins.len()),
            Op::End(i, how) if !self.tokens.is_empty() => {
                let token = self.tokens.swap_remove(i % self.tokens.len());
                self.end(token, how);
            }
            Op::Victim => match self.window.pick_victim() {
                Some(token) => self.reclaim(token, false),
                None => assert!(!self.idle()),
            },
            Op::Another(owner) => {
                if let Some(token) = self.window.pick_another(Owner(owner)) {
                    assert_eq!(token.extent().owner, Owner(owner));
                    self.reclaim(token, false);
                }
            }
            Op::Idle { age, more } => {
                if let Some(token) = self.window.pick_idle(age) {
                    let owner = token.extent().owner;
                    self.reclaim(token, false);
                    if more {
                        if let Some(token) = self.window.pick_another_idle(owner, age) {
                            assert_eq!(token.extent().owner, owner);
                            self.reclaim(token, false);
                        }
                    }
                }
            }
            Op::Remove { owner, page, pages } => {
                let (start, end) = (page * 4096, (page + pages) * 4096);
                let removal = self.window.begin_remove(Owner(owner), start, end);
                self.removal(removal, |r| {
                    let at = r.extent.file_offset;
                    r.extent.owner == Owner(owner) && at < end && start < at + r.order.bytes()
                });
            }
            Op::RemoveAny => {
                let removal = self.window.begin_remove_any();
                self.removal(removal, |_| true);
            }
            Op::Tick(n) => (0..n).for_each(|_| {
                let wake = self.window.tick(1);
                self.ranges.iter_mut().for_each(|r| r.held = false);
                self.woken(wake);
            }),
            Op::Limit(limit) => {
                self.limit = limit.min(SLOTS as u32);
                let wake = self.window.set_limit(limit);
                self.woken(wake);
            }
            Op::Resize { owner, pages } => self.sizes[owner as usize] = pages * 4096,
            Op::Abandon => {
                self.window.abandon();
                self.dead = true;
                self.ranges
                    .iter_mut()
                    .for_each(|r| (r.state, r.held) = (State::Retired, false));
                self.waiting.clear();
                self.waiting_any = false;
            }
            Op::Unpin(_) | Op::End(..) => (),
        }
        self.check();
    }

    fn check(&self) {
        // The window knows what the model knows.
        for i in 0..SLOTS as u32 {
            let info = self.window.range(SlotId::new(i)).unwrap();
            match self.ranges.iter().find(|r| r.extent.slot.get() == i) {
                Some(r) => {
                    assert_eq!(
                        (info.state, info.order, info.users),
                        (r.state, r.order, r.users)
                    );
                    if r.live() {
                        assert_eq!(
                            info.extent,
                            Extent {
                                writable: info.extent.writable,
                                ..r.extent
                            }
                        );
                    }
                }
                None => assert_eq!((info.state, info.users), (State::Free, 0)),
            }
        }
        assert!(self.window.range(SlotId::new(SLOTS as u32)).is_none());
        // Nothing overlaps, in files or the window.
        for (i, a) in self.ranges.iter().enumerate() {
            for b in &self.ranges[i + 1..] {
                let apart = |a_at: u64, b_at: u64| {
                    a_at + a.order.bytes() <= b_at || b_at + b.order.bytes() <= a_at
                };
                assert!(apart(a.extent.window_offset, b.extent.window_offset));
                assert!(
                    a.extent.owner != b.extent.owner
                        || !(a.live() && b.live())
                        || apart(a.extent.file_offset, b.extent.file_offset)
                );
            }
        }
        // Nothing is lost.
        let usage = self.window.usage();
        let bytes = |f: &dyn Fn(&&Range) -> bool| {
            self.ranges
                .iter()
                .filter(f)
                .map(|r| r.order.bytes())
                .sum::<u64>()
        };
        let count = |f: &dyn Fn(&&Range) -> bool| self.ranges.iter().filter(f).count() as u32;
        assert_eq!(usage.free_bytes + bytes(&|_| true), usage.usable_bytes);
        assert_eq!(usage.retired_bytes, bytes(&|r| !r.live()));
        assert_eq!(usage.ranges, count(&|_| true));
        assert_eq!(usage.idle, count(&|r| r.idle()));
        assert_eq!(usage.retired, count(&|r| !r.live()));
        let mapped = count(&|r| matches!(r.state, State::Mapped { .. }));
        assert_eq!(
            (usage.idle + usage.pinned, usage.probation + usage.protected),
            (mapped, mapped)
        );
        assert_eq!(usage.busy, usage.ranges - mapped - usage.retired);
        assert_eq!(usage.by_order.iter().sum::<u32>(), usage.ranges);
        // Nobody sleeps who could go on.
        for slot in &self.waiting {
            let range = self.ranges.iter().find(|r| r.extent.slot == *slot);
            assert!(
                range.is_some_and(|r| r.live() && !r.idle()),
                "{slot:?} sleeps"
            );
        }
        if self.waiting_any {
            assert!(
                !self.idle() && self.ranges.iter().any(Range::live),
                "somebody sleeps"
            );
        }
    }

    /// Ends everything; then all is free that was not retired.
    fn finish(&mut self) {
        while !self.pins.is_empty() {
            self.unpin(0);
        }
        while let Some(token) = self.tokens.pop() {
            self.end(token, 5);
        }
        while !self.pins.is_empty() {
            self.unpin(0);
        }
        loop {
            let removal = self.window.begin_remove_any();
            if self.removal(removal, |_| true) {
                break;
            }
            let token = self.tokens.pop().expect("nothing to wait for");
            self.end(token, 5);
        }
        self.check();
        assert!(self.ranges.iter().all(|r| !r.live()));
        assert!(self.waiting.is_empty());
        assert!(!self.waiting_any);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..ProptestConfig::with_cases(4000)
    })]

    #[test]
    fn any_steps(window_kib in 64u64..9000, ops in prop::collection::vec(op(), 1..300)) {
        let mut model = Model::new(window_kib * KIB);
        for op in ops {
            model.step(op);
        }
        model.finish();
    }
}
