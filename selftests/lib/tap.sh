# SPDX-License-Identifier: MIT OR GPL-2.0
# TAP for shell: tap_ok STATUS NAME [DETAIL], tap_is GOT WANTED NAME, tap_skip NAME REASON, tap_end.

TAP_COUNT=0
TAP_FAILED=0

tap_ok() {
	TAP_COUNT=$((TAP_COUNT + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $TAP_COUNT - $2"
		return
	fi
	[ -z "${3:-}" ] || printf '%s\n' "$3" | sed 's/^/# /'
	echo "not ok $TAP_COUNT - $2"
	TAP_FAILED=1
}

tap_is() {
	local same=1
	[ "$1" = "$2" ] && same=0
	tap_ok "$same" "$3" "got: $1
wanted: $2"
}

# True where $1 holds $2, literally.
tap_has() {
	local held=1
	case $1 in *"$2"*) held=0 ;; esac
	tap_ok "$held" "$3" "got: $1
wanted in it: $2"
}

tap_skip() {
	TAP_COUNT=$((TAP_COUNT + 1))
	echo "ok $TAP_COUNT - $1 # SKIP $2"
}

tap_end() {
	echo "1..$TAP_COUNT"
	exit "$TAP_FAILED"
}
