#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# vmlinux.sh BZIMAGE: prints the ELF file that is packed in it (Linux's Documentation/arch/x86/boot.rst:
# setup_sects, payload_offset, payload_length). The last 4 bytes are the file's size, appended by the
# kernel's build.

set -euo pipefail

# field OFFSET SIZE
field() { od -An -v -j "$1" -N "$2" -t "u$2" "$IMAGE" | tr -d ' '; }

IMAGE=${1:?which kernel?}
SECTORS=$(field 0x1f1 1)
START=$(((SECTORS + 1) * 512 + $(field 0x248 4)))
LENGTH=$(($(field 0x24c 4) - 4))

payload() {
	dd if="$IMAGE" bs=1M iflag=skip_bytes,count_bytes skip="$START" count="$LENGTH" status=none
}

case $(od -An -j "$START" -N 4 -t x1 "$IMAGE" | tr -d ' ') in
02214c18) payload | lz4 -dc ;;
28b52ffd) payload | zstd -dc ;;
fd377a58) payload | xz -dc ;;
1f8b*) payload | gzip -dc ;;
*) echo "$IMAGE: packed in a way that is not known" >&2; exit 1 ;;
esac
