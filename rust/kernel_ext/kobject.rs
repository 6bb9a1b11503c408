// SPDX-License-Identifier: GPL-2.0

//! Directories of sysfs with typed attributes, and their uevents.
//!
//! C headers: [`include/linux/kobject.h`](srctree/include/linux/kobject.h),
//! [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)

use crate::bindings;
use core::{
    fmt::Write,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    container_of,
    error::{
        from_result,
        to_result, //
    },
    page::PAGE_SIZE,
    prelude::*,
    str::CString,
    types::Opaque, //
};

/// The data of one kind of directory.
pub trait Directory: Sized + Send + Sync + 'static {
    /// The files in it.
    const ATTRIBUTES: &'static [Attribute<Self>];

    /// The variable, name and value, that a uevent of this directory carries beside the usual ones.
    fn uevent_variable(&self) -> Option<(&'static CStr, &CStr)> {
        None
    }
}

/// What a file is for.
enum Access<T> {
    /// Its content is made when it is read.
    Show(fn(&T, &mut Page) -> core::fmt::Result),
    /// Something happens when it is written.
    Store(fn(&T, &[u8]) -> Result),
}

/// A file that can be read, or one that can be written.
#[repr(C)]
pub struct Attribute<T> {
    raw: bindings::attribute,
    access: Access<T>,
}

// SAFETY: Nothing in an attribute changes after it was made.
unsafe impl<T> Sync for Attribute<T> {}

impl<T: Directory> Attribute<T> {
    /// A file `name` that everybody may read, filled in by `show`. Its owner may sleep in there.
    pub const fn new(name: &'static CStr, show: fn(&T, &mut Page) -> core::fmt::Result) -> Self {
        Self::with_mode(name, 0o444, Access::Show(show))
    }

    /// As [`Attribute::new`], for root alone to read.
    pub const fn private(
        name: &'static CStr,
        show: fn(&T, &mut Page) -> core::fmt::Result,
    ) -> Self {
        Self::with_mode(name, 0o400, Access::Show(show))
    }

    /// A file `name` that root may write: `store` gets what is written, at most a page, and its error is that of write(2). It
    /// may sleep.
    pub const fn action(name: &'static CStr, store: fn(&T, &[u8]) -> Result) -> Self {
        Self::with_mode(name, 0o200, Access::Store(store))
    }

    const fn with_mode(name: &'static CStr, mode: u16, access: Access<T>) -> Self {
        let mut raw: bindings::attribute = pin_init::zeroed();
        raw.name = name.to_bytes_with_nul().as_ptr().cast();
        raw.mode = mode;
        Self { raw, access }
    }
}

/// The page that a file's content is written into.
///
/// # Invariants
///
/// `start` is valid for writes of a page, of which `used` bytes are filled.
pub struct Page {
    start: NonNull<u8>,
    used: usize,
}

impl Page {
    /// Appends bytes.
    pub fn write_bytes(&mut self, text: &[u8]) -> core::fmt::Result {
        let end = self.used.checked_add(text.len()).ok_or(core::fmt::Error)?;
        if end > PAGE_SIZE {
            return Err(core::fmt::Error);
        }
        // SAFETY: By the type invariant there are `PAGE_SIZE - used` bytes left, which is enough.
        unsafe {
            core::ptr::copy_nonoverlapping(
                text.as_ptr(),
                self.start.as_ptr().add(self.used),
                text.len(),
            )
        };
        // INVARIANT: That many more bytes are filled, at most a page.
        self.used = end;
        Ok(())
    }
}

impl Write for Page {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.write_bytes(text.as_bytes())
    }
}

/// A kobject and the data of its directory, in one allocation that the last reference frees.
#[repr(C)]
struct Object<T> {
    kobj: Opaque<bindings::kobject>,
    data: T,
}

/// A directory in sysfs, removed when this is dropped.
///
/// # Invariants
///
/// The pointer is an [`Object`] whose kobject was added, and we own a reference to it.
pub struct Kobject<T: Directory>(NonNull<Object<T>>);

