// SPDX-License-Identifier: GPL-2.0

//! What the daemon is told: the command line, and the settings that the control socket can change while it runs.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, RwLock};

use clap::{Args, Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::lock;
use crate::wire::{self, fopen, init, Opcode};

/// A vhost-user-fs daemon for tests: serves a directory, has a DAX window, counts what it serves and misbehaves on demand.
#[derive(Parser, Debug, Clone)]
#[command(version)]
pub struct Options {
    /// Unix socket on which the VMM connects
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,

    /// Directory to serve
    #[arg(long, value_name = "DIR")]
    pub shared_dir: PathBuf,

    /// Unix socket for the control protocol (see README.md)
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// Tag in the device's configuration space
    #[arg(long, default_value = "daxd")]
    pub tag: String,

    /// The 36 bytes of the tag as hexadecimal digits, zeros appended, instead of --tag
    #[arg(long, value_name = "HEX")]
    pub raw_tag: Option<Hex>,

    /// Number of request queues
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=63))]
    pub queues: u32,

    /// num_request_queues in the configuration space, if it shall differ from the truth
    #[arg(long, value_name = "N")]
    pub config_queues: Option<u32>,

    /// Largest size of a queue, a power of two
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub max_queue_size: u16,

    /// Size of the DAX window, with suffix K, M or G; 0 is no window
    #[arg(long, value_name = "SIZE", default_value = "0")]
    pub window: Size,

    /// Do not offer the ring feature EVENT_IDX
    #[arg(long)]
    pub no_event_idx: bool,

    /// Do not offer indirect descriptors
    #[arg(long)]
    pub no_indirect: bool,

    /// Do not ask the VMM to acknowledge maps
    #[arg(long)]
    pub no_reply_ack: bool,

    /// Do not offer CONFIGURE_MEM_SLOTS
    #[arg(long)]
    pub no_mem_slots: bool,

    /// End when the VMM hangs up, instead of waiting for the next
    #[arg(long)]
    pub once: bool,

    /// A fault rule in JSON that holds from the start; may be repeated
    #[arg(long, value_name = "JSON")]
    pub fault: Vec<String>,

    /// Log requests (-v) or everything (-vv)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    #[command(flatten)]
    pub settings: Settings,
}

/// Settings that the control socket's `configure` can change; those of INIT take effect at the next mount.
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Seconds for which a name may be cached
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub entry_timeout: f64,

    /// Seconds for which attributes may be cached
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub attr_timeout: f64,

    /// Seconds for which the absence of a name may be cached; 0 answers ENOENT instead
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    pub negative_timeout: f64,

    /// INIT: major version to answer
    #[arg(long, value_name = "N", default_value_t = wire::MAJOR)]
    pub major: u32,

    /// INIT: minor version to answer at most
    #[arg(long, value_name = "N", default_value_t = wire::MINOR)]
    pub minor: u32,

    /// INIT: changes to the flags answered: +NAME or -NAME where the guest offers it, !NAME in any case; comma-separated
    #[arg(
        long,
        value_name = "LIST",
        default_value = "",
        allow_hyphen_values = true
    )]
    pub init_flags: FlagEdits,

    /// INIT: largest write in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub max_write: u32,

    /// Most bytes of a WRITE that are written, and said to be
    #[arg(long, value_name = "BYTES", default_value_t = u32::MAX)]
    pub short_write: u32,

    /// INIT: most pages in one request
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_pages: u16,

    /// INIT: most bytes to read ahead; the guest's own number if it is lower
    #[arg(long, value_name = "BYTES", default_value_t = u32::MAX)]
    pub max_readahead: u32,

    /// INIT: most background requests
    #[arg(long, value_name = "N", default_value_t = u16::MAX)]
    pub max_background: u16,

    /// INIT: background requests that count as congestion
    #[arg(long, value_name = "N", default_value_t = u16::MAX / 4 * 3)]
    pub congestion_threshold: u16,

    /// INIT: granularity of times in nanoseconds
    #[arg(long, value_name = "NS", default_value_t = 1)]
    pub time_gran: u32,

    /// INIT: alignment of maps as a power of two; enforced, too
    #[arg(long, value_name = "LOG2", default_value_t = 12)]
    pub map_alignment: u16,

    /// INIT: seconds after which a request counts as lost (needs +REQUEST_TIMEOUT)
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub request_timeout: u16,

    /// Flags to answer OPEN and CREATE with, comma-separated: DIRECT_IO, KEEP_CACHE, NONSEEKABLE, STREAM, ...
    #[arg(long, value_name = "LIST", default_value = "")]
    pub open_flags: OpenFlags,

    /// Flags to answer OPENDIR with, comma-separated: CACHE_DIR, KEEP_CACHE, ...
    #[arg(long, value_name = "LIST", default_value = "")]
    pub opendir_flags: OpenFlags,

    /// Opcodes to answer with ENOSYS, comma-separated
    #[arg(long, value_name = "LIST", default_value = "")]
    pub enosys: Opcodes,

    /// Use node ids again, with the next generation
    #[arg(long)]
    pub reuse_nodeids: bool,

    /// Mark directories on which something is mounted
    #[arg(long)]
    pub announce_submounts: bool,

    /// Files that get the attribute flag DAX (and whether HAS_INODE_DAX is answered)
    #[arg(long, value_enum, default_value_t = InodeDax::Off)]
    pub inode_dax: InodeDax,

    /// Answer SETUPMAPPING when the VMM acknowledged the map, without waiting until it took effect
    #[arg(long)]
    pub no_barrier: bool,

    /// Send a map for an occupied place as it is, without unmapping first (the VMM refuses it)
    #[arg(long)]
    pub no_unmap_before_map: bool,

    /// What to do when a map reaches past the end of the file, which the VMM refuses
    #[arg(long, value_enum, default_value_t = PastEof::Extend)]
    pub past_eof: PastEof,

    /// Most maps at a time, more are answered ENOMEM; 0 is no bound (and a VMM that may abort)
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub max_maps: usize,

    /// Keep the last N requests for the control socket's `trace`
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub trace: usize,
}

