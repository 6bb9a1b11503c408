// SPDX-License-Identifier: GPL-2.0

//! Mount options.
//!
//! C header: [`include/linux/fs_parser.h`](srctree/include/linux/fs_parser.h)
//!
//! # Examples
//!
//! ```ignore
//! #[derive(Default)]
//! struct Options {
//!     tag: Option<CString>,
//!     mode: Option<u32>,
//!     dax: Dax,
//! }
//!
//! static PARAMETERS: Table<Options, 4> = Table::new([
//!     Parameter::flag(c"dax", |o| { o.dax = Dax::Always; Ok(()) }),
//!     Parameter::word(c"dax", &[c"never", c"always"], |o, word| {
//!         o.dax = if word == 0 { Dax::Never } else { Dax::Always };
//!         Ok(())
//!     }),
//!     Parameter::string(c"tag", |o, s| { o.tag = Some(s.try_into()?); Ok(()) }),
//!     Parameter::octal(c"rootmode", |o, mode| { o.mode = Some(mode); Ok(()) }),
//! ]);
//!
//! impl FileSystem for MyFs {
//!     const PARAMETERS: Parameters<Options> = PARAMETERS.parameters();
//!     ..
//! }
//! ```

use core::ptr;
use kernel::{
    error::to_result,
    prelude::*, //
};
use kernel_ext::bindings;

/// Stores the value of one parameter in the options.
///
/// An error `EINVAL` is logged as a bad value by the caller.
enum Setter<O> {
    Flag(fn(&mut O) -> Result),
    String(fn(&mut O, &CStr) -> Result),
    Word(&'static [&'static CStr], fn(&mut O, usize) -> Result),
    U32(fn(&mut O, u32) -> Result),
}

impl<O> Clone for Setter<O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O> Copy for Setter<O> {}

/// One parameter of a mount: its name, the type of its value, and where the value goes.
///
/// A name may appear once without and once with a value.
pub struct Parameter<O> {
    name: &'static CStr,
    setter: Setter<O>,
    /// 0 for the notation of C (`0x` and `0` prefixes).
    base: u8,
}

impl<O> Clone for Parameter<O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O> Copy for Parameter<O> {}

impl<O> Parameter<O> {
    /// `name`
    pub const fn flag(name: &'static CStr, set: fn(&mut O) -> Result) -> Self {
        Self {
            name,
            setter: Setter::Flag(set),
            base: 0,
        }
    }

    /// `name=text`
    pub const fn string(name: &'static CStr, set: fn(&mut O, &CStr) -> Result) -> Self {
        Self {
            name,
            setter: Setter::String(set),
            base: 0,
        }
    }

    /// `name=word`, one of `words`; `set` gets its index.
    pub const fn word(
        name: &'static CStr,
        words: &'static [&'static CStr],
        set: fn(&mut O, usize) -> Result,
    ) -> Self {
        Self {
            name,
            setter: Setter::Word(words, set),
            base: 0,
        }
    }

    /// `name=number`
    pub const fn u32(name: &'static CStr, set: fn(&mut O, u32) -> Result) -> Self {
        Self {
            name,
            setter: Setter::U32(set),
            base: 0,
        }
    }

    /// `name=number`, in octal
    pub const fn octal(name: &'static CStr, set: fn(&mut O, u32) -> Result) -> Self {
        Self {
            name,
            setter: Setter::U32(set),
            base: 8,
        }
    }

    const fn spec(&self, index: u8) -> bindings::fs_parameter_spec {
        bindings::fs_parameter_spec {
            name: self.name.to_bytes_with_nul().as_ptr().cast(),
            type_: match self.setter {
                Setter::Flag(_) => None,
                Setter::String(_) | Setter::Word(..) => Some(bindings::fs_param_is_string),
                Setter::U32(_) => Some(bindings::fs_param_is_u32),
            },
            opt: index,
            flags: 0,
            data: ptr::without_provenance(self.base as usize),
        }
    }
}

const END: bindings::fs_parameter_spec = bindings::fs_parameter_spec {
    name: ptr::null(),
    type_: None,
    opt: 0,
    flags: 0,
    data: ptr::null(),
};

