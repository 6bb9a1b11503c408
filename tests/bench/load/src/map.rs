// SPDX-License-Identifier: GPL-2.0

//! Files that are mapped into memory.
//!
//! The standard library has no mmap(2), so this is the one place of the program that is not safe Rust.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

/// On x86-64.
const PROT_READ: c_int = 1;
const MAP_SHARED: c_int = 1;

extern "C" {
    // As in <sys/mman.h>, for 64 bits.
    fn mmap(
        at: *mut c_void,
        len: usize,
        prot: c_int,
        flags: c_int,
        fd: c_int,
        from: i64,
    ) -> *mut c_void;
    fn munmap(at: *mut c_void, len: usize) -> c_int;
}

/// A file from its start on, mapped shared, for reading.
#[derive(Debug)]
pub struct Mapped {
    start: *mut c_void,
    len: usize,
}

// SAFETY: The mapping belongs to the process, and is only read from.
unsafe impl Send for Mapped {}
// SAFETY: As above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps `len` bytes of a file, which must have as many.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: The kernel chooses where the new mapping lies, so that nothing there is replaced.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                len,
                PROT_READ,
                MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        // MAP_FAILED
        if start as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapped { start, len })
    }

    /// Copies what is at `offset` into a buffer. Contents that cannot be had end the program with SIGBUS.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        if offset
            .checked_add(buffer.len())
            .is_none_or(|end| end > self.len)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: The range lies inside the mapping, as was checked; nobody writes to the file meanwhile; the buffer is memory
        // of our own, which the mapping is not.
        unsafe {
            ptr::copy_nonoverlapping(
                self.start.cast::<u8>().add(offset),
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        };
        Ok(())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours, and no reference into it is ever handed out.
        unsafe { munmap(self.start, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_is_what_was_written() {
        let path = std::env::temp_dir().join(format!("load-map-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let mapped = Mapped::new(&File::open(&path).unwrap(), 10).unwrap();
        let mut buffer = [0; 4];
        mapped.read(&mut buffer, 6).unwrap();
        assert_eq!(&buffer, b"6789");
        assert!(mapped.read(&mut buffer, 7).is_err());
        assert!(mapped.read(&mut buffer, u64::MAX).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