/// The settings, as all threads share them.
#[derive(Clone)]
pub struct SharedSettings(Arc<RwLock<Arc<Settings>>>);

impl SharedSettings {
    /// Shares `settings`.
    pub fn new(settings: Settings) -> SharedSettings {
        SharedSettings(Arc::new(RwLock::new(Arc::new(settings))))
    }

    /// The settings at this moment.
    pub fn get(&self) -> Arc<Settings> {
        lock::read(&self.0).clone()
    }

    /// Changes those settings that `changes` names, and returns all.
    pub fn change(
        &self,
        changes: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<Arc<Settings>, String> {
        let mut settings = lock::write(&self.0);
        *settings = Arc::new(settings.with(changes)?);
        Ok(settings.clone())
    }
}

/// Which files may be mapped when the guest leaves the choice to the daemon.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InodeDax {
    /// HAS_INODE_DAX is not answered
    Off,
    /// Every regular file
    All,
    /// The files that the control socket's `dax` names
    Listed,
}

/// What to do about a map that reaches past the end of its file.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PastEof {
    /// Grow the file, map, and shrink it again
    Extend,
    /// Send the map as it is
    Raw,
    /// Answer EINVAL
    Refuse,
}

/// A number of bytes, written with an optional suffix K, M or G.
#[derive(Debug, Clone, Copy)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, shift) = match text.chars().last() {
            Some('K') => (&text[..text.len() - 1], 10),
            Some('M') => (&text[..text.len() - 1], 20),
            Some('G') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let number: u64 = digits.parse().map_err(|e| format!("{text}: {e}"))?;
        number
            .checked_mul(1 << shift)
            .map(Size)
            .ok_or_else(|| format!("{text} is too large"))
    }
}

/// Bytes written as hexadecimal digits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl FromStr for Hex {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() % 2 != 0 || !text.is_ascii() {
            return Err("hexadecimal digits come in pairs".into());
        }
        let pair = |i| u8::from_str_radix(&text[i..i + 2], 16).map_err(|e| format!("{text}: {e}"));
        (0..text.len())
            .step_by(2)
            .map(pair)
            .collect::<Result<_, _>>()
            .map(Hex)
    }
}

impl Hex {
    /// The digits of `bytes`.
    pub fn encode(bytes: &[u8]) -> String {
        let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
        let pair = |byte: &u8| [digit(byte >> 4), digit(byte & 15)];
        bytes.iter().flat_map(pair).collect()
    }
}

/// Implements the conversions of a type that is written as text, on the command line as in JSON.
macro_rules! text_in_json {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.text
            }
        }
    };
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

fn flag(names: &[(&str, u64)], name: &str) -> Result<u64, String> {
    let known = names.iter().find(|(known, _)| *known == name);
    known
        .map(|(_, value)| *value)
        .ok_or_else(|| format!("{name}: no such flag"))
}

