# SPDX-License-Identifier: MIT OR GPL-2.0
# bash-completion(7) of vmctl: what its own help says.

# _vmctl_options COMMAND
_vmctl_options() {
	vmctl help "$1" 2>/dev/null | grep -oE '(^ +|, )--[a-z][a-z-]*' | grep -oE -- '--.*'
}

_vmctl() {
	local word=${COMP_WORDS[COMP_CWORD]} i
	COMPREPLY=()
	if [ "$COMP_CWORD" = 1 ] || { [ "$COMP_CWORD" = 2 ] && [ "${COMP_WORDS[1]}" = help ]; }; then
		mapfile -t COMPREPLY < <(compgen -W "$(vmctl help 2>/dev/null |
			sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p')" -- "$word")
		return
	fi
	# Behind "--" it is a command, and what that takes.
	for ((i = 2; i < COMP_CWORD; i++)); do
		[ "${COMP_WORDS[i]}" = -- ] || continue
		if [ $((i + 1)) = "$COMP_CWORD" ]; then
			mapfile -t COMPREPLY < <(compgen -c -- "$word" | sort -u)
		fi
		return
	done
	case $word in
	-*) mapfile -t COMPREPLY < <(compgen -W "$(_vmctl_options "${COMP_WORDS[1]}")" -- "$word") ;;
	esac
}

# Files, where nothing of it fits.
complete -o bashdefault -o default -F _vmctl vmctl
