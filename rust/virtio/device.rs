// SPDX-License-Identifier: GPL-2.0

//! Devices of the virtio bus.

use core::ptr::NonNull;
use kernel::{
    device,
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};
use kernel_ext::bindings;

/// Identifiers of device types: virtio 1.3, section 5.
pub mod id {
    /// A file system device.
    pub const FS: u32 = kernel_ext::bindings::VIRTIO_ID_FS;
}

/// A `struct virtio_device`.
#[repr(transparent)]
pub struct Device(Opaque<bindings::virtio_device>);

// SAFETY: The embedded `struct device` counts references, and any task may use and release it.
unsafe impl Send for Device {}
// SAFETY: Methods on shared references only call functions that any task may call at the same time.
unsafe impl Sync for Device {}

// SAFETY: The embedded `struct device` keeps the `struct virtio_device` alive.
unsafe impl AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: A shared reference means that the device is alive.
        unsafe { bindings::get_device(&raw mut (*self.as_raw()).dev) };
    }

    unsafe fn dec_ref(this: NonNull<Self>) {
        // SAFETY: The caller gives up a reference, so the device is alive until here.
        unsafe {
            bindings::put_device(&raw mut (*this.cast::<bindings::virtio_device>().as_ptr()).dev)
        };
    }
}

impl Device {
    /// The C object.
    pub fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }

    /// The generic device: for log lines and sysfs links.
    pub fn device(&self) -> &device::Device {
        // SAFETY: `dev` is embedded in the device, and `device::Device` is a transparent view of it.
        unsafe { &*(&raw const (*self.as_raw()).dev).cast() }
    }

    /// The device's number on the virtio bus: the N of `virtioN`.
    pub fn index(&self) -> i32 {
        // SAFETY: Set before the device is on the bus, and constant since.
        unsafe { (*self.as_raw()).index }
    }

    /// Reads `N` bytes of configuration space at `offset` (bytes). Sleeps. What lies beyond the device's space reads as
    /// the transport likes, so nothing may be concluded from it.
    pub fn read_config<const N: usize>(&self, offset: u32) -> [u8; N] {
        let mut bytes = [0; N];
        // SAFETY: The device is alive, and `bytes` is valid for writes of its length.
        unsafe {
            bindings::virtio_cread_bytes(self.as_raw(), offset, bytes.as_mut_ptr().cast(), N)
        };
        bytes
    }

    /// Region `id` of the memory that the device shares: physical address and length in bytes.
    pub fn shared_memory(&self, id: u8) -> Option<(u64, u64)> {
        let mut region = bindings::virtio_shm_region::default();
        // SAFETY: The device is alive, and `region` valid for writes.
        unsafe { bindings::virtio_get_shm_region(self.as_raw(), &mut region, id) }
            .then_some((region.addr, region.len))
    }

    /// Calls `each` with the CPUs that the transport has assigned to the interrupt of queue `index`; `false` when it has
    /// assigned none.
    pub fn for_each_cpu_of_queue(&self, index: u32, mut each: impl FnMut(usize)) -> bool {
        // SAFETY: The device is alive and its queues were found, which the bus guarantees between probe and remove.
        let mask = unsafe { bindings::virtiofs_helper_vq_affinity(self.as_raw(), index) };
        let Some(mask) = NonNull::new(mask.cast_mut()) else {
            return false;
        };
        // SAFETY: The transport's mask lives until the queues are deleted.
        let mask = unsafe { kernel::cpumask::Cpumask::from_raw(mask.as_ptr()) };
        for cpu in 0..kernel::cpu::nr_cpu_ids() {
            if kernel::cpu::CpuId::from_u32(cpu).is_some_and(|id| mask.test(id)) {
                each(cpu as usize);
            }
        }
        true
    }

    /// The device with the context that the bus's own callbacks have.
    pub(crate) fn core_internal(&self) -> &device::Device<device::CoreInternal<'_>> {
        // SAFETY: As in `device`. The type is a marker of the context, which the callers are in.
        unsafe { &*(&raw const (*self.as_raw()).dev).cast() }
    }
}