/// The parameters of a filesystem, in a static.
///
/// # Invariants
///
/// `specs[i].opt` is `i` for each of them. `end` follows `specs` in memory and ends the C array.
#[repr(C)]
pub struct Table<O, const N: usize> {
    specs: [bindings::fs_parameter_spec; N],
    end: bindings::fs_parameter_spec,
    setters: [Setter<O>; N],
}

// SAFETY: Never changed; the pointers in it are to statics and functions.
unsafe impl<O, const N: usize> Sync for Table<O, N> {}

impl<O: 'static, const N: usize> Table<O, N> {
    /// Makes the table of `parameters`, at most 255.
    pub const fn new(parameters: [Parameter<O>; N]) -> Self {
        const { assert!(N > 0 && N <= u8::MAX as usize) };
        let mut specs = [END; N];
        let mut setters = [parameters[0].setter; N];
        let mut i = 0;
        while i < N {
            // INVARIANT: `opt` is the index.
            specs[i] = parameters[i].spec(i as u8);
            setters[i] = parameters[i].setter;
            i += 1;
        }
        Self {
            specs,
            end: END,
            setters,
        }
    }

    /// The table without its size.
    pub const fn parameters(&'static self) -> Parameters<O> {
        // INVARIANT: `Self` has no padding between `specs` and `end`, which have one type.
        Parameters {
            specs: ptr::from_ref(self).cast(),
            setters: &self.setters,
        }
    }
}

/// The parameters of a filesystem.
///
/// # Invariants
///
/// `specs` is a C array that an entry without a name ends, `opt` of each is its index, and `setters`
/// has as many entries.
pub struct Parameters<O: 'static> {
    specs: *const bindings::fs_parameter_spec,
    setters: &'static [Setter<O>],
}

impl<O> Parameters<O> {
    /// No parameter beside the generic ones.
    pub const NONE: Self = Self {
        specs: &END,
        setters: &[],
    };

    pub(crate) const fn specs(&self) -> *const bindings::fs_parameter_spec {
        self.specs
    }

    /// Parses one parameter into `options`. Errors: `ENOPARAM` when it is none of these; what the
    /// setter says.
    ///
    /// # Safety
    ///
    /// `fc` and `param` are those of a `parse_param` call.
    pub(crate) unsafe fn parse(
        &self,
        fc: *mut bindings::fs_context,
        param: *mut bindings::fs_parameter,
        options: &mut O,
    ) -> Result {
        let mut value = bindings::fs_parse_result::default();
        // SAFETY: Valid pointers, as the caller and the type invariant say.
        let index =
            unsafe { bindings::__fs_parse(&raw mut (*fc).log, self.specs, param, &mut value) };
        to_result(index)?;
        let result = match self.setters.get(index as usize) {
            None => Err(ENOPARAM),
            Some(Setter::Flag(set)) => set(options),
            Some(Setter::U32(set)) => {
                // SAFETY: `fs_param_is_u32` sets this member.
                set(options, unsafe { *value.__bindgen_anon_1.uint_32.as_ref() })
            }
            Some(Setter::String(set)) => {
                // SAFETY: `fs_param_is_string` has checked that it is a string.
                set(options, unsafe { string_of(param) })
            }
            Some(Setter::Word(words, set)) => {
                // SAFETY: As above.
                let text = unsafe { string_of(param) };
                match words.iter().position(|word| *word == text) {
                    Some(word) => set(options, word),
                    None => Err(EINVAL),
                }
            }
        };
        if result == Err(EINVAL) {
            // SAFETY: The log and the key are valid, as the caller says; the format takes a string.
            unsafe {
                bindings::logfc(
                    (*fc).log.log,
                    (*fc).log.prefix,
                    b'e',
                    c"Bad value for '%s'".as_char_ptr(),
                    (*param).key,
                )
            };
        }
        result
    }
}

/// # Safety
///
/// `param` is valid for `'a` and holds a string.
unsafe fn string_of<'a>(param: *mut bindings::fs_parameter) -> &'a CStr {
    // SAFETY: As the caller says.
    unsafe { CStr::from_char_ptr((*param).__bindgen_anon_1.string) }
}
