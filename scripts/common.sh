# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What the shell scripts share; sourced, never run.

# Everything slow to make lives here, outside the tree, under a name that is made of what it was made from.
CACHE=${VIRTIOFS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/virtiofs-rust}
export VIRTIOFS_CACHE=$CACHE

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '== %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# --help prints the comment at the script's head.
usage() { sed -n '/^# SPDX/d; 2,/^[^#]/{/^#/{s/^# \{0,1\}//;p}}' "$0"; }

# The packages that a list names, one a line.
packages() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$1"; }
