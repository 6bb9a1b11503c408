// SPDX-License-Identifier: GPL-2.0

//! List of transfers in flight, for diagnosis of what hangs.

/// How far a transfer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The device has it, and it is wanted.
    Sent,
    /// It waits for room in the ring.
    Parked,
    /// Its waiter was killed. The device has it still, or it waits for room and will not be sent.
    Abandoned,
    /// It was ended here, and the device still has its memory.
    Aborted,
}

impl Stage {
    /// A word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Parked => "parked",
            Self::Abandoned => "abandoned",
            Self::Aborted => "aborted",
        }
    }
}

/// A transfer as it was at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Entry<L> {
    /// What the driver calls it, see [`Owner::label`](crate::Owner::label).
    pub label: L,
    /// How far it got.
    pub stage: Stage,
    /// Milliseconds since it was submitted, as exact as a tick.
    pub age_ms: u64,
    /// The task that submitted it, as the initial PID namespace knows it.
    pub pid: i32,
}
