// SPDX-License-Identifier: GPL-2.0

//! Memory of a device that files can be mapped from (DAX).
//!
//! C headers: [`include/linux/dax.h`](srctree/include/linux/dax.h),
//! [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

use crate::{
    bindings,
    static_mutex::StaticMutex, //
};
use core::{
    ffi::c_void,
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    devres,
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::{
        c_int,
        c_long, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    page::PAGE_SIZE,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            ordering,
            Atomic, //
        },
        Arc, //
    },
    types::Opaque, //
};

/// What the kernel can map and unmap memory by: pages of this size have a table of `struct page` of their own.
const SECTION: u64 = 2 << 20;

/// Taken by who gives memory back, so that no device is unbound before that is done. Nothing else is taken under it.
static SHUT_DOWN: StaticMutex<()> =
    StaticMutex::new(c"kernel_ext::dax::SHUT_DOWN", kernel::static_lock_class!());

const LIVE: i32 = 0;
const GONE: i32 = 1;
const LEFT_BEHIND: i32 = 2;

/// Memory of a device that is bound to a driver.
///
/// Nothing but what a bus says of its device becomes one:
///
/// ```compile_fail,E0133
/// # use kernel::device::{Bound, Device};
/// # use kernel_ext::dax::DeviceRegion;
/// fn any(device: &Device<Bound>) {
///     DeviceRegion::new(0, 1 << 30, device); // refused
/// }
/// ```
///
/// # Invariants
///
/// It is of the device, which stays bound for the duration of `'a`.
pub struct DeviceRegion<'a> {
    start: u64,
    len: u64,
    device: &'a Device<Bound>,
}

impl<'a> DeviceRegion<'a> {
    /// The `len` bytes at physical address `start`.
    ///
    /// # Safety
    ///
    /// They are memory of the device, and of nobody else.
    pub unsafe fn new(start: u64, len: u64, device: &'a Device<Bound>) -> Self {
        // INVARIANT: As the caller says.
        Self { start, len, device }
    }

    /// The physical address.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The bytes there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Where the memory is.
struct Extent {
    /// In the linear map of the kernel.
    address: *mut u8,
    physical: u64,
    bytes: usize,
}

/// Memory of a device, with a `struct page` for each page, and the `dax_device` that stands for it.
///
/// # Invariants
///
/// `dax` is a device with [`OPERATIONS`], of which we hold a reference; its private data is `extent`. As long as it is alive,
/// `pagemap` is mapped, `extent` says where, and its range of physical addresses is reserved for us, by the name `name`.
pub struct Memory {
    dax: NonNull<bindings::dax_device>,
    extent: ManuallyDrop<KBox<Extent>>,
    pagemap: ManuallyDrop<KBox<Opaque<bindings::dev_pagemap>>>,
    /// What `/proc/iomem` shows: of memory that is left behind also when this module is gone.
    name: ManuallyDrop<CString>,
    state: Atomic<i32>,
}

// SAFETY: Nothing in it belongs to a task; the C structures are made for concurrent use.
unsafe impl Send for Memory {}
// SAFETY: As above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Takes over memory of a device, cut down to what the kernel can map. When the device is unbound it is
    /// [shut down](Memory::shut_down) at the latest. Sleeps.
    ///
    /// Errors: `EINVAL` when there is less than 2 MiB or it is not aligned to that, `EBUSY` when somebody has it already, `ENOMEM`,
    /// and what mapping it says.
    pub fn new(region: DeviceRegion<'_>, name: &CStr) -> Result<Arc<Self>> {
        let this = Arc::new(Self::map(region.start, region.len, name)?, GFP_KERNEL)?;
        devres::register(region.device, ShutDown(this.clone()), GFP_KERNEL)?;
        Ok(this)
    }

