// SPDX-License-Identifier: GPL-2.0

//! The modules of `kernel_ext` with their KUnit suites.

// What the suites do not use is used by the crate's users.
#![allow(dead_code)]

#[path = "../../rust/kernel_ext/bindings.rs"]
pub mod bindings;
#[path = "../../rust/kernel_ext/completion.rs"]
pub mod completion;
#[path = "../../rust/kernel_ext/filled.rs"]
pub mod filled;
#[path = "../../rust/kernel_ext/kobject.rs"]
pub mod kobject;
#[path = "../../rust/kernel_ext/pages.rs"]
pub mod pages;
#[path = "../../rust/kernel_ext/ratelimit.rs"]
pub mod ratelimit;
#[path = "../../rust/kernel_ext/scatterlist.rs"]
pub mod scatterlist;
#[path = "../../rust/kernel_ext/siphash.rs"]
pub mod siphash;
#[path = "../../rust/kernel_ext/source.rs"]
pub mod source;
#[path = "../../rust/kernel_ext/static_mutex.rs"]
pub mod static_mutex;
#[path = "../../rust/kernel_ext/task.rs"]
pub mod task;
#[path = "../../rust/kernel_ext/users.rs"]
pub mod users;

/// Prefix of this crate's log lines.
const __LOG_PREFIX: &[u8] = b"virtiofs_test\0";