// SAFETY: A kobject counts its references and may be used by any task.
unsafe impl<T: Directory> Send for Kobject<T> {}
// SAFETY: As above; the data is `Sync`.
unsafe impl<T: Directory> Sync for Kobject<T> {}

impl<T: Directory> Kobject<T> {
    const TYPE: bindings::kobj_type = bindings::kobj_type {
        release: Some(Self::release_callback),
        sysfs_ops: &Self::SYSFS_OPS,
        ..pin_init::zeroed()
    };

    const SYSFS_OPS: bindings::sysfs_ops = bindings::sysfs_ops {
        show: Some(Self::show_callback),
        store: Some(Self::store_callback),
    };

    /// Makes the directory `name` as a member of a kset. Sleeps. `EEXIST` when there is one of that name.
    pub fn in_kset(kset: &Kset<T>, name: &CStr, data: T) -> Result<Self> {
        Self::add(kset.0.as_ptr(), core::ptr::null_mut(), name, data)
    }

    /// Makes the directory `name` in another one, which it keeps. Sleeps. `EEXIST` when there is one of that name.
    pub fn in_directory<P: Directory>(parent: &Kobject<P>, name: &CStr, data: T) -> Result<Self> {
        Self::add(core::ptr::null_mut(), parent.as_raw(), name, data)
    }

    fn add(
        kset: *mut bindings::kset,
        parent: *mut bindings::kobject,
        name: &CStr,
        data: T,
    ) -> Result<Self> {
        let object = KBox::new(
            Object {
                kobj: Opaque::new(pin_init::zeroed()),
                data,
            },
            GFP_KERNEL,
        )?;
        let object = NonNull::from(KBox::leak(object));
        // SAFETY: The kobject is zeroed memory of ours, pinned on the heap until its release. The type is a constant. Kset, parent
        // and name are valid, and the name is copied.
        let (kobj, added) = unsafe {
            let kobj = (*object.as_ptr()).kobj.get();
            (*kobj).kset = kset;
            bindings::kobject_init(kobj, &Self::TYPE);
            let (format, name) = (c"%s".as_char_ptr(), name.as_char_ptr());
            (kobj, bindings::kobject_add(kobj, parent, format, name))
        };
        if let Err(e) = to_result(added) {
            // SAFETY: The initial reference is ours, and nobody else has one. What was not added is not to be deleted: the kset has
            // its reference back, and would be given it back again.
            unsafe { bindings::kobject_put(kobj) };
            return Err(e);
        }
        // INVARIANT: It was added, and the initial reference is ours.
        let this = Self(object);
        for attribute in T::ATTRIBUTES {
            // SAFETY: The kobject was added; the attribute is a constant.
            to_result(unsafe {
                bindings::sysfs_create_file_ns(this.as_raw(), &attribute.raw, core::ptr::null())
            })?;
        }
        Ok(this)
    }

    /// Makes a symbolic link `name` in it to a device's directory.
    pub fn link_device(&self, device: &kernel::device::Device, name: &CStr) -> Result {
        // SAFETY: `device::Device` is a transparent view of a `struct device`, which is alive; its kobject is embedded.
        let target = unsafe {
            let device: *const kernel::device::Device = device;
            &raw mut (*device.cast_mut().cast::<bindings::device>()).kobj
        };
        // SAFETY: Both kobjects are alive and added, and the name is copied.
        to_result(unsafe { bindings::sysfs_create_link(self.as_raw(), target, name.as_char_ptr()) })
    }

    /// Tells user space that the directory is there (uevent `add`); that it goes is told when it is dropped.
    pub fn announce(&self) {
        // SAFETY: The kobject was added. The event is best effort.
        unsafe { bindings::kobject_uevent(self.as_raw(), bindings::kobject_action_KOBJ_ADD) };
    }