    fn map(start: u64, len: u64, name: &CStr) -> Result<Self> {
        let len = len & !(SECTION - 1);
        if len == 0 || start % SECTION != 0 || start.checked_add(len).is_none() {
            return Err(EINVAL);
        }
        let region = Region::reserve(start, len, name)?;
        let pagemap = KBox::new(Opaque::<bindings::dev_pagemap>::uninit(), GFP_KERNEL)?;
        let mut extent = KBox::new(
            Extent {
                address: core::ptr::null_mut(),
                physical: start,
                bytes: usize::try_from(len)?,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: A zeroed C structure is a valid one, in which this sets what it has to. It stays where it is until it is
        // unmapped; the range is ours.
        let address = unsafe {
            pagemap.get().write_bytes(0, 1);
            let map = &mut *pagemap.get();
            map.type_ = bindings::memory_type_MEMORY_DEVICE_FS_DAX;
            map.nr_range = 1;
            *map.__bindgen_anon_1.range.as_mut() = bindings::range {
                start,
                end: start + (len - 1),
            };
            from_err_ptr(bindings::memremap_pages(
                pagemap.get(),
                bindings::NUMA_NO_NODE,
            ))?
        };
        extent.address = address.cast();
        let private = (&raw mut *extent).cast();
        // SAFETY: The private data stays until the device is dead, the operations are static.
        let dax = unsafe { from_err_ptr(bindings::alloc_dax(private, &OPERATIONS)) };
        let dax = match dax {
            Ok(dax) => dax,
            Err(e) => {
                // SAFETY: Mapped above, and used by nobody.
                unsafe { bindings::memunmap_pages(pagemap.get()) };
                return Err(e);
            }
        };
        let dax = NonNull::new(dax).ok_or(ENOMEM)?;
        // INVARIANT: As set up above; from here on `shut_down` gives the region back.
        Ok(Self {
            dax,
            name: ManuallyDrop::new(region.keep()),
            extent: ManuallyDrop::new(extent),
            pagemap: ManuallyDrop::new(pagemap),
            state: Atomic::new(LIVE),
        })
    }

    /// The bytes there are, a multiple of 2 MiB.
    pub fn len(&self) -> usize {
        self.extent.bytes
    }

    /// Whether there is nothing: never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `dax_device`.
    pub fn as_raw(&self) -> *mut bindings::dax_device {
        self.dax.as_ptr()
    }

    /// Gives the memory back: from here on nothing is copied, and nothing of it can be mapped. Whoever has pages of it in files or
    /// page tables takes them out before; if some are left, the memory stays the kernel's for good, and a line in the log says
    /// so. Calls after the first do nothing, but wait for it. Sleeps.
    pub fn shut_down(&self) {
        let _one_at_a_time = SHUT_DOWN.lock();
        if self
            .state
            .cmpxchg(LIVE, LEFT_BEHIND, ordering::Full)
            .is_err()
        {
            return;
        }
        let (start, bytes) = (self.extent.physical, self.extent.bytes);
        // SAFETY: By the type invariants, and once. After `kill_dax()` nobody of those is left who copy, or bring pages into files:
        // both do it with `dax_read_lock()` held, and see that the device is dead.
        let unused = unsafe {
            bindings::kill_dax(self.as_raw());
            bindings::virtiofs_helper_memory_is_unused(start, bytes as u64)
        };
        if !unused {
            pr_err!("DAX memory at {start:#x} is still in use: it is left behind\n");
            return;
        }
        // SAFETY: No page is in use, and none can be any more. The region is reserved for us by the type invariants, which is at
        // its end here.
        unsafe {
            bindings::memunmap_pages(self.pagemap.get());
            release(start, bytes as u64);
        }
        self.state.store(GONE, ordering::Release);
    }

    /// The first page of the `len` bytes at `offset` that somebody has a reference to: a page table, who has pinned it, or a task
    /// that has taken it out of a page table and not yet told all processors. [`None`] when there is none, or the memory was given
    /// back. Callable from any context.
    pub fn busy_page(&self, offset: u64, len: usize) -> Option<BusyPage<'_>> {
        let start = self.extent.physical.saturating_add(offset);
        // INVARIANT: It is of this memory.
        self.with(offset, len, |_| {
            // SAFETY: `with` is for what lies in the memory, while its pages have tables.
            NonNull::new(unsafe { bindings::virtiofs_helper_busy_page(start, len as u64) })
        })
        .map(|page| BusyPage(page, self))
    }

    /// A page of this memory; [`None`] if it is of something else.
    pub fn page(&self, page: NonNull<bindings::page>) -> Option<BusyPage<'_>> {
        let (start, len) = (self.extent.physical, self.extent.bytes as u64);
        // INVARIANT: It is of this memory.
        // SAFETY: Only where the page is, which its address says, is looked at.
        unsafe { bindings::virtiofs_helper_page_is_within(page.as_ptr(), start, len) }
            .then_some(BusyPage(page, self))
    }

