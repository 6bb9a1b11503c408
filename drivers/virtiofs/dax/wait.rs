// SPDX-License-Identifier: GPL-2.0

//! Waits for a range of the window to change: a range wakes its own waiters alone.

use dax_map::{
    Wait,
    Wake, //
};
use kernel::prelude::*;
use kernel_ext::event::{
    Event,
    Seen, //
};

/// What tasks wait for.
pub(crate) struct Changes {
    /// For each range, that it has changed.
    ranges: KVec<Pin<KBox<Event>>>,
    /// Some range has become free or idle.
    any: Pin<KBox<Event>>,
}

/// A change that is waited for.
#[derive(Clone, Copy)]
pub(crate) struct Awaited {
    pub(crate) wait: Wait,
    pub(crate) seen: Seen,
}

impl Changes {
    /// For so many ranges.
    pub(crate) fn new(ranges: usize) -> Result<Self> {
        let mut events = KVec::with_capacity(ranges, GFP_KERNEL)?;
        for _ in 0..ranges {
            events.push(KBox::pin_init(Event::new(), GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Ok(Self {
            ranges: events,
            any: KBox::pin_init(Event::new(), GFP_KERNEL)?,
        })
    }

    /// What happens when this changes.
    pub(crate) fn of(&self, wait: Wait) -> &Event {
        let range = match wait {
            Wait::Range(slot) => self.ranges.get(slot.get() as usize),
            Wait::Any => None,
        };
        range.unwrap_or(&self.any)
    }

    /// Wakes who has to be woken. Callable from any context.
    pub(crate) fn wake(&self, wake: Wake) {
        if let Some(slot) = wake.range {
            self.of(Wait::Range(slot)).happen();
        }
        if wake.any {
            self.any.happen();
        }
    }

    /// Wakes all.
    pub(crate) fn wake_all(&self) {
        self.any.happen();
        for event in &self.ranges {
            event.happen();
        }
    }
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(virtiofs_dax_wait)]
mod tests {
    use super::*;
    use dax_map::SlotId;

    /// A range that changes is noticed by those who wait for it, and by nobody else.
    #[test]
    fn wakes_who_waits_for_it() -> Result {
        let changes = Changes::new(2)?;
        let (one, two) = (SlotId::new(0), SlotId::new(1));
        let seen = |wait| changes.of(wait).seen();
        let before = [Wait::Range(one), Wait::Range(two), Wait::Any].map(seen);
        changes.wake(Wake {
            range: Some(two),
            any: false,
        });
        assert!(seen(Wait::Range(one)) == before[0]);
        assert!(seen(Wait::Range(two)) != before[1]);
        assert!(seen(Wait::Any) == before[2]);
        changes.wake(Wake {
            range: None,
            any: true,
        });
        assert!(seen(Wait::Range(one)) == before[0]);
        assert!(seen(Wait::Any) != before[2]);
        changes.wake_all();
        assert!(seen(Wait::Range(one)) != before[0]);
        Ok(())
    }
}
