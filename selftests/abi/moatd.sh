#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0
#
# The long forms of two tests of `make check`'s: moatd killed at 200 random moments; its interface under strangers for
# five minutes. They are about Moat's own programs: with KVM as the peer there is nothing to do.
#
# usage: moatd.sh kills|strangers

set -uo pipefail

TOP=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=selftests/lib/tap.sh
. "$TOP/selftests/lib/tap.sh"

if [ "${MOAT_PEER:-moat}" != moat ]; then
	tap_skip "$1" "it is not about the hypervisor"
	tap_end
fi
case $1 in
kills) MOAT_KILLS=${MOAT_KILLS:-200} exec "$TOP/scripts/lab" --timeout 1450 -- "$TOP/build/selftests/moatd_kills" ;;
strangers) MOAT_API_SECONDS=${MOAT_API_SECONDS:-300} exec "$TOP/build/unit/api_test" ;;
esac