/// Changes to a set of INIT flags.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FlagEdits {
    text: String,
    add: u64,
    remove: u64,
    force: u64,
}

impl FromStr for FlagEdits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut edits = FlagEdits {
            text: text.to_owned(),
            ..Default::default()
        };
        for item in items(text) {
            let set = match item.as_bytes()[0] {
                b'+' => &mut edits.add,
                b'-' => &mut edits.remove,
                b'!' => &mut edits.force,
                _ => return Err(format!("{item}: +NAME, -NAME or !NAME is wanted")),
            };
            *set |= flag(init::NAMES, &item[1..])?;
        }
        Ok(edits)
    }
}

text_in_json!(FlagEdits);

impl FlagEdits {
    /// The flags to answer when `default` is what the daemon does and `offered` what the guest knows.
    pub fn apply(&self, default: u64, offered: u64) -> u64 {
        (((default | self.add) & offered) & !self.remove) | self.force
    }
}

/// A set of FOPEN flags.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OpenFlags {
    text: String,
    /// The flags.
    pub bits: u32,
}

impl FromStr for OpenFlags {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bits = 0;
        for item in items(text) {
            bits |= flag(fopen::NAMES, item)? as u32;
        }
        Ok(OpenFlags {
            text: text.to_owned(),
            bits,
        })
    }
}

text_in_json!(OpenFlags);

/// A list of opcodes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Opcodes {
    text: String,
    list: Vec<Opcode>,
}

impl FromStr for Opcodes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let opcode = |item| Opcode::parse(item).ok_or_else(|| format!("{item}: no such opcode"));
        let list = items(text).map(opcode).collect::<Result<_, _>>()?;
        Ok(Opcodes {
            text: text.to_owned(),
            list,
        })
    }
}

text_in_json!(Opcodes);

impl Opcodes {
    /// Whether `opcode` is in the list.
    pub fn contain(&self, opcode: Opcode) -> bool {
        self.list.contains(&opcode)
    }
}

impl Settings {
    /// The settings with those changed that `changes`, a JSON object, names.
    pub fn with(
        &self,
        changes: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<Settings, String> {
        let mut value = serde_json::to_value(self).map_err(|e| e.to_string())?;
        if let Some(object) = value.as_object_mut() {
            object.extend(changes.clone());
        }
        serde_json::from_value(value).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Options::parse_from(["daxd", "--socket", "s", "--shared-dir", "d"]).settings
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!("64M".parse::<Size>().map(|s| s.0), Ok(64 << 20));
        assert_eq!("4096".parse::<Size>().map(|s| s.0), Ok(4096));
        assert!("M".parse::<Size>().is_err());
        assert!("99999999999G".parse::<Size>().is_err());
    }

    #[test]
    fn hex_comes_in_pairs() {
        assert_eq!("0a0B".parse::<Hex>(), Ok(Hex(vec![10, 11])));
        assert!("0".parse::<Hex>().is_err());
        assert!("0g".parse::<Hex>().is_err());
        assert_eq!(Hex::encode(&[0, 255]), "00ff");
    }

    #[test]
    fn flags_are_edited() {
        let edits: FlagEdits = "+WRITEBACK_CACHE, -MAX_PAGES,!PASSTHROUGH".parse().unwrap();
        let offered = init::MAX_PAGES | init::ASYNC_READ;
        assert_eq!(
            edits.apply(init::MAX_PAGES | init::ASYNC_READ, offered),
            init::ASYNC_READ | init::PASSTHROUGH
        );
        assert_eq!(
            edits.apply(0, init::WRITEBACK_CACHE),
            init::WRITEBACK_CACHE | init::PASSTHROUGH
        );
        assert!("MAX_PAGES".parse::<FlagEdits>().is_err());
        assert!("+NONSENSE".parse::<FlagEdits>().is_err());
    }

    #[test]
    fn settings_change_by_name() {
        let changes = serde_json::json!({"max_write": 4096, "open_flags": "DIRECT_IO"});
        let changed = settings().with(changes.as_object().unwrap()).unwrap();
        assert_eq!(
            (changed.max_write, changed.open_flags.bits, changed.minor),
            (4096, 1, wire::MINOR)
        );
        for bad in [
            serde_json::json!({"max_wriet": 1}),
            serde_json::json!({"enosys": "RAED"}),
        ] {
            assert!(settings().with(bad.as_object().unwrap()).is_err());
        }
    }
}
