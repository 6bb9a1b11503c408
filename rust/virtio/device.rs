// SPDX-License-Identifier: GPL-2.0

//! Devices of the virtio bus.

use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    device,
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};
use kernel_ext::{
    bindings,
    dax::DeviceRegion, //
};

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

    /// The device with the context that the bus's own callbacks have.
    pub(crate) fn core_internal(&self) -> &device::Device<device::CoreInternal<'_>> {
        // SAFETY: As in `device`. The type is a marker of the context, which the callers are in.
        unsafe { &*(&raw const (*self.as_raw()).dev).cast() }
    }
}

/// A device while it is bound to a driver: only then does it have a transport that can be asked.
///
/// It is lent for the duration of a callback of [`Driver`](crate::Driver), and cannot be kept. What may be kept is a reference to the
/// [`Device`], which knows its name and number:
///
/// ```compile_fail,E0599
/// # use virtio::{BoundDevice, Device};
/// fn now(bound: BoundDevice<'_>) -> [u8; 4] {
///     bound.read_config(0)
/// }
/// fn later(kept: &Device) {
///     let tag: [u8; 4] = kept.read_config(0); // refused
///     let memory = kept.shared_memory(0); // refused
/// }
/// ```
///
/// ```compile_fail
/// # use kernel::{prelude::*, sync::Arc};
/// # use kernel_ext::dax::DeviceRegion;
/// # use virtio::BoundDevice;
/// fn keep(bound: BoundDevice<'_>) {
///     let region = bound.shared_memory(0);
///     let kept: Option<DeviceRegion<'static>> = region; // refused
/// }
/// ```
#[derive(Clone, Copy)]
pub struct BoundDevice<'a>(&'a Device);

impl<'a> BoundDevice<'a> {
    /// # Safety
    ///
    /// The device is bound to a driver of this crate, or is being bound or unbound, for the duration of `'a`.
    pub(crate) unsafe fn new(device: &'a Device) -> Self {
        Self(device)
    }

    /// Reads `N` bytes of configuration space at `offset` (bytes). Sleeps. What lies beyond the device's space reads as
    /// the transport likes, so nothing may be concluded from it.
    pub fn read_config<const N: usize>(&self, offset: u32) -> [u8; N] {
        let mut bytes = [0; N];
        // SAFETY: The device is bound, and `bytes` is valid for writes of its length.
        unsafe {
            bindings::virtio_cread_bytes(self.as_raw(), offset, bytes.as_mut_ptr().cast(), N)
        };
        bytes
    }

    /// Region `id` of the memory that the device shares, as long as it is bound.
    pub fn shared_memory(&self, id: u8) -> Option<DeviceRegion<'a>> {
        let mut region = bindings::virtio_shm_region::default();
        // SAFETY: The device is bound, and `region` valid for writes. What the transport gives is memory of the device.
        unsafe {
            bindings::virtio_get_shm_region(self.as_raw(), &mut region, id)
                .then(|| DeviceRegion::new(region.addr, region.len, self.0.core_internal()))
        }
    }
}

impl Deref for BoundDevice<'_> {
    type Target = Device;

    fn deref(&self) -> &Device {
        self.0
    }
}

/// A device that is being bound and whose queues have not been set up: [`QueueSet::new`](crate::QueueSet::new) takes it, so that
/// they are set up once.
///
/// ```compile_fail,E0382
/// # use kernel::{prelude::*, str::CString};
/// # use virtio::{Owner, Probe, QueueSet};
/// fn twice<O: Owner<Queue = ()>>(probe: Probe<'_, O>) -> Result {
///     QueueSet::new(probe, KVec::<(CString, ())>::new(), 0)?;
///     QueueSet::new(probe, KVec::<(CString, ())>::new(), 0)?; // refused
///     Ok(())
/// }
/// ```
pub struct Probe<'a, O>(BoundDevice<'a>, PhantomData<O>);

impl<'a, O> Probe<'a, O> {
    /// # Safety
    ///
    /// The device is being bound, for the duration of `'a`, by a driver whose transfers belong to `O`, and this is made once.
    pub(crate) unsafe fn new(device: &'a Device) -> Self {
        // SAFETY: As the caller says.
        Self(unsafe { BoundDevice::new(device) }, PhantomData)
    }

    /// The device.
    pub fn device(&self) -> BoundDevice<'a> {
        self.0
    }
}