    /// Calls `copy` with the address of `len` bytes at `offset`, as long as the memory is there. Page faults are not taken.
    fn with<R: Default>(&self, offset: u64, len: usize, copy: impl FnOnce(*mut u8) -> R) -> R {
        let Ok(start) = usize::try_from(offset) else {
            return R::default();
        };
        if start
            .checked_add(len)
            .is_none_or(|end| end > self.extent.bytes)
        {
            return R::default();
        }
        // SAFETY: The lock keeps the memory from being unmapped: see `shut_down`. What is copied lies in it. With page faults off
        // a copy from or to user space ends where a page is not there.
        unsafe {
            let lock = bindings::dax_read_lock();
            let result = if bindings::dax_alive(self.as_raw()) {
                bindings::pagefault_disable();
                let result = copy(self.extent.address.add(start));
                bindings::pagefault_enable();
                result
            } else {
                R::default()
            };
            bindings::dax_read_unlock(lock);
            result
        }
    }

    /// Copies `len` bytes at `offset` to `iter`, and advances it: how many were copied. Fewer where a page of the user's is not
    /// there, see [`fault_in`]; none beyond the end, or of memory that was given back.
    pub fn copy_to_iter(&self, offset: u64, len: usize, iter: &mut IovIterDest<'_>) -> usize {
        self.with(offset, len, |address| {
            // SAFETY: `with` gives the address of `len` bytes. The device may change them meanwhile, as any bytes of a file.
            unsafe { bindings::_copy_to_iter(address.cast(), len, iter.as_raw()) }
        })
    }

    /// Copies `len` bytes of `iter` to `offset`, and advances it. As [`copy_to_iter`](Memory::copy_to_iter).
    pub fn copy_from_iter(&self, offset: u64, len: usize, iter: &mut IovIterSource<'_>) -> usize {
        self.with(offset, len, |address| {
            // SAFETY: As above.
            unsafe { bindings::_copy_from_iter(address.cast(), len, iter.as_raw()) }
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.shut_down();
        if self.state.load(ordering::Acquire) != GONE {
            // Pages refer to it.
            return;
        }
        // SAFETY: Ours by the type invariants, and the device is dead: nothing refers to the rest, which is dropped once.
        unsafe {
            bindings::put_dax(self.as_raw());
            ManuallyDrop::drop(&mut self.extent);
            ManuallyDrop::drop(&mut self.pagemap);
            ManuallyDrop::drop(&mut self.name);
        }
    }
}

/// Shuts memory down when it is dropped, by the device's being unbound.
struct ShutDown(Arc<Memory>);

impl Drop for ShutDown {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

/// A page of a [`Memory`] that somebody had a reference to. It knows that memory, and is not kept longer:
///
/// ```compile_fail
/// # use kernel_ext::dax::{BusyPage, Memory};
/// fn keep(memory: &Memory) {
///     let page = memory.busy_page(0, 4096);
///     let kept: Option<BusyPage<'static>> = page; // refused
/// }
/// ```
///
/// # Invariants
///
/// It is the table of a page of the `Memory`, which may have been given back: then the table is gone.
pub struct BusyPage<'a>(NonNull<bindings::page>, &'a Memory);

impl<'a> BusyPage<'a> {
    /// The page, for who knows that the memory has not been given back.
    pub fn as_raw(&self) -> *mut bindings::page {
        self.0.as_ptr()
    }

    /// The memory that it is of.
    pub fn memory(&self) -> &'a Memory {
        self.1
    }
}

/// Brings up to `len` bytes of what `iter` stands at into memory, to be written to. Sleeps. `EFAULT` when there is none.
pub fn fault_in(iter: &mut IovIterDest<'_>, len: usize) -> Result {
    let len = len.min(iter.len());
    // SAFETY: A valid iterator.
    let missing = unsafe { bindings::fault_in_iov_iter_writeable(iter.as_raw(), len) };
    if len > 0 && missing == len {
        return Err(EFAULT);
    }
    Ok(())
}

/// A range of physical addresses that is reserved.
///
/// # Invariants
///
/// It is, for us and by this name.
struct Region {
    start: u64,
    len: u64,
    name: ManuallyDrop<CString>,
}

impl Region {
    fn reserve(start: u64, len: u64, name: &CStr) -> Result<Self> {
        let name = ManuallyDrop::new(CString::try_from(name)?);
        // SAFETY: The name stays until the region is released.
        let reserved =
            unsafe { bindings::virtiofs_helper_reserve_memory(start, len, name.as_char_ptr()) };
        if !reserved {
            drop(ManuallyDrop::into_inner(name));
            return Err(EBUSY);
        }
        // INVARIANT: It was reserved.
        Ok(Self { start, len, name })
    }