    /// The directory's data.
    pub fn data(&self) -> &T {
        // SAFETY: The object is alive by the type invariant.
        unsafe { &(*self.0.as_ptr()).data }
    }

    fn as_raw(&self) -> *mut bindings::kobject {
        // SAFETY: The object is alive by the type invariant.
        unsafe { (*self.0.as_ptr()).kobj.get() }
    }

    /// # Safety
    ///
    /// `kobj` is the kobject of an [`Object<T>`].
    unsafe fn object_of(kobj: *mut bindings::kobject) -> *mut Object<T> {
        // SAFETY: The caller guarantees that it is embedded there; `Opaque` is transparent.
        unsafe { container_of!(Opaque::cast_from(kobj), Object<T>, kobj).cast_mut() }
    }

    /// # Safety
    ///
    /// To be called when the last reference to a kobject of this type is gone.
    unsafe extern "C" fn release_callback(kobj: *mut bindings::kobject) {
        // SAFETY: Kobjects of this type are embedded in an `Object<T>` that came from a `KBox`, and nobody has it any more.
        drop(unsafe { KBox::from_raw(Self::object_of(kobj)) });
    }

    /// # Safety
    ///
    /// To be called by sysfs, for a kobject of this type and an attribute of its directory.
    unsafe extern "C" fn show_callback(
        kobj: *mut bindings::kobject,
        attr: *mut bindings::attribute,
        buf: *mut c_char,
    ) -> isize {
        // SAFETY: Sysfs keeps the kobject alive while a file of it is read, and passes an attribute that `add` created: the
        // first field of an `Attribute<T>`.
        let (object, attribute) =
            unsafe { (&*Self::object_of(kobj), &*attr.cast::<Attribute<T>>()) };
        from_result(|| {
            let Access::Show(show) = attribute.access else {
                return Err(EIO);
            };
            let start = NonNull::new(buf.cast()).ok_or(EINVAL)?;
            // INVARIANT: Sysfs passes a page to be filled.
            let mut page = Page { start, used: 0 };
            show(&object.data, &mut page).map_err(|_| EIO)?;
            Ok(isize::try_from(page.used)?)
        })
    }

    /// # Safety
    ///
    /// As for [`Self::show_callback`]; `buf` has `len` bytes, which nobody changes during the call.
    unsafe extern "C" fn store_callback(
        kobj: *mut bindings::kobject,
        attr: *mut bindings::attribute,
        buf: *const c_char,
        len: usize,
    ) -> isize {
        // SAFETY: As in `show_callback`.
        let (object, attribute) =
            unsafe { (&*Self::object_of(kobj), &*attr.cast::<Attribute<T>>()) };
        from_result(|| {
            let Access::Store(store) = attribute.access else {
                return Err(EIO);
            };
            // SAFETY: The caller guarantees that these are there.
            let written = unsafe { core::slice::from_raw_parts(buf.cast::<u8>(), len) };
            store(&object.data, written)?;
            Ok(isize::try_from(len)?)
        })
    }
}

impl<T: Directory> Drop for Kobject<T> {
    fn drop(&mut self) {
        // SAFETY: The kobject is initialised and we own a reference, given up here. `kobject_del` waits for readers.
        unsafe {
            bindings::kobject_del(self.as_raw());
            bindings::kobject_put(self.as_raw());
        }
    }
}

/// A directory below `/sys/fs` whose members are all of kind `T`, and that sends uevents for them.
///
/// # Invariants
///
/// The pointer is a kset that was added, and we own a reference to it.
pub struct Kset<T: Directory>(NonNull<bindings::kset>, PhantomData<T>);

// SAFETY: A kset counts its references and may be used by any task.
unsafe impl<T: Directory> Send for Kset<T> {}
// SAFETY: As above.
unsafe impl<T: Directory> Sync for Kset<T> {}

impl<T: Directory> Kset<T> {
    const UEVENT_OPS: bindings::kset_uevent_ops = bindings::kset_uevent_ops {
        uevent: Some(Self::uevent_callback),
        ..pin_init::zeroed()
    };

