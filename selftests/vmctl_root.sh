#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# vmctl run --root: a command sees the host's files, and can change none of them but those it is given.

. selftests/lib/tap.sh

for program in vmctl moat-fs; do
	command -v "$program" >/dev/null || {
		tap_skip "vmctl_root" "there is no $program"
		tap_end
	}
done
# Below a directory of the root's own file system: what is mounted is not there.
WORK=$(mktemp -d /opt/moat-root.XXXXXX)
trap 'umount "$WORK/other" 2>/dev/null; rm -rf "$WORK"' EXIT
mkdir "$WORK"/{mine,hidden}
echo before >"$WORK/mine/file"
echo secret >"$WORK/hidden/file"

run() { timeout -k 5 100 vmctl run "$@" 2>&1 </dev/null; }

OUT=$(run --root -- sh -c 'cat /etc/debian_version; sha256sum <"$(command -v bash)"; ls /proc/self/exe')
tap_is "$OUT" "$(cat /etc/debian_version; sha256sum <"$(command -v bash)"; echo /proc/self/exe)" \
	"a command sees the host's files, and its own processes"
OUT=$(run --root -- sh -c "echo x >$WORK/mine/file; echo x >/etc/moat; mkdir $WORK/new; rm $WORK/mine/file; echo end")
tap_has "$OUT" "Read-only file system" "and can change none"
tap_is "$(cat "$WORK/mine/file"; ls /etc/moat "$WORK/new" 2>/dev/null)" before "none is changed"
OUT=$(run --root -- sh -c 'for d in /tmp /var/tmp /run; do ls -A $d; echo x >$d/x && cat $d/x; done')
tap_is "$OUT" $'x\nx\nx' "/tmp, /var/tmp and /run are empty, and its own"
OUT=$(run --rw "$WORK/mine" -- sh -c "cd $WORK/mine && cat file && echo after >file && echo new >other && mkdir d && mv other d && echo x >../x")
tap_has "$OUT" before "--rw: what is there is read"
tap_has "$OUT" "Read-only" "beside it nothing is changed"
tap_is "$(cat "$WORK/mine/file" "$WORK/mine/d/other"; ls "$WORK/x" 2>/dev/null)" $'after\nnew' "and there it is"
OUT=$(cd "$WORK/mine" && run --tmpfs "$WORK/hidden" --rw . -- sh -c 'pwd; ls -A ../hidden; echo x >../hidden/x && cat ../hidden/x file')
tap_is "$OUT" "$WORK/mine"$'\nx\nafter' "--tmpfs: a directory that is empty; the working directory is the caller's"
tap_is "$(cat "$WORK"/hidden/*)" secret "and what it hides is as it was"
mkdir "$WORK/other" && mount -t tmpfs none "$WORK/other" && mkdir -p "$WORK/other/a/b"
OUT=$(cd "$WORK/other/a/b" && run --rw . -- sh -c 'pwd; echo x >made; ls ..; ls ../..')
tap_is "$OUT $(cat "$WORK/other/a/b/made")" "$WORK/other/a/b"$'\nb\na x' "--rw: a directory of another file system"
umount "$WORK/other"
OUT=$(run --root -- sh -c 'exit 7')
tap_is "$?" 7 "the exit status is the command's"

refused() {
	OUT=$(run "${@:2}")
	tap_is "$?" 125 "refused: ${*:2}"
	tap_has "$OUT" "$1" "and why"
}
refused "No such file" --rw /nonexistent -- true
refused "no directory" --tmpfs /etc/passwd -- true
refused "are for a command" --root
tap_is "$(pgrep -x moat-fs)" "" "no moat-fs is left"
tap_end