    /// Leaves it reserved, until [`release`], and after that the name can be dropped.
    fn keep(self) -> CString {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used, nor dropped, after this.
        unsafe { ManuallyDrop::take(&mut this.name) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: Reserved for us by the type invariant, and with a name that is dropped here alone, afterwards.
        unsafe {
            release(self.start, self.len);
            ManuallyDrop::drop(&mut self.name);
        }
    }
}

/// # Safety
///
/// The range is reserved for the caller.
unsafe fn release(start: u64, len: u64) {
    // SAFETY: As the caller says.
    unsafe { bindings::__release_region(&raw mut bindings::iomem_resource, start, len) };
}

const OPERATIONS: bindings::dax_operations = bindings::dax_operations {
    direct_access: Some(direct_access),
    zero_page_range: Some(zero_page_range),
    recovery_write: None,
};

/// Where a page is, and how many follow it.
///
/// # Safety
///
/// Called with a device of [`Memory`] that is alive, as `dax_read_lock()` or the memory's owner sees to, and pointers that are
/// null or can be written to.
unsafe extern "C" fn direct_access(
    dax: *mut bindings::dax_device,
    page: usize,
    _pages: c_long,
    _mode: bindings::dax_access_mode,
    address: *mut *mut c_void,
    frame: *mut usize,
) -> c_long {
    // SAFETY: The private data of a device of `Memory`.
    let Some(extent) = (unsafe { bindings::dax_get_private(dax).cast::<Extent>().as_ref() }) else {
        return ENXIO.to_errno() as c_long;
    };
    let offset = match page.checked_mul(PAGE_SIZE) {
        Some(offset) if offset < extent.bytes => offset,
        _ => return ERANGE.to_errno() as c_long,
    };
    // SAFETY: The offset lies in the memory; the pointers are as the caller says.
    unsafe {
        if let Some(address) = address.as_mut() {
            *address = extent.address.add(offset).cast();
        }
        if let Some(frame) = frame.as_mut() {
            *frame = extent.physical as usize / PAGE_SIZE + page;
        }
    }
    ((extent.bytes - offset) / PAGE_SIZE) as c_long
}

/// # Safety
///
/// As [`direct_access`].
unsafe extern "C" fn zero_page_range(
    dax: *mut bindings::dax_device,
    page: usize,
    pages: usize,
) -> c_int {
    let mut address = core::ptr::null_mut();
    // SAFETY: As the caller says.
    let there = unsafe {
        direct_access(
            dax,
            page,
            pages as c_long,
            bindings::dax_access_mode_DAX_ACCESS,
            &mut address,
            core::ptr::null_mut(),
        )
    };
    if there < pages as c_long {
        return to_result(there as c_int).map_or_else(Error::to_errno, |()| ERANGE.to_errno());
    }
    // SAFETY: So many pages are there.
    unsafe { address.cast::<u8>().write_bytes(0, pages * PAGE_SIZE) };
    0
}