    /// Makes `/sys/fs/NAME`. Sleeps.
    pub fn below_fs(name: &'static CStr) -> Result<Self> {
        // SAFETY: `fs_kobj` exists from early boot on; the name is copied, the operations are a constant.
        let kset = unsafe {
            bindings::kset_create_and_add(name.as_char_ptr(), &Self::UEVENT_OPS, bindings::fs_kobj)
        };
        // INVARIANT: It was created and added, with a reference for us.
        Ok(Self(NonNull::new(kset).ok_or(ENOMEM)?, PhantomData))
    }

    /// # Safety
    ///
    /// To be called by the kobject core, for a member of a kset of this type.
    unsafe extern "C" fn uevent_callback(
        kobj: *const bindings::kobject,
        env: *mut bindings::kobj_uevent_env,
    ) -> c_int {
        // SAFETY: Members are made by `Kobject::<T>::in_kset` alone, and alive during the call.
        let object = unsafe { &*Kobject::<T>::object_of(kobj.cast_mut()) };
        let Some((name, value)) = object.data.uevent_variable() else {
            return 0;
        };
        // SAFETY: `env` is valid during the call; the format takes two strings.
        unsafe {
            bindings::add_uevent_var(
                env,
                c"%s=%s".as_char_ptr(),
                name.as_char_ptr(),
                value.as_char_ptr(),
            )
        }
    }
}

impl<T: Directory> Drop for Kset<T> {
    fn drop(&mut self) {
        // SAFETY: We own a reference by the type invariant.
        unsafe { bindings::kset_unregister(self.0.as_ptr()) };
    }
}

/// A directory without files of its own.
pub struct Plain;

impl Directory for Plain {
    const ATTRIBUTES: &'static [Attribute<Self>] = &[];
}

/// A name that is a number.
pub fn numbered(number: impl kernel::fmt::Display) -> Result<CString> {
    CString::try_from_fmt(fmt!("{number}"))
}

#[cfg(VIRTIOFS_KUNIT)]
#[kunit_tests(kernel_ext_kobject)]
mod tests {
    use super::*;

    /// What cannot be added to a kset leaves it as it was.
    #[test]
    fn not_added() -> Result {
        let kset = Kset::<Plain>::below_fs(c"virtiofs_kunit")?;
        let _member = Kobject::in_kset(&kset, c"member", Plain)?;
        // SAFETY: The kset is alive.
        let kobj = unsafe { &raw mut (*kset.0.as_ptr()).kobj };
        // SAFETY: As above.
        let references = || unsafe { (*kobj).kref.refcount.refs.counter };
        // SAFETY: It was added. Without its directory nothing can be added to it any more.
        unsafe { bindings::kobject_del(kobj) };
        let before = references();
        let late = Kobject::in_kset(&kset, c"late", Plain);
        assert!(matches!(late, Err(e) if e == ENOENT));
        assert_eq!(references(), before);
        Ok(())
    }

    /// A file's content ends with its page; what does not fit is an error, and nothing of it is written.
    #[test]
    fn page_is_full() -> Result {
        let mut memory = KVec::from_elem(0u8, PAGE_SIZE + 1, GFP_KERNEL)?;
        // INVARIANT: A page and more.
        let mut page = Page {
            start: NonNull::new(memory.as_mut_ptr()).ok_or(EINVAL)?,
            used: 0,
        };
        let line = [b'x'; 100];
        for _ in 0..PAGE_SIZE / 100 {
            assert!(page.write_bytes(&line).is_ok());
        }
        assert!(page.write_bytes(&line).is_err());
        assert_eq!(page.used, PAGE_SIZE / 100 * 100);
        assert!(page.write_bytes(&[b'y'; PAGE_SIZE % 100]).is_ok());
        assert!(page.write_str("z").is_err());
        assert_eq!(memory.last(), Some(&0));
        Ok(())
    }
}
