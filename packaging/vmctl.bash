# SPDX-License-Identifier: MIT OR GPL-2.0
# bash-completion(7) of vmctl: what it says itself; behind "--" commands; else files.

_vmctl() {
	local words=("${COMP_WORDS[@]:1:COMP_CWORD}")
	COMPREPLY=()
	if [ "$COMP_CWORD" -gt 2 ] && [ "${COMP_WORDS[COMP_CWORD - 1]}" = -- ]; then
		mapfile -t COMPREPLY < <(compgen -c -- "${words[-1]}" | sort -u)
		return
	fi
	mapfile -t COMPREPLY < <(vmctl complete "${words[@]}" 2>/dev/null)
}

complete -o bashdefault -o default -F _vmctl vmctl
